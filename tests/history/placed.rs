//! A log laid beside the truth: which change each entry tells of. Nothing is invented (G1), nothing
//! comes from an epoch that is over (G2), and each listener's events are paired (G3).

use std::collections::BTreeMap;

use super::pairing::Pairing;
use super::timeline::{State, Timeline};
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
    let mut epoch = start(log, epochs, begins);
    let over = over(log, epochs);
    // In which epoch each member was told of last.
    let mut told_in: BTreeMap<&str, usize> = BTreeMap::new();
    // Whose turn it is among those that may have waited.
    let mut waiting: Option<&str> = None;
    for (index, entry) in log.entries.iter().enumerate() {
        let told = &entry.what;
        match told {
            Told::Synced => placed.synced = placed.synced.or(Some(index)),
            Told::Lagged { .. } => placed.lagged.push(index),
            _ => {}
        }
        if let Some(seen) = told.change() {
            let found = match told.departure() {
                Some(_) => {
                    let old = told_in.get(&*seen.name).is_some_and(|e| *e < epoch);
                    departure(seen, epoch, epochs, old, index > over[epoch])
                }
                None => (epoch..epochs.len()).find_map(|e| {
                    let step = epochs[e].find(seen)?;
                    Some((e, Some(step), false))
                }),
            };
            let Some((new, step, exact)) = found else {
                let known = epochs.iter().any(|e| e.find(seen).is_some());
                let (guarantee, why) = match (told.departure(), known) {
                    (Some(_), _) => no_departure(&placed, log, index),
                    (None, true) => ("G2", "of an epoch that is over"),
                    (None, false) => ("G1", "invented: no such value was ever there"),
                };
                return Err(Violation::at(guarantee, log, index, why.into()));
            };
            if new != epoch {
                placed.sum.new_epoch();
                // The first one may simply be where it began.
                placed.crossed += u64::from(!placed.changes.is_empty());
                epoch = new;
            }
            told_in.insert(&seen.name, epoch);
            let silent = is_silent(told, epochs, epoch, step, seen);
            let another = match told {
                Told::Updated { previous, now } => previous.incarnation != now.incarnation,
                _ => false,
            };
            if silent || another {
                waiting = Some(&seen.name);
            } else if waiting != Some(seen.name.as_str()) {
                waiting = None;
            }
            placed.changes.push(Place {
                index,
                at: entry.at,
                told,
                seen,
                epoch,
                step,
                exact,
                waited: waiting.is_some(),
            });
            sum.count("G2");
        }
        let heard = placed.sum.hear(told);
        heard.map_err(|b| Violation::at(b.guarantee, log, index, b.why))?;
        sum.count("G3");
    }
    Ok(placed)
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

/// By epoch: the last entry that tells of nothing but it.
fn over(log: &Log, epochs: &[Timeline]) -> Vec<usize> {
    let mut over = vec![0; epochs.len()];
    for (index, entry) in log.entries.iter().enumerate() {
        let Some(seen) = entry.what.change() else {
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

/// Where a departure belongs: told as it happened, found out by a listing, or by a listing of
/// another epoch.
fn departure(
    seen: &Seen,
    epoch: usize,
    epochs: &[Timeline],
    old: bool,
    may_be_over: bool,
) -> Option<(usize, Option<usize>, bool)> {
    let exact = |e: usize| {
        let step = epochs[e].end(&seen.name, seen.incarnation)?;
        epochs[e].ended(seen).then_some((e, Some(step), true))
    };
    let listed = || {
        let step = epochs[epoch].end(&seen.name, seen.incarnation)?;
        let revision = epochs[epoch].steps(&seen.name)[step].revision;
        let within = revision <= seen.revision && seen.revision <= epochs[epoch].last;
        within.then_some((epoch, Some(step), false))
    };
    let gone_with_the_epoch = || {
        let next = epochs.get(epoch + 1).filter(|_| may_be_over)?;
        (seen.revision <= next.last).then_some((epoch + 1, None, false))
    };
    let of_an_old_one = || {
        let within = old && seen.revision <= epochs[epoch].last;
        within.then_some((epoch, None, false))
    };
    exact(epoch)
        .or_else(of_an_old_one)
        .or_else(listed)
        .or_else(|| (epoch + 1..epochs.len()).find_map(exact))
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
fn is_silent(
    told: &Told,
    epochs: &[Timeline],
    epoch: usize,
    step: Option<usize>,
    seen: &Seen,
) -> bool {
    let on_lease = || {
        let step = step.map(|step| &epochs[epoch].steps(&seen.name)[step].state);
        matches!(step, Some(State::Gone { lease, .. }) if *lease != 0)
    };
    match told {
        Told::Down { cause, .. } => matches!(&**cause, "lease-expired" | "unknown"),
        Told::Removed { reason, .. } => {
            reason == "revoked" || reason == "deregistered" && on_lease()
        }
        _ => false,
    }
}
