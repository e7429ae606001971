//! How long losses wait for others, and which of them are a mass.

use super::*;

/// Eight members of Headcount.
fn eight() -> World {
    let mut world = World::new(HOLD);
    for n in 0..NAMES {
        world.step(&Step::Put(n, 1)).unwrap();
    }
    world.events.clear();
    world
}

/// However many follow, as long as they are no mass.
#[test]
fn who_vanishes_alone_waits_no_longer_for_others_that_do() {
    let mut world = eight();
    for n in 0..3 {
        world.step(&Step::Silent(n, 4)).unwrap();
        world.step(&Step::Pass(500)).unwrap();
        assert_eq!(world.events.len(), usize::from(n), "{:?}", lines(&world));
    }
    world.step(&Step::Pass(100)).unwrap();
    assert_eq!(world.events.len(), 3);
    // They are no part of what comes later.
    world.step(&Step::Pass(500)).unwrap();
    for n in 3..6 {
        world.step(&Step::Silent(n, 4)).unwrap();
    }
    world.step(&Step::Pass(600)).unwrap();
    assert!(!world.told.mass, "{:?}", lines(&world));
}

/// One each so many milliseconds, until it is a mass: five of eight.
#[test]
fn g3_a_mass_that_takes_its_time_is_one() {
    for (every, before) in [(0, 0), (140, 0), (200, 2), (599, 3)] {
        let mut world = eight();
        for n in 0..5 {
            world.step(&Step::Pass(every)).unwrap();
            world.step(&Step::Silent(n, 4)).unwrap();
        }
        let told = lines(&world);
        assert_eq!(told.len(), before + 1, "{every} ms: {told:?}");
        assert_eq!(told[before], format!("MassLoss ({} held)", 5 - before));
        // Who waits is held for the whole time, and no longer.
        world.step(&Step::Put(4, 1)).unwrap();
        assert_eq!(world.events[before + 1].name(), "UpdateMember");
        world.step(&Step::Pass(HOLD.as_millis() as u64)).unwrap();
        assert_eq!(world.events.len(), 5 + 1);
    }
}

/// However long it goes on: a run of losses is no longer than the hold.
#[test]
fn losses_that_never_end_are_told_one_by_one() {
    let mut delay = Delay::new(
        VERDICT,
        MassLoss {
            share: 0.5,
            hold: HOLD,
        },
    );
    let (zero, mut due, mut told) = (Instant::now(), Vec::new(), 0);
    for n in 0..100u8 {
        let scene = |now| Scene {
            now,
            members: 100,
            overdue: 0,
        };
        let now = zero + ms(500) * u32::from(n);
        let event = Event::ServerDown {
            member: member(n, 1, 1, Some(1)),
            cause: DownCause::Unknown,
            revision: 2,
        };
        let silence = Silence {
            finding: Finding::Unwatched,
            suspect: None,
        };
        let mut out = Vec::new();
        while let Some(at) = delay.deadline().filter(|at| *at <= now) {
            delay.tick(&scene(at), &mut out);
            due.push(at);
        }
        delay.take(event, Some(silence), &scene(now), &mut out);
        assert!(out.iter().all(Event::is_departure), "{out:?}");
        told += out.len();
    }
    let each = (0..98).map(|n| zero + ms(500) * n + GATHER);
    assert_eq!((told, due), (98, each.collect()));
}
