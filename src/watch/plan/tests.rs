//! What follows from what, moment by moment.

use super::*;

fn of_three_endpoints(zero: Instant) -> Plan {
    let ms = Duration::from_millis;
    let timing = Timing {
        stall_bound: ms(10_000),
        connect_timeout: ms(1000),
        request_timeout: ms(5000),
        reconcile_interval: ms(60_000),
        endpoints: 3,
    };
    let random = Random::seeded(1);
    let backoff = Backoff::new((ms(100), ms(5000)), random.clone());
    Plan::new(timing, backoff, random, zero)
}

/// Each try at a hanging endpoint may take its whole bound, so the last one has to begin early
/// enough.
#[test]
fn g9_the_last_of_several_tries_ends_within_the_bound() {
    let (zero, ms) = (Instant::now(), Duration::from_millis);
    let mut plan = of_three_endpoints(zero);
    let hung = || {
        let reason = "hung".into();
        Failure::Elsewhere(Error::Protocol { reason })
    };
    assert!(plan.listed(Ok(1), zero).confirmed);
    plan.step(1, zero);
    assert!(plan.created(1, 1, zero).confirmed);
    let mut now = zero + ms(7000);
    let mut reaction = plan.broke(hung(), now);
    while !reaction.failed.expect("it failed").lost {
        now += reaction.over.expect("it is over");
        let Step::Watch(open) = plan.step(1, now) else {
            panic!("it goes on watching");
        };
        now += open.connect + open.answer;
        reaction = plan.unopened(hung(), now);
    }
    assert!(now <= zero + ms(10_000), "{:?}", now - zero);
    // The same of a listing, which tries all endpoints itself.
    plan.created(1, 1, zero);
    plan.anew(Why::Compacted, zero);
    let lost = plan.listed(Err(hung()), zero + ms(5001));
    assert!(lost.failed.is_some_and(|failed| failed.lost));
}

/// A listing that is to tell whether etcd is another goes on to say so, whatever it meets.
#[test]
fn g6_a_doubt_outlives_a_compaction() {
    let zero = Instant::now();
    for (met, then) in [
        (Why::WentBack, Why::WentBack),
        (Why::LostEvents, Why::LostEvents),
        (Why::Behind, Why::Compacted),
    ] {
        let mut plan = of_three_endpoints(zero);
        plan.listed(Ok(1), zero);
        plan.anew(met, zero);
        plan.listed(Err(Failure::NoSuchRevision), zero);
        assert_eq!(plan.step(1, zero), Step::List(then));
    }
}
