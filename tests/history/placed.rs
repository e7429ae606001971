//! A log laid beside the truth: which change each entry tells of. Nothing is invented (G1), nothing
//! comes from an epoch that is over (G2), and each listener's events are paired (G3).

use std::collections::BTreeMap;

use super::pairing::Pairing;
use super::timeline::{State, Step, Timeline};
use super::verdict::{Summary, Violation};
use super::{Log, Nanos, Seen, Told};

/// A log's entry, and where it belongs.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub index: usize,
    pub at: Nanos,
    pub told: &'a Told,
    pub seen: &'a Seen,
    pub epoch: usize,
    /// Of the member's timeline. `None`: a life that an older epoch took with it.
    pub step: Option<usize>,
    /// A departure told at the very revision at which it happened.
    pub exact: bool,
    /// It may have waited for its turn: its place among other members' says nothing.
    pub waited: bool,
}

pub struct Placed<'a> {
    pub log: &'a Log,
    pub changes: Vec<Place<'a>>,
    pub synced: Option<usize>,
    /// How many epochs it came into.
    pub crossed: u64,
    /// Each `Lagged`.
    pub lagged: Vec<usize>,
    /// What it all adds up to.
    pub sum: Pairing,
}

impl Place<'_> {
    /// The change itself.
    pub fn change<'t>(&self, epochs: &'t [Timeline]) -> Option<&'t Step> {
        let step = self.step?;
        Some(&epochs[self.epoch].steps(&self.seen.name)[step])
    }
}

impl Placed<'_> {
    /// Whether something was said to be folded between two entries.
    pub fn folded_between(&self, from: usize, to: usize) -> bool {
        let next = self.lagged.partition_point(|index| *index < from);
        self.lagged.get(next).is_some_and(|index| *index < to)
    }

    /// Whether the listener hears of that member.
    pub fn admits(&self, name: &str) -> bool {
        let log = self.log;
        let wanted = |t: &String| name.split_once('/').is_some_and(|(n, _)| n == t);
        let own = log.others_only && log.own.as_deref() == Some(name);
        !own && (log.types.is_empty() || log.types.iter().any(wanted))
    }

    /// How many listings there may have been, but for the one with which each epoch begins.
    pub fn listings(&self) -> Option<u64> {
        let relists = self.log.relists?;
        Some(relists.saturating_sub(self.crossed))
    }

    pub fn may_have_relisted(&self) -> bool {
        self.listings() != Some(0)
    }

    pub fn first_epoch(&self) -> usize {
        self.changes.first().map_or(0, |place| place.epoch)
    }

    /// The newest epoch that anything was told of.
    pub fn last_epoch(&self) -> Option<usize> {
        self.changes.iter().map(|place| place.epoch).max()
    }
}

/// Lays a log beside the epochs.
pub fn place<'a>(
    log: &'a Log,
    epochs: &[Timeline],
    begins: &[Nanos],
    sum: &mut Summary,
) -> Result<Placed<'a>, Violation> {
    let mut placed = Placed {
        log,
        changes: Vec::new(),
        synced: None,
        crossed: 0,
        lagged: Vec::new(),
        sum: Pairing::new(log.initial),
    };
    let waited = waited(log, epochs);
    let late = late(log, &waited);
    let over = over(log, epochs, &late);
    // The newest epoch that anything was told of, and what each member was told of last.
    let began = start(log, epochs, begins);
    let mut front = began;
    let mut last: BTreeMap<&str, (usize, Option<usize>)> = BTreeMap::new();
    for (index, entry) in log.entries.iter().enumerate() {
        let told = &entry.what;
        match told {
            Told::Synced => placed.synced = placed.synced.or(Some(index)),
            Told::Lagged { .. } => placed.lagged.push(index),
            _ => {}
        }
        if let Some(seen) = told.change() {
            let before = last.get(&*seen.name).copied();
            // What has waited is still of the epoch in which its member was told of last.
            let behind = before.filter(|(own, _)| *own < front && late[index]);
            let found = match told.departure() {
                Some(_) => {
                    let old = before.is_some_and(|(own, _)| own < front);
                    behind
                        .and_then(|(own, _)| {
                            let there =
                                |e| exact(seen, e, epochs).or_else(|| listed(seen, e, epochs));
                            (own..front).find_map(there)
                        })
                        .or_else(|| departure(seen, front, epochs, old, index > over[front]))
                }
                None => behind
                    .and_then(|behind| goes_on(seen, behind, front, epochs))
                    .or_else(|| {
                        (front..epochs.len()).find_map(|e| {
                            let step = epochs[e].find(seen)?;
                            Some((e, Some(step), false))
                        })
                    }),
            };
            let Some((epoch, step, exact)) = found else {
                let known = epochs.iter().any(|e| e.find(seen).is_some());
                let (guarantee, why) = match (told.departure(), known) {
                    (Some(_), _) => no_departure(&placed, log, index),
                    (None, true) => ("G2", "of an epoch that is over"),
                    (None, false) => ("G1", "invented: no such value was ever there"),
                };
                return Err(Violation::at(guarantee, log, index, why.into()));
            };
            if epoch > front {
                // The first one may simply be where it began.
                placed.crossed += u64::from(!placed.changes.is_empty());
                front = epoch;
            }
            if epoch != before.map_or(began, |(own, _)| own) {
                placed.sum.new_epoch_of(&seen.name);
            }
            last.insert(&seen.name, (epoch, step));
            placed.changes.push(Place {
                index,
                at: entry.at,
                told,
                seen,
                epoch,
                step,
                exact,
                waited: waited[index],
            });
            sum.count("G2");
        }
        let heard = placed.sum.hear(told);
        heard.map_err(|b| Violation::at(b.guarantee, log, index, b.why))?;
        sum.count("G3");
    }
    Ok(placed)
}

/// By entry: a departure that waits for a verdict, or for a mass loss to end, and what waits behind
/// it.
fn waited(log: &Log, epochs: &[Timeline]) -> Vec<bool> {
    // Whose turn it is among those that may have waited.
    let mut waiting: Option<&str> = None;
    let entries = log.entries.iter().map(|entry| {
        let Some(seen) = entry.what.change() else {
            return false;
        };
        let another = match &entry.what {
            Told::Updated { previous, now } => previous.incarnation != now.incarnation,
            _ => false,
        };
        if is_silent(&entry.what, epochs, seen) || another {
            waiting = Some(&seen.name);
        } else if waiting != Some(seen.name.as_str()) {
            waiting = None;
        }
        waiting.is_some()
    });
    entries.collect()
}

/// By entry: it may come after what another epoch has brought of other members. So may all that a
/// listener hears that does not keep up: its queue is in order for each member alone.
fn late(log: &Log, waited: &[bool]) -> Vec<bool> {
    waited.iter().map(|waited| *waited || !log.fast).collect()
}

/// In which epoch a log begins: where all that it is told up to `Synced` is found, the latest one
/// that had begun by then.
fn start(log: &Log, epochs: &[Timeline], begins: &[Nanos]) -> usize {
    let synced = log.entries.iter().position(|e| e.what == Told::Synced);
    let Some(synced) = synced else { return 0 };
    let first = &log.entries[..synced];
    let fits = |epoch: &Timeline| {
        let mut seen = first.iter().filter_map(|e| e.what.change());
        seen.all(|seen| epoch.find(seen).is_some())
    };
    let told = log.entries[synced].at;
    let mut all = (0..epochs.len()).rev();
    all.find(|e| begins[*e] <= told && fits(&epochs[*e]))
        .unwrap_or(0)
}

/// By epoch: the last entry that tells of nothing but it, and can't have waited till it was over.
fn over(log: &Log, epochs: &[Timeline], late: &[bool]) -> Vec<usize> {
    let mut over = vec![0; epochs.len()];
    for (index, entry) in log.entries.iter().enumerate() {
        let Some(seen) = entry.what.change().filter(|_| !late[index]) else {
            continue;
        };
        let there = |e: &Timeline| match entry.what.departure() {
            Some(_) => e.ended(seen),
            None => e.find(seen).is_some(),
        };
        let mut fits = epochs.iter().enumerate().filter(|(_, e)| there(e));
        if let (Some((only, _)), None) = (fits.next(), fits.next()) {
            over[only] = index;
        }
    }
    over
}

/// Epoch, step, and whether it is a departure told as it happened.
type Found = (usize, Option<usize>, bool);

/// A departure told as it happened, in that epoch.
fn exact(seen: &Seen, epoch: usize, epochs: &[Timeline]) -> Option<Found> {
    let step = epochs[epoch].end(&seen.name, seen.incarnation)?;
    epochs[epoch]
        .ended(seen)
        .then_some((epoch, Some(step), true))
}

/// A departure that a listing of that epoch has found out.
fn listed(seen: &Seen, epoch: usize, epochs: &[Timeline]) -> Option<Found> {
    let step = epochs[epoch].end(&seen.name, seen.incarnation)?;
    let revision = epochs[epoch].steps(&seen.name)[step].revision;
    let within = revision <= seen.revision && seen.revision <= epochs[epoch].last;
    within.then_some((epoch, Some(step), false))
}

/// What follows, in an epoch before `front`, on what was told of the member last. Numbers begin
/// anew with each epoch, so what lies before it is another one's.
fn goes_on(
    seen: &Seen,
    (own, last): (usize, Option<usize>),
    front: usize,
    epochs: &[Timeline],
) -> Option<Found> {
    (own..front).find_map(|e| {
        let step = epochs[e].find(seen)?;
        (e > own || last < Some(step)).then_some((e, Some(step), false))
    })
}

/// Where a departure belongs: told as it happened, found out by a listing, or by a listing of
/// another epoch.
fn departure(
    seen: &Seen,
    epoch: usize,
    epochs: &[Timeline],
    old: bool,
    may_be_over: bool,
) -> Option<Found> {
    let gone_with_the_epoch = || {
        let next = epochs.get(epoch + 1).filter(|_| may_be_over)?;
        (seen.revision <= next.last).then_some((epoch + 1, None, false))
    };
    let of_an_old_one = || {
        let within = old && seen.revision <= epochs[epoch].last;
        within.then_some((epoch, None, false))
    };
    exact(seen, epoch, epochs)
        .or_else(of_an_old_one)
        .or_else(|| listed(seen, epoch, epochs))
        .or_else(|| (epoch + 1..epochs.len()).find_map(|e| exact(seen, e, epochs)))
        .or_else(gone_with_the_epoch)
}

/// A departure of somebody who is there: because etcd was lost?
fn no_departure(placed: &Placed, log: &Log, index: usize) -> (&'static str, &'static str) {
    let before = log.entries[..index].iter().rev();
    let store = |t: &&Told| matches!(t, Told::StoreLost | Told::StoreRestored);
    let lost = before.map(|e| &e.what).find(store) == Some(&Told::StoreLost);
    let seen = log.entries[index].what.change();
    let known = seen.and_then(|s| placed.sum.get(&s.name));
    match (lost, known) {
        (_, None) => ("G3", "a departure of nobody"),
        (true, _) => ("G7", "gone while etcd was out of reach, and it was not"),
        (false, _) => (
            "G6",
            "told to be gone, but it was not, or not at that revision",
        ),
    }
}

/// A deletion without a note of a key on a lease: it is judged, which may take a while.
fn is_silent(told: &Told, epochs: &[Timeline], seen: &Seen) -> bool {
    let on_lease = |epoch: &Timeline| {
        let steps = epoch.steps(&seen.name);
        let step = epoch.end(&seen.name, seen.incarnation);
        let state = step.map(|step| &steps[step].state);
        epoch.ended(seen) && matches!(state, Some(State::Gone { lease, .. }) if *lease != 0)
    };
    match told {
        Told::Down { cause, .. } => matches!(&**cause, "lease-expired" | "unknown"),
        Told::Removed { reason, .. } => {
            reason == "revoked" || reason == "deregistered" && epochs.iter().any(on_lease)
        }
        _ => false,
    }
}
