//! Departures that wait for what etcd says of the lease.

use super::*;

/// One member's question holds up no other's events, and its own wait behind it.
#[test]
fn g3_only_the_members_own_events_wait_for_the_answer() {
    let mut world = World::new(HOLD);
    world.step(&Step::Put(0, 0)).unwrap();
    world.step(&Step::Put(1, 0)).unwrap();
    world.step(&Step::Silent(0, 1)).unwrap();
    world.step(&Step::Put(0, 0)).unwrap();
    world.step(&Step::Put(1, 0)).unwrap();
    let names: Vec<_> = world.events.iter().map(|e| e.name()).collect();
    assert_eq!(names, ["AddMember", "AddMember", "UpdateMember"]);
    world.step(&Step::Answer(1)).unwrap();
    let told = lines(&world);
    assert!(told[3].ends_with("(revoked)") && told[4].starts_with("AddMember t/0@"));
    // Alive once is not enough: it may be about to be revoked. Then it is.
    world.step(&Step::Silent(0, 1)).unwrap();
    world.step(&Step::Answer(0)).unwrap();
    assert_eq!(world.events.len(), 5);
    assert_eq!(world.delay.question(world.now).1, Some(world.now + ms(150)));
    world.step(&Step::Pass(150)).unwrap();
    world.step(&Step::Answer(0)).unwrap();
    assert!(lines(&world)[5].ends_with("(deregistered)"));
    // No answer: the wait is bounded.
    world.step(&Step::Silent(1, 3)).unwrap();
    world.step(&Step::Pass(200)).unwrap();
    assert!(lines(&world)[6].ends_with("(unknown)"));
}

/// A leader that has not heard of the end can't say what came of the lease: it is asked again.
#[test]
fn g6_who_is_behind_knows_nothing() {
    for (n, (then, told)) in [(0, "(deregistered)"), (1, "(unknown)"), (3, "(unknown)")]
        .into_iter()
        .enumerate()
    {
        let mut world = World::new(HOLD);
        world.step(&Step::Put(0, 0)).unwrap();
        world.step(&Step::Silent(0, 2)).unwrap();
        for _ in 0..3 {
            world.step(&Step::Answer(3)).unwrap();
            assert_eq!(world.events.len(), 1, "{n}");
            world.step(&Step::Pass(25)).unwrap();
        }
        for _ in 0..2 {
            world.step(&Step::Answer(then)).unwrap();
            world.step(&Step::Pass(75)).unwrap();
        }
        world.step(&Step::Pass(200)).unwrap();
        assert!(lines(&world)[1].ends_with(told), "{:?}", lines(&world));
    }
}

/// The lease of a key that is put back on it lived on, also if it has run out by the time that etcd
/// is asked, or if nobody answers.
#[test]
fn g6_who_is_put_back_on_the_same_lease_had_not_lost_it() {
    let on = |life, lease| Arc::new(Member::new("t/0", Document::default(), life, life, lease));
    for (lease, answer, told) in [
        (7, Some(Answer::Gone), "(deregistered)"),
        (7, Some(Answer::Behind), "(deregistered)"),
        (7, None, "(deregistered)"),
        (8, Some(Answer::Gone), "(unknown)"),
        (8, None, "(unknown)"),
    ] {
        let mut world = World::new(HOLD);
        let (mut out, scene) = (Vec::new(), world.scene());
        let gone = Event::ServerDown {
            member: on(1, 7),
            cause: DownCause::Unknown,
            revision: 2,
        };
        let silence = Silence {
            finding: finding(2),
            suspect: None,
        };
        world.delay.take(gone, Some(silence), &scene, &mut out);
        let back = Event::AddMember(on(3, lease));
        world.delay.take(back, None, &scene, &mut out);
        let question = world.delay.question(scene.now).0.expect("it is asked");
        assert_eq!(out.len(), 0);
        if let Some(answer) = answer {
            world
                .delay
                .answered(question.ticket, answer, &scene, &mut out);
        }
        world.delay.drain(&scene, &mut out);
        let line = out[0].to_string();
        assert!(line.contains(told), "on {lease}, {answer:?}: {line}");
        assert!(matches!(out[1], Event::AddMember(_)));
    }
}
