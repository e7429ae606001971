//! **G10 Self-fencing**: a member knows that its lease may be lost before a peer is told so.

use std::collections::{BTreeMap, BTreeSet};

use super::placed::Placed;
use super::verdict::{Summary, Violation};
use super::{Deed, History, Log, Nanos, Told};

pub fn judge(placed: &[Placed], history: &History, sum: &mut Summary) -> Result<(), Violation> {
    for peer in placed {
        for place in &peer.changes {
            let seen = place.seen;
            let ran_out = match place.told.departure() {
                Some((_, "lease-expired")) => true,
                Some((_, "unknown")) => nobody_did_it(history, &seen.name, place.at),
                _ => false,
            };
            if !ran_out {
                continue;
            }
            // A slow listener hears late what its handle knows: the first to know counts.
            let mut ignorant: BTreeMap<&str, (&Log, usize)> = BTreeMap::new();
            let mut knowing: BTreeSet<&str> = BTreeSet::new();
            let owns = |log: &&Log| log.own.as_deref() == Some(&*seen.name);
            for log in history.logs.iter().filter(owns) {
                if log.handle == peer.log.handle {
                    continue;
                }
                let registered = log.entries.iter().rposition(|e| {
                    // Another epoch may have the same number later.
                    let life = (e.at <= place.at).then_some(seen.incarnation);
                    matches!(e.what, Told::Registered { incarnation, .. } if Some(incarnation) == life)
                });
                let Some(registered) = registered else {
                    continue;
                };
                match knew(log, registered, place.at, history, &seen.name) {
                    true => drop(knowing.insert(&log.handle)),
                    false if is_others_doing(log, registered, place.at, history, &seen.name) => {}
                    false => drop(ignorant.insert(&log.handle, (log, registered))),
                }
            }
            for handle in &knowing {
                ignorant.remove(handle);
            }
            sum.add("G10", (knowing.len() + ignorant.len()) as u64);
            if let Some((log, registered)) = ignorant.into_values().next() {
                let listener = &peer.log.listener;
                let why = format!("{listener} was told that {seen:?} is down; it did not know");
                return Err(Violation::at("G10", log, registered, why));
            }
        }
    }
    Ok(())
}

/// Whether what ended a member, told at that time, can only be its lease. After an election an
/// old leader may end leases that live.
fn nobody_did_it(history: &History, name: &str, told: Nanos) -> bool {
    let lately = told.saturating_sub(2 * history.bounds.ttl + history.bounds.slack);
    let mut deeds = history.deeds.between(0, told).filter(|d| match &d.what {
        Deed::Wiped => true,
        Deed::EtcdDown { .. } | Deed::EtcdUp { .. } => d.at >= lately,
        deed => deed.throws_out(name),
    });
    history.deeds.complete && deeds.next().is_none()
}

/// Whether it may not be the lease that ended it, which its owner can't know beforehand, nor its
/// peers afterwards (a limit of G6).
fn is_others_doing(
    log: &Log,
    registered: usize,
    told: Nanos,
    history: &History,
    name: &str,
) -> bool {
    // In the second in which its lease could have run out.
    let since = log.entries[registered].at;
    let mut deeds = history.deeds.between(since, told);
    let thrown_out = deeds.any(|d| d.what.throws_out(name));
    // A leader that stood still, and goes on, may end leases that its successor has renewed.
    let bounds = &history.bounds;
    let lately = told.saturating_sub(bounds.slack + bounds.delivery);
    let mut deeds = history.deeds.between(lately, told + bounds.delivery);
    thrown_out || deeds.any(|d| matches!(d.what, Deed::EtcdUp { .. }))
}

fn knew(log: &Log, registered: usize, told: Nanos, history: &History, name: &str) -> bool {
    let since = log.entries[registered].at;
    let lost = log.entries[registered..]
        .iter()
        .any(|e| e.at <= told && matches!(e.what, Told::Lost | Told::Displaced));
    let said = || {
        history.answers.iter().any(|a| {
            let after = a.at_before >= since && a.at_after <= told;
            after && a.handle == log.handle && a.registered == Some(false)
        })
    };
    // The dead know nothing, and who is stopped can't be told.
    let mut ended = history
        .deeds
        .between(since, told)
        .filter(|d| match &d.what {
            Deed::Killed { name: n } | Deed::Terminated { name: n } | Deed::Stopped { name: n } => {
                n == name
            }
            _ => false,
        });
    lost || said() || ended.next().is_some()
}
