//! Leases of a model etcd, looked at by a fake clock: what may be said of them, and what not.

mod elections;
mod model;
mod suspicion;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::model::{Lease, Run, Trip, look, trips, wrong};
use super::judge::{Judge, Next, Shown};
use super::verdict::{Answer, Finding, verdict};
use super::window::{Ended, Window, least};
use crate::etcd::TimeToLive;
use crate::member::{Document, Member};
use crate::settings::Check;

/// The revision of a DELETE that comes after all that is looked at.
const GONE: i64 = 9;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn member(name: &str, lease: i64, token: Option<&str>) -> Member {
    let document = Document {
        instance: token.map(Into::into),
        ..Document::default()
    };
    Member::new(name, document, 1, 1, lease)
}

/// A failure prints its input; nothing is written beside the source.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    /// Whatever is renewed when, and looked at when: the window holds the truth.
    #[test]
    fn g6_the_window_holds_the_end_of_the_lease(
        ttl in 2..61u64,
        late in prop::collection::vec(0..3000u64, 1..4),
        gaps in prop::collection::vec(50..9000u64, 1..40),
        trips in trips(),
    ) {
        let lease = Lease::kept(ttl, Duration::from_secs(400), &late);
        let zero = Instant::now();
        let (mut at, mut window) = (Duration::ZERO, None::<Window>);
        for (n, gap) in gaps.iter().enumerate() {
            at += ms(*gap);
            // Late renewals may come when the lease is gone already.
            if lease.renewed.windows(2).any(|two| two[1] - two[0] > lease.granted) {
                break;
            }
            let seen = look(&lease, zero, at, trips[n % trips.len()]);
            match &mut window {
                Some(window) => window.look(seen),
                none => *none = Some(Window::new(seen)),
            }
            let window = window.as_ref().unwrap();
            prop_assert_eq!(wrong(window, &lease, zero), None);
            prop_assert!(window.due(0.5) > seen.answered);
        }
    }

    /// A leave, looked at as often as planned, is never taken for the end of the lease; a crash
    /// never for a leave, and if it was looked at as planned, it is known.
    #[test]
    fn g6_a_leave_and_a_crash_are_never_confused(
        ttl in 3..61u64,
        late in prop::collection::vec(0..500u64, 1..4),
        stop in 1.0..4.0f64,
        crash in any::<bool>(),
        ending in 0..900u64,
        trips in trips(),
        fractions in prop::collection::vec(0.0..1.0f64, 1..9),
    ) {
        let until = Duration::from_secs(ttl).mul_f64(stop);
        let lease = Lease::kept(ttl, until, &late);
        let end = match crash {
            true => lease.end(until) + ms(ending),
            false => until,
        };
        let zero = Instant::now();
        let mut window = Window::new(look(&lease, zero, ms(100), trips[0]));
        for n in 1.. {
            let fraction = fractions[n % fractions.len()];
            let at = window.due(fraction).duration_since(zero);
            let trip = trips[n % trips.len()];
            if at + ms(trip.there + trip.back) >= end.min(lease.end(until)) {
                break;
            }
            window.look(look(&lease, zero, at, trip));
        }
        let ended = window.ended(zero + end);
        prop_assert_eq!(ended, match crash {
            true => Ended::RanOut,
            false => Ended::Early,
        }, "{:?}", window);
    }

    /// Who goes on in the last moment before its lease runs out, and then leaves, did not crash.
    #[test]
    fn g6_who_goes_on_in_the_last_moment_may_still_leave(
        ttl in 3..61u64,
        stop in 1.0..4.0f64,
        before in 50..1500u64,
        after in 700..6000u64,
        trips in trips(),
        fractions in prop::collection::vec(0.0..1.0f64, 1..9),
    ) {
        let until = Duration::from_secs(ttl).mul_f64(stop);
        let mut lease = Lease::kept(ttl, until, &[0]);
        let on = lease.end(until) - ms(before);
        lease.renewed.push(on);
        let end = on + ms(after).min(lease.granted / 3);
        let zero = Instant::now();
        let mut window = Window::new(look(&lease, zero, ms(100), trips[0]));
        for n in 1.. {
            let at = window.due(fractions[n % fractions.len()]).duration_since(zero);
            let trip = trips[n % trips.len()];
            if at + ms(trip.there + trip.back) >= end {
                break;
            }
            window.look(look(&lease, zero, at, trip));
        }
        prop_assert_eq!(window.ended(zero + end), Ended::Early, "{:?}", window);
    }

    /// However seldom it is looked at: rather unclear than wrong.
    #[test]
    fn g6_a_stale_look_is_unclear_not_wrong(
        ttl in 3..61u64,
        late in prop::collection::vec(0..500u64, 1..4),
        looks in prop::collection::vec(0.0..1.0f64, 1..5),
        stop in 1.0..4.0f64,
        crash in any::<bool>(),
        ending in 0..900u64,
        trip in trips(),
    ) {
        let until = Duration::from_secs(ttl).mul_f64(stop);
        let lease = Lease::kept(ttl, until, &late);
        let gone = lease.end(until);
        let end = if crash { gone + ms(ending) } else { until };
        let zero = Instant::now();
        let mut looks: Vec<_> = looks.iter().map(|l| end.min(gone).mul_f64(*l)).collect();
        looks.sort();
        let mut window = None::<Window>;
        for at in looks {
            let seen = look(&lease, zero, at, trip[0]);
            match &mut window {
                Some(window) => window.look(seen),
                none => *none = Some(Window::new(seen)),
            }
        }
        match window.unwrap().ended(zero + end) {
            Ended::Early => prop_assert!(!crash),
            Ended::RanOut => prop_assert!(crash),
            Ended::Unclear => {}
        }
    }

    /// G6: nobody is suspected while etcd does not answer, nor right after, nor if we were late.
    #[test]
    fn g6_nobody_is_suspected_for_our_troubles(
        ttl in 3..61u64,
        from in 0.5..3.0f64,
        outage in 0.1..3.0f64,
        late in any::<bool>(),
        trips in trips(),
        fractions in prop::collection::vec(0.0..1.0f64, 1..9),
    ) {
        let granted = Duration::from_secs(ttl);
        let from = granted.mul_f64(from);
        // Long enough to be noticed: a look falls into it.
        let to = from + granted.mul_f64(outage) + granted / 10 + ms(1500);
        // Owners can't renew either; etcd gives everybody a third after it is back.
        let mut lease = Lease::kept(ttl, from, &[0]);
        let back = to + granted / 4;
        lease.renewed.push(back);
        lease.renewed.push(back + granted / 3);
        let zero = Instant::now();
        let mut run = Run::new(zero, 50);
        run.judge.track(&member("a/1", 7, None), zero, 0.3);
        run.outage = Some((from, to, late));
        let end = to + granted / 3;
        let doubts = run.until(end, &fractions, &trips, |_| &lease);
        let soon = |at: Duration| at >= from + LATEST;
        prop_assert!(!doubts.iter().any(|(at, _)| soon(*at)), "{:?} in {:?}..{:?}", doubts, from, to);
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// As many as the default rate is said to do for, of mixed TTLs, a third of which run out at much
    /// the same time while others leave: each end is known, and rightly.
    #[test]
    fn g6_at_the_default_rate_every_end_is_known(
        lives in prop::collection::vec((3..11u64, 0.0..1.0f64), 100),
        fractions in prop::collection::vec(0.0..1.0f64, 1..9),
    ) {
        let mut run = Run::new(Instant::now(), 50);
        let (mut leases, mut ends) = (Vec::new(), Vec::new());
        for (n, (ttl, life)) in lives.iter().enumerate() {
            let crash = n % 3 == 0;
            let until = match crash {
                true => Duration::from_secs(15 - ttl) + Duration::from_secs(2).mul_f64(*life),
                false => ms(3000) + Duration::from_secs(20).mul_f64(*life),
            };
            let lease = Lease::kept(*ttl, until, &[150, 400]);
            ends.push((if crash { lease.end(until) + ms(300) } else { until }, n, crash));
            leases.push(lease);
            run.judge.track(&member(&format!("a/{n}"), n as i64 + 1, None), run.zero, 0.0);
        }
        ends.sort();
        for (end, n, crash) in ends {
            let trips = [Trip { there: 1, back: 1 }];
            run.until(end, &fractions, &trips, |lease| &leases[lease as usize - 1]);
            let name = format!("a/{n}");
            let found = run.judge.finding(&member(&name, n as i64 + 1, None), GONE, run.zero + end);
            let right = if crash { Ended::RanOut } else { Ended::Early };
            prop_assert_eq!(found, Finding::Seen(right), "{} {:?} of {:?}", n, end, lives[n]);
            run.judge.untrack(n as i64 + 1, &name);
        }
    }

    /// At whatever load: never faster than the rate, nobody is forgotten, and what can be told in
    /// time is.
    #[test]
    fn the_round_keeps_to_its_rate_and_forgets_nobody(
        members in 1..300usize,
        rate in 1..200u32,
        ttl in 2..61u64,
        fractions in prop::collection::vec(0.0..1.0f64, 1..9),
    ) {
        let span = Duration::from_secs(30);
        let lease = Lease::kept(ttl, span * 9, &[0]);
        let zero = Instant::now();
        let mut run = Run::new(zero, rate);
        for n in 0..members {
            run.judge.track(&member(&format!("a/{n}"), n as i64 + 1, None), zero, 0.0);
        }
        let trip = [Trip { there: 0, back: 1 }];
        run.until(span, &fractions, &trip, |_| &lease);
        let most = (span.as_secs() as u32 + 1) * rate + 1;
        prop_assert!(run.looks.len() as u32 <= most, "{}", run.looks.len());
        let mut seen = vec![0usize; members];
        for (_, lease) in &run.looks {
            seen[*lease as usize - 1] += 1;
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        // All are alike: where the rate is too low for all, nobody is looked at much less often.
        prop_assert!(*most <= 5 * *least + 3, "{seen:?}");
        let possible = (rate as u64 * span.as_secs()) as usize;
        prop_assert!(*least > 0 || possible < 2 * members, "{seen:?}");
    }
}

/// Before an outage is noticed, a look that was answered may still tell something.
const LATEST: Duration = Duration::from_millis(200);

/// The checks above are only worth something if they can fail.
#[test]
fn the_checker_catches_windows_that_lie() {
    let zero = Instant::now();
    let lease = Lease::kept(6, ms(100_000), &[0]);
    let trip = Trip { there: 5, back: 5 };
    let honest = Window::new(look(&lease, zero, ms(700), trip));
    assert_eq!(wrong(&honest, &lease, zero), None);
    let mut late = honest;
    late.earliest += ms(1000);
    assert!(wrong(&late, &lease, zero).is_some(), "seconds rounded up");
    let mut soon = honest;
    soon.latest -= ms(1000);
    assert!(wrong(&soon, &lease, zero).is_some(), "no granularity");
    // Narrowing across a renewal without asking whether there was one.
    let second = look(&lease, zero, ms(2900), trip);
    let mut careless = honest;
    careless.latest = careless
        .latest
        .min(second.answered + second.remaining + ms(1000));
    careless.last = second;
    assert!(wrong(&careless, &lease, zero).is_some(), "a renewal missed");
    let mut careful = honest;
    careful.look(second);
    assert_eq!(wrong(&careful, &lease, zero), None);
}

/// Who was late when last looked at may since have renewed, and left: a look has to be near.
#[test]
fn g6_a_late_owner_that_nobody_looks_at_proves_nothing() {
    let zero = Instant::now();
    let seen = |sent: u64, remaining: u64| {
        let found = TimeToLive {
            remaining: Duration::from_secs(remaining),
            granted: Duration::from_secs(10),
            term: 1,
            by_election: false,
            cluster: 1,
            revision: 1,
        };
        let sent = zero + ms(sent);
        super::window::Observation::new(found, 0, sent, sent + ms(2))
    };
    let mut window = Window::new(seen(1000, 4));
    assert!(window.is_overdue());
    assert_eq!(window.ended(zero + ms(4900)), Ended::Early);
    assert_eq!(window.ended(zero + ms(5500)), Ended::Unclear);
    // Nor for good where it was renewed since.
    window.look(seen(4600, 0));
    assert_eq!(window.ended(zero + ms(5500)), Ended::RanOut);
    window.look(seen(4900, 9));
    assert_eq!(window.ended(zero + ms(7900)), Ended::Early);
}

#[test]
fn what_a_renewal_each_third_allows() {
    for (ttl, left) in [(2, 733), (3, 1400), (6, 3400), (10, 5833), (60, 35_000)] {
        assert_eq!(least(Duration::from_secs(ttl)).as_millis(), left, "{ttl}");
    }
}

#[test]
fn g6_only_what_was_proven_is_told() {
    use Answer::{Alive, Gone, None as No};
    let early = Finding::Seen(Ended::Early);
    let unclear = Finding::Seen(Ended::Unclear);
    let ran_out = Finding::Seen(Ended::RanOut);
    for (finding, answer, go, ours) in [
        (
            early,
            Gone,
            "RemoveMember (revoked)",
            "ServerDown (unknown)",
        ),
        (
            early,
            Alive,
            "RemoveMember (deregistered)",
            "RemoveMember (deregistered)",
        ),
        (
            early,
            No,
            "RemoveMember (deregistered)",
            "ServerDown (unknown)",
        ),
        (
            ran_out,
            No,
            "ServerDown (lease-expired)",
            "ServerDown (lease-expired)",
        ),
        (
            unclear,
            Alive,
            "RemoveMember (deregistered)",
            "RemoveMember (deregistered)",
        ),
        (
            unclear,
            Gone,
            "ServerDown (unknown)",
            "ServerDown (unknown)",
        ),
        (unclear, No, "ServerDown (unknown)", "ServerDown (unknown)"),
        (
            Finding::Unseen,
            Alive,
            "RemoveMember (deregistered)",
            "RemoveMember (deregistered)",
        ),
        (
            Finding::Unseen,
            Gone,
            "ServerDown (unknown)",
            "ServerDown (unknown)",
        ),
        (
            Finding::Unwatched,
            No,
            "ServerDown (unknown)",
            "ServerDown (unknown)",
        ),
    ] {
        for (token, told) in [(None, go), (Some("t"), ours)] {
            let event = verdict(member("a/1", 7, token).into(), 9, finding, answer);
            let text = event.to_string().replace(" a/1@1", "");
            assert_eq!(text, told, "{finding:?}, {answer:?}, {token:?}");
        }
    }
}

#[test]
fn whom_to_check() {
    let now = Instant::now();
    for (whom, go, ours) in [
        (Check::All, true, true),
        (Check::Silent, true, false),
        (Check::Nobody, false, false),
    ] {
        for (token, checked) in [(None, go), (Some("t"), ours)] {
            let mut judge = Judge::new(whom, 50, Some("me/1".into()), now);
            let other = member("a/1", 7, token);
            judge.track(&other, now, 0.0);
            judge.track(&member("me/1", 8, token), now, 0.0);
            judge.track(&member("a/2", 0, token), now, 0.0);
            assert_eq!(judge.counts(now).0, usize::from(checked), "{whom:?}");
            let unseen = judge.finding(&other, GONE, now) == Finding::Unseen;
            assert_eq!(unseen, checked);
        }
    }
}

/// Several members on one lease; a lease that was found gone before the watch told of it.
#[test]
fn leases_that_are_shared_and_leases_that_go_unheard() {
    let zero = Instant::now();
    let mut judge = Judge::new(Check::All, 50, None, zero);
    let (one, two) = (member("a/1", 7, None), member("a/2", 7, None));
    judge.track(&one, zero, 0.0);
    judge.track(&two, zero, 0.0);
    let found = TimeToLive {
        remaining: Duration::from_secs(5),
        granted: Duration::from_secs(6),
        term: 2,
        by_election: false,
        cluster: 1,
        revision: 1,
    };
    assert_eq!(judge.next(zero + ms(1)), Next::Look(7));
    judge.shown(7, Shown::Lease(found), zero + ms(1), zero + ms(2), 0.0);
    judge.untrack(7, "a/1");
    let early = Finding::Seen(Ended::Early);
    assert_eq!(judge.finding(&two, GONE, zero + ms(900)), early);
    judge.shown(
        7,
        Shown::Gone { cluster: 1 },
        zero + ms(1000),
        zero + ms(1001),
        0.0,
    );
    assert_eq!(
        judge.finding(&two, GONE, zero + ms(60_000)),
        early,
        "it was gone long before"
    );
    judge.untrack(7, "a/2");
    assert_eq!(judge.next(zero + ms(90_000)), Next::Wait(None));
    assert_eq!(judge.finding(&two, GONE, zero), Finding::Unseen);
}
