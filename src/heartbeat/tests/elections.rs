//! What an election, or another etcd, does to what was seen of a lease.

use std::time::{Duration, Instant};

use super::model::{Lease, Run, Trip};
use super::{GONE, member, ms};
use crate::etcd::TimeToLive;
use crate::heartbeat::judge::{Judge, Shown};
use crate::heartbeat::verdict::Finding;
use crate::heartbeat::window::Ended;
use crate::member::Member;
use crate::settings::Check;
use crate::stats::Why;

/// What a look shows of a lease of 5 s.
fn found(seconds: u64, term: u64, by_election: bool, cluster: u64) -> Shown {
    Shown::Lease(TimeToLive {
        remaining: Duration::from_secs(seconds),
        granted: Duration::from_secs(5),
        term,
        by_election,
        cluster,
        revision: 1,
    })
}

/// The same, while no election shows in it.
fn left(seconds: u64, term: u64, cluster: u64) -> Shown {
    found(seconds, term, false, cluster)
}

/// Two are watched, the first on lease 7, which is the one that will be late, the other on 8.
fn two(zero: Instant) -> (Judge, Member) {
    let mut judge = Judge::new(Check::All, 50, None, zero);
    let late = member("go/1", 7, None);
    judge.track(&late, zero, 0.0);
    judge.track(&member("go/2", 8, None), zero, 0.0);
    (judge, late)
}

/// An election renews every lease, also that of a dead owner: no sign of life.
#[test]
fn g6_an_election_clears_nobody_but_the_living() {
    let (ttl, zero) = (6, Instant::now());
    let election = Duration::from_secs(16);
    let stop = Duration::from_secs(12);
    // Its news may lag behind what it did.
    for (alive, lag) in [(false, 0), (true, 0), (false, 300), (true, 300)] {
        let mut lease = Lease::kept(ttl, stop, &[0]);
        lease.renewed.push(election);
        let on = election + ms(500);
        if alive {
            let more = (0..6).map(|n| on + Duration::from_secs(2) * n);
            lease.renewed.extend(more);
        }
        let mut run = Run::new(zero, 50);
        run.election = Some(election + ms(lag));
        run.judge.track(&member("a/1", 7, None), zero, 0.3);
        let trips = [Trip { there: 3, back: 3 }];
        let doubts = run.until(election + Duration::from_secs(6), &[0.4], &trips, |_| {
            &lease
        });
        let told: Vec<_> = doubts.iter().map(|(_, d)| d.evidence.is_some()).collect();
        match alive {
            true => assert_eq!(told, [true, false]),
            false => assert_eq!(told, [true]),
        }
    }
}

/// A leader that stood still and was voted out may, once it goes on, end leases that the election
/// has renewed.
#[test]
fn g6_who_is_thrown_out_after_an_election_has_not_left() {
    let zero = Instant::now();
    let mut judge = Judge::new(Check::All, 50, None, zero);
    let silent = member("go/1", 7, None);
    judge.track(&silent, zero, 0.0);
    for (at, term, ended) in [
        (1, 2, Ended::Early),
        (10_000, 3, Ended::Unclear),
        (13_000, 3, Ended::Unclear),
        (69_000, 3, Ended::Unclear),
        // By now it would have come.
        (71_000, 3, Ended::Early),
    ] {
        let sent = zero + ms(at);
        judge.shown(7, left(5, term, 1), sent, sent + ms(2), 0.0);
        let finding = judge.finding(&silent, GONE, sent + ms(900));
        assert_eq!(finding, Finding::Seen(ended), "at {at} ms");
    }
}

/// A leader that has just lost its lead says that every lease has all the time there is, and may
/// still end those that had run out by its own clock. Of the new term it knows nothing.
#[test]
fn g6_the_word_of_a_lost_leader_proves_nothing() {
    let zero = Instant::now();
    let for_ever = found(9_223_372_036, 2, true, 1);
    // The first word ever, or after a look at who has missed its renewals.
    for before in [None, Some(left(0, 2, 1))] {
        let mut judge = Judge::new(Check::All, 50, None, zero);
        let late = member("go/1", 7, None);
        judge.track(&late, zero, 0.0);
        let mut look =
            |shown, at: u64| judge.shown(7, shown, zero + ms(at), zero + ms(at + 2), 0.0);
        if let Some(shown) = before {
            look(shown, 1);
            assert_eq!(look(shown, 2_500).len(), 1, "suspected");
        }
        for at in [4_600, 5_200, 5_900] {
            assert_eq!(look(for_ever, at).len(), 0, "no sign of life");
        }
        assert_eq!(judge.suspicion(7, "go/1").is_some(), before.is_some());
        let finding = judge.finding(&late, GONE, zero + ms(6_500));
        assert_eq!(finding, Finding::Seen(Ended::Unclear), "{before:?}");
    }
}

/// An election, or an outage that may hide one, gives the whole time also to who had little left:
/// what was seen before does not prove that it ran out.
#[test]
fn g6_who_was_late_before_an_election_has_not_run_out() {
    let zero = Instant::now();
    let at = |millis| (zero + ms(millis), zero + ms(millis + 2));
    for (between, then, ended) in [
        (left(4, 2, 1), None, Ended::RanOut),
        // A node that lags.
        (left(4, 1, 1), None, Ended::RanOut),
        (Shown::Nothing, None, Ended::Unclear),
        (left(4, 3, 1), None, Ended::Unclear),
        // Restored from a backup.
        (left(4, 2, 5), None, Ended::Unclear),
        // Looked at once more.
        (Shown::Nothing, Some(left(0, 2, 1)), Ended::RanOut),
        (left(4, 3, 1), Some(left(0, 3, 1)), Ended::RanOut),
        (left(4, 3, 1), Some(left(4, 3, 1)), Ended::Unclear),
    ] {
        let (mut judge, late) = two(zero);
        let mut look = |lease, shown, (sent, answered)| {
            judge.shown(lease, shown, sent, answered, 0.0);
        };
        look(7, left(4, 2, 1), at(0));
        look(7, left(0, 2, 1), at(4500));
        look(8, between, at(4600));
        if let Some(shown) = then {
            look(7, shown, at(4700));
        }
        let finding = judge.finding(&late, GONE, zero + ms(5800));
        assert_eq!(finding, Finding::Seen(ended), "{between:?}, {then:?}");
    }
}

/// News can come late: a lease that is still there after its key was gone, and then runs out, did
/// not take it with it.
#[test]
fn g6_who_was_gone_before_its_lease_was_looked_at_did_not_run_out_with_it() {
    let zero = Instant::now();
    let at = |millis| (zero + ms(millis), zero + ms(millis + 2));
    let of = |shown, revision| match shown {
        Shown::Lease(found) => Shown::Lease(TimeToLive { revision, ..found }),
        other => other,
    };
    // Where etcd was before the last look, and when it was asked for that, if it was; where it was
    // at the look; where the key went.
    for (before, then, gone, ended) in [
        (Some((20, 4400)), 21, 20, Ended::Unclear),
        (Some((20, 4400)), 20, 20, Ended::Unclear),
        // Unless it was asked just before, all that is known is what the look itself says.
        (None, 21, 21, Ended::Unclear),
        (None, 21, 22, Ended::RanOut),
        (Some((20, 3900)), 21, 21, Ended::Unclear),
        // While it was looked at, or after it.
        (Some((20, 4400)), 21, 21, Ended::RanOut),
        (Some((20, 4400)), 20, 21, Ended::RanOut),
        // A node that lags.
        (Some((20, 4400)), 19, 20, Ended::RanOut),
    ] {
        let (mut judge, late) = two(zero);
        let mut look = |lease, shown, (sent, answered)| {
            judge.shown(lease, shown, sent, answered, 0.0);
        };
        look(7, of(left(4, 2, 1), 10), at(0));
        if let Some((before, asked)) = before {
            let shown = of(left(4, 2, 1), before);
            look(8, shown, (zero + ms(asked), zero + ms(4402)));
        }
        look(7, of(left(0, 2, 1), then), at(4500));
        let finding = judge.finding(&late, gone, zero + ms(5800));
        assert_eq!(finding, Finding::Seen(ended), "{before:?}, {then}, {gone}");
    }
}

/// The watch has found another etcd before any look did.
#[test]
fn g6_who_was_late_in_another_etcd_has_not_run_out() {
    let zero = Instant::now();
    let at = |millis| zero + ms(millis);
    for (what, ended) in [
        (None, Ended::RanOut),
        (Some((1, Why::Behind)), Ended::RanOut),
        (Some((5, Why::ClusterChanged)), Ended::Unclear),
        // Of the same id, and maybe another.
        (Some((1, Why::WentBack)), Ended::Unclear),
        (Some((1, Why::LostEvents)), Ended::Unclear),
    ] {
        let mut judge = Judge::new(Check::All, 50, None, zero);
        let late = member("go/1", 7, None);
        judge.track(&late, zero, 0.0);
        for (seconds, millis) in [(4, 0), (0, 4500)] {
            judge.shown(7, left(seconds, 2, 1), at(millis), at(millis + 2), 0.0);
        }
        if let Some((cluster, why)) = what {
            judge.listed(cluster, why, at(4600));
        }
        let finding = judge.finding(&late, GONE, at(5800));
        assert_eq!(finding, Finding::Seen(ended), "{what:?}");
    }
}
