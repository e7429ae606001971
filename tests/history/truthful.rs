//! **G6 Truthful**: the reason of a departure is not contradicted by etcd's history, nor by what was
//! done.

use super::placed::{Place, Placed};
use super::timeline::{State, Timeline};
use super::verdict::{Summary, Violation};
use super::{At, Bounds, Deed, Deeds, Log, Nanos, Told};

pub struct Case<'a> {
    pub epochs: &'a [Timeline],
    pub logs: &'a [Log],
    pub deeds: &'a Deeds,
    pub bounds: &'a Bounds,
}

pub fn judge(placed: &Placed, case: &Case, sum: &mut Summary) -> Result<(), Violation> {
    for place in &placed.changes {
        let Some((_, reason)) = place.told.departure() else {
            continue;
        };
        sum.count("G6");
        if reason == "unknown" {
            sum.unknown += 1;
        }
        if let Some(why) = contradiction(placed, place, reason, case) {
            let why = format!("called {reason}, but {why}");
            return Err(Violation::at("G6", placed.log, place.index, why));
        }
    }
    Ok(())
}

fn contradiction(placed: &Placed, place: &Place, reason: &str, case: &Case) -> Option<String> {
    let (name, life) = (&*place.seen.name, place.seen.incarnation);
    let Some(step) = place.step else {
        let honest = matches!(reason, "missing" | "replaced");
        return (!honest).then(|| "etcd lost its past: nobody can know".into());
    };
    let truth = &case.epochs[place.epoch];
    let gone = &truth.steps(name)[step];
    let State::Gone { lease, born } = gone.state else {
        return Some("it is there".into());
    };
    let note = truth.note(name, life);
    let said = note.map(|note| &*note.reason);
    // A note that goes with the key is in the same revision.
    if let Some(note) = note.filter(|n| place.exact && n.revision == gone.revision) {
        let right = match &*note.reason {
            "leave" => "announced",
            "replaced" => "replaced",
            "evicted" => "evicted",
            _ => "unknown",
        };
        return (reason != right).then(|| format!("its note says {:?}", note.reason));
    }
    // Its beginning may have been read a little after it was.
    let began = born.saturating_sub(case.bounds.slack);
    let seen = |deed: fn(&Deed) -> Option<&str>| {
        let mut during = case.deeds.between(began, place.at);
        during.any(|d| deed(&d.what) == Some(name))
    };
    let deleted = seen(|deed| match deed {
        Deed::KeyDeleted { name } => Some(name),
        _ => None,
    });
    let revoked = seen(|deed| match deed {
        Deed::LeaseRevoked { name, .. } => Some(name),
        _ => None,
    });
    let complete = case.deeds.complete;
    let no = |why: &str| Some(why.to_owned());
    match reason {
        "announced" if said != Some("leave") => no("it left no note that says so"),
        "evicted" if said != Some("evicted") => no("no note says so"),
        "replaced" => {
            let next = truth.steps(name).get(step + 1);
            let replaced = said == Some("replaced") || next.is_some();
            (!replaced).then(|| "nobody came in its place".into())
        }
        "missing" if !placed.may_have_relisted() => no("nothing was listed anew"),
        "missing" if case.epochs.len() == 1 && place.exact && note.is_some() => None,
        "deregistered" if lease != 0 && complete && !deleted && !revoked => {
            no("nobody did that to it")
        }
        "revoked" if lease == 0 => no("it was on no lease"),
        "revoked" if complete && !revoked => no("nobody revoked its lease"),
        "lease-expired" if lease == 0 => no("it was on no lease"),
        "lease-expired" if complete => {
            let could =
                could_expire(case, name, born, gone.at) || was_in_doubt(case, name, life, gone.at);
            match (could, deleted || revoked) {
                (false, true) => no("it was thrown out, and it was well"),
                (false, false) => no("it was well, and so was its way to etcd"),
                _ => None,
            }
        }
        "unknown" if lease == 0 && place.exact && note.is_none() => {
            no("its key was on no lease: somebody deleted it")
        }
        "announced" | "evicted" | "missing" | "deregistered" | "revoked" | "lease-expired"
        | "unknown" => None,
        other => Some(format!("{other:?} is no reason")),
    }
}

/// Whether the member itself could not be sure that its lease lived: its machine, or etcd's, may be
/// too slow without anybody's doing. A silent server does not say what it knows: there others, to
/// whom nothing was done, stand for it.
fn was_in_doubt(case: &Case, name: &str, life: i64, gone: Nanos) -> bool {
    let is_own = |log: &&Log| log.own.as_deref() == Some(name);
    let mut own = case.logs.iter().filter(is_own).peekable();
    match own.peek() {
        Some(_) => !own.any(|log| was_sure(log, life, gone)),
        None => case.logs.iter().any(|log| doubted(log, case, gone)),
    }
}

/// When its key is taken a member finds out afterwards; a lease that may run out it doubts half a
/// second before.
fn was_sure(log: &Log, life: i64, gone: Nanos) -> bool {
    let before = gone.saturating_sub(250_000_000);
    let is_it = |entry: &At<Told>| matches!(entry.what, Told::Registered { incarnation, .. } if incarnation == life);
    let is_registered = |entry: &At<Told>| matches!(entry.what, Told::Registered { .. });
    let is_own = |entry: &&At<Told>| {
        is_registered(entry) || matches!(entry.what, Told::Lost | Told::Displaced)
    };
    let registered = log.entries.iter().position(is_it);
    registered.is_some_and(|from| {
        let until = log.entries[from..]
            .iter()
            .take_while(|entry| entry.at <= before);
        until.filter(is_own).last().is_none_or(is_registered)
    })
}

/// Whether a member that was left alone was in doubt within a TTL before.
fn doubted(log: &Log, case: &Case, gone: Nanos) -> bool {
    let since = gone.saturating_sub(case.bounds.ttl);
    let Some(own) = log.own.as_deref() else {
        return false;
    };
    let was_left_alone = |lost: Nanos| {
        let lately = lost.saturating_sub(case.bounds.slack);
        let mut deeds = case.deeds.between(lately, lost);
        !deeds.any(|d| d.what.throws_out(own)) && !could_expire(case, own, 0, lost)
    };
    let mut lost = log.entries.iter().filter(|e| e.what == Told::Lost);
    lost.any(|e| since <= e.at && e.at <= gone && was_left_alone(e.at))
}

/// Whether something kept the member from renewing its lease until shortly before.
fn could_expire(case: &Case, name: &str, born: Nanos, gone: Nanos) -> bool {
    let slack = case.bounds.ttl + case.bounds.slack;
    let (mut dead, mut stopped, mut cut, mut down) = (false, false, 0i64, 0i64);
    let mut last = None;
    for deed in &case.deeds.all {
        if deed.at > gone {
            break;
        }
        match &deed.what {
            Deed::Killed { name: n } | Deed::Terminated { name: n } if n == name => dead = true,
            // A new process does not renew the old one's lease.
            Deed::Started { name: n, .. } if n == name => {
                let was = std::mem::take(&mut dead) | std::mem::take(&mut stopped);
                if !was {
                    continue;
                }
            }
            Deed::Stopped { name: n } if n == name => stopped = true,
            Deed::Continued { name: n } if n == name => stopped = false,
            Deed::Cut { whom } if whom.includes(name) => cut += 1,
            Deed::Healed { whom } if whom.includes(name) => cut = 0,
            Deed::EtcdDown { .. } => down += 1,
            Deed::EtcdUp { .. } => down = (down - 1).max(0),
            Deed::Wiped => {}
            _ => continue,
        }
        last = Some(deed.at);
    }
    let lately = last.is_some_and(|at| at > born && at + slack >= gone);
    dead || stopped || cut > 0 || down > 0 || lately
}
