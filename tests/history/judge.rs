//! The judge: every guarantee over the whole history. Pure.

use super::placed::{self, Placed};
use super::steady::Reached;
use super::timeline::Timeline;
use super::truthful::Case;
use super::verdict::{Summary, Violation};
use super::{History, Nanos, converged, fenced, gapless, ordered, prompt, steady, truthful};

/// The first violation, or how much was checked.
pub fn judge(history: &History) -> Result<Summary, Violation> {
    let mut sum = Summary::default();
    let prefix = &history.truth.prefix;
    let epochs: Vec<Timeline> = history
        .truth
        .epochs
        .iter()
        .map(|epoch| Timeline::of(prefix, epoch))
        .collect();
    let begins: Vec<Nanos> = history
        .truth
        .epochs
        .iter()
        .map(|epoch| epoch.changes.first().map_or(0, |change| change.at))
        .collect();
    let last = epochs.last().expect("a truth");
    let case = Case {
        epochs: &epochs,
        logs: &history.logs,
        deeds: &history.deeds,
        bounds: &history.bounds,
    };
    let mut all: Vec<Placed> = Vec::new();
    for log in &history.logs {
        all.push(placed::place(log, &epochs, &begins, &mut sum)?);
    }
    let reached = Reached::of(&all, &epochs);
    for placed in &all {
        ordered::judge(placed, &mut sum)?;
        steady::judge(placed, &reached, &history.bounds, &mut sum)?;
        truthful::judge(placed, &case, &mut sum)?;
        gapless::judge(placed, &epochs, &mut sum)?;
        converged::judge(placed, last, &mut sum)?;
        prompt::judge(placed, &epochs, &history.bounds, &mut sum)?;
    }
    steady::answers(history, &reached, &mut sum)?;
    converged::answers(history, last, &mut sum)?;
    fenced::judge(&all, history, &mut sum)?;
    Ok(sum)
}
