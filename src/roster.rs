//! The membership as last confirmed: listings and watch events in, changes out.
//!
//! Pure: no I/O, no clock, no threads. Enforced here:
//!
//! * **G2 Ordered**: a revision is applied whole or, being no news, not at all.
//! * **G3 Paired**: an addition is only ever told of a name that is not in the view, a departure
//!   only of one that is; a new incarnation is departure, then addition.
//! * **G6 Truthful**: a departure's reason comes from a note or from what etcd's own data proves.
//! * **G13 Hostile data**: what is not a member is skipped, counted, and told once.

mod listing;
mod rules;
mod skipped;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::event::{DownCause, Event, RemoveReason};
use crate::kv::{Kv, KvEvent};
use crate::member::{ByName, Member, Place};
use crate::note::Note;
use crate::stats::Why;

pub(crate) use listing::Listing;
pub(crate) use rules::{Rules, TypeFilter};
pub use skipped::SkippedCounts;
pub(crate) use skipped::{Notice, Skipped};

/// What an input led to.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub events: Vec<Event>,
    pub notices: Vec<Notice>,
    /// Which of `events` are a DELETE without a note, of a key on a lease: told as `unknown`
    /// unless somebody has watched the lease.
    pub silent: Vec<usize>,
    /// Members whose key moved to another lease, in the order in which that happened.
    pub moved: Vec<Moved>,
}

impl Output {
    /// The member's key has moved, after all that is told so far.
    fn moved(&mut self, from: i64, member: Arc<Member>) {
        let before = self.events.len();
        self.moved.push(Moved {
            from,
            member,
            before,
        });
    }
}

/// A key that hangs on another lease than before.
#[derive(Debug)]
pub(crate) struct Moved {
    pub from: i64,
    pub member: Arc<Member>,
    /// It happened before the event of this index.
    pub before: usize,
}

pub(crate) struct Roster {
    rules: Arc<Rules>,
    members: BTreeSet<ByName>,
    /// All of the range's history up to this revision is in `members`.
    applied: i64,
    /// The etcd cluster that the revisions belong to.
    cluster: Option<u64>,
    skipped: Skipped,
}

impl Roster {
    pub fn new(rules: Arc<Rules>) -> Self {
        Roster {
            rules,
            members: BTreeSet::new(),
            applied: 0,
            cluster: None,
            skipped: Skipped::default(),
        }
    }

    /// The etcd cluster that the view is of, once there is one.
    pub fn cluster(&self) -> Option<u64> {
        self.cluster
    }

    pub fn applied(&self) -> i64 {
        self.applied
    }

    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// An empty listing that knows who was there, and what was skipped, before.
    pub fn new_listing(&self) -> Listing {
        let rules = Arc::clone(&self.rules);
        Listing::new(rules, self.members.clone(), self.skipped.seed())
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Member>> {
        self.members.get(name).map(|m| &m.0)
    }

    /// All members, sorted by type and id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().map(|m| &m.0)
    }

    /// The members of one type, sorted by id.
    pub fn of_type(&self, server_type: &str) -> impl Iterator<Item = &Arc<Member>> {
        let from = format!("{server_type}/");
        // `0` follows `/`, so this is the first name past the type.
        let to = format!("{server_type}0");
        self.members
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())))
            .map(|m| &m.0)
    }

    /// Applies watch responses, whole and in order: no revision is in two of them.
    pub fn events(&mut self, batch: Vec<KvEvent>, out: &mut Output) {
        for group in batch.chunk_by(|a, b| a.revision() == b.revision()) {
            let revision = group[0].revision();
            if revision > self.applied {
                self.revision(revision, group, out);
                self.applied = revision;
            }
        }
    }

    /// One revision: its notes are read before its departures are judged.
    fn revision(&mut self, revision: i64, group: &[KvEvent], out: &mut Output) {
        let rules = Arc::clone(&self.rules);
        let notes: Vec<(&str, i64, Note)> = match group.iter().any(KvEvent::is_delete) {
            false => Vec::new(),
            true => group
                .iter()
                .filter_map(|event| match event {
                    KvEvent::Put(kv) => match rules.keys.place(&kv.key) {
                        Place::Note(name, life) => Some((name, life, rules.note(kv))),
                        _ => None,
                    },
                    KvEvent::Delete { .. } => None,
                })
                .collect(),
        };
        for event in group {
            let key = match event {
                KvEvent::Put(kv) => &kv.key,
                KvEvent::Delete { key, .. } => key,
            };
            match (rules.keys.place(key), event) {
                (Place::Member(name), _) if !rules.filter.admits(name) => {}
                (Place::Member(name), KvEvent::Put(kv)) => self.put(name, kv, out),
                (Place::Member(name), KvEvent::Delete { key, .. }) => {
                    self.skipped.forget(key);
                    let note = |life| {
                        notes
                            .iter()
                            .find(|(n, l, _)| *n == name && *l == life)
                            .map(|(.., note)| note)
                    };
                    if let Some(ByName(member)) = self.members.take(name) {
                        let note = note(member.incarnation());
                        if note.is_none() && member.lease() != 0 {
                            out.silent.push(out.events.len());
                        }
                        out.events.push(match note {
                            Some(note) => note.departure(member, revision),
                            None => unexplained(member, revision),
                        });
                    }
                }
                (Place::BadMember, KvEvent::Put(kv)) => {
                    self.skipped
                        .bad_key(&kv.key, kv.mod_revision, &mut out.notices);
                }
                (Place::BadMember, KvEvent::Delete { key, .. }) => self.skipped.forget(key),
                (Place::Note(..) | Place::Foreign, _) => {}
            }
        }
    }

    fn put(&mut self, name: &str, kv: &Kv, out: &mut Output) {
        let read = self
            .rules
            .read(name, kv, &mut self.skipped, &mut out.notices);
        let Some(member) = read else {
            return self.spoilt(name, kv, out);
        };
        let previous = match self.members.replace(ByName(Arc::clone(&member))) {
            Some(ByName(old)) if old.incarnation() == member.incarnation() => old,
            other => {
                if let Some(ByName(old)) = other {
                    out.events.push(replaced(old, kv));
                }
                match self.rules.is_one_too_many(name, &self.members) {
                    true => {
                        self.members.remove(name);
                        self.skipped
                            .over_limit(&kv.key, kv.mod_revision, &mut out.notices);
                    }
                    false => out.events.push(Event::AddMember(member)),
                }
                return;
            }
        };
        let from = previous.lease();
        let moved = (from != member.lease()).then(|| Arc::clone(&member));
        if previous.document() != member.document() {
            out.events.push(Event::UpdateMember { member, previous });
        }
        if let Some(member) = moved {
            out.moved(from, member);
        }
    }

    /// The value is bad: the last good one stays, as long as it is the same life.
    fn spoilt(&mut self, name: &str, kv: &Kv, out: &mut Output) {
        let Some(known) = self.get(name).cloned() else {
            return;
        };
        if known.incarnation() != kv.create_revision {
            self.members.remove(name);
            out.events.push(replaced(known, kv));
        } else if known.lease() != kv.lease {
            let member = Arc::new(known.on_lease(kv.lease));
            self.members.replace(ByName(Arc::clone(&member)));
            out.moved(known.lease(), member);
        }
    }

    /// Applies a complete listing: the truth as of its revision, whatever was missed before. Whether
    /// it is another etcd's than what was known.
    pub fn listing(
        &mut self,
        listing: Listing,
        revision: i64,
        cluster: u64,
        out: &mut Output,
    ) -> bool {
        // A smaller revision or another cluster: etcd was wiped or restored, and revisions no
        // longer compare with what we hold.
        let new_epoch =
            revision < self.applied || self.cluster.is_some_and(|known| known != cluster);
        let Listing {
            members: mut next,
            notes,
            spoilt,
            mut skipped,
            notices,
            ..
        } = listing;
        let mut additions = Vec::new();

        for ByName(old) in &self.members {
            let (cause, successor) = match (next.get(old.name()), spoilt.get(old.name())) {
                (Some(ByName(new)), _) if same_life(old, new, new_epoch) => continue,
                // In another etcd a key may be of the same incarnation.
                (Some(ByName(new)), _) if new.incarnation() == old.incarnation() => {
                    (DownCause::Replaced, Some(new.revision()))
                }
                (Some(ByName(new)), _) => (DownCause::Replaced, Some(new.incarnation())),
                // Its value went bad: the last good one stays, as long as it is the same life.
                (None, Some((life, lease))) if !new_epoch && *life == old.incarnation() => {
                    next.insert(ByName(match *lease == old.lease() {
                        true => Arc::clone(old),
                        false => Arc::new(old.on_lease(*lease)),
                    }));
                    continue;
                }
                (None, Some((life, _))) => (DownCause::Replaced, Some(*life)),
                (None, None) => (DownCause::Missing, None),
            };
            let member = Arc::clone(old);
            // It was gone when its successor came, so that a member's revisions ascend.
            let gone = successor.unwrap_or(revision);
            out.events.push(match notes.get(old.name()) {
                Some(note) if !new_epoch => note.departure(member, gone),
                _ => Event::ServerDown {
                    member,
                    cause,
                    revision: gone,
                },
            });
        }
        // Newcomers wait for room; nobody who was there is pushed out.
        let excess = self.rules.excess(&next).unwrap_or(0);
        let newcomers = next
            .iter()
            .rev()
            .filter(|m| !self.members.contains(m.0.name()))
            .filter(|m| !self.rules.filter.is_own(m.0.name()));
        for late in newcomers.take(excess).cloned().collect::<Vec<_>>() {
            let key = self.rules.keys.member(late.0.name());
            skipped.over_limit(&key, late.0.revision(), &mut out.notices);
            next.remove(&late);
        }
        let mut unchanged = Vec::new();
        for ByName(new) in &next {
            match self.members.get(new.name()) {
                Some(ByName(old)) if same_life(old, new, new_epoch) => {
                    if old.lease() != new.lease() {
                        out.moved.push(Moved {
                            from: old.lease(),
                            member: Arc::clone(new),
                            // Of each name there is but one event.
                            before: usize::MAX,
                        });
                    }
                    if old.document() != new.document() {
                        let (member, previous) = (Arc::clone(new), Arc::clone(old));
                        additions.push(Event::UpdateMember { member, previous });
                    } else if old == new {
                        // One copy of what did not change: listeners may hold it.
                        unchanged.push(Arc::clone(old));
                    }
                }
                _ => additions.push(Event::AddMember(Arc::clone(new))),
            }
        }
        for old in unchanged {
            next.replace(ByName(old));
        }
        self.members = next;
        self.applied = revision;
        self.cluster = Some(cluster);
        self.skipped.relisted(skipped);
        out.events.append(&mut additions);
        out.notices.extend(notices);
        new_epoch
    }

    /// Compares a page of what etcd held at revision [`applied`](Self::applied) with the view:
    /// how many of our members are in it. Or why all has to be listed: it shows something else, so
    /// that the stream must have lost something, or there is room for somebody who had none.
    pub fn matches(&self, page: &[Kv]) -> Result<usize, Why> {
        let room = self.rules.excess(&self.members).is_none();
        let (mut seen, mut finds_room) = (0, false);
        for kv in page {
            let Place::Member(name) = self.rules.keys.place(&kv.key) else {
                continue;
            };
            if !self.rules.filter.admits(name) {
                continue;
            }
            let known = self.get(name);
            seen += usize::from(known.is_some());
            // The lease as well: in a store that was restored revisions may come again, leases don't.
            let stands = (kv.create_revision, kv.mod_revision, kv.lease);
            let current =
                known.is_some_and(|m| (m.incarnation(), m.revision(), m.lease()) == stands);
            let excused = self.skipped.excuses(&kv.key, kv.mod_revision)
                && known.is_none_or(|m| m.incarnation() == kv.create_revision);
            if current || excused {
                continue;
            }
            match known {
                None if !room => {}
                None if self.skipped.waits(&kv.key, kv.mod_revision) => finds_room = true,
                _ => return Err(Why::LostEvents),
            }
        }
        match finds_room {
            true => Err(Why::Room),
            false => Ok(seen),
        }
    }
}

/// Its DELETE never came: the store lost it, or it lies behind a compaction.
fn replaced(member: Arc<Member>, by: &Kv) -> Event {
    Event::ServerDown {
        member,
        cause: DownCause::Replaced,
        revision: by.mod_revision,
    }
}

/// G6: without a note, only a key that hung on no lease proves anything here. Of a lease, the
/// `heartbeat` may know more.
fn unexplained(member: Arc<Member>, revision: i64) -> Event {
    match member.lease() {
        0 => Event::RemoveMember {
            member,
            reason: RemoveReason::Deregistered,
            revision,
        },
        _ => Event::ServerDown {
            member,
            cause: DownCause::Unknown,
            revision,
        },
    }
}

/// Whether two values are of one life of a member, as a listing shows it. Across epochs, which need
/// not be seen to be two, equal incarnations may be chance: the process' token tells; without one,
/// an equal value has to vouch for it where the epoch is known to be another.
fn same_life(old: &Member, new: &Member, new_epoch: bool) -> bool {
    let same_process = || match (old.instance(), new.instance()) {
        (Some(old), Some(new)) => old == new,
        _ => !new_epoch || old.document() == new.document(),
    };
    old.incarnation() == new.incarnation() && same_process()
}
