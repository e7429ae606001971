//! **G4 Never blocks**, as far as a history can show it: while nothing is broken, a listener that
//! keeps up is told in time, whoever else is slow.

use super::placed::Placed;
use super::timeline::Timeline;
use super::verdict::{Summary, Violation};
use super::{Bounds, Told};

pub fn judge(
    placed: &Placed,
    epochs: &[Timeline],
    bounds: &Bounds,
    sum: &mut Summary,
) -> Result<(), Violation> {
    let Some(synced) = placed.synced.filter(|_| placed.log.fast) else {
        return Ok(());
    };
    for place in placed
        .changes
        .iter()
        .filter(|p| p.index > synced && !p.waited)
    {
        let Some(step) = place.change(epochs) else {
            continue;
        };
        if place.told.departure().is_some() && !place.exact {
            continue;
        }
        let happened = step.at;
        let calm = |(from, to): &(u64, u64)| *from <= happened && happened + bounds.delivery <= *to;
        if !bounds.calm.iter().any(calm) {
            continue;
        }
        let late = place.at.saturating_sub(happened);
        if late > bounds.delivery {
            let (late, bound) = (late / 1_000_000, bounds.delivery / 1_000_000);
            let why = format!("{late} ms after it happened; the bound is {bound} ms");
            return Err(Violation::at("G4", placed.log, place.index, why));
        }
        sum.count("G4");
    }
    if placed
        .log
        .entries
        .iter()
        .any(|e| matches!(e.what, Told::Lagged { .. }))
    {
        let why = "it keeps up, and was told that it lags";
        return Err(Violation::of("G4", placed.log, why.into()));
    }
    Ok(())
}
