//! What a listener was told, added up; refuses what breaks a guarantee.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use super::Violation;
use crate::event::Event;
use crate::member::Member;

/// Whether it is the same value of the same life. (The very same one may have been put again.)
pub fn same(a: &Member, b: &Member) -> bool {
    a.incarnation() == b.incarnation() && a.document() == b.document()
}

#[derive(Default)]
pub struct Book {
    pub view: BTreeMap<String, Arc<Member>>,
    pub suspected: BTreeSet<String>,
    pub synced: bool,
    pub lost: bool,
    /// The last revision of each name, and how often it was followed by a smaller one.
    last: BTreeMap<String, (i64, u64)>,
    /// How often revisions began anew since all that was told was of one history.
    pub turns: u64,
}

fn fail(guarantee: &'static str, event: &Event, why: &str) -> Result<(), Violation> {
    Err(Violation {
        guarantee,
        what: format!("{event} at revision {:?}: {why}", event.revision()),
    })
}

impl Book {
    /// Of whom joins after so many turns.
    pub fn new(turns: u64) -> Self {
        Book {
            turns,
            ..Book::default()
        }
    }

    /// Revisions begin anew. What is of before may still wait, so each name falls back when its
    /// own turn comes.
    pub fn anew(&mut self) {
        self.turns += 1;
    }

    /// Nothing of an older history can follow.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.turns) > 0 {
            self.last.clear();
        }
    }

    /// How it differs from another one, or a view.
    pub fn differs<'a>(
        &self,
        other: impl ExactSizeIterator<Item = &'a Arc<Member>>,
    ) -> Option<String> {
        if other.len() != self.view.len() {
            let (told, there) = (
                self.view.keys(),
                other.map(|m| m.name()).collect::<Vec<_>>(),
            );
            return Some(format!(
                "told of {:?}, there are {there:?}",
                told.collect::<Vec<_>>()
            ));
        }
        for member in other {
            match self.view.get(member.name()) {
                Some(told) if same(told, member) => {}
                told => return Some(format!("{member:?} is there, told was {told:?}")),
            }
        }
        None
    }

    pub fn take(&mut self, event: &Event) -> Result<(), Violation> {
        match event {
            Event::Synced if self.synced => return fail("G1", event, "a second time"),
            Event::Synced => self.synced = true,
            Event::StoreLost if self.lost => return fail("G7", event, "a second time"),
            Event::StoreLost => self.lost = true,
            Event::StoreRestored if !self.lost => return fail("G7", event, "it was never lost"),
            Event::StoreRestored => self.lost = false,
            Event::Lagged { folded: 0 } => return fail("G5", event, "of nothing"),
            _ => {}
        }
        let Some(member) = event.member() else {
            return Ok(());
        };
        let name = member.name().to_owned();
        let known = self.view.get(&name);
        match event {
            Event::Suspect { .. } | Event::Cleared { .. } => {
                if known.is_none() {
                    return fail("G3", event, "of nobody");
                }
                let suspect = matches!(event, Event::Suspect { .. });
                return match (suspect, self.suspected.remove(&name)) {
                    (true, true) => fail("G3", event, "a second time"),
                    (false, false) => fail("G3", event, "it was not suspected"),
                    (true, false) => {
                        self.suspected.insert(name);
                        Ok(())
                    }
                    (false, true) => Ok(()),
                };
            }
            Event::AddMember(_) if known.is_some() => {
                return fail("G3", event, "a second addition");
            }
            Event::UpdateMember { previous, .. } => {
                let Some(known) = known else {
                    return fail("G3", event, "of nobody");
                };
                if !same(known, previous) {
                    return fail("G3", event, "not from what was told");
                }
                let process = member.instance().is_some() && member.instance() == known.instance();
                if known.incarnation() != member.incarnation() && !process {
                    return fail("G3", event, "another life");
                }
            }
            Event::RemoveMember { .. } | Event::ServerDown { .. } => {
                // Of what was folded the last value may not have been told.
                if known.map(|known| known.incarnation()) != Some(member.incarnation()) {
                    return fail("G3", event, "of whom it was not told");
                }
                self.view.remove(&name);
                self.suspected.remove(&name);
            }
            _ => {}
        }
        let revision = event.revision().expect("about a member");
        let (last, fell) = self.last.entry(name.clone()).or_default();
        *fell += u64::from(revision < *last);
        *last = revision;
        if *fell > self.turns {
            return fail("G2", event, "from before what was told last");
        }
        if !event.is_departure() {
            self.view.insert(name, Arc::clone(member));
        }
        Ok(())
    }
}
