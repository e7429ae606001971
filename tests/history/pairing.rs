//! What can be said of one listener without the truth: **G3 Paired**, **G2 Ordered** of each member
//! alone, `Synced` once (G1), the store lost and restored in turn (G7).

use std::collections::BTreeMap;

use super::{Seen, Told};

/// Hears events one by one, and adds them up.
#[derive(Clone, Debug)]
pub struct Pairing {
    view: BTreeMap<String, Known>,
    /// The last incarnation and revision told of each name, there or not.
    last: BTreeMap<String, (i64, i64)>,
    initial: bool,
    pub synced: bool,
    lagged: bool,
    mass_loss: bool,
    store_lost: bool,
    /// Events about members, doubts aside.
    pub changes: u64,
    /// What `Lagged` said, summed up.
    pub folded: u64,
}

#[derive(Clone, Debug)]
struct Known {
    seen: Seen,
    /// Told in an epoch that is over for it: its numbers can't be compared with new ones.
    old: bool,
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub guarantee: &'static str,
    pub why: String,
}

impl Default for Pairing {
    fn default() -> Pairing {
        Pairing::new(true)
    }
}

impl Pairing {
    /// `initial`: the listener is told first of everybody who is there.
    pub fn new(initial: bool) -> Pairing {
        Pairing {
            view: BTreeMap::new(),
            last: BTreeMap::new(),
            initial,
            synced: false,
            lagged: false,
            mass_loss: false,
            store_lost: false,
            changes: 0,
            folded: 0,
        }
    }

    /// Who is there, by what was told.
    pub fn view(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.view.iter().map(|(name, k)| (name.as_str(), &k.seen))
    }

    pub fn get(&self, name: &str) -> Option<&Seen> {
        self.view.get(name).map(|known| &known.seen)
    }

    /// The store's revisions start anew.
    pub fn new_epoch(&mut self) {
        self.last.clear();
        for known in self.view.values_mut() {
            known.old = true;
        }
    }

    /// They do so for what is told of this member.
    pub fn new_epoch_of(&mut self, name: &str) {
        self.last.remove(name);
        if let Some(known) = self.view.get_mut(name) {
            known.old = true;
        }
    }

    pub fn hear(&mut self, told: &Told) -> Result<(), Broken> {
        match told {
            Told::Added(now) => self.added(now),
            Told::Updated { now, previous } => self.updated(
                now,
                previous.incarnation,
                previous.revision,
                &previous.content,
            ),
            Told::Removed { member, .. } | Told::Down { member, .. } => self.gone(member),
            Told::Suspect(member) | Told::Cleared(member) => match self.get(&member.name) {
                Some(known) if known.incarnation == member.incarnation => Ok(()),
                None if !self.initial => Ok(()),
                other => broken("G3", format!("a doubt, but what was told is {other:?}")),
            },
            Told::Synced if self.synced => broken("G1", "Synced twice"),
            Told::Synced => {
                self.synced = true;
                Ok(())
            }
            Told::StoreLost if self.store_lost => broken("G7", "lost twice"),
            Told::StoreRestored if !self.store_lost => broken("G7", "restored, but not lost"),
            Told::StoreLost | Told::StoreRestored => {
                self.store_lost = !self.store_lost;
                Ok(())
            }
            Told::Lagged { folded } => {
                self.lagged = true;
                self.folded += folded;
                Ok(())
            }
            Told::MassLoss { .. } => {
                self.mass_loss = true;
                Ok(())
            }
            Told::Registered { .. } | Told::Lost | Told::Displaced => Ok(()),
        }
    }

    fn added(&mut self, now: &Seen) -> Result<(), Broken> {
        if let Some(known) = self.get(&now.name) {
            return broken("G3", format!("a second Add; known is {known:?}"));
        }
        if let Some((life, revision)) = self.last.get(&now.name).copied() {
            if now.revision < revision {
                return broken("G2", format!("after revision {revision}"));
            }
            if now.incarnation <= life {
                return broken("G3", format!("after @{life}: not a new life"));
            }
        }
        self.enter(now);
        Ok(())
    }

    fn updated(
        &mut self,
        now: &Seen,
        life: i64,
        revision: i64,
        content: &Option<String>,
    ) -> Result<(), Broken> {
        let known = match self.view.get(&now.name) {
            Some(known) => known,
            None if !self.initial => {
                self.enter(now);
                return Ok(());
            }
            None => return broken("G3", "an update of nobody"),
        };
        let (seen, old) = (&known.seen, known.old);
        // A value that says nothing new (a key that moved to another lease) is not told, so the
        // revision may have moved on.
        let same = seen.incarnation == life && seen.revision <= revision;
        if !same || content.as_ref().is_some_and(|c| *c != seen.content) {
            return broken("G3", format!("not from what was told: {seen:?}"));
        }
        // Folded into what waits already, it may come before the mass loss is told.
        let mass_loss = self.mass_loss || self.lagged;
        if now.incarnation != life && !(mass_loss && (old || now.incarnation > life)) {
            return broken("G3", "another life, and no mass was lost");
        }
        if !old && now.revision <= revision {
            return broken("G2", format!("backwards from revision {revision}"));
        }
        // Folded steps may lead back to where they began.
        if now.incarnation == life && now.content == seen.content && !self.lagged {
            return broken("G3", "an update that changes nothing");
        }
        self.enter(now);
        Ok(())
    }

    fn gone(&mut self, member: &Seen) -> Result<(), Broken> {
        match self.get(&member.name) {
            None if self.initial => return broken("G3", "a departure of nobody"),
            Some(known) if known.incarnation != member.incarnation => {
                return broken("G3", format!("of another life than {known:?}"));
            }
            Some(known) if known.content != member.content && !self.lagged => {
                return broken("G3", format!("not as it was told: {known:?}"));
            }
            _ => {}
        }
        if let Some((_, revision)) = self.last.get(&member.name).copied() {
            if member.revision < revision {
                return broken("G2", format!("after revision {revision}"));
            }
        }
        let known = self.view.remove(&member.name);
        self.note(member);
        if known.is_some_and(|known| known.old) {
            // The next life's number begins anew.
            self.last.insert(member.name.clone(), (0, member.revision));
        }
        Ok(())
    }

    fn enter(&mut self, seen: &Seen) {
        let (seen, old) = (seen.clone(), false);
        self.note(&seen);
        self.view.insert(seen.name.clone(), Known { seen, old });
    }

    fn note(&mut self, seen: &Seen) {
        self.changes += 1;
        let now = (seen.incarnation, seen.revision);
        self.last.insert(seen.name.clone(), now);
    }
}

fn broken<T>(guarantee: &'static str, why: impl Into<String>) -> Result<T, Broken> {
    let why = why.into();
    Err(Broken { guarantee, why })
}
