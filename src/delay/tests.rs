//! Any history of a few members through the delay, by a fake clock.

mod losses;
mod questions;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::delay::hold::GATHER;
use crate::event::{DownCause, RemoveReason};
use crate::heartbeat::Finding;
use crate::member::Document;

const VERDICT: Duration = Duration::from_millis(200);
const HOLD: Duration = Duration::from_secs(5);
const NAMES: u8 = 8;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn member(name: u8, life: i64, revision: i64, token: Option<u8>) -> Arc<Member> {
    let document = Document {
        instance: token.map(|t| format!("{name}-{t}").into()),
        metadata: [("r", revision.to_string())].into_iter().collect(),
        ..Document::default()
    };
    Arc::new(Member::new(
        &format!("t/{name}"),
        document,
        life,
        revision,
        life,
    ))
}

fn finding(n: u8) -> Finding {
    use crate::heartbeat::Ended::{Early, RanOut, Unclear};
    [
        Finding::Seen(RanOut),
        Finding::Seen(Early),
        Finding::Seen(Unclear),
        Finding::Unseen,
        Finding::Unwatched,
    ][usize::from(n) % 5]
}

#[derive(Debug, Clone)]
enum Step {
    /// By this process of the name: 0 has no token.
    Put(u8, u8),
    Leave(u8),
    Silent(u8, u8),
    Doubt(u8),
    /// The lease of each of these is lost.
    Mass(u8, u8),
    Answer(u8),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..NAMES;
    let step = prop_oneof![
        6 => (name.clone(), 0..3u8).prop_map(|(n, t)| Step::Put(n, t)),
        1 => name.clone().prop_map(Step::Leave),
        4 => (name.clone(), 0..5u8).prop_map(|(n, f)| Step::Silent(n, f)),
        1 => name.clone().prop_map(Step::Doubt),
        1 => (name.clone(), 0..5u8).prop_map(|(n, f)| Step::Mass(n, f)),
        3 => any::<u8>().prop_map(Step::Answer),
        3 => (0..400u64).prop_map(Step::Pass),
        1 => (0..6000u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..80)
}

/// A listener that believes what it is told, and checks that it could; with the time at which each
/// departure happened, to see that none is held too long.
#[derive(Default)]
struct Told {
    view: BTreeMap<String, (i64, i64, Option<String>)>,
    last: BTreeMap<String, i64>,
    suspected: Vec<String>,
    mass: bool,
}

type Check = Result<(), String>;

impl Told {
    fn hear(&mut self, event: &Event) -> Check {
        let fail = |why: &str| Err(format!("{event}: {why}"));
        let Some(member) = event.member() else {
            self.mass |= matches!(event, Event::MassLoss { .. });
            return Ok(());
        };
        let name = member.name().to_owned();
        let token = member.instance().map(str::to_owned);
        let now = (member.incarnation(), member.revision(), token.clone());
        let known = self.view.get(&name).cloned();
        match event {
            Event::Suspect { .. } | Event::Cleared { .. } => {
                if known.is_none() {
                    return fail("of nobody");
                }
                let was = self.suspected.contains(&name);
                self.suspected.retain(|n| *n != name);
                if matches!(event, Event::Suspect { .. }) {
                    self.suspected.push(name);
                    return if was { fail("twice") } else { Ok(()) };
                }
                return if was { Ok(()) } else { fail("never suspected") };
            }
            Event::AddMember(_) if known.is_some() => return fail("G3: a second addition"),
            Event::UpdateMember { previous, .. } => {
                let before = (previous.incarnation(), previous.revision());
                let Some((life, revision, old)) = known else {
                    return fail("G3: an update of nobody");
                };
                if before != (life, revision) {
                    return fail("not from what was told");
                }
                if life != now.0 && (!self.mass || old.is_none() || old != token) {
                    return fail("G3: another incarnation, and no mass loss that it outlived");
                }
            }
            Event::RemoveMember { .. } | Event::ServerDown { .. } => {
                if known.map(|k| k.0) != Some(now.0) {
                    return fail("G3: a departure of what was not told");
                }
                self.view.remove(&name);
                self.suspected.retain(|n| *n != name);
            }
            _ => {}
        }
        let revision = event.revision().unwrap();
        if self.last.insert(name.clone(), revision) > Some(revision) {
            return fail("G2: a revision from before the last one");
        }
        if !event.is_departure() {
            self.view.insert(name, now);
        }
        Ok(())
    }
}

/// The roster's part, the clock, and the checks.
struct World {
    delay: Delay,
    hold: Duration,
    now: Instant,
    revision: i64,
    there: BTreeMap<u8, Arc<Member>>,
    suspected: Vec<u8>,
    told: Told,
    events: Vec<Event>,
    overdue: usize,
    /// Silent departures that were not told yet, and since when.
    open: BTreeMap<(String, i64), Instant>,
}

impl World {
    fn new(hold: Duration) -> Self {
        let mass_loss = MassLoss { share: 0.5, hold };
        World {
            delay: Delay::new(VERDICT, mass_loss),
            hold,
            now: Instant::now(),
            revision: 1,
            there: BTreeMap::new(),
            suspected: Vec::new(),
            told: Told::default(),
            events: Vec::new(),
            overdue: 0,
            open: BTreeMap::new(),
        }
    }

    fn scene(&self) -> Scene {
        Scene {
            now: self.now,
            members: self.told.view.len(),
            overdue: self.overdue,
        }
    }

    fn take(&mut self, event: Event, silence: Option<Silence>) -> Check {
        let mut out = Vec::new();
        let scene = self.scene();
        self.delay.take(event, silence, &scene, &mut out);
        self.hear(out)
    }

    fn hear(&mut self, out: Vec<Event>) -> Check {
        for event in out {
            self.told.hear(&event)?;
            if let Event::UpdateMember { previous: old, .. } = &event {
                self.open.remove(&(old.name().into(), old.incarnation()));
            }
            if event.is_departure() {
                let member = event.member().unwrap();
                self.open
                    .remove(&(member.name().into(), member.incarnation()));
            }
            self.events.push(event);
        }
        // G5: the view is what was told.
        let view = &self.told.view;
        for name in 0..NAMES {
            let full = format!("t/{name}");
            let kept = self.delay.get(&full).map(|(m, _)| m);
            let kept = kept.or_else(|| self.there.get(&name));
            let kept = kept.map(|m| (m.incarnation(), m.revision()));
            let told = view
                .get(&full)
                .map(|(life, revision, _)| (*life, *revision));
            if kept != told {
                return Err(format!("{full}: told {told:?}, but the view has {kept:?}"));
            }
        }
        // Bounded: nobody waits longer than the verdict and, if there was a mass, the hold may take.
        let gather = GATHER.min(self.hold);
        let slack = VERDICT + if self.told.mass { self.hold } else { gather };
        match self
            .open
            .iter()
            .find(|(_, since)| self.now > **since + slack)
        {
            Some((who, _)) => Err(format!("{who:?} is held too long")),
            None => Ok(()),
        }
    }

    fn silent(&mut self, name: u8, kind: u8) -> Check {
        let Some(old) = self.there.remove(&name) else {
            return Ok(());
        };
        let suspect = self.suspected.contains(&name).then(|| Evidence {
            remaining: ms(1),
            granted: ms(2),
            seen: self.now,
        });
        self.suspected.retain(|n| *n != name);
        self.open
            .insert((old.name().into(), old.incarnation()), self.now);
        let event = Event::ServerDown {
            member: old,
            cause: DownCause::Unknown,
            revision: self.revision,
        };
        let finding = finding(kind);
        self.take(event, Some(Silence { finding, suspect }))
    }

    fn step(&mut self, step: &Step) -> Check {
        self.revision += 1;
        match *step {
            Step::Put(name, token) => {
                let old = self.there.get(&name).cloned();
                let token = old.as_ref().map_or(Some(token).filter(|t| *t > 0), |old| {
                    old.instance()
                        .and_then(|t| t.rsplit('-').next()?.parse().ok())
                });
                let life = old.as_ref().map_or(self.revision, |old| old.incarnation());
                let member = member(name, life, self.revision, token);
                self.there.insert(name, Arc::clone(&member));
                self.take(
                    match old {
                        Some(previous) => Event::UpdateMember { member, previous },
                        None => Event::AddMember(member),
                    },
                    None,
                )
            }
            Step::Leave(name) => match self.there.remove(&name) {
                Some(member) => {
                    self.suspected.retain(|n| *n != name);
                    let (reason, revision) = (RemoveReason::Announced, self.revision);
                    let event = Event::RemoveMember {
                        member,
                        reason,
                        revision,
                    };
                    self.take(event, None)
                }
                None => Ok(()),
            },
            Step::Silent(name, kind) => self.silent(name, kind),
            Step::Mass(first, kind) => {
                for n in 0..NAMES {
                    self.revision += 1;
                    self.silent((first + n) % NAMES, kind)?;
                }
                Ok(())
            }
            Step::Doubt(name) => match self.there.get(&name).cloned() {
                // Nobody is doubted so soon after coming.
                Some(member) if self.delay.get(member.name()).is_none() => {
                    let was = self.suspected.contains(&name);
                    self.suspected.retain(|n| *n != name);
                    let event = match was {
                        true => Event::Cleared { member },
                        false => {
                            self.suspected.push(name);
                            let (remaining, granted) = (ms(1), ms(2));
                            let evidence = Evidence {
                                remaining,
                                granted,
                                seen: self.now,
                            };
                            Event::Suspect { member, evidence }
                        }
                    };
                    self.take(event, None)
                }
                _ => Ok(()),
            },
            Step::Answer(kind) => {
                let (Some(question), _) = self.delay.question(self.now) else {
                    return Ok(());
                };
                let kinds = [Answer::Alive, Answer::Gone, Answer::None, Answer::Behind];
                let answer = kinds[usize::from(kind) % 4];
                let (mut out, scene) = (Vec::new(), self.scene());
                self.delay
                    .answered(question.ticket, answer, &scene, &mut out);
                self.hear(out)
            }
            Step::Pass(millis) => self.pass(ms(millis)),
        }
    }

    /// Time passes, and the flusher comes when it said it would.
    fn pass(&mut self, span: Duration) -> Check {
        let end = self.now + span;
        while let Some(due) = self.delay.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let (mut out, scene) = (Vec::new(), self.scene());
            self.delay.tick(&scene, &mut out);
            if out.is_empty() && self.delay.deadline() == Some(due) {
                return Err("a tick that is due does nothing".into());
            }
            self.hear(out)?;
        }
        self.now = end;
        Ok(())
    }
}

fn run(steps: &[Step], hold: Duration) -> Result<World, String> {
    let mut world = World::new(hold);
    for step in steps {
        world.step(step)?;
    }
    world.pass(VERDICT + GATHER + hold)?;
    match world.delay.is_empty() && world.open.is_empty() {
        true => Ok(world),
        false => Err(format!("never told: {:?}", world.open)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn g2_g3_g5_any_history_pairs_converges_and_is_bounded(
        steps in steps(),
        hold in prop_oneof![Just(Duration::ZERO), Just(GATHER / 2), Just(HOLD)],
    ) {
        if let Err(why) = run(&steps, hold) {
            return Err(TestCaseError::fail(why));
        }
    }
}

fn lines(world: &World) -> Vec<String> {
    world.events.iter().map(|e| e.to_string()).collect()
}

/// Eight members of Headcount; then all their leases are lost.
fn mass(hold: Duration) -> World {
    let puts: Vec<_> = (0..NAMES).map(|n| Step::Put(n, 1)).collect();
    let mut world = World::new(hold);
    for step in puts.iter().chain([&Step::Pass(1000), &Step::Mass(0, 4)]) {
        world.step(step).unwrap();
    }
    world.events.retain(|e| !matches!(e, Event::AddMember(_)));
    world
}

#[test]
fn g3_who_comes_back_from_a_mass_loss_was_never_away() {
    let mut world = mass(HOLD);
    assert_eq!(lines(&world), ["MassLoss (5 held)"]);
    world.step(&Step::Put(3, 1)).unwrap();
    // Another process under the name, and one that leaves.
    world.step(&Step::Put(4, 2)).unwrap();
    let told = lines(&world);
    assert!(told[1].starts_with("UpdateMember t/3@"), "{told:?}");
    assert!(told[2].starts_with("ServerDown t/4@") && told[3].starts_with("AddMember t/4@"));
    world.step(&Step::Pass(4990)).unwrap();
    assert_eq!(world.events.len(), 4);
    world.step(&Step::Pass(10)).unwrap();
    let told = lines(&world);
    assert_eq!(told.len(), 4 + 6, "{told:?}");
    assert!(told[4..].iter().all(|line| line.starts_with("ServerDown")));
}

/// Where enough others are as late, the first whose lease runs out is held with them.
#[test]
fn those_who_are_about_to_follow_make_it_a_mass() {
    for (overdue, told) in [(4, "ServerDown"), (5, "MassLoss")] {
        let mut world = World::new(HOLD);
        for n in 0..NAMES {
            world.step(&Step::Put(n, 1)).unwrap();
        }
        world.events.clear();
        world.overdue = overdue;
        world.step(&Step::Silent(0, 0)).unwrap();
        assert_eq!(world.events.len(), 1);
        assert_eq!(world.events[0].name(), told);
        world.step(&Step::Put(0, 1)).unwrap();
        let back = ["AddMember", "UpdateMember"][usize::from(overdue == 5)];
        assert_eq!(world.events[1].name(), back);
    }
}

#[test]
fn with_the_hold_off_all_of_it_is_told_at_once() {
    let mut world = mass(Duration::ZERO);
    assert_eq!(world.events.len(), 8);
    world.step(&Step::Put(3, 1)).unwrap();
    let last = lines(&world).pop().unwrap();
    assert!(last.starts_with("AddMember t/3@"), "{last}");
}

#[test]
fn g3_a_single_one_that_bounces_is_a_pair() {
    for steps in [vec![Step::Put(0, 1)], vec![]] {
        let mut world = World::new(HOLD);
        for n in 0..NAMES {
            world.step(&Step::Put(n, 1)).unwrap();
        }
        world.events.clear();
        world.step(&Step::Silent(0, 4)).unwrap();
        steps.iter().for_each(|step| world.step(step).unwrap());
        assert!(world.events.is_empty(), "others may follow");
        world.step(&Step::Pass(599)).unwrap();
        assert!(world.events.is_empty());
        world.step(&Step::Pass(1)).unwrap();
        let names: Vec<_> = world.events.iter().map(|e| e.name()).collect();
        assert_eq!(names, ["ServerDown", "AddMember"][..=steps.len()]);
    }
}

/// Only who vanished with its lease is held; and who was seen to die, alone, is told at once.
#[test]
fn graceful_leaves_and_lone_deaths_are_never_held() {
    let mut world = World::new(HOLD);
    for n in 0..NAMES {
        world.step(&Step::Put(n, n % 2)).unwrap();
    }
    world.events.clear();
    for n in 0..4 {
        world.step(&Step::Leave(n)).unwrap();
    }
    assert_eq!(world.events.len(), 4);
    world.step(&Step::Silent(4, 0)).unwrap();
    assert_eq!(lines(&world)[4].rsplit(' ').next(), Some("(lease-expired)"));
    // A Go server whose end nobody can explain may have left.
    world.step(&Step::Silent(6, 4)).unwrap();
    assert_eq!(world.events.len(), 6);
    assert!(!world.told.mass);
}

/// The checks above are only worth something if they can fail.
#[test]
fn the_checker_catches_every_kind_of_lie() {
    let mut world = mass(HOLD);
    world.step(&Step::Put(3, 1)).unwrap();
    world.step(&Step::Put(4, 2)).unwrap();
    world.step(&Step::Pass(6000)).unwrap();
    let add = |n: u8| Event::AddMember(member(n, i64::from(n) + 2, i64::from(n) + 2, Some(1)));
    let mut events: Vec<Event> = (0..NAMES).map(add).collect();
    events.append(&mut world.events);
    let verdict = |events: &[Event]| {
        let mut told = Told::default();
        events.iter().try_for_each(|e| told.hear(e))?;
        match told.view == world.told.view {
            true => Ok(()),
            false => Err("not the view".to_owned()),
        }
    };
    assert_eq!(verdict(&events), Ok(()));
    for at in 0..events.len() {
        let mut doubled = events.clone();
        doubled.insert(at, events[at].clone());
        let mut dropped = events.clone();
        dropped.remove(at);
        let is_mass = events[at].member().is_none();
        assert!(verdict(&dropped).is_err(), "{} dropped", events[at]);
        assert!(
            is_mass || verdict(&doubled).is_err(),
            "{} doubled",
            events[at]
        );
    }
}
