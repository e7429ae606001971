//! **G7 Fail-static**: without etcd nobody goes, and the view ages.

use std::collections::BTreeMap;

use super::placed::Placed;
use super::timeline::{Step, Timeline};
use super::verdict::{Summary, Violation};
use super::{Answer, At, Bounds, History, Nanos, Told};

/// When etcd had come how far, at the latest. Who reads the truth may be cut off as well, and read it
/// late; then whoever was told of it was before.
pub struct Reached<'a> {
    epochs: &'a [Timeline],
    /// Of each epoch, the revisions that somebody was told of, descending, and when that one or a
    /// later one first was.
    told: Vec<Vec<(i64, Nanos)>>,
    /// What each listener was told of etcd itself, and whose it is.
    heard: Vec<(&'a str, Vec<&'a At<Told>>)>,
}

impl<'a> Reached<'a> {
    pub fn of(all: &[Placed<'a>], epochs: &'a [Timeline]) -> Self {
        let mut told = vec![Vec::new(); epochs.len()];
        for place in all.iter().flat_map(|placed| &placed.changes) {
            if let Some(step) = place.change(epochs) {
                told[place.epoch].push((step.revision, place.at));
            }
        }
        for told in &mut told {
            told.sort_by_key(|(revision, at)| (-revision, *at));
            let mut first = Nanos::MAX;
            for (_, at) in told.iter_mut() {
                first = first.min(*at);
                *at = first;
            }
        }
        let heard = all.iter().map(|placed| {
            let of_etcd = placed.log.entries.iter().filter(|entry| is_of_etcd(entry));
            (placed.log.handle.as_str(), of_etcd.collect())
        });
        Reached {
            epochs,
            told,
            heard: heard.collect(),
        }
    }

    /// Whether some listener of that handle heard that etcd is back from that many losses, and not of
    /// another one before `since`. One that lags hears of the loss late, of the return later, and of
    /// some that went after that in between: each member keeps its place in the queue.
    fn back(&self, handle: &str, losses: usize, since: Nanos, until: Nanos) -> bool {
        let of_handle = self.heard.iter().filter(|(whose, _)| *whose == handle);
        of_handle.map(|(_, heard)| heard).any(|heard| {
            let back = |n: &usize| heard[*n].what == Told::StoreRestored;
            let mut back = (0..heard.len()).filter(back).skip(losses - 1);
            back.any(|n| {
                let lost_again = heard.get(n + 1).map_or(Nanos::MAX, |entry| entry.at);
                heard[n].at <= until && since < lost_again
            })
        })
    }

    /// By when it had come to that step.
    fn by(&self, epoch: usize, step: &Step) -> Nanos {
        let told = &self.told[epoch];
        let later = told.partition_point(|(revision, _)| *revision >= step.revision);
        let told = later.checked_sub(1).map(|last| told[last].1);
        told.map_or(step.at, |at| at.min(step.at))
    }
}

fn is_of_etcd(entry: &At<Told>) -> bool {
    matches!(entry.what, Told::StoreLost | Told::StoreRestored)
}

/// A departure told while etcd is lost must have been seen before.
pub fn judge<'a>(
    placed: &Placed<'a>,
    reached: &Reached<'a>,
    bounds: &Bounds,
    sum: &mut Summary,
) -> Result<(), Violation> {
    let log = placed.log;
    let mut changes = placed.changes.iter().peekable();
    let (mut lost, mut losses) = (None, 0);
    for (index, entry) in log.entries.iter().enumerate() {
        match entry.what {
            Told::StoreLost => (lost, losses) = (Some(entry.at), losses + 1),
            Told::StoreRestored => lost = None,
            _ => {}
        }
        let Some(place) = changes.next_if(|p| p.index == index) else {
            continue;
        };
        let departs = place.told.departure().is_some();
        // Whoever heard it first may have noted it a moment later.
        let until = entry.at + bounds.slack;
        let away = |lost: &Nanos| !reached.back(&log.handle, losses, *lost, until);
        let Some(lost) = lost.filter(away).filter(|_| departs) else {
            continue;
        };
        sum.count("G7");
        let step = place.change(reached.epochs);
        let by = step.map(|step| reached.by(place.epoch, step));
        if by.is_none_or(|by| !place.exact || by > lost + bounds.slack) {
            let why = "gone while etcd was out of reach: it could not be seen".into();
            return Err(Violation::at("G7", log, index, why));
        }
    }
    Ok(())
}

/// Answers without etcd: the members stay, their age grows.
pub fn answers(history: &History, reached: &Reached, sum: &mut Summary) -> Result<(), Violation> {
    let epochs = reached.epochs;
    let mut before: BTreeMap<&str, &Answer> = BTreeMap::new();
    let slack = history.bounds.slack;
    for answer in &history.answers {
        let handle = answer.handle.as_str();
        for seen in &answer.members {
            if !epochs.iter().any(|e| e.find(seen).is_some()) {
                let why = format!("an answer with {seen:?}, which never was");
                return Err(Violation::about("G1", handle, why));
            }
        }
        sum.count("G1");
        let Some(last) = before.insert(handle, answer) else {
            continue;
        };
        if answer.store_reachable || last.store_reachable {
            continue;
        }
        let (Some(age), Some(was)) = (answer.view_age, last.view_age) else {
            continue;
        };
        // Each age was asked for somewhere between its answer's beginning and end.
        let confirmed = answer.at_after.saturating_sub(age);
        let earliest = last.at_before.saturating_sub(was);
        let latest = last.at_after.saturating_sub(was);
        if confirmed > last.at_after {
            // Etcd was back for a moment in between.
            continue;
        }
        sum.count("G7");
        let grown = answer.at_before.saturating_sub(last.at_after);
        if age + (last.at_after - last.at_before) < was + grown && confirmed > earliest + slack {
            let why = format!("the view's age fell from {was} ns to {age} ns without etcd");
            return Err(Violation::about("G7", handle, why));
        }
        for seen in &last.members {
            let stays = answer.members.iter().any(|m| m.name == seen.name);
            // What was seen before may still be judged.
            let known = epochs.iter().enumerate().any(|(epoch, e)| {
                let end = e.end(&seen.name, seen.incarnation);
                end.map(|step| &e.steps(&seen.name)[step])
                    .is_some_and(|step| reached.by(epoch, step) <= latest + slack)
            });
            if !stays && !known {
                let why = format!("{seen:?} vanished from the answers without etcd");
                return Err(Violation::about("G7", handle, why));
            }
        }
    }
    Ok(())
}
