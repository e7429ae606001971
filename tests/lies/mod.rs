//! Lies: each makes one thing wrong in a good history, and names the guarantee that it breaks.

pub mod excused;
pub mod late;
pub mod made;

use self::made::{CUT, FAST, LATE, SLOW};
use crate::history::{Act, At, History, Log, Nanos, Seen, Told};
use crate::support::random::Random;

/// Makes it wrong, where there is an opportunity.
type Lie = fn(&mut History, &mut Random) -> Option<()>;

const MS: Nanos = 1_000_000;

pub struct Mutation {
    pub guarantee: &'static str,
    pub what: &'static str,
    pub lie: Lie,
}

macro_rules! table {
    ($($guarantee:ident $what:literal $lie:expr;)*) => {
        &[$(Mutation { guarantee: stringify!($guarantee), what: $what, lie: $lie }),*]
    };
}

pub const TABLE: &[Mutation] = table![
    G1 "a whole life is never told" |h, d| {
        let log = &mut h.logs[FAST];
        let (name, from, to) = life(log, d)?;
        let mut n = 0;
        log.entries.retain(|e| {
            n += 1;
            !(from < n && n <= to + 1 && about(&e.what, &name))
        });
        Some(())
    };
    G1 "a newcomer is told before Synced, one who was there not at all" |h, d| {
        if h.truth.epochs.len() > 1 {
            return None;
        }
        let log = &mut h.logs[LATE];
        let name = pick(log, d, |_, n, log| n < synced(log))?.1.change()?.name.clone();
        log.entries.retain(|e| !about(&e.what, &name));
        Some(())
    };
    G1 "somebody who is there to the end is never told" |h, d| {
        let log = &mut h.logs[FAST];
        let (_, told) = pick(log, d, |t, n, log| {
            let name = t.change().map(|s| s.name.clone()).unwrap_or_default();
            let first = !log.entries[..n].iter().any(|e| about(&e.what, &name));
            first && log.entries[n..].iter().all(|e| !about(&e.what, &name) || e.what.departure().is_none())
        })?;
        let name = told.change()?.name.clone();
        log.entries.retain(|e| !about(&e.what, &name));
        Some(())
    };
    G1 "the last update of somebody is dropped" |h, d| {
        let log = &mut h.logs[FAST];
        let at = last_of_its_member(log, d, |t| matches!(t, Told::Updated { .. }))?;
        log.entries.remove(at);
        Some(())
    };
    G1 "a value is invented" |h, d| {
        let (at, _) = pick(&h.logs[SLOW], d, |t, _, _| matches!(t, Told::Added(_)))?;
        if let Told::Added(seen) = &mut h.logs[SLOW].entries[at].what {
            seen.content.push('!');
        }
        Some(())
    };
    G1 "a member is invented" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, mut told) = pick(log, d, |t, _, _| matches!(t, Told::Added(_)))?;
        if let Told::Added(seen) = &mut told {
            seen.name = "t/nobody".into();
        }
        repeat(log, at, told);
        Some(())
    };
    G1 "an incarnation is invented" |h, d| {
        let (at, _) = pick(&h.logs[CUT], d, |t, _, _| matches!(t, Told::Added(_)))?;
        if let Told::Added(seen) = &mut h.logs[CUT].entries[at].what {
            seen.incarnation -= 1;
        }
        Some(())
    };
    G1 "Synced is never told" |h, _| {
        h.logs[LATE].entries.retain(|e| e.what != Told::Synced);
        Some(())
    };
    G1 "Synced is told twice" |h, d| {
        let log = &mut h.logs[LATE];
        let (at, _) = pick(log, d, |_, n, log| n > synced(log))?;
        repeat(log, at, Told::Synced);
        Some(())
    };
    G1 "Synced is told before everybody was" |h, _| {
        let log = &mut h.logs[LATE];
        let synced = synced(log);
        // The one who came last is told before it.
        let newest = log.entries[..synced].iter().map(|e| e.what.change().map_or(0, |s| s.revision));
        let newest = newest.max()?;
        let one = log.entries[..synced].iter().position(|e| {
            e.what.change().is_some_and(|s| s.revision < newest)
        })?;
        let entry = log.entries.remove(one);
        log.entries.insert(synced, entry);
        Some(())
    };
    G1 "a step in between is left out" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, told) = pick(log, d, |t, n, log| {
            let Told::Updated { now, .. } = t else { return false };
            let next = log.entries[n + 1..].iter().find(|e| about(&e.what, &now.name));
            matches!(next.map(|e| &e.what), Some(Told::Updated { now: next, .. })
                if next.incarnation == now.incarnation)
        })?;
        let (Told::Updated { now, previous }, mut n) = (told, at + 1) else { return None };
        while !about(&log.entries[n].what, &now.name) {
            n += 1;
        }
        if let Told::Updated { previous: later, .. } = &mut log.entries[n].what {
            *later = previous;
        }
        log.entries.remove(at);
        Some(())
    };
    G1 "an answer knows somebody who never was" |h, d| {
        let at = d.below(h.answers.len() as u64) as usize;
        h.answers[at].members.first_mut()?.name.push('!');
        Some(())
    };
    G2 "two changes are swapped" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |t, n, log| {
            let next = log.entries.get(n + 1).map(|e| &e.what);
            let (Some(a), Some(b)) = (at_once(t), next.and_then(at_once)) else {
                return false;
            };
            let before = log.entries[n - 1].what.change().map(|s| &s.name);
            n > synced(log) + 1 && n < lost(log) && a.0 != b.0 && a.1 < b.1 && before != Some(&a.0) && before != Some(&b.0)
        })?;
        log.entries.swap(at, at + 1);
        Some(())
    };
    G2 "a life is told after the one that followed it" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, told) = pick(log, d, |t, n, log| {
            let end = ended(log, n);
            matches!(t, Told::Added(_)) && end.is_some_and(|end| end + 1 < lost(log))
        })?;
        let end = ended(log, at)?;
        let moment = log.entries[end].at;
        log.entries.insert(end + 1, At { at: moment, what: told });
        Some(())
    };
    G3 "an addition is doubled" |h, d| {
        let (at, told) = pick(&h.logs[FAST], d, |t, _, _| matches!(t, Told::Added(_)))?;
        repeat(&mut h.logs[FAST], at, told);
        Some(())
    };
    G3 "an update is doubled" |h, d| {
        let (at, told) = pick(&h.logs[FAST], d, |t, _, _| matches!(t, Told::Updated { .. }))?;
        repeat(&mut h.logs[FAST], at, told);
        Some(())
    };
    G3 "a departure is doubled" |h, d| {
        let (at, told) = pick(&h.logs[FAST], d, |t, _, _| t.departure().is_some())?;
        repeat(&mut h.logs[FAST], at, told);
        Some(())
    };
    G3 "an addition is dropped" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |t, n, log| matches!(t, Told::Added(_)) && has_next(log, n))?;
        log.entries.remove(at);
        Some(())
    };
    G3 "a departure is dropped" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |t, n, log| t.departure().is_some() && has_next(log, n))?;
        log.entries.remove(at);
        Some(())
    };
    G3 "the new life is told before the old one's end" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |t, n, log| {
            let next = log.entries.get(n + 1).map(|e| &e.what);
            let name = t.departure().map(|(s, _)| &s.name);
            matches!(next, Some(Told::Added(seen)) if Some(&seen.name) == name)
        })?;
        log.entries.swap(at, at + 1);
        Some(())
    };
    G3 "an update of what was not told" |h, d| {
        let (at, _) = pick(&h.logs[FAST], d, |t, _, _| matches!(t, Told::Updated { .. }))?;
        if let Told::Updated { previous, .. } = &mut h.logs[FAST].entries[at].what {
            previous.content = Some("other".into());
        }
        Some(())
    };
    G3 "an update makes it another life" |h, d| {
        let (at, _) = pick(&h.logs[FAST], d, |t, _, _| {
            matches!(t, Told::Updated { now, previous } if now.incarnation == previous.incarnation)
        })?;
        if let Told::Updated { previous, .. } = &mut h.logs[FAST].entries[at].what {
            previous.incarnation -= 1;
        }
        Some(())
    };
    G3 "a doubt about somebody who is gone" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, told) = pick(log, d, |t, _, _| t.departure().is_some())?;
        repeat(log, at, Told::Suspect(told.change()?.clone()));
        Some(())
    };
    G4 "one is told late" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |t, n, log| {
            let before = log.entries[n - 1].what.change().map(|s| &s.name);
            n > synced(log) + 1 && n < lost(log) && at_once(t).is_some_and(|now| before != Some(&now.0))
        })?;
        log.entries[at].at += 1500 * MS;
        Some(())
    };
    G4 "one that keeps up is told that it lags" |h, _| {
        let log = &mut h.logs[FAST];
        let at = log.entries.last()?.at;
        log.entries.push(At { at, what: Told::Lagged { folded: 1 } });
        Some(())
    };
    G5 "what is said to be folded is never told" |h, d| {
        let log = &mut h.logs[SLOW];
        let at = last_of_its_member(log, d, |t| matches!(t, Told::Updated { .. }))?;
        log.entries[at].what = Told::Lagged { folded: 1 };
        Some(())
    };
    G5 "the last answer lacks somebody" |h, d| {
        let answer = h.answers.iter_mut().rfind(|a| a.handle == "h1")?;
        let one = d.below(answer.members.len() as u64) as usize;
        answer.members.remove(one);
        Some(())
    };
    G5 "the last answer has somebody who is gone" |h, _| {
        let all = h.answers.iter().flat_map(|a| &a.members);
        let last = h.answers.iter().rfind(|a| a.handle == "h1")?;
        let there = |name: &str| last.members.iter().any(|m| m.name == name);
        let gone = all.clone().find(|m| !there(&m.name))?.clone();
        h.answers.iter_mut().rfind(|a| a.handle == "h1")?.members.push(gone);
        Some(())
    };
    G6 "who left is called expired" |h, d| reason(h, d, "announced", "lease-expired");
    G6 "who left is called revoked" |h, d| reason(h, d, "announced", "revoked");
    G6 "who left is called unknown" |h, d| reason(h, d, "announced", "unknown");
    G6 "who died is said to have left" |h, d| reason(h, d, "lease-expired", "announced");
    G6 "who died is called revoked" |h, d| reason(h, d, "lease-expired", "revoked");
    G6 "who died is called deregistered" |h, d| reason(h, d, "lease-expired", "deregistered");
    G6 "who was revoked is called expired" |h, d| reason(h, d, "revoked", "lease-expired");
    G6 "who was deregistered is called expired" |h, d| reason(h, d, "deregistered", "lease-expired");
    G6 "who was deregistered is called revoked" |h, d| reason(h, d, "deregistered", "revoked");
    G6 "who was replaced is called evicted" |h, d| reason(h, d, "replaced", "evicted");
    G6 "who died is called missing, though nothing was listed" |h, d| {
        if h.logs[FAST].relists != Some(0) {
            return None;
        }
        reason(h, d, "lease-expired", "missing")
    };
    G6 "a reason that there is not" |h, d| reason(h, d, "unknown", "bored");
    G6 "somebody who lives is told to be gone" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, told) = pick(log, d, |t, n, log| {
            matches!(t, Told::Added(_)) && n > synced(log) && n < log.entries.len() / 2
        })?;
        let member = told.change()?.clone();
        let cause = "unknown".into();
        repeat(log, at, Told::Down { member, cause });
        Some(())
    };
    G6 "somebody is told to be gone before it was" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |t, n, log| {
            t.departure().is_some() && n > synced(log) && n < log.entries.len() / 2
        })?;
        match &mut log.entries[at].what {
            Told::Removed { member, .. } | Told::Down { member, .. } => member.revision -= 1,
            _ => return None,
        }
        Some(())
    };
    G6 "whose departure waited over a wipe is told to have left" |h, d| {
        let at = waited_over_a_wipe(h, d)?;
        let told = &mut h.logs[FAST].entries[at].what;
        let (member, reason) = (told.change()?.clone(), "announced".into());
        *told = Told::Removed { member, reason };
        Some(())
    };
    G6 "a departure that waited over a wipe is told of another revision" |h, d| {
        let at = waited_over_a_wipe(h, d)?;
        match &mut h.logs[FAST].entries[at].what {
            Told::Removed { member, .. } | Told::Down { member, .. } => member.revision -= 1,
            _ => return None,
        }
        Some(())
    };
    G6 "whom a wipe took is told to have died before it" |h, d| {
        if h.truth.epochs.len() == 1 {
            return None;
        }
        let log = &mut h.logs[FAST];
        let restored = restored(log)?;
        let (at, told) = pick(log, d, |t, n, _| {
            let taken = t.departure().is_some_and(|(_, r)| matches!(r, "missing" | "replaced"));
            taken && n == restored + 1
        })?;
        let (member, cause) = (told.change()?.clone(), "lease-expired".into());
        log.entries[at].what = Told::Down { member, cause };
        Some(())
    };
    // While such an update is still told the epoch is not over, so nobody went with it.
    G6 "an update of before a wipe is told after it" |h, d| {
        let end = waited_over_a_wipe(h, d)?;
        let log = &mut h.logs[FAST];
        let (name, restored) = (log.entries[end].what.change()?.name.clone(), restored(log)?);
        let last = log.entries[..restored].iter().rposition(|e| about(&e.what, &name))?;
        if !matches!(log.entries[last].what, Told::Updated { .. }) {
            return None;
        }
        // Behind a newcomer, not behind another one that waited.
        let newcomer = log.entries[restored..end].iter().rposition(|e| {
            matches!(&e.what, Told::Added(seen) if seen.name != name)
        })?;
        let at = restored + newcomer;
        let update = log.entries[last].what.clone();
        repeat(log, at, update);
        log.entries.remove(last);
        Some(())
    };
    G7 "somebody is told to be gone because etcd was lost" |h, d| {
        let log = &mut h.logs[CUT];
        let lost = log.entries.iter().position(|e| e.what == Told::StoreLost)?;
        let there = |e: &At<Told>| {
            let seen = e.what.change()?.clone();
            let mut later = log.entries[..lost].iter().rev();
            let last = later.find(|e| about(&e.what, &seen.name))?;
            last.what.departure().is_none().then(|| last.what.change().cloned())?
        };
        let known: Vec<_> = log.entries[..lost].iter().filter_map(there).collect();
        let member = known.get(d.below(known.len() as u64) as usize)?.clone();
        let cause = "unknown".into();
        repeat(log, lost, Told::Down { member, cause });
        Some(())
    };
    G7 "somebody goes before etcd is back" |h, _| late::back(&mut h.logs[CUT]);
    G7 "etcd is lost twice" |h, _| {
        let log = &mut h.logs[CUT];
        let lost = log.entries.iter().position(|e| e.what == Told::StoreLost)?;
        repeat(log, lost, Told::StoreLost);
        Some(())
    };
    G7 "etcd is restored and was not lost" |h, d| {
        let log = &mut h.logs[FAST];
        let (at, _) = pick(log, d, |_, n, log| n < log.entries.len() / 2)?;
        repeat(log, at, Told::StoreRestored);
        Some(())
    };
    G7 "the answers forget somebody while etcd is lost" |h, _| {
        let at = lost_answer(h)?;
        // Somebody who stays to the end.
        let last = h.answers.last()?.members.clone();
        let stays = |m: &Seen| last.iter().any(|l| l.incarnation == m.incarnation);
        let one = h.answers[at].members.iter().position(stays)?;
        h.answers[at].members.remove(one);
        Some(())
    };
    G7 "the view grows younger while etcd is lost" |h, _| {
        let at = lost_answer(h)?;
        let age = h.answers[at].view_age.as_mut()?;
        (*age > 40 * MS).then(|| *age -= 35 * MS)
    };
    G10 "a member never learns that it is lost" |h, _| {
        let (log, lost) = fenced(h)?;
        h.logs[log].entries.remove(lost);
        Some(())
    };
    G10 "a member learns that it is lost after its peers" |h, _| {
        let (log, lost) = fenced(h)?;
        h.logs[log].entries[lost].at += 1600 * MS;
        Some(())
    };
];

fn about(told: &Told, name: &str) -> bool {
    told.change().is_some_and(|seen| seen.name == name)
}

/// Where etcd was restored last.
fn restored(log: &Log) -> Option<usize> {
    let restored = |e: &At<Told>| e.what == Told::StoreRestored;
    log.entries.iter().rposition(restored)
}

/// Departures of the first epoch that are told after something of the second one.
pub fn told_after_a_wipe(h: &History, log: usize) -> Vec<usize> {
    let log = &h.logs[log];
    let [first, second] = &h.truth.epochs[..] else {
        return Vec::new();
    };
    let key = |seen: &Seen| format!("pitaya/servers/{}", seen.name);
    let of_the_second = |told: &Told| {
        let Told::Added(seen) = told else {
            return false;
        };
        let changes = &mut second.changes.iter();
        changes.any(|c| c.key == key(seen) && c.revision == seen.revision)
    };
    let ended_in_the_first = |told: &Told| {
        told.departure().is_some_and(|(seen, _)| {
            first.changes.iter().any(|c| {
                let life = seen.incarnation;
                let ends =
                    matches!(c.act, Act::Delete { create_revision, .. } if create_revision == life);
                ends && c.key == key(seen) && c.revision == seen.revision
            })
        })
    };
    let Some(restored) = restored(log) else {
        return Vec::new();
    };
    let entries = log.entries.iter().enumerate().skip(restored);
    let mut after = entries.skip_while(|(_, e)| !of_the_second(&e.what));
    let _ = after.next();
    let late = after.filter(|(_, e)| ended_in_the_first(&e.what));
    late.map(|(n, _)| n).collect()
}

fn waited_over_a_wipe(h: &History, dice: &mut Random) -> Option<usize> {
    let all = told_after_a_wipe(h, FAST);
    all.get(dice.below(all.len().max(1) as u64) as usize)
        .copied()
}

fn synced(log: &Log) -> usize {
    let synced = log.entries.iter().position(|e| e.what == Told::Synced);
    synced.expect("a good log")
}

/// Where etcd is lost first, or the end.
fn lost(log: &Log) -> usize {
    let lost = log.entries.iter().position(|e| e.what == Told::StoreLost);
    lost.unwrap_or(log.entries.len())
}

/// One of the entries that fit, past the first.
fn pick(
    log: &Log,
    dice: &mut Random,
    fits: impl Fn(&Told, usize, &Log) -> bool,
) -> Option<(usize, Told)> {
    let all = log.entries.iter().enumerate().skip(1);
    let all: Vec<_> = all.filter(|(n, e)| fits(&e.what, *n, log)).collect();
    if all.is_empty() {
        return None;
    }
    let (at, entry) = all[dice.below(all.len() as u64) as usize];
    Some((at, entry.what.clone()))
}

fn repeat(log: &mut Log, after: usize, what: Told) {
    let at = log.entries[after].at;
    log.entries.insert(after + 1, At { at, what });
}

/// Whether more is told of that member.
fn has_next(log: &Log, index: usize) -> bool {
    let name = log.entries[index].what.change().map(|s| s.name.clone());
    let name = name.unwrap_or_default();
    log.entries[index + 1..]
        .iter()
        .any(|e| about(&e.what, &name))
}

/// Where the life ends that begins there.
fn ended(log: &Log, index: usize) -> Option<usize> {
    let seen = log.entries[index].what.change()?;
    let end = |e: &At<Told>| {
        let departure = e.what.departure();
        departure.is_some_and(|(s, _)| s.name == seen.name && s.incarnation == seen.incarnation)
    };
    let later = log.entries[index..].iter().position(end)?;
    Some(index + later)
}

/// A life after `Synced`, told from its beginning to its end.
fn life(log: &Log, dice: &mut Random) -> Option<(String, usize, usize)> {
    let (from, told) = pick(log, dice, |t, n, log| {
        let whole = ended(log, n).is_some_and(|end| {
            let name = t.change().map(|s| s.name.clone()).unwrap_or_default();
            // Another life of the same name in between would be one more thing.
            log.entries[n..=end]
                .iter()
                .filter(|e| about(&e.what, &name))
                .count()
                >= 2
        });
        matches!(t, Told::Added(_)) && n > synced(log) && n < lost(log) && whole
    })?;
    Some((told.change()?.name.clone(), from, ended(log, from)?))
}

fn last_of_its_member(log: &Log, dice: &mut Random, fits: impl Fn(&Told) -> bool) -> Option<usize> {
    let last = pick(log, dice, |t, n, log| {
        let same = match t {
            Told::Updated { now, previous } => now.incarnation == previous.incarnation,
            _ => true,
        };
        same && fits(t) && !has_next(log, n)
    });
    last.map(|(at, _)| at)
}

/// Name and revision of what is told without delay.
fn at_once(told: &Told) -> Option<(String, i64)> {
    let seen = told.change()?;
    let now = match told {
        Told::Updated { now, previous } => now.incarnation == previous.incarnation,
        Told::Removed { reason, .. } => reason == "announced",
        Told::Down { cause, .. } => cause == "replaced",
        _ => true,
    };
    now.then(|| (seen.name.clone(), seen.revision))
}

/// A departure told with the wrong reason.
fn reason(h: &mut History, dice: &mut Random, from: &str, to: &str) -> Option<()> {
    let log = &mut h.logs[FAST];
    let (at, told) = pick(log, dice, |t, _, _| {
        t.departure().is_some_and(|(_, r)| r == from)
    })?;
    let member = told.change()?.clone();
    let to = to.to_owned();
    log.entries[at].what = match &*to {
        "announced" | "revoked" | "deregistered" => Told::Removed { member, reason: to },
        _ => Told::Down { member, cause: to },
    };
    Some(())
}

/// The second answer without etcd, and later.
fn lost_answer(h: &History) -> Option<usize> {
    let lost = |n: usize| h.answers[n].handle == "h2" && !h.answers[n].store_reachable;
    let all: Vec<_> = (0..h.answers.len()).filter(|n| lost(*n)).collect();
    all.get(all.len() / 2 + 1).copied()
}

/// A member's `Lost` that comes before its peers' news.
fn fenced(h: &History) -> Option<(usize, usize)> {
    h.logs.iter().enumerate().find_map(|(n, log)| {
        log.own.as_ref()?;
        let lost = log.entries.iter().position(|e| e.what == Told::Lost)?;
        Some((n, lost))
    })
}
