//! The poll thread's part: does what the plan says, in steps.

mod reading;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::Violation;
use super::super::bug::Bug;
use super::super::dice::Dice;
use super::super::network::{Mode, Trip};
use super::super::store::{Ms, keys};
use super::{Client, World};
use crate::error::Error;
use crate::etcd::Failure;
use crate::event::{DownCause, Event};
use crate::hub::Told;
use crate::kv::{Kv, KvEvent};
use crate::stats::Why;
use crate::watch::{Failed, Open, Pages, Reaction, Sizes, Step};
use reading::Reading;
use stream::{Sent, Stream};

pub struct Watching {
    doing: Doing,
    /// The endpoint that worked last.
    endpoint: usize,
    /// Keys a page.
    page: i64,
    /// What the headers said last.
    header: i64,
    /// The store was restored since the last listing, and nothing has shown it.
    hidden: bool,
    /// Everything that was ever given, for a bug.
    given: BTreeMap<Vec<u8>, Kv>,
}

enum Doing {
    Waiting(Ms),
    Reading(Box<Reading>),
    Opening(Open, Trip),
    Following(Box<Stream>),
}

fn unreachable(reason: &str) -> Failure {
    Failure::Elsewhere(Error::Unreachable {
        endpoint: "etcd".into(),
        reason: reason.into(),
    })
}

fn no_leader() -> Failure {
    Failure::Elsewhere(Error::Etcd {
        code: 14,
        message: "etcdserver: no leader".into(),
    })
}

impl Watching {
    pub fn new(dice: &mut Dice) -> Self {
        Watching {
            doing: Doing::Waiting(0),
            endpoint: dice.below(3),
            page: dice.of(&[2, 5, 1000]),
            header: 0,
            hidden: false,
            given: BTreeMap::new(),
        }
    }

    pub fn serve(&mut self, now: Ms, world: &mut World) {
        match &mut self.doing {
            Doing::Reading(reading) if reading.answer.is_none() && now >= reading.trip.seen => {
                reading.serve(world);
            }
            Doing::Opening(open, trip) if trip.by.is_some() && now >= trip.seen => {
                let by = trip.by.expect("just checked");
                let stream = Stream::opened(*open, trip, by, now, world);
                self.doing = Doing::Following(Box::new(stream));
            }
            Doing::Following(stream) => stream.serve(now, world),
            _ => {}
        }
    }
}

impl Client {
    pub(super) fn watch(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        loop {
            let doing = std::mem::replace(&mut self.watching.doing, Doing::Waiting(now));
            match doing {
                Doing::Waiting(until) if now < until => {
                    self.watching.doing = Doing::Waiting(until);
                    return Ok(());
                }
                Doing::Waiting(_) => self.begin(now, world)?,
                Doing::Reading(reading) if now < reading.trip.done || reading.answer.is_none() => {
                    self.watching.doing = Doing::Reading(reading);
                    return Ok(());
                }
                Doing::Reading(reading) => self.read(reading, now, world)?,
                Doing::Opening(_, trip) if trip.by.is_none() && now >= trip.done => {
                    let reaction = self
                        .plan
                        .unopened(unreachable("no connection"), self.at(now));
                    self.react(reaction, now, world)?;
                }
                Doing::Opening(open, trip) => {
                    self.watching.doing = Doing::Opening(open, trip);
                    return Ok(());
                }
                Doing::Following(stream) => {
                    if !self.follow(stream, now, world)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn begin(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        let step = self.plan.step(self.state.applied(), self.at(now));
        (world.trace)(&|| format!("{step:?}"));
        let pages = match step {
            Step::List(Why::Compacted) if self.bug == Some(Bug::SkipRelist) => {
                self.watching.header = world.store.epoch().compacted;
                let reaction = self
                    .plan
                    .listed(Ok(world.store.epoch().cluster), self.at(now));
                return self.react(reaction, now, world).map(drop);
            }
            Step::List(_) => Pages::new(&keys(), 0, Sizes::default()),
            Step::Reconcile => Pages::new(&keys(), self.state.applied(), Sizes::default()),
            Step::Watch(open) => return self.open(open, now, world),
        };
        let listing = match step {
            Step::List(why) => Some((why, self.state.new_listing())),
            _ => None,
        };
        let trip = self.ask_page(now, world);
        self.read_on(Reading::new(listing, pages, trip));
        Ok(())
    }

    fn open(&mut self, mut open: Open, now: Ms, world: &mut World) -> Result<(), Violation> {
        if let Some(Bug::ResumeAtHeader | Bug::SkipRelist) = self.bug {
            open.start_revision = open.start_revision.max(self.watching.header + 1);
        }
        // G1: where it stands is known from what was given, not from the roster.
        if open.start_revision != self.oracle.reached + 1 {
            let (start, reached) = (open.start_revision, self.oracle.reached);
            let what = format!("resumed from {start}, though what was given ends at {reached}");
            return Err(Violation {
                guarantee: "G1",
                what,
            });
        }
        self.counts.resumed += 1;
        let budget = (open.connect + open.answer).as_millis() as Ms;
        let by = self.watching.endpoint % world.network.endpoints.len();
        let (there, back) = (world.network.way(world.dice), world.network.way(world.dice));
        let trip = match world.network.endpoints[by].mode {
            Mode::Pass if there + back <= budget => Trip {
                sent: now,
                seen: now + there,
                done: now + there + back,
                by: Some(by),
            },
            mode => {
                let done = now + if mode == Mode::Refuse { 1 } else { budget };
                Trip {
                    sent: now,
                    seen: done,
                    done,
                    by: None,
                }
            }
        };
        self.watching.doing = Doing::Opening(open, trip);
        Ok(())
    }

    /// What the stream has brought by now. True: it is over.
    fn follow(
        &mut self,
        mut stream: Box<Stream>,
        now: Ms,
        world: &mut World,
    ) -> Result<bool, Violation> {
        let mode = world.network.endpoints[stream.by].mode;
        let cut = stream.cuts != world.network.cuts || mode == Mode::Refuse;
        // What had arrived before the cut can still be read, or a part of it.
        let readable = mode == Mode::Pass && (!cut || world.dice.permille(500));
        while readable && stream.wire.front().is_some_and(|(at, _)| *at <= now) {
            let (_, sent) = stream.wire.pop_front().expect("just seen");
            stream.word = now;
            self.heard = now;
            let at = self.at(now);
            let reaction = match sent {
                Sent::Created { revision, cluster } => {
                    stream.alive = true;
                    let reaction = self.plan.created(revision, cluster, at);
                    let goes_on = reaction.over.is_none() || reaction.confirmed;
                    if goes_on && stream.epoch != self.oracle.epoch {
                        // Nothing shows that this is another history. What it brings continues
                        // what was given; what the view has of before, the next listing corrects.
                        self.oracle.tainted = true;
                        self.oracle.epoch = stream.epoch;
                        self.watching.hidden = true;
                    }
                    reaction
                }
                Sent::Events {
                    events,
                    lossy,
                    header,
                } => {
                    self.watching.header = header;
                    self.oracle.tainted |= lossy;
                    self.bring(events, now, world)?;
                    self.plan.events(at)
                }
                Sent::Compacted => self.plan.compacted(at),
                Sent::End(true) => self.plan.ended(at),
                Sent::End(false) => self.plan.broke(no_leader(), at),
            };
            if self.react(reaction, now, world)? {
                return Ok(true);
            }
        }
        let silence = stream.open.silence.as_millis() as Ms;
        let answer = (stream.open.connect + stream.open.answer).as_millis() as Ms;
        let failure = match stream.alive {
            _ if cut => Some(unreachable("connection reset")),
            false if now > stream.opened + answer => Some(unreachable("no answer")),
            true if now > stream.word + silence && self.bug != Some(Bug::SilentStall) => {
                Some(unreachable("silence"))
            }
            _ => None,
        };
        let Some(failure) = failure else {
            self.watching.doing = Doing::Following(stream);
            return Ok(false);
        };
        let reaction = match stream.alive {
            true => self.plan.broke(failure, self.at(now)),
            false => self.plan.unopened(failure, self.at(now)),
        };
        self.react(reaction, now, world)
    }

    fn bring(
        &mut self,
        mut events: Vec<KvEvent>,
        now: Ms,
        world: &mut World,
    ) -> Result<(), Violation> {
        (world.trace)(&|| {
            let line = |e: &KvEvent| match e {
                KvEvent::Put(kv) => format!(
                    "put {}@{}",
                    String::from_utf8_lossy(&kv.key),
                    kv.mod_revision
                ),
                KvEvent::Delete { key, mod_revision } => {
                    format!("delete {}@{mod_revision}", String::from_utf8_lossy(key))
                }
            };
            format!(
                "events: {}",
                events.iter().map(line).collect::<Vec<_>>().join(", ")
            )
        });
        self.oracle.events(&events, world.store, now);
        if self.bug == Some(Bug::NotesUnread) {
            let is_note = |e: &KvEvent| matches!(e, KvEvent::Put(kv) if kv.key.starts_with(b"p/servers-gone/"));
            events.retain(|e| !is_note(e));
        }
        if self.bug == Some(Bug::BackwardsResponse) {
            events.reverse();
        }
        if self.bug == Some(Bug::ListingWithoutDepartures) {
            let put = |e: &KvEvent| match e {
                KvEvent::Put(kv) => Some((kv.key.clone(), kv.clone())),
                KvEvent::Delete { .. } => None,
            };
            self.watching.given.extend(events.iter().filter_map(put));
        }
        let told = self.state.events(events, self.at(now));
        self.changed = true;
        self.hear(told, now, world)
    }

    /// As the thread does. True: the conversation is over.
    fn react(&mut self, reaction: Reaction, now: Ms, world: &mut World) -> Result<bool, Violation> {
        self.watching.endpoint += usize::from(reaction.rotate);
        if reaction.confirmed && self.state.confirmed(self.at(now)) {
            let events = vec![Event::StoreRestored];
            let told = Told {
                events,
                ..Told::default()
            };
            self.hear(told, now, world)?;
        }
        if let Some(Failed {
            error,
            lost,
            concerns,
        }) = &reaction.failed
        {
            (world.trace)(&|| format!("failed: {error}{}", if *lost { " (lost)" } else { "" }));
            if *lost && self.state.lost(concerns.then_some(error)) {
                let mut events = vec![Event::StoreLost];
                if self.bug == Some(Bug::DownOnLoss) {
                    events.extend(self.state.view().iter().map(|member| Event::ServerDown {
                        member: Arc::clone(member),
                        cause: DownCause::Unknown,
                        revision: self.state.applied(),
                    }));
                }
                self.hear(
                    Told {
                        events,
                        ..Told::default()
                    },
                    now,
                    world,
                )?;
            }
            if !lost && *concerns {
                self.state.failed(error);
            }
        }
        self.wakes();
        let Some(wait) = reaction.over else {
            return Ok(false);
        };
        self.watching.doing = Doing::Waiting(self.ms(self.at(now) + wait.max(Duration::ZERO)));
        Ok(true)
    }
}
