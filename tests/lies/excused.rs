//! What looks like a lie about the end of a lease, and is nobody's fault.

use super::made::TTL;
use super::{MS, fenced};
use crate::history::{At, Deed, History, Log, Nanos, Told};

/// Whoever is cut off loses its key to this before its lease runs out, and learns of it afterwards.
/// Its peers can't tell that from the lease's end.
pub fn lost_late(h: &mut History, to: fn(String) -> Deed) -> Option<()> {
    let (log, lost) = fenced(h)?;
    let name = h.logs[log].own.clone()?;
    let at = h.logs[log].entries[lost].at + TTL / 2;
    h.logs[log].entries[lost].at = at + 1600 * MS;
    let what = to(name);
    h.deeds.all.push(At { at, what });
    h.deeds.all.sort_by_key(|deed| deed.at);
    Some(())
}

/// All are silent, and to one whose lease runs out nothing was done. When it had to.
pub fn never_killed(h: &mut History) -> Option<Nanos> {
    h.logs.retain(|log| log.own.is_none());
    let deeds = &h.deeds.all;
    let is_first = |at: usize, name: &str| {
        !deeds[..at].iter().any(|d| match &d.what {
            Deed::Killed { name: n } | Deed::Terminated { name: n } => n == name,
            _ => false,
        })
    };
    let killed = (0..deeds.len()).find(|at| match &deeds[*at].what {
        Deed::Killed { name } => is_first(*at, name),
        _ => false,
    })?;
    Some(h.deeds.all.remove(killed).at + TTL)
}

/// A member to which nothing was done is in doubt just before.
pub fn doubt(h: &mut History, before: Nanos) {
    let at = before - MS;
    let what = Told::Lost;
    h.logs.push(Log {
        listener: "own".into(),
        handle: "u/0".into(),
        own: Some("u/0".into()),
        relists: Some(0),
        entries: vec![At { at, what }],
        ..Log::default()
    });
}
