//! **G5 Converges**: once all is drained, what a listener was told adds up to the truth, and so does
//! the last answer.

use std::collections::BTreeMap;

use super::placed::Placed;
use super::timeline::{State, Step, Timeline};
use super::verdict::{Summary, Violation};
use super::{Answer, History, Seen};

pub fn judge(placed: &Placed, truth: &Timeline, sum: &mut Summary) -> Result<(), Violation> {
    let log = placed.log;
    if !log.settled || !log.initial {
        return Ok(());
    }
    let told: BTreeMap<&str, &Seen> = placed.sum.view().collect();
    let mut truth = truth.view();
    truth.retain(|name, _| placed.admits(name));
    sum.count("G5");
    differs(&told, &truth).map_or(Ok(()), |(name, why)| {
        let of = |e: &super::At<super::Told>| e.what.change().is_some_and(|s| s.name == name);
        let last = log.entries.iter().rposition(of);
        Err(match last {
            Some(index) => Violation::at("G5", log, index, why),
            None => Violation::of("G5", log, why),
        })
    })
}

/// The last answers of handles that were asked when all had settled.
pub fn answers(history: &History, truth: &Timeline, sum: &mut Summary) -> Result<(), Violation> {
    let mut last: BTreeMap<&str, &Answer> = BTreeMap::new();
    for answer in &history.answers {
        last.insert(&answer.handle, answer);
    }
    for (handle, answer) in last {
        if !history.logs.iter().any(|l| l.settled && l.handle == handle) {
            continue;
        }
        let said: BTreeMap<&str, &Seen> = answer.members.iter().map(|m| (&*m.name, m)).collect();
        sum.count("G5");
        if let Some((_, why)) = differs(&said, &truth.view()) {
            let why = format!("the last answer: {why}");
            return Err(Violation::about("G5", handle, why));
        }
    }
    Ok(())
}

fn differs(
    told: &BTreeMap<&str, &Seen>,
    truth: &BTreeMap<&str, &Step>,
) -> Option<(String, String)> {
    let same = |seen: &Seen, step: &Step| {
        let State::Is { content, .. } = &step.state else {
            return false;
        };
        seen.incarnation == step.incarnation && seen.content == *content
    };
    for (name, seen) in told {
        match truth.get(name) {
            Some(step) if same(seen, step) => {}
            other => return Some((name.to_string(), format!("{seen:?}; in truth {other:?}"))),
        }
    }
    let missing = truth.iter().find(|(name, _)| !told.contains_key(*name))?;
    let (name, step) = missing;
    Some((
        name.to_string(),
        format!("{name} is there, and it does not know: {step:?}"),
    ))
}
