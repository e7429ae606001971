//! The outlet under any interleaving of changes and drains.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::event::{DownCause, Evidence, RemoveReason};
use crate::member::Document;

/// A channel of a given capacity.
struct Queue {
    capacity: usize,
    events: VecDeque<Event>,
    gone: bool,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Queue {
            capacity,
            events: VecDeque::new(),
            gone: false,
        }
    }
}

impl Sink for Queue {
    fn try_send(&mut self, event: Event) -> Result<(), Refused> {
        if self.gone {
            return Err(Refused::Gone);
        }
        if self.events.len() >= self.capacity {
            return Err(Refused::Full);
        }
        self.events.push_back(event);
        Ok(())
    }
}

fn member(name: &str, life: i64, revision: i64) -> Arc<Member> {
    Arc::new(Member::new(name, Document::default(), life, revision, 7))
}

fn down(member: &Arc<Member>, revision: i64) -> Event {
    Event::ServerDown {
        member: Arc::clone(member),
        cause: DownCause::Unknown,
        revision,
    }
}

fn evidence() -> Evidence {
    Evidence {
        remaining: Duration::from_secs(2),
        granted: Duration::from_secs(6),
        seen: Instant::now(),
    }
}

/// A listener that checks G3 at every event and keeps what it was told.
#[derive(Default)]
struct Told {
    view: BTreeMap<String, (i64, i64)>,
    suspected: BTreeSet<String>,
    mass: Option<usize>,
    synced: usize,
    lost: bool,
    own: Option<String>,
    events: u64,
    folded: u64,
}

impl Told {
    fn take(&mut self, event: &Event) {
        let seen = |m: &Member| (m.incarnation(), m.revision());
        match event {
            Event::AddMember(m) => {
                let before = self.view.insert(m.name().into(), seen(m));
                assert_eq!(before, None, "G3: second AddMember of {m}");
            }
            Event::UpdateMember { member, previous } => {
                let before = self.view.insert(member.name().into(), seen(member));
                assert_eq!(
                    before,
                    Some(seen(previous)),
                    "G3: {member} updates what was told"
                );
                assert!(member.incarnation() >= previous.incarnation());
            }
            Event::RemoveMember { member, .. } | Event::ServerDown { member, .. } => {
                let before = self.view.remove(member.name());
                self.suspected.remove(member.name());
                assert_eq!(
                    before.map(|(life, _)| life),
                    Some(member.incarnation()),
                    "G3: departure of what was told"
                );
            }
            Event::Suspect { member, .. } => {
                assert_eq!(self.view.get(member.name()), Some(&seen(member)));
                let news = self.suspected.insert(member.name().into());
                assert!(news, "{member} is suspected twice");
            }
            Event::Cleared { member } => {
                assert_eq!(self.view.get(member.name()), Some(&seen(member)));
                let known = self.suspected.remove(member.name());
                assert!(known, "{member} was never suspected");
            }
            Event::MassLoss { held, .. } => self.mass = Some(*held),
            Event::Synced => self.synced += 1,
            Event::StoreLost => {
                assert!(!self.lost);
                self.lost = true;
            }
            Event::StoreRestored => {
                assert!(self.lost);
                self.lost = false;
            }
            Event::Lagged { folded } => {
                assert!(*folded > 0);
                self.folded += folded;
                return;
            }
            own => self.own = Some(own.name().into()),
        }
        self.events += 1;
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Leave(u8),
    Crash(u8),
    /// Departure and addition in one breath.
    Restart(u8),
    /// Back after a held mass loss: an update to another incarnation.
    Back(u8),
    Doubt(u8),
    Mass(usize),
    Store,
    Own(bool),
    Read(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..6u8;
    let step = prop_oneof![
        4 => name.clone().prop_map(Step::Put),
        1 => name.clone().prop_map(Step::Leave),
        1 => name.clone().prop_map(Step::Crash),
        1 => name.clone().prop_map(Step::Restart),
        1 => name.clone().prop_map(Step::Back),
        2 => name.prop_map(Step::Doubt),
        1 => (1..99usize).prop_map(Step::Mass),
        1 => Just(Step::Store),
        1 => any::<bool>().prop_map(Step::Own),
        2 => (0..6u8).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn g3_g5_any_interleaving_pairs_and_converges(steps in steps(), capacity in 1..5usize) {
        let mut outlet = Outlet::default();
        let mut queue = Queue::new(capacity);
        let mut told = Told::default();
        let mut view: BTreeMap<String, Arc<Member>> = BTreeMap::new();
        let (mut revision, mut offered, mut lost, mut own) = (0, 0u64, false, None);
        let (mut suspected, mut mass) = (BTreeSet::new(), None);
        for step in steps {
            revision += 1;
            let mut events = Vec::new();
            let mut depart = |name: u8, announced: bool, view: &mut BTreeMap<String, Arc<Member>>| {
                if let Some(old) = view.remove(&format!("t/{name}")) {
                    events.push(match announced {
                        true => Event::RemoveMember {
                            member: old, reason: RemoveReason::Announced, revision,
                        },
                        false => down(&old, revision),
                    });
                }
            };
            match step {
                Step::Leave(name) => depart(name, true, &mut view),
                Step::Crash(name) => depart(name, false, &mut view),
                Step::Back(name) => if let Some(old) = view.get_mut(&format!("t/{name}")) {
                    let new = member(old.name(), revision, revision);
                    let previous = std::mem::replace(old, Arc::clone(&new));
                    events.push(Event::UpdateMember { member: Arc::clone(&new), previous });
                    if suspected.remove(new.name()) {
                        events.push(Event::Cleared { member: new });
                    }
                },
                Step::Doubt(name) => if let Some(member) = view.get(&format!("t/{name}")) {
                    let member = Arc::clone(member);
                    events.push(match suspected.remove(member.name()) {
                        true => Event::Cleared { member },
                        false => {
                            suspected.insert(member.name().to_owned());
                            Event::Suspect { member, evidence: evidence() }
                        }
                    });
                },
                Step::Mass(held) => {
                    mass = Some(held);
                    events.push(Event::MassLoss { held, until: Instant::now() });
                }
                Step::Put(name) | Step::Restart(name) => {
                    if matches!(step, Step::Restart(_)) {
                        depart(name, false, &mut view);
                    }
                    let name = format!("t/{name}");
                    let previous = view.get(&name).cloned();
                    let life = previous.as_ref().map_or(revision, |p| p.incarnation());
                    let new = member(&name, life, revision);
                    view.insert(name, Arc::clone(&new));
                    events.push(match previous {
                        Some(previous) => Event::UpdateMember { member: new, previous },
                        None => Event::AddMember(new),
                    });
                }
                Step::Store => {
                    lost = !lost;
                    events.push(if lost { Event::StoreLost } else { Event::StoreRestored });
                }
                Step::Own(registered) => {
                    let event = match registered {
                        true => Event::Registered { incarnation: revision, lease: 1 },
                        false => Event::Lost,
                    };
                    own = Some(event.name().to_owned());
                    events.push(event);
                }
                Step::Read(n) => {
                    for _ in 0..n {
                        if let Some(event) = queue.events.pop_front() {
                            told.take(&event);
                        }
                    }
                    outlet.flush(&mut queue);
                }
            }
            suspected.retain(|name| view.contains_key(name));
            for event in &events {
                if event.is_departure() {
                    suspected.remove(event.member().unwrap().name());
                }
            }
            for event in events {
                offered += 1;
                outlet.offer(&event, &mut queue);
            }
            // G5: what waits is bounded by the members (6), not by the changes.
            prop_assert!(outlet.depth() <= 4 * 6 + 4);
            prop_assert!(outlet.order.len() <= 2 * (6 + 4) + 65);
        }
        loop {
            let done = outlet.flush(&mut queue);
            while let Some(event) = queue.events.pop_front() {
                told.take(&event);
            }
            if done == Delivery::Done {
                break;
            }
        }
        let truth: BTreeMap<_, _> = view
            .iter()
            .map(|(name, m)| (name.clone(), (m.incarnation(), m.revision())))
            .collect();
        prop_assert_eq!(&told.view, &truth);
        prop_assert_eq!(&told.suspected, &suspected);
        prop_assert_eq!(told.mass, mass);
        prop_assert_eq!(told.lost, lost);
        prop_assert_eq!(told.own, own);
        prop_assert_eq!(outlet.depth(), 0);
        prop_assert!(outlet.members.is_empty() && outlet.order.is_empty());
        prop_assert_eq!(outlet.delivered(), told.events);
        prop_assert_eq!(outlet.delivered() + outlet.folded(), offered);
        prop_assert_eq!(told.folded, outlet.folded());
    }
}

#[test]
fn g5_a_listener_that_never_reads_costs_no_memory() {
    let mut outlet = Outlet::default();
    let mut queue = Queue::new(1);
    for revision in 1..200_000 {
        let name = format!("t/{}", revision % 10);
        let m = member(&name, revision, revision);
        outlet.offer(&Event::AddMember(Arc::clone(&m)), &mut queue);
        outlet.offer(&down(&m, revision), &mut queue);
    }
    assert!(
        outlet.order.capacity() < 1_000,
        "{}",
        outlet.order.capacity()
    );
    assert!(outlet.members.capacity() < 100);
    assert!(outlet.depth() <= 1);
}

#[test]
fn g5_folding_is_told_before_what_was_folded() {
    let mut outlet = Outlet::default();
    let mut queue = Queue::new(1);
    let (one, two) = (member("t/a", 1, 1), member("t/b", 2, 2));
    outlet.offer(&Event::AddMember(one), &mut queue);
    outlet.offer(&Event::AddMember(Arc::clone(&two)), &mut queue);
    let newer = member("t/b", 2, 3);
    outlet.offer(
        &Event::UpdateMember {
            member: newer,
            previous: two,
        },
        &mut queue,
    );
    assert_eq!((outlet.depth(), outlet.folded()), (1, 1));
    let mut heard = Vec::new();
    while let Some(event) = queue.events.pop_front() {
        heard.push(event.to_string());
        outlet.flush(&mut queue);
    }
    assert_eq!(
        heard,
        ["AddMember t/a@1", "Lagged (1 folded)", "AddMember t/b@2"]
    );
}

/// One event fills the queue, and behind it a whole life comes and goes.
fn life_unheard() -> (Outlet, Queue) {
    let mut outlet = Outlet::default();
    let mut queue = Queue::new(1);
    let unheard = member("t/b", 2, 2);
    outlet.offer(&Event::AddMember(member("t/a", 1, 1)), &mut queue);
    outlet.offer(&Event::AddMember(Arc::clone(&unheard)), &mut queue);
    outlet.offer(&down(&unheard, 3), &mut queue);
    (outlet, queue)
}

/// A whole life that was never told leaves nothing to send, but that it was spared.
#[test]
fn g1_g5_what_vanished_is_said_to_be_folded_before_what_comes_next() {
    for flushed in [false, true] {
        let (mut outlet, mut queue) = life_unheard();
        let mut heard = Vec::new();
        let mut read = |queue: &mut Queue| {
            let events = queue.events.drain(..);
            heard.extend(events.map(|event| event.to_string()));
        };
        read(&mut queue);
        if flushed {
            assert_eq!(outlet.flush(&mut queue), Delivery::Done);
            assert!(!outlet.is_waiting());
            read(&mut queue);
        }
        outlet.offer(&Event::AddMember(member("t/b", 4, 4)), &mut queue);
        while outlet.is_waiting() {
            read(&mut queue);
            outlet.flush(&mut queue);
        }
        read(&mut queue);
        assert_eq!(
            heard,
            ["AddMember t/a@1", "Lagged (2 folded)", "AddMember t/b@4"]
        );
    }
}

/// The flusher has dropped what cancelled out while there was no room to say so.
#[test]
fn g1_g5_folding_is_told_although_nothing_waits_any_longer() {
    let (mut outlet, mut queue) = life_unheard();
    assert_eq!(outlet.flush(&mut queue), Delivery::Waiting);
    assert!(outlet.is_waiting());
    queue.events.clear();
    outlet.offer(&Event::AddMember(member("t/b", 4, 4)), &mut queue);
    let first = queue.events.pop_front().expect("something is told");
    assert_eq!(first.to_string(), "Lagged (2 folded)");
}

/// Who did not want to hear of those who were there has not heard that one was in doubt.
#[test]
fn g5_a_doubt_cancels_out_only_where_it_was_told() {
    let suspected = member("t/a", 1, 1);
    let suspect = Event::Suspect {
        member: Arc::clone(&suspected),
        evidence: evidence(),
    };
    let cleared = Event::Cleared { member: suspected };
    for (before, told, now) in [
        (None, [&cleared, &suspect], "Lagged (1 folded), Suspect"),
        (None, [&suspect, &cleared], "Lagged (2 folded)"),
        (Some(&suspect), [&cleared, &suspect], "Lagged (2 folded)"),
        (Some(&cleared), [&suspect, &cleared], "Lagged (2 folded)"),
    ] {
        let mut outlet = Outlet::default();
        let mut queue = Queue::new(1);
        if let Some(before) = before {
            outlet.offer(before, &mut queue);
            queue.events.clear();
        }
        outlet.offer(&Event::Synced, &mut queue);
        for event in told {
            outlet.offer(event, &mut queue);
        }
        let mut heard = Vec::new();
        queue.events.clear();
        while outlet.is_waiting() {
            outlet.flush(&mut queue);
            heard.extend(queue.events.drain(..).map(|event| match event {
                Event::Suspect { .. } => event.name().to_owned(),
                event => event.to_string(),
            }));
        }
        assert_eq!(heard.join(", "), now);
    }
}

#[test]
fn a_listener_that_is_gone_is_noticed() {
    let mut outlet = Outlet::default();
    let mut queue = Queue {
        gone: true,
        ..Queue::new(1)
    };
    assert_eq!(outlet.offer(&Event::Synced, &mut queue), Delivery::Gone);
}
