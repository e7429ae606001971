//! A second reading of what the client was given, by other means than the roster's: who has to be in
//! the view, and which departures have to be told, with what cause.

use std::collections::BTreeMap;

use super::store::{End, How, Meaning, Ms, Store, name_of, note_key, proves};
use crate::kv::{Kv, KvEvent};
use crate::member::Member;

/// One member as it should be: the last good value of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub life: i64,
    pub revision: i64,
    pub lease: i64,
    pub meaning: Meaning,
}

/// A departure that has to be told.
#[derive(Debug, Clone)]
pub struct Due {
    pub since: Ms,
    /// Of the history in which it went.
    pub epoch: usize,
    /// As [`Oracle::history`].
    pub history: usize,
    pub revision: i64,
    pub causes: Causes,
    pub token: Option<String>,
    /// An update was told that may have been of its coming back, in a restored etcd; or an older one
    /// of that life.
    pub may_be_back: bool,
}

#[derive(Debug, Clone)]
pub enum Causes {
    /// This one.
    Exactly(&'static str),
    /// A DELETE without a word: what can be proven of how it really ended; `None`: etcd lost so
    /// much that the end itself is not known here.
    Silent { end: Option<End>, seen: Ms },
}

/// How far before a lease's true end it may be thought to have ended: etcd tells whole seconds.
const GRAIN: Ms = 1000;
/// So far back an answer tells where etcd was when it was asked next.
const LAG: Ms = 500;

impl Causes {
    /// Whether this may be said, if the last question about the lease was so long on its way.
    pub fn allow(&self, told: &str, way: Ms) -> bool {
        match self {
            Causes::Exactly(cause) => told == *cause,
            Causes::Silent { end: None, .. } => told != "announced" && told != "evicted",
            Causes::Silent {
                end: Some(end),
                seen,
            } => match (told, end.how) {
                ("unknown", _) => true,
                ("lease-expired", How::Expired) => true,
                // Who misses a renewal, and goes when its lease would have run out for that, can't
                // be told from one whose lease did. Seen late, it was looked at in its last second,
                // and went after that, or just before.
                ("lease-expired", _) => end.lease_end.is_some_and(|(_, before)| {
                    before <= GRAIN + way + (*seen).min(end.at + LAG + GRAIN)
                }),
                ("revoked", How::Revoked) => true,
                // The lease was revoked a moment later, too.
                ("revoked" | "deregistered", How::Deleted | How::Noted(_)) => true,
                // Nobody could say what became of the lease.
                ("deregistered", How::Revoked) => true,
                _ => false,
            },
        }
    }
}

#[derive(Default)]
pub struct Oracle {
    pub view: BTreeMap<String, Expected>,
    pub due: BTreeMap<(String, i64), Vec<Due>>,
    /// The epoch of the store that the client's revisions are of.
    pub epoch: usize,
    /// How often a listing was another history's.
    pub history: usize,
    /// The last revision that the client was given.
    pub reached: i64,
    /// The stream has lost something since the last listing, or the store was restored under it.
    pub tainted: bool,
    listed: bool,
}

impl Oracle {
    fn read(store: &Store, kv: &Kv) -> Option<Expected> {
        Some(Expected {
            life: kv.create_revision,
            revision: kv.mod_revision,
            lease: kv.lease,
            meaning: store.meanings.get(&kv.value)?.clone(),
        })
    }

    /// An update within a life is told. If its departure waits, and a restore has brought back that
    /// very life (which may have gone once more since), that departure need not be told.
    pub fn updated(&mut self, member: &Member) {
        let life = (member.name().to_owned(), member.incarnation());
        let Some(due) = self.due.get_mut(&life) else {
            return;
        };
        let there = self.view.get(member.name());
        let there = there.is_some_and(|there| there.life == member.incarnation());
        let restored = due[0].epoch != self.epoch && (there || due.len() > 1);
        let process = due[0].token.is_some() && due[0].token.as_deref() == member.instance();
        due[0].may_be_back |= restored && process;
    }

    /// The departure of that life that was told now, at this revision, or (`None`) is not told,
    /// because it has come back as another life.
    pub fn take_due(&mut self, name: &str, life: i64, revision: Option<i64>) -> Option<Due> {
        let key = (name.to_owned(), life);
        let due = self.due.get_mut(&key)?;
        // Where both went at one revision, each in its history: rather the later.
        if let [first, second, ..] = &due[..] {
            let is_first = revision == Some(first.revision) && revision != Some(second.revision);
            if first.may_be_back && !is_first {
                due.remove(0);
            }
        }
        let taken = due.remove(0);
        if due.is_empty() {
            self.due.remove(&key);
        }
        Some(taken)
    }

    /// Who is held no longer has come back, or is there for too long.
    pub fn settle(&mut self, late: impl Fn(&Due) -> bool) -> Result<(), String> {
        for ((name, life), due) in &mut self.due {
            due.retain(|due| !(due.may_be_back && late(due)));
            if due.iter().any(&late) {
                return Err(format!(
                    "the departure of {name}@{life} is held too long: {due:?}"
                ));
            }
        }
        self.due.retain(|_, due| !due.is_empty());
        Ok(())
    }

    fn departs(&mut self, name: &str, old: &Expected, revision: i64, causes: Causes, now: Ms) {
        let due = Due {
            since: now,
            epoch: self.epoch,
            history: self.history,
            revision,
            causes,
            token: old.meaning.token.clone(),
            may_be_back: false,
        };
        self.due
            .entry((name.to_owned(), old.life))
            .or_default()
            .push(due);
    }

    /// A response of the stream.
    pub fn events(&mut self, batch: &[KvEvent], store: &Store, now: Ms) {
        for event in batch {
            let revision = event.revision();
            self.reached = revision;
            match event {
                KvEvent::Put(kv) => {
                    let Some(name) = name_of(&kv.key) else {
                        continue;
                    };
                    let old = self.view.get(name).cloned();
                    let old = old.filter(|old| match old.life == kv.create_revision {
                        true => true,
                        false => {
                            self.departs(name, old, revision, Causes::Exactly("replaced"), now);
                            self.view.remove(name);
                            false
                        }
                    });
                    match (Self::read(store, kv), old) {
                        (Some(new), _) => drop(self.view.insert(name.to_owned(), new)),
                        (None, Some(_)) => {
                            self.view.get_mut(name).expect("it is there").lease = kv.lease;
                        }
                        (None, None) => {}
                    }
                }
                KvEvent::Delete { key, .. } => {
                    let Some(name) = name_of(key) else { continue };
                    let Some(old) = self.view.remove(name) else {
                        continue;
                    };
                    let wanted = note_key(name, old.life);
                    let note = batch.iter().find_map(|event| match event {
                        KvEvent::Put(kv) if kv.key == wanted && kv.mod_revision == revision => {
                            Some(proves(&kv.value))
                        }
                        _ => None,
                    });
                    let end = store
                        .ends
                        .get(&(self.epoch, name.to_owned(), old.life))
                        .copied();
                    let causes = match (note, old.lease) {
                        (Some(proven), _) => Causes::Exactly(proven),
                        (None, 0) => Causes::Exactly("deregistered"),
                        (None, _) => Causes::Silent {
                            // A lost event may have moved it to another lease.
                            end: end.filter(|e| {
                                let moved = self.tainted && e.lease != old.lease;
                                e.revision == revision && !moved
                            }),
                            seen: now,
                        },
                    };
                    self.departs(name, &old, revision, causes, now);
                }
            }
        }
    }

    /// Whether revisions no longer compare with those of a listing.
    pub fn is_anew(&self, store: &Store, epoch: usize, revision: i64) -> bool {
        let cluster = |epoch: usize| store.epochs[epoch].cluster;
        self.listed && (revision < self.reached || cluster(epoch) != cluster(self.epoch))
    }

    /// A complete listing, of that epoch of the store.
    pub fn listing(&mut self, all: &[Kv], store: &Store, epoch: usize, revision: i64, now: Ms) {
        let anew = self.is_anew(store, epoch, revision);
        self.history += usize::from(anew);
        let mut next = BTreeMap::new();
        let mut spoilt = BTreeMap::new();
        for kv in all {
            let Some(name) = name_of(&kv.key) else {
                continue;
            };
            match Self::read(store, kv) {
                Some(member) => drop(next.insert(name.to_owned(), member)),
                None => drop(spoilt.insert(name.to_owned(), (kv.create_revision, kv.lease))),
            }
        }
        for (name, old) in std::mem::take(&mut self.view) {
            let vouched = |new: &Expected| match (&old.meaning.token, &new.meaning.token) {
                (Some(old), Some(new)) => old == new,
                _ => !anew || old.meaning == new.meaning,
            };
            let (cause, gone) = match (next.get(&name), spoilt.get(&name)) {
                (Some(new), _) if new.life == old.life && vouched(new) => continue,
                (Some(new), _) if new.life == old.life => ("replaced", new.revision),
                (Some(new), _) => ("replaced", new.life),
                (None, Some((life, lease))) if !anew && *life == old.life => {
                    let lease = *lease;
                    next.insert(name, Expected { lease, ..old });
                    continue;
                }
                (None, Some((life, _))) => ("replaced", *life),
                (None, None) => ("missing", revision),
            };
            let note = note_key(&name, old.life);
            let note = all.iter().find(|kv| kv.key == note && !anew);
            let cause = note.map_or(cause, |kv| proves(&kv.value));
            self.departs(&name, &old, gone, Causes::Exactly(cause), now);
        }
        self.view = next;
        (self.epoch, self.reached) = (epoch, revision);
        (self.tainted, self.listed) = (false, true);
    }

    /// G1: what was given is what etcd held. Of a name whose value is bad now, nobody can tell which
    /// good one was the last.
    pub fn check(&self, store: &Store) -> Result<(), String> {
        if !self.listed {
            return Ok(());
        }
        let now = store.epochs[self.epoch].at(self.reached);
        for kv in now.values() {
            let Some(name) = name_of(&kv.key) else {
                continue;
            };
            let Some(there) = Self::read(store, kv) else {
                continue;
            };
            if self.view.get(name) != Some(&there) {
                return Err(format!(
                    "{name} is {there:?} in etcd, was given as {:?}",
                    self.view.get(name)
                ));
            }
        }
        let gone = self
            .view
            .keys()
            .find(|name| !now.contains_key(&super::store::member_key(name)));
        match gone {
            Some(name) => Err(format!("{name} is not in etcd at {}", self.reached)),
            None => Ok(()),
        }
    }
}
