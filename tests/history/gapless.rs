//! **G1 Gapless**: whoever is there is told before `Synced`, and no change is missed, but for what
//! was folded, and said to be, or what a listing has found done and undone.

use std::collections::BTreeMap;

use super::Told;
use super::placed::{Place, Placed};
use super::timeline::{Step, Timeline};
use super::verdict::{Summary, Violation};

/// What was missed and needs a listing at a revision in this range.
struct Gap {
    epoch: usize,
    from: i64,
    to: i64,
    /// The entry after it, and whose.
    index: usize,
    name: String,
    steps: usize,
}

/// The revisions at which the listener's first view may have been.
struct First {
    from: i64,
    /// By which entry, and why.
    from_by: Option<String>,
    to: i64,
    to_by: Option<(usize, String)>,
}

pub fn judge(placed: &Placed, epochs: &[Timeline], sum: &mut Summary) -> Result<(), Violation> {
    let log = placed.log;
    let Some(synced) = placed.synced else {
        return match log.settled {
            true => Err(Violation::of("G1", log, "never Synced".into())),
            false => Ok(()),
        };
    };
    let mut gaps = Vec::new();
    let first_epoch = placed.first_epoch();
    let mut by_name: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
    for place in &placed.changes {
        by_name.entry(&place.seen.name).or_default().push(place);
    }
    if log.initial {
        initial(
            placed,
            &by_name,
            &epochs[first_epoch],
            synced,
            &mut gaps,
            sum,
        )?;
    }
    for (name, places) in &by_name {
        // What waits for a slow listener goes out as a departure and what came then, with what lay
        // between folded, and said to be before the departure.
        let mut since = places[0].index;
        for pair in places.windows(2) {
            if !waits_with_the_next(pair[0]) {
                since = pair[0].index;
            }
            between(placed, since, pair[0], pair[1], epochs, &mut gaps, sum);
            if pair[0].epoch != pair[1].epoch {
                let next = Some(pair[1]);
                rest(placed, since, pair[0], next, epochs, &mut gaps, sum);
            }
            sum.count("G1");
        }
        let last = places.last().expect("not empty");
        if !waits_with_the_next(last) {
            since = last.index;
        }
        if last.epoch + 1 < epochs.len() {
            rest(placed, since, last, None, epochs, &mut gaps, sum);
        } else if log.settled {
            let steps = epochs[last.epoch].steps(name);
            // Gone by the listing with which an epoch begins, which has what lay before it, too.
            let listed = || steps.partition_point(|s| s.revision <= last.seen.revision);
            let missed = &steps[last.step.map_or_else(listed, |step| step + 1)..];
            skip(placed, since, last, missed, None, &mut gaps, sum);
            sum.count("G1");
        }
    }
    listings(placed, gaps, sum)
}

/// What was missed of a member in an epoch that went on for others; `next` is of a later one.
fn rest(
    placed: &Placed,
    since: usize,
    last: &Place,
    next: Option<&Place>,
    epochs: &[Timeline],
    gaps: &mut Vec<Gap>,
    sum: &mut Summary,
) {
    let Some(step) = last.step else { return };
    let others = placed
        .changes
        .iter()
        .filter(|p| p.epoch == last.epoch && !p.waited);
    let reached = others.map(|p| p.seen.revision).max().unwrap_or(0);
    let steps = &epochs[last.epoch].steps(&last.seen.name)[step + 1..];
    let mut missed = &steps[..steps.partition_point(|s| s.revision <= reached)];
    let process = |place: &Place| place.change(epochs).and_then(Step::instance);
    if next.is_some_and(|next| is_another_life(next) && process(next) == process(last))
        && process(last).is_some()
        && missed.first().is_some_and(Step::is_gone)
    {
        // Held in a mass loss, and back as the same process, in another etcd.
        missed = &missed[1..];
    }
    skip(placed, since, last, missed, None, gaps, sum);
}

fn waits_with_the_next(place: &Place) -> bool {
    place.told.departure().is_some() || is_another_life(place)
}

fn is_another_life(place: &Place) -> bool {
    match place.told {
        Told::Updated { previous, now } => previous.incarnation != now.incarnation,
        _ => false,
    }
}

/// What was missed of one member between two entries.
fn between(
    placed: &Placed,
    since: usize,
    a: &Place,
    b: &Place,
    epochs: &[Timeline],
    gaps: &mut Vec<Gap>,
    sum: &mut Summary,
) {
    let steps = epochs[b.epoch].steps(&b.seen.name);
    let Some(to) = b.step else { return };
    let from = match (a.epoch == b.epoch, a.step) {
        (true, Some(step)) => step + 1,
        _ => 0,
    };
    let mut missed = steps.get(from..to).unwrap_or_default();
    if (a.epoch != b.epoch || a.step.is_none()) && !missed.is_empty() {
        // An epoch begins with a listing.
        sum.netted += missed.len() as u64;
        return;
    }
    if is_another_life(b) && missed.first().is_some_and(Step::is_gone) && from > 0 {
        // Held in a mass loss, and back as the same process.
        if steps[from - 1].instance().is_some()
            && steps[from - 1].instance() == steps[to].instance()
        {
            missed = &missed[1..];
        }
    }
    skip(placed, since, a, missed, Some((b, &steps[to..])), gaps, sum);
}

fn skip(
    placed: &Placed,
    since: usize,
    after: &Place,
    missed: &[Step],
    next: Option<(&Place, &[Step])>,
    gaps: &mut Vec<Gap>,
    sum: &mut Summary,
) {
    let Some(last) = missed.last() else { return };
    let before = next.map_or(usize::MAX, |(place, _)| place.index);
    if placed.folded_between(since, before) {
        sum.folded += missed.len() as u64;
        return;
    }
    let (mut from, mut to, mut index) = (last.revision, i64::MAX, after.index);
    let mut epoch = after.epoch;
    if let Some((next, steps)) = next {
        (index, epoch) = (next.index, next.epoch);
        if next.told.departure().is_some() {
            // Only a listing can tell of it after what was missed.
            from = steps[0].revision;
            if let Told::Down { cause, .. } = next.told {
                if cause == "missing" {
                    (from, to) = (next.seen.revision, next.seen.revision);
                }
            }
        } else if let Some(later) = steps.get(1) {
            to = later.revision - 1;
        }
    }
    gaps.push(Gap {
        epoch,
        from,
        to,
        index,
        name: after.seen.name.clone(),
        steps: missed.len(),
    });
}

/// Who was there when the listener came, by what it was told first of everybody.
fn initial(
    placed: &Placed,
    by_name: &BTreeMap<&str, Vec<&Place>>,
    truth: &Timeline,
    synced: usize,
    gaps: &mut Vec<Gap>,
    sum: &mut Summary,
) -> Result<(), Violation> {
    // What waits for a slow listener is replaced by what is newer.
    if !placed.lagged.is_empty() {
        return Ok(());
    }
    let log = placed.log;
    let epoch = placed.first_epoch();
    let mut first = First {
        from: 0,
        from_by: None,
        to: i64::MAX,
        to_by: None,
    };
    let mut told_to = 0;
    for places in by_name.values() {
        let place = places[0];
        if place.epoch != epoch {
            continue;
        }
        told_to = told_to.max(place.seen.revision);
        if place.index < synced {
            if place.seen.revision > first.from {
                first.from = place.seen.revision;
                first.from_by = Some(format!("{} was told before Synced", place.told));
            }
        } else if matches!(place.told, Told::Added(_)) && place.seen.incarnation <= first.to {
            first.to = place.seen.incarnation - 1;
            first.to_by = Some((place.index, format!("{} was told after it", place.told)));
        }
    }
    // Lives before the first one told, or of which nothing was told: over by then.
    let end = match log.settled && placed.last_epoch() == Some(epoch) {
        true => truth.last,
        false => told_to,
    };
    for (name, steps) in truth.names().filter(|(name, _)| placed.admits(name)) {
        sum.count("G1");
        let told = by_name.get(name).map(|places| places[0]);
        let told = told.filter(|place| place.epoch == epoch);
        let upto = match told {
            Some(Place {
                step: Some(step), ..
            }) => *step,
            Some(Place { step: None, .. }) => continue,
            None => steps.partition_point(|s| s.revision <= end),
        };
        // Of the life that was told the values before are no miss, where it is the first to be told.
        let life = told.map(|place| place.seen.incarnation);
        let Some(last) = steps[..upto]
            .iter()
            .rev()
            .find(|s| Some(s.incarnation) != life)
        else {
            continue;
        };
        let index = told.map_or(synced, |place| place.index);
        if last.is_gone() && last.revision <= first.to {
            if last.revision > first.from && !placed.may_have_relisted() {
                first.from = last.revision;
                let life = last.incarnation;
                first.from_by = Some(format!("{name}@{life} was never told"));
            }
            continue;
        }
        if !last.is_gone() && told.is_none() {
            let born = last.incarnation;
            // It is there to the end; was it ever to be told?
            let why = format!("{name}@{born} is there and was never told");
            return Err(Violation::at("G1", log, index, why));
        }
        if !placed.may_have_relisted() {
            let life = last.incarnation;
            let why = format!("{name}@{life} came and went, and was never told");
            return Err(Violation::at("G1", log, index, why));
        }
        gaps.push(Gap {
            epoch,
            from: last.revision,
            to: i64::MAX,
            index,
            name: name.into(),
            steps: 1,
        });
    }
    if first.from > first.to {
        let (index, to_by) = first.to_by.expect("else there is no bound");
        let why = format!(
            "{}, so it was at {} at least; but {to_by}",
            first.from_by.unwrap_or_default(),
            first.from
        );
        return Err(Violation::at("G1", log, index, why));
    }
    Ok(())
}

/// All that was missed must lie before as many listings as there were.
fn listings(placed: &Placed, mut gaps: Vec<Gap>, sum: &mut Summary) -> Result<(), Violation> {
    gaps.sort_by_key(|gap| (gap.epoch, gap.to));
    let mut made = 0;
    let mut last = None;
    for gap in gaps {
        sum.netted += gap.steps as u64;
        if last.is_some_and(|(epoch, at)| epoch == gap.epoch && gap.from <= at) {
            continue;
        }
        made += 1;
        last = Some((gap.epoch, gap.to));
        if placed.listings().is_some_and(|listings| made > listings) {
            let (name, steps) = (&gap.name, gap.steps);
            let why = format!(
                "{steps} changes of {name} before this were never told, nor said to be folded, \
                 and there were {} listings to miss them by",
                placed.listings().unwrap_or(0)
            );
            return Err(Violation::at("G1", placed.log, gap.index, why));
        }
    }
    Ok(())
}
