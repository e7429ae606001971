//! When whose lease is not renewed is suspected, and cleared.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::model::{Lease, Run, Trip, trips};
use super::{cases, member, ms};

proptest! {
    #![proptest_config(cases(1000))]

    /// Owners that renew in time, half a second late at most, are never suspected; one that stops is
    /// before half its time has passed, and is cleared when it goes on.
    #[test]
    fn it_comes_in_time_and_to_nobody_else(
        ttl in 6..61u64,
        late in prop::collection::vec(0..500u64, 1..4),
        stop in 1.0..4.0f64,
        trips in trips(),
        fractions in prop::collection::vec(0.0..1.0f64, 1..9),
    ) {
        told_and_cleared_in_time(ttl, &late, stop, &trips, &fractions)?;
    }
}

/// It stops at `stop` times its TTL, and goes on when half of the TTL has passed.
fn told_and_cleared_in_time(
    ttl: u64,
    late: &[u64],
    stop: f64,
    trips: &[Trip],
    fractions: &[f64],
) -> Result<(), TestCaseError> {
    let until = Duration::from_secs(ttl).mul_f64(stop);
    let mut lease = Lease::kept(ttl, until, late);
    let half = until + lease.granted / 2;
    let on = half + ms(300);
    lease.renewed.push(on);
    let zero = Instant::now();
    let mut run = Run::new(zero, 50);
    run.judge.track(&member("a/1", 7, None), zero, 0.3);
    // Two gaps to the next look, one more look to be sure, and the way there and back.
    let clear = on + lease.granted / 5 + ms(500 + 400);
    let doubts = run.until(clear, fractions, trips, |_| &lease);
    let at: Vec<_> = doubts
        .iter()
        .map(|(at, doubt)| (*at, doubt.evidence.is_some()))
        .collect();
    prop_assert_eq!(at.len(), 2, "{:?} until {:?}", &doubts, until);
    // The question that tells it is asked before half of the time has passed.
    let told = half + ms(120);
    prop_assert!(
        at[0].1 && at[0].0 > until && at[0].0 < told,
        "{:?}, stopped {:?}",
        &at,
        until
    );
    prop_assert!(!at[1].1 && at[1].0 >= on, "{:?}, on {:?}", &at, on);
    Ok(())
}

/// Looks at one distance fell on the same parts of a second, and the shortest TTL has no time to
/// make good for it.
#[test]
fn it_comes_in_time_where_every_look_takes_as_long() {
    let fractions = [
        0.6318164712966694,
        0.0,
        0.4957825524351812,
        0.0,
        0.5920050887550348,
        0.0,
    ];
    let trip = Trip {
        there: 47,
        back: 59,
    };
    let stop = 3.02534732151287;
    told_and_cleared_in_time(6, &[313, 127, 382], stop, &[trip], &fractions).unwrap();
}
