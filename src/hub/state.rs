//! What the hub decides, without its lock: what comes in, what listeners are told, who is to be
//! woken. It is told the time, and asks for no thread; channels are only ever tried. Enforced here:
//!
//! * **G1 Gapless**: a listener is added, and told of all present, between changes; so no change
//!   falls between.
//! * **G4 Never blocks**: what does not fit into a channel waits in the listener's [`Outlet`] for
//!   the flusher.
//! * **G7 Fail-static**: losing the store is an event like others and changes no member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};

use super::Options;
use crate::delay::{Delay, MassLoss, Scene, Silence};
use crate::error::Error;
use crate::event::Event;
use crate::heartbeat::Judge;
use crate::jitter::Random;
use crate::kv::{Kv, KvEvent};
use crate::outlet::{Delivery, Outlet, Refused, Sink};
use crate::roster::{Listing, Notice, Output, Roster, Rules};
use crate::settings::Check;
use crate::stats::Why;

impl Sink for Sender<Event> {
    fn try_send(&mut self, event: Event) -> Result<(), Refused> {
        Sender::try_send(self, event).map_err(|e| match e {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Gone,
        })
    }
}

/// How the hub is set up.
pub(crate) struct Setup {
    pub rules: Arc<Rules>,
    /// This process' own `type/id` and instance token, if it is a member.
    pub own: Option<(Box<str>, Box<str>)>,
    pub check: Check,
    pub check_rate: u32,
    pub verdict_timeout: Duration,
    pub mass_loss: MassLoss,
}

/// Who is to be woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// The flusher: a listener lags or is gone, or a departure waits.
    pub flusher: bool,
    /// The registration: somebody touched our key.
    pub registration: bool,
    /// The heartbeat checker: there is something to ask.
    pub checker: bool,
    /// Whoever waits for a change.
    pub waiting: bool,
}

/// What an input led to, for the log.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub notices: Vec<Notice>,
    pub events: Vec<Event>,
}

pub(crate) struct State {
    pub(super) roster: Roster,
    /// What the roster has gone through and listeners have not.
    pub(super) delay: Delay,
    pub(super) judge: Judge,
    pub(super) random: Random,
    pub(super) wakes: Wakes,
    /// This process' own `type/id` and instance token, if it is a member.
    own: Option<(Box<str>, Box<str>)>,
    pub(super) mass_losses: u64,
    pub(super) listeners: Vec<Slot>,
    pub(super) next_id: u64,
    /// Changes with everything that `wait` may be waiting for.
    pub(super) generation: u64,
    pub(super) events: u64,
    pub(super) synced: bool,
    pub(super) store_lost: bool,
    pub(super) store_losses: u64,
    pub(super) confirmed: Option<Instant>,
    /// `Registered` or `Displaced`, as it stands.
    pub(super) standing: Option<Event>,
    pub(super) last_error: Option<Error>,
    pub(super) closed: bool,
    /// When the flusher will look after what is delayed.
    pub(super) tick_at: Option<Instant>,
}

pub(super) struct Slot {
    pub id: u64,
    pub options: Options,
    pub outlet: Outlet,
    pub channel: Sender<Event>,
    /// Does not want to hear who was there before it.
    pub quiet_until_synced: bool,
    /// The flusher waits for room in its channel.
    pub flushed: bool,
    pub gone: bool,
}

impl Slot {
    pub fn offer(&mut self, event: &Event, own: Option<&str>) {
        let about_member = event.member().is_some();
        if about_member && self.quiet_until_synced || !self.options.admits(event, own) || self.gone
        {
            return;
        }
        if self.outlet.offer(event, &mut self.channel) == Delivery::Gone {
            self.gone = true;
        }
    }
}

impl State {
    pub fn new(setup: Setup, random: Random, now: Instant) -> Self {
        let name = setup.own.as_ref().map(|(name, _)| name.clone());
        State {
            roster: Roster::new(setup.rules),
            delay: Delay::new(setup.verdict_timeout, setup.mass_loss),
            judge: Judge::new(setup.check, setup.check_rate, name, now),
            random,
            wakes: Wakes::default(),
            own: setup.own,
            mass_losses: 0,
            listeners: Vec::new(),
            next_id: 0,
            generation: 0,
            events: 0,
            synced: false,
            store_lost: false,
            store_losses: 0,
            confirmed: None,
            standing: None,
            last_error: None,
            closed: false,
            tick_at: None,
        }
    }

    pub(super) fn own_name(&self) -> Option<&str> {
        self.own.as_ref().map(|(name, _)| &**name)
    }

    /// Who is to be woken since this was asked last.
    pub fn take_wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    // ---- what the watch thread brings

    pub fn events(&mut self, batch: Vec<KvEvent>, now: Instant) -> Told {
        let mut out = Output::default();
        let scene = self.scene(now);
        self.roster.events(batch, &mut out);
        self.publish(out, &scene)
    }

    pub fn listing(
        &mut self,
        listing: Listing,
        (revision, cluster): (i64, u64),
        why: Why,
        now: Instant,
    ) -> Told {
        let mut out = Output::default();
        self.judge.listed(cluster, why, now);
        let scene = self.scene(now);
        if self.roster.listing(listing, revision, cluster, &mut out) {
            self.delay.ask_no_more();
        }
        let told = self.publish(out, &scene);
        if !self.synced {
            self.synced = true;
            for slot in &mut self.listeners {
                slot.quiet_until_synced = false;
            }
            self.tell(&Event::Synced);
        }
        told
    }

    /// An empty listing that knows what the view holds.
    pub fn new_listing(&self) -> Listing {
        self.roster.new_listing()
    }

    pub fn matches(&self, page: &[Kv]) -> Result<usize, Why> {
        self.roster.matches(page)
    }

    pub fn applied(&self) -> i64 {
        self.roster.applied()
    }

    /// How many keys etcd holds of members, as far as has been heard.
    pub fn known(&self) -> usize {
        self.roster.len()
    }

    /// etcd has just spoken: the view is current. Whether it was lost before.
    pub fn confirmed(&mut self, now: Instant) -> bool {
        self.confirmed = Some(now);
        let restored = std::mem::take(&mut self.store_lost);
        if restored {
            self.last_error = None;
            self.judge.store(true);
            self.tell(&Event::StoreRestored);
        }
        restored
    }

    /// etcd is out of reach, because of this, if users may want to know. Whether that is news.
    pub fn lost(&mut self, why: Option<&Error>) -> bool {
        // Before it is told: whoever is told may ask.
        if let Some(error) = why {
            self.failed(error);
        }
        let news = !std::mem::replace(&mut self.store_lost, true);
        if news {
            self.store_losses += 1;
            self.judge.store(false);
            self.tell(&Event::StoreLost);
        }
        news
    }

    pub fn store_reachable(&self) -> bool {
        self.confirmed.is_some() && !self.store_lost
    }

    // ---- what the registration thread brings

    /// Something happened to our own registration.
    pub fn own_event(&mut self, event: &Event) {
        // A doubt is no standing: whoever subscribes in one is told when it is over.
        self.standing = (!matches!(event, Event::Lost)).then(|| event.clone());
        self.tell(event);
    }

    pub fn failed(&mut self, error: &Error) {
        self.last_error = Some(error.clone());
        self.wake();
    }

    // ---- telling

    /// Takes what came out of the roster: what is told of it now. `scene`: as it was before.
    fn publish(&mut self, mut out: Output, scene: &Scene) -> Told {
        for event in &out.events {
            if let (Some((name, token)), Some(member)) = (&self.own, event.member()) {
                let ours = member.instance() == Some(token);
                if member.name() == &**name && (event.is_departure() || !ours) {
                    self.wakes.registration = true;
                }
            }
        }
        let mut told = Vec::with_capacity(out.events.len());
        let mut silent = out.silent.iter().copied().peekable();
        let mut moved = out.moved.drain(..).peekable();
        let mut members = scene.members;
        for (at, event) in out.events.drain(..).enumerate() {
            let scene = &Scene {
                overdue: self.judge.overdue(),
                members,
                ..*scene
            };
            members += usize::from(matches!(event, Event::AddMember(_)));
            while let Some(moved) = moved.next_if(|moved| moved.before <= at) {
                self.moved(&moved, scene, &mut told);
            }
            let silence = silent.next_if_eq(&at).and_then(|_| {
                let (member, revision) = (event.member()?, event.revision()?);
                Some(Silence {
                    finding: self.judge.finding(member, revision, scene.now),
                    suspect: self.judge.suspicion(member.lease(), member.name()),
                })
            });
            self.watch_over(&event, scene.now);
            let doubt = self.inherited_doubt(&event);
            self.delay.take(event, silence, scene, &mut told);
            if let Some(doubt) = doubt {
                self.delay.take(doubt, None, scene, &mut told);
            }
        }
        for moved in moved {
            self.moved(&moved, scene, &mut told);
        }
        self.wakes.checker |= self.delay.has_question(scene.now);
        self.pass_on(&told);
        Told {
            notices: out.notices,
            events: told,
        }
    }

    /// Tells what the delay has let go of.
    pub(super) fn pass_on(&mut self, told: &[Event]) {
        // Whatever waits now, the flusher has to know when it has waited long enough.
        self.wakes.flusher |= !self.delay.is_empty() && self.delay.deadline() != self.tick_at;
        if told.is_empty() {
            return;
        }
        self.events += told.iter().filter(|event| event.changes_view()).count() as u64;
        let masses = told.iter().filter(|e| matches!(e, Event::MassLoss { .. }));
        self.mass_losses += masses.count() as u64;
        // The view is updated by now, so whoever is told and asks sees it.
        let own = self.own.as_ref().map(|(name, _)| &**name);
        for slot in &mut self.listeners {
            for event in told {
                slot.offer(event, own);
            }
        }
        self.settle();
    }

    fn tell(&mut self, event: &Event) {
        let own = self.own.as_ref().map(|(name, _)| &**name);
        for slot in &mut self.listeners {
            slot.offer(event, own);
        }
        self.settle();
    }

    /// After telling: drops who is gone, wakes who waits.
    pub(super) fn settle(&mut self) {
        self.listeners.retain(|slot| !slot.gone);
        // Whom the flusher knows to lag costs nothing further, however much comes.
        let lags_anew = |slot: &Slot| slot.outlet.is_waiting() && !slot.flushed;
        self.wakes.flusher |= self.listeners.iter().any(lags_anew);
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        self.generation += 1;
        self.wakes.waiting = true;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::member::{Document, Keyspace};
    use crate::roster::TypeFilter;

    pub fn observing() -> State {
        checking(Check::All)
    }

    pub fn checking(check: Check) -> State {
        let rules = Rules {
            keys: Keyspace::new("pitaya/"),
            filter: TypeFilter::default(),
            max_value_bytes: 1000,
            max_members: 10,
        };
        let setup = Setup {
            rules: Arc::new(rules),
            own: None,
            check,
            check_rate: 50,
            verdict_timeout: Duration::from_millis(200),
            mass_loss: MassLoss {
                share: 0.5,
                hold: Duration::from_secs(5),
            },
        };
        State::new(setup, Random::seeded(1), Instant::now())
    }

    pub fn kv(name: &str, mod_revision: i64, lease: i64) -> Kv {
        Kv {
            key: format!("pitaya/servers/{name}").into_bytes(),
            value: Document::default().to_json(name),
            create_revision: 1,
            mod_revision,
            lease,
        }
    }

    #[test]
    fn g7_whoever_is_told_of_a_loss_can_ask_why() {
        let mut state = observing();
        let (_, receiver) = state.subscribe(Options::new());
        let reason = String::from("a reason");
        let error = Error::Protocol { reason };
        // What is nobody's concern is not shown.
        for why in [Some(&error), None] {
            assert!(state.lost(why));
            assert!(matches!(receiver.try_recv(), Ok(Event::StoreLost)));
            assert_eq!(state.last_error.is_some(), why.is_some());
            assert!(state.confirmed(Instant::now()));
            assert!(matches!(receiver.try_recv(), Ok(Event::StoreRestored)));
            assert!(state.last_error.is_none());
        }
    }
}
