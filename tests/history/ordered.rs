//! **G2 Ordered**, among all members: as long as nothing is listed anew, and nothing has to wait in
//! a queue, what is told at once comes in the order of revisions, and those of one revision stand
//! together. A queue that lags keeps the order of each member alone, which `Pairing` judges.

use super::placed::Placed;
use super::verdict::{Summary, Violation};

pub fn judge(placed: &Placed, sum: &mut Summary) -> Result<(), Violation> {
    let Some(synced) = placed.synced else {
        return Ok(());
    };
    if !placed.log.fast || placed.may_have_relisted() || !placed.lagged.is_empty() {
        return Ok(());
    }
    let mut last = 0;
    let first = placed.first_epoch();
    let at_once = placed
        .changes
        .iter()
        .filter(|p| p.index > synced && !p.waited);
    // An epoch begins with a listing, in the order of names.
    let at_once = at_once.filter(|p| p.epoch == first);
    for place in at_once {
        let revision = place.seen.revision;
        if revision < last {
            let why = format!("revision {revision} after {last}");
            return Err(Violation::at("G2", placed.log, place.index, why));
        }
        last = revision;
        sum.count("G2");
    }
    Ok(())
}
