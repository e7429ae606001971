//! A client: the pure parts, wired as the threads wire them.

mod checking;
mod watching;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use self::checking::{Checking, Seen};
use self::watching::Watching;
use super::Violation;
use super::book::Book;
use super::bug::Bug;
use super::dice::Dice;
use super::network::Network;
use super::oracle::{Due, Oracle};
use super::store::{Ms, Store, keys};
use crate::delay::MassLoss;
use crate::event::{DownCause, Event, RemoveReason};
use crate::hub::{Setup, State, Told};
use crate::jitter::Backoff;
use crate::roster::{Rules, TypeFilter};
use crate::settings::Check;
use crate::watch::{Plan, Timing};

/// Losses wait so long for others to follow.
const GATHER: Ms = 600;
/// What ticks and messages add to a bound.
const SLACK: Ms = 200;

/// What is around a client.
pub struct World<'a> {
    pub store: &'a Store,
    pub network: &'a Network,
    pub dice: &'a mut Dice,
    pub trace: &'a mut dyn FnMut(&dyn Fn() -> String),
}

pub struct Client {
    pub state: State,
    pub oracle: Oracle,
    /// A listener that takes everything at once.
    pub prompt: Book,
    pub settings: Settings,
    /// Epochs of the store that were told of.
    pub epochs: usize,
    /// When etcd's last word came.
    pub heard: Ms,
    /// The counts of listings, streams resumed, looks, and departures that were judged.
    pub counts: Counts,
    zero: Instant,
    plan: Plan,
    watching: Watching,
    checking: Checking,
    nudged: bool,
    due: Option<Instant>,
    lagging: Vec<Sender<Event>>,
    /// We stood still up to then.
    excused: Ms,
    changed: bool,
    bug: Option<Bug>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub listings: u64,
    pub resumed: u64,
    pub looks: u64,
    pub departures: u64,
    pub held: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub stall: Ms,
    pub connect: Ms,
    pub request: Ms,
    pub reconcile: Ms,
    pub verdict: Ms,
    pub hold: Ms,
    pub share: f64,
    pub check: Check,
    pub rate: u32,
}

impl Settings {
    pub fn new(dice: &mut Dice) -> Self {
        let stall = dice.of(&[2000, 4000, 10_000]);
        Settings {
            stall,
            connect: dice.of(&[200, 1000]),
            request: dice.of(&[stall * 3 / 10, stall / 2, stall * 9 / 10]),
            reconcile: dice.of(&[2000, 5000, 15_000]),
            verdict: dice.of(&[0, 200, 200, 1000]),
            hold: dice.of(&[0, 1000, 5000]),
            share: dice.of(&[0.3, 0.5]),
            check: dice.of(&[Check::All, Check::All, Check::Silent, Check::Nobody]),
            rate: dice.of(&[50, 50, 5]),
        }
    }
}

impl Client {
    pub fn new(zero: Instant, endpoints: usize, bug: Option<Bug>, dice: &mut Dice) -> Self {
        let settings = Settings::new(dice);
        let ms = Duration::from_millis;
        let setup = Setup {
            rules: Arc::new(Rules {
                keys: keys(),
                filter: TypeFilter::default(),
                max_value_bytes: 65_536,
                max_members: 1000,
            }),
            own: None,
            check: settings.check,
            check_rate: settings.rate,
            verdict_timeout: ms(settings.verdict),
            mass_loss: MassLoss {
                share: settings.share,
                hold: ms(settings.hold),
            },
        };
        let timing = Timing {
            stall_bound: ms(settings.stall),
            connect_timeout: ms(settings.connect),
            request_timeout: ms(settings.request),
            reconcile_interval: ms(settings.reconcile),
            endpoints,
        };
        let backoff = (ms(100), ms(5000));
        Client {
            state: State::new(setup, dice.part(), zero),
            oracle: Oracle::default(),
            prompt: Book::default(),
            epochs: 0,
            heard: 0,
            counts: Counts::default(),
            zero,
            plan: Plan::new(
                timing,
                Backoff::new(backoff, dice.part()),
                dice.part(),
                zero,
            ),
            watching: Watching::new(dice),
            checking: Checking::new(Backoff::new(backoff, dice.part()), dice),
            nudged: false,
            due: None,
            lagging: Vec::new(),
            excused: 0,
            changed: false,
            settings,
            bug,
        }
    }

    fn at(&self, ms: Ms) -> Instant {
        self.zero + Duration::from_millis(ms)
    }

    /// The first whole millisecond at or after it.
    fn ms(&self, at: Instant) -> Ms {
        let since = at.saturating_duration_since(self.zero);
        since.as_nanos().div_ceil(1_000_000) as Ms
    }

    /// What etcd and the network do while we may stand still.
    pub fn serve(&mut self, now: Ms, world: &mut World) {
        self.watching.serve(now, world);
        self.checking.serve(now, world);
    }

    pub fn step(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        self.watch(now, world)?;
        if self.settings.check != Check::Nobody {
            self.check(now, world)?;
        }
        self.flush(now, world)?;
        self.judge(now, world)
    }

    pub fn stands_still(&mut self, now: Ms) {
        self.excused = now;
    }

    /// Whom the state wants to be woken.
    pub fn wakes(&mut self) {
        let wakes = self.state.take_wakes();
        self.nudged |= wakes.flusher && self.bug != Some(Bug::ForgottenWake);
        self.checking.asked |= wakes.checker;
        self.changed |= wakes.waiting;
    }

    /// As the flusher's thread does.
    fn flush(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        loop {
            let has_room = self.lagging.iter().any(|channel| !channel.is_full());
            let is_due = self.due.is_some_and(|due| self.at(now) >= due);
            if !std::mem::take(&mut self.nudged) && !has_room && !is_due {
                return Ok(());
            }
            if self.bug == Some(Bug::HoldNeverEnds) {
                self.due = None;
            } else {
                let (due, told) = self.state.tick(self.at(now));
                self.due = due;
                self.hear(told, now, world)?;
            }
            self.lagging = self.state.flush().unwrap_or_default();
            self.wakes();
        }
    }

    /// What was told: each departure had to be, for a cause that holds.
    fn hear(&mut self, told: Told, now: Ms, world: &mut World) -> Result<(), Violation> {
        self.wakes();
        self.changed |= !told.events.is_empty();
        for event in self.bugged(told.events) {
            (world.trace)(&|| format!("told: {event}"));
            self.explains(&event, now, world.store)?;
            self.prompt.take(&event)?;
        }
        Ok(())
    }

    fn explains(&mut self, event: &Event, now: Ms, store: &Store) -> Result<(), Violation> {
        let wrong = |guarantee, what: String| {
            Err(Violation {
                guarantee,
                what: format!("{event}: {what}"),
            })
        };
        let told = match event {
            Event::RemoveMember { reason, .. } => reason.as_str(),
            Event::ServerDown { cause, .. } => cause.as_str(),
            Event::MassLoss { .. } => {
                self.counts.held += 1;
                return Ok(());
            }
            // Held in a mass loss, and back: maybe, after a restore, under the same incarnation.
            Event::UpdateMember { previous, member } => {
                if member.incarnation() == previous.incarnation() {
                    self.oracle.updated(member);
                    return Ok(());
                }
                "back"
            }
            Event::Suspect { evidence, member } => {
                let seen = (member.lease(), self.ms(evidence.seen));
                let Some(Seen { sent, end, .. }) = self.checking.seen.get(&seen) else {
                    return wrong("G6", "on what nobody has seen".into());
                };
                let claimed = sent + evidence.remaining.as_millis() as Ms + 1;
                return match claimed < *end {
                    true => wrong(
                        "G6",
                        format!("its lease had until {end}, it is said to have until {claimed}"),
                    ),
                    false => Ok(()),
                };
            }
            _ => return Ok(()),
        };
        let gone = match event {
            Event::UpdateMember { previous, .. } => previous,
            _ => event.member().expect("a departure"),
        };
        let revision = event.revision().filter(|_| told != "back");
        let due = self
            .oracle
            .take_due(gone.name(), gone.incarnation(), revision);
        let Some(due) = due else {
            let guarantee = if self.prompt.lost { "G7" } else { "G6" };
            return wrong(guarantee, "nothing said that it is gone".into());
        };
        self.counts.departures += 1;
        if told == "back" {
            let process = due.token.is_some()
                && due.token.as_deref() == event.member().and_then(|m| m.instance());
            return if process {
                Ok(())
            } else {
                wrong("G3", "it is another process".into())
            };
        }
        if event.revision() != Some(due.revision) {
            return wrong("G6", format!("it went at revision {}, {now}", due.revision));
        }
        // A restore has brought back the lease that etcd was asked about.
        let revived = told == "deregistered" && due.epoch != store.current() && {
            let lease = gone.lease();
            let mut seen = self.checking.seen.range((lease, due.since)..=(lease, now));
            seen.next().is_some()
        };
        // G6: who called it gone was the etcd that it went in, as far as could be known.
        let proven = told != "revoked" || {
            let (lease, gone) = (gone.lease(), &self.checking.gone);
            let mut said = gone.range((lease, due.since)..=(lease, now));
            said.any(|(_, history)| *history == due.history)
        };
        if !proven {
            return wrong("G6", "no etcd of its history has said so".into());
        }
        let way = self.checking.way(gone.lease());
        match revived || due.causes.allow(told, way) {
            true => Ok(()),
            false => wrong("G6", format!("{:?}", due.causes)),
        }
    }

    /// The view is what was told and what has to be, and nothing takes too long.
    fn judge(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        let wrong = |guarantee, what: String| Err(Violation { guarantee, what });
        let Settings {
            stall,
            verdict,
            hold,
            ..
        } = self.settings;
        let fresh = now > self.excused + stall + SLACK;
        if fresh && now > self.heard + stall + SLACK && self.state.store_reachable() {
            let heard = self.heard;
            return wrong("G9", format!("etcd is silent since {heard}, and not lost"));
        }
        if self.oracle.due.is_empty() {
            self.prompt.settle();
        }
        let longest = verdict + GATHER + hold + SLACK;
        let excused = self.excused;
        let late = |due: &Due| now > due.since.max(excused) + longest;
        self.oracle.settle(late).or_else(|what| wrong("G5", what))?;
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let view = self.state.view();
        if let Some(how) = self.prompt.differs(view.iter()) {
            return wrong("G5", format!("the view is not what was told: {how}"));
        }
        if self.state.applied() != self.oracle.reached {
            let (applied, reached) = (self.state.applied(), self.oracle.reached);
            return wrong("G1", format!("it stands at {applied}, not at {reached}"));
        }
        if self.state.known() != self.oracle.view.len() {
            let (known, wanted) = (self.state.known(), self.oracle.view.keys());
            return wrong(
                "G1",
                format!("{known} are known, not {:?}", wanted.collect::<Vec<_>>()),
            );
        }
        let dues = |name: &str| self.oracle.due.keys().any(|(due, _)| due == name);
        for (name, wanted) in self.oracle.view.iter().filter(|(name, _)| !dues(name)) {
            let told = self.prompt.view.get(name);
            let as_wanted = told.is_some_and(|told| {
                told.incarnation() == wanted.life
                    && told.instance() == wanted.meaning.token.as_deref()
                    && told.metadata().get("m") == Some(&wanted.meaning.metadata)
            });
            if !as_wanted {
                return wrong("G1", format!("told of {name} was {told:?}, not {wanted:?}"));
            }
        }
        let more = self
            .prompt
            .view
            .keys()
            .find(|name| !self.oracle.view.contains_key(*name) && !dues(name));
        if let Some(more) = more {
            return wrong("G1", format!("{more} is told to be there"));
        }
        match self.oracle.tainted {
            true => Ok(()),
            false => self
                .oracle
                .check(world.store)
                .or_else(|what| wrong("G1", what)),
        }
    }

    /// What a bug makes of what is told.
    fn bugged(&self, events: Vec<Event>) -> Vec<Event> {
        let mut out = Vec::with_capacity(events.len());
        let restarts = |at: usize| {
            let next: Option<&Event> = events.get(at + 1);
            events[at].is_departure()
                && matches!((next, events[at].member()), (Some(Event::AddMember(new)), Some(old)) if new.name() == old.name())
        };
        for (at, event) in events.iter().enumerate() {
            match (self.bug, event) {
                (Some(Bug::RestartWithoutDeparture), _) if restarts(at) => {}
                (Some(Bug::SwappedChanges), _) if restarts(at) => out.push(events[at + 1].clone()),
                (Some(Bug::SwappedChanges), _) if at > 0 && restarts(at - 1) => {
                    out.push(events[at - 1].clone())
                }
                (Some(Bug::DoubleAdd), Event::AddMember(_)) => {
                    out.extend([event.clone(), event.clone()])
                }
                (
                    Some(Bug::AlwaysExpired),
                    Event::ServerDown {
                        member,
                        cause: DownCause::Unknown,
                        revision,
                    },
                )
                | (
                    Some(Bug::AlwaysExpired),
                    Event::RemoveMember {
                        member,
                        reason: RemoveReason::Revoked,
                        revision,
                    },
                ) => out.push(Event::ServerDown {
                    member: Arc::clone(member),
                    cause: DownCause::LeaseExpired,
                    revision: *revision,
                }),
                _ => out.push(event.clone()),
            }
        }
        out
    }
}
