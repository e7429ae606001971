//! What has to come out: the truth by etcd's data, and the rules for the events that tell it.

use std::collections::{BTreeMap, HashMap};

use super::store::{MAX_VALUE, Snapshot, keys, proves};
use crate::event::Event;
use crate::kv::{Kv, KvEvent};
use crate::member::{Document, Member, Place};
use crate::roster::SkippedCounts;

/// A departure that has to be told: who, which life, why, at which revision.
pub type Departure = (String, i64, &'static str, i64);

/// One member as it should be: the last good value of its life.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    pub life: i64,
    pub revision: i64,
    pub lease: i64,
    pub document: Document,
}

impl Expected {
    pub fn of(member: &Member) -> Self {
        Expected {
            life: member.incarnation(),
            revision: member.revision(),
            lease: member.lease(),
            document: member.document().clone(),
        }
    }
}

/// The truth, built from the same data by other means.
#[derive(Default)]
pub struct Oracle {
    pub view: BTreeMap<String, Expected>,
    pub counts: SkippedCounts,
    bad: HashMap<Vec<u8>, i64>,
    mismatched: HashMap<String, i64>,
}

enum Read {
    Member(String, Expected),
    Spoilt(String),
    Nothing,
}

impl Oracle {
    fn read(&mut self, kv: &Kv) -> Read {
        let name = match keys().place(&kv.key) {
            Place::Member(name) if !name.starts_with("hidden/") => name.to_owned(),
            Place::BadMember => {
                self.bad(kv, |counts| &mut counts.bad_key);
                return Read::Nothing;
            }
            _ => return Read::Nothing,
        };
        if kv.value.len() > MAX_VALUE {
            self.bad(kv, |counts| &mut counts.too_large);
            return Read::Spoilt(name);
        }
        let Ok((document, mismatch)) = Document::parse(&name, &kv.value) else {
            self.bad(kv, |counts| &mut counts.unparsable);
            return Read::Spoilt(name);
        };
        self.bad.remove(&kv.key);
        let known = self.mismatched.get(&name) == Some(&kv.create_revision);
        if mismatch && !known {
            self.mismatched.insert(name.clone(), kv.create_revision);
            self.counts.mismatched += 1;
        }
        let member = Expected {
            life: kv.create_revision,
            revision: kv.mod_revision,
            lease: kv.lease,
            document,
        };
        Read::Member(name, member)
    }

    /// Each bad value counts once, however often it is met.
    fn bad(&mut self, kv: &Kv, count: impl Fn(&mut SkippedCounts) -> &mut u64) {
        if self.bad.insert(kv.key.clone(), kv.mod_revision) != Some(kv.mod_revision) {
            *count(&mut self.counts) += 1;
        }
    }

    /// One revision of the stream.
    pub fn revision(&mut self, events: &[KvEvent]) -> Vec<Departure> {
        let mut departures = Vec::new();
        for event in events {
            match event {
                KvEvent::Put(kv) => match self.read(kv) {
                    Read::Member(name, member) => {
                        let old = self.view.insert(name.clone(), member);
                        if let Some(old) = old.filter(|old| old.life != kv.create_revision) {
                            departures.push((name, old.life, "replaced", kv.mod_revision));
                        }
                    }
                    Read::Spoilt(name) => match self.view.get_mut(&name) {
                        Some(kept) if kept.life == kv.create_revision => kept.lease = kv.lease,
                        Some(old) => {
                            departures.push((name.clone(), old.life, "replaced", kv.mod_revision));
                            self.view.remove(&name);
                        }
                        None => {}
                    },
                    Read::Nothing => {}
                },
                KvEvent::Delete { key, mod_revision } => {
                    self.bad.remove(key);
                    let Place::Member(name) = keys().place(key) else {
                        continue;
                    };
                    let Some(old) = self.view.remove(name) else {
                        continue;
                    };
                    let note_key = keys().note(name, old.life);
                    let note = events.iter().find_map(|event| match event {
                        KvEvent::Put(kv) if kv.key == note_key => Some(proves(&kv.value)),
                        _ => None,
                    });
                    let why = note.unwrap_or(match old.lease {
                        0 => "deregistered",
                        _ => "unknown",
                    });
                    departures.push((name.to_owned(), old.life, why, *mod_revision));
                }
            }
        }
        departures
    }

    /// A complete listing. `epoch`: revisions no longer compare.
    pub fn listing(&mut self, all: &Snapshot, revision: i64, epoch: bool) -> Vec<Departure> {
        let mut next = BTreeMap::new();
        let mut spoilt = HashMap::new();
        for kv in all.values() {
            match self.read(kv) {
                Read::Member(name, member) => {
                    next.insert(name, member);
                }
                Read::Spoilt(name) => {
                    spoilt.insert(name, (kv.create_revision, kv.lease));
                }
                Read::Nothing => {}
            }
        }
        self.bad.retain(|key, _| all.contains_key(key));
        let mut departures = Vec::new();
        for (name, old) in std::mem::take(&mut self.view) {
            let (why, gone) = match (next.get(&name), spoilt.get(&name)) {
                (Some(new), _) if new.life == old.life && vouched(&old, new, epoch) => {
                    continue;
                }
                (Some(new), _) if new.life == old.life => ("replaced", new.revision),
                (Some(new), _) => ("replaced", new.life),
                (None, Some((life, lease))) if !epoch && *life == old.life => {
                    next.insert(
                        name,
                        Expected {
                            lease: *lease,
                            ..old
                        },
                    );
                    continue;
                }
                (None, Some((life, _))) => ("replaced", *life),
                (None, None) => ("missing", revision),
            };
            let note = all.get(&keys().note(&name, old.life)).filter(|_| !epoch);
            let why = note.map_or(why, |kv| proves(&kv.value));
            departures.push((name, old.life, why, gone));
        }
        self.view = next;
        departures
    }
}

/// Whether it is the same process, though an equal incarnation proves nothing.
fn vouched(old: &Expected, new: &Expected, epoch: bool) -> bool {
    match (&old.document.instance, &new.document.instance) {
        (Some(old), Some(new)) => old == new,
        _ => !epoch || old.document == new.document,
    }
}

/// A listener that believes what it is told, and checks that it could.
#[derive(Default)]
pub struct Told {
    pub view: BTreeMap<String, (i64, Document)>,
    last: HashMap<String, i64>,
}

impl Told {
    /// Revisions start anew.
    pub fn epoch(&mut self) {
        self.last.clear();
    }

    /// G2 and G3.
    pub fn hear(&mut self, event: &Event) -> Result<(), String> {
        let fail = |why: &str| Err(format!("{event}: {why}"));
        let Some(member) = event.member() else {
            return fail("not about a member");
        };
        let name = member.name().to_owned();
        let revision = event.revision().unwrap_or_default();
        let last = self.last.insert(name.clone(), revision);
        if last.is_some_and(|last| last > revision) {
            return fail("G2: a revision from before the last one");
        }
        let known = self.view.get(&name);
        let same = known.is_some_and(|(life, _)| *life == member.incarnation());
        let now = (member.incarnation(), member.document().clone());
        match event {
            Event::AddMember(_) if known.is_some() => return fail("G3: a second addition"),
            Event::AddMember(_) => {
                self.view.insert(name, now);
            }
            Event::UpdateMember { previous, .. } => {
                if !same {
                    return fail("G3: an update of what is not there");
                }
                let before = (previous.incarnation(), previous.document().clone());
                if known != Some(&before) {
                    return fail("the previous value is not what was told");
                }
                if before == now {
                    return fail("an update that changes nothing");
                }
                self.view.insert(name, now);
            }
            _ => {
                if known != Some(&now) {
                    return fail("G3: a departure of what was not told");
                }
                self.view.remove(&name);
            }
        }
        Ok(())
    }

    /// The output of one step: G2, G3, and G6 against the departures that had to be told.
    pub fn step(&mut self, events: &[Event], mut due: Vec<Departure>) -> Result<(), String> {
        for event in events {
            self.hear(event)?;
            let Some(why) = why(event) else { continue };
            let member = event.member().expect("a departure has a member");
            let revision = event.revision().unwrap_or_default();
            let told = (
                member.name().to_owned(),
                member.incarnation(),
                why,
                revision,
            );
            match due.iter().position(|due| *due == told) {
                Some(at) => drop(due.remove(at)),
                None => return Err(format!("G6: {told:?} was told, due were {due:?}")),
            }
        }
        match due.is_empty() {
            true => Ok(()),
            false => Err(format!("never told: {due:?}")),
        }
    }
}

/// A departure's reason.
pub fn why(event: &Event) -> Option<&'static str> {
    match event {
        Event::RemoveMember { reason, .. } => Some(reason.as_str()),
        Event::ServerDown { cause, .. } => Some(cause.as_str()),
        _ => None,
    }
}
