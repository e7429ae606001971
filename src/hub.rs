//! Where everything meets: the roster, the listeners' outlets, and whoever asks.
//!
//! A lock, not a thread: the watch thread applies a batch and puts it into the listeners' channels
//! in one go, with no hand-over between. The lock is held for pushing pointers and never for I/O,
//! user code, or a wait. Enforced here:
//!
//! * **G1 Gapless**: a listener is added, and told of all present, under the lock under which
//!   changes are applied; so no change falls between.
//! * **G4 Never blocks**: channels are only ever tried. What does not fit waits in the listener's
//!   [`Outlet`] for the [`flush`] thread.
//! * **G7 Fail-static**: losing the store is an event like others and changes no member.

mod beats;
mod flush;
mod listeners;
mod options;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::delay::{Delay, MassLoss, Scene, Silence};
use crate::error::Error;
use crate::event::Event;
use crate::heartbeat::Judge;
use crate::kv::{Kv, KvEvent};
use crate::outlet::{Delivery, Outlet, Refused, Sink};
use crate::roster::{Listing, Output, Roster, Rules};
use crate::settings::Check;
use crate::stats::{ListenerStats, Stats};

pub use options::Options;

impl Sink for Sender<Event> {
    fn try_send(&mut self, event: Event) -> Result<(), Refused> {
        Sender::try_send(self, event).map_err(|e| match e {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Gone,
        })
    }
}

pub(crate) struct Hub {
    state: Mutex<State>,
    /// Something that [`wait`](Self::wait) may be waiting for has changed.
    changed: Condvar,
    /// Wakes the flusher: a listener lags, or is gone.
    nudge: Sender<()>,
    /// This process' own `type/id` and instance token, if it is a member.
    own: Option<(Box<str>, Box<str>)>,
    /// Wakes the registration thread: somebody touched our key.
    touched: Sender<()>,
    /// Wakes the heartbeat checker: there is something to ask.
    ask: Sender<()>,
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

/// What the hub wakes others by; each is to be held by the thread that waits for it.
pub(crate) struct Wakers {
    /// The flusher: a listener lags or is gone, or a departure waits.
    pub nudged: Receiver<()>,
    /// The registration.
    pub touched: Receiver<()>,
    /// The heartbeat checker.
    pub asked: Receiver<()>,
}

struct State {
    roster: Roster,
    /// What the roster has gone through and listeners have not.
    delay: Delay,
    judge: Judge,
    mass_losses: u64,
    listeners: Vec<Slot>,
    next_id: u64,
    /// Changes with everything that `wait` may be waiting for.
    generation: u64,
    events: u64,
    synced: bool,
    store_lost: bool,
    store_losses: u64,
    confirmed: Option<Instant>,
    /// `Registered` or `Displaced`, as it stands.
    own: Option<Event>,
    last_error: Option<Error>,
    closed: bool,
    /// When the flusher will look after what is delayed.
    tick_at: Option<Instant>,
}

struct Slot {
    id: u64,
    options: Options,
    outlet: Outlet,
    channel: Sender<Event>,
    /// Does not want to hear who was there before it.
    quiet_until_synced: bool,
    /// The flusher waits for room in its channel.
    flushed: bool,
    gone: bool,
}

impl Slot {
    fn offer(&mut self, event: &Event, own: Option<&str>) {
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

impl Hub {
    pub fn new(setup: Setup) -> (Self, Wakers) {
        let (nudge, nudged) = bounded(1);
        let (touch, touched) = bounded(1);
        let (ask, asked) = bounded(1);
        let name = setup.own.as_ref().map(|(name, _)| name.clone());
        let state = State {
            roster: Roster::new(setup.rules),
            delay: Delay::new(setup.verdict_timeout, setup.mass_loss),
            judge: Judge::new(setup.check, setup.check_rate, name, Instant::now()),
            mass_losses: 0,
            listeners: Vec::new(),
            next_id: 0,
            generation: 0,
            events: 0,
            synced: false,
            store_lost: false,
            store_losses: 0,
            confirmed: None,
            own: None,
            last_error: None,
            closed: false,
            tick_at: None,
        };
        let hub = Hub {
            state: Mutex::new(state),
            changed: Condvar::new(),
            nudge,
            own: setup.own,
            touched: touch,
            ask,
        };
        let wakers = Wakers {
            nudged,
            touched,
            asked,
        };
        (hub, wakers)
    }

    fn own_name(&self) -> Option<&str> {
        self.own.as_ref().map(|(name, _)| &**name)
    }

    // ---- what the watch thread brings

    pub fn events(&self, batch: Vec<KvEvent>) {
        let mut state = self.state.lock();
        let mut out = Output::default();
        let scene = state.scene();
        state.roster.events(batch, &mut out);
        let told = self.publish(&mut state, &mut out, &scene);
        drop(state);
        report(&out, &told);
    }

    pub fn listing(&self, listing: Listing, revision: i64, cluster: u64) {
        let mut state = self.state.lock();
        let mut out = Output::default();
        let scene = state.scene();
        state.roster.listing(listing, revision, cluster, &mut out);
        let told = self.publish(&mut state, &mut out, &scene);
        if !state.synced {
            state.synced = true;
            for slot in &mut state.listeners {
                slot.quiet_until_synced = false;
            }
            self.tell(&mut state, &Event::Synced);
        }
        drop(state);
        report(&out, &told);
    }

    /// An empty listing that knows what the view holds.
    pub fn new_listing(&self) -> Listing {
        self.state.lock().roster.new_listing()
    }

    pub fn matches(&self, page: &[Kv]) -> Option<usize> {
        self.state.lock().roster.matches(page)
    }

    pub fn applied(&self) -> i64 {
        self.state.lock().roster.applied()
    }

    /// etcd has just spoken: the view is current.
    pub fn confirmed(&self) {
        let mut state = self.state.lock();
        state.confirmed = Some(Instant::now());
        if std::mem::take(&mut state.store_lost) {
            state.last_error = None;
            state.judge.store(true);
            self.tell(&mut state, &Event::StoreRestored);
            let revision = state.roster.applied();
            drop(state);
            log::info!("etcd is back; the view stands at revision {revision}");
        }
    }

    pub fn lost(&self, error: &Error) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.store_lost, true) {
            state.store_losses += 1;
            state.judge.store(false);
            self.tell(&mut state, &Event::StoreLost);
            let members = state.len();
            drop(state);
            log::warn!("etcd is out of reach, the view of {members} members is kept: {error}");
        }
    }

    // ---- what the registration thread brings

    /// Something happened to our own registration.
    pub fn own_event(&self, event: Event) {
        let mut state = self.state.lock();
        // A doubt is no standing: whoever subscribes in one is told when it is over.
        state.own = (!matches!(event, Event::Lost)).then(|| event.clone());
        self.tell(&mut state, &event);
        drop(state);
        match &event {
            Event::Displaced | Event::Lost => log::warn!("own registration: {event}"),
            _ => log::info!("own registration: {event}"),
        }
    }

    /// Our registration waits for its turn; `start` does not.
    pub fn waiting(&self) {
        self.wake(&mut self.state.lock());
    }

    pub fn failed(&self, error: &Error) {
        let mut state = self.state.lock();
        state.last_error = Some(error.clone());
        self.wake(&mut state);
    }

    // ---- telling

    /// Takes what came out of the roster: what is told of it now. `scene`: as it was before.
    fn publish(
        &self,
        state: &mut MutexGuard<'_, State>,
        out: &mut Output,
        scene: &Scene,
    ) -> Vec<Event> {
        for event in &out.events {
            if let (Some((name, token)), Some(member)) = (&self.own, event.member()) {
                let ours = member.instance() == Some(token);
                if member.name() == &**name && (event.is_departure() || !ours) {
                    // Full: it is awake already.
                    let _ = self.touched.try_send(());
                }
            }
        }
        let mut told = Vec::with_capacity(out.events.len());
        let mut silent = out.silent.iter().copied().peekable();
        let mut moved = out.moved.drain(..).peekable();
        for (at, event) in out.events.drain(..).enumerate() {
            let scene = &Scene {
                overdue: state.judge.overdue(),
                ..*scene
            };
            while let Some(moved) = moved.next_if(|moved| moved.before <= at) {
                self.moved(state, &moved, scene, &mut told);
            }
            let silence = silent.next_if_eq(&at).and_then(|_| {
                let member = event.member()?;
                Some(Silence {
                    finding: state.judge.finding(member, scene.now),
                    suspect: state.judge.suspicion(member.lease()),
                })
            });
            self.watch_over(state, &event, scene.now);
            let doubt = state.inherited_doubt(&event);
            state.delay.take(event, silence, scene, &mut told);
            if let Some(doubt) = doubt {
                state.delay.take(doubt, None, scene, &mut told);
            }
        }
        for moved in moved {
            self.moved(state, &moved, scene, &mut told);
        }
        if state.delay.has_question(scene.now) {
            self.wake_checker();
        }
        self.pass_on(state, &told);
        told
    }

    /// Tells what the delay has let go of.
    fn pass_on(&self, state: &mut MutexGuard<'_, State>, told: &[Event]) {
        // Whatever waits now, the flusher has to know when it has waited long enough.
        if !state.delay.is_empty() && state.delay.deadline() != state.tick_at {
            let _ = self.nudge.try_send(());
        }
        if told.is_empty() {
            return;
        }
        state.events += told.iter().filter(|event| event.changes_view()).count() as u64;
        let masses = told.iter().filter(|e| matches!(e, Event::MassLoss { .. }));
        state.mass_losses += masses.count() as u64;
        // The view is updated by now, so whoever is told and asks sees it.
        for slot in &mut state.listeners {
            for event in told {
                slot.offer(event, self.own_name());
            }
        }
        self.settle(state);
    }

    fn tell(&self, state: &mut MutexGuard<'_, State>, event: &Event) {
        for slot in &mut state.listeners {
            slot.offer(event, self.own_name());
        }
        self.settle(state);
    }

    /// After telling: drops who is gone, wakes who waits.
    fn settle(&self, state: &mut MutexGuard<'_, State>) {
        state.listeners.retain(|slot| !slot.gone);
        // Whom the flusher knows to lag costs nothing further, however much comes.
        let lags_anew = |slot: &Slot| slot.outlet.is_waiting() && !slot.flushed;
        if state.listeners.iter().any(lags_anew) {
            // Full: the flusher is awake already.
            let _ = self.nudge.try_send(());
        }
        self.wake(state);
    }

    fn wake(&self, state: &mut MutexGuard<'_, State>) {
        state.generation += 1;
        self.changed.notify_all();
    }

    // ---- queries

    pub fn view_age(&self) -> Option<Duration> {
        self.state.lock().confirmed.map(|at| at.elapsed())
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub fn is_synced(&self) -> bool {
        self.state.lock().synced
    }

    /// The incarnation that listeners were told is ours, while that stands.
    pub fn registered(&self) -> Option<i64> {
        match self.state.lock().own {
            Some(Event::Registered { incarnation, .. }) => Some(incarnation),
            _ => None,
        }
    }

    pub fn store_reachable(&self) -> bool {
        let state = self.state.lock();
        state.confirmed.is_some() && !state.store_lost
    }

    pub fn last_error(&self) -> Option<Error> {
        self.state.lock().last_error.clone()
    }

    pub fn fill(&self, stats: &mut Stats) {
        let state = self.state.lock();
        stats.members = state.len();
        let (checked, overdue, oldest) = state.judge.counts(Instant::now());
        (stats.checked, stats.overdue, stats.oldest_check) = (checked, overdue, oldest);
        stats.held = state.delay.kept().count();
        stats.mass_losses = state.mass_losses;
        stats.revision = state.roster.applied();
        stats.view_age = state.confirmed.map(|at| at.elapsed());
        stats.store_reachable = state.confirmed.is_some() && !state.store_lost;
        stats.events = state.events;
        stats.skipped = state.roster.skipped().counts();
        stats.store_losses = state.store_losses;
        stats.listeners = state
            .listeners
            .iter()
            .map(|slot| ListenerStats {
                name: slot.options.name.clone(),
                capacity: slot.options.capacity,
                depth: slot.outlet.depth() + slot.channel.len() as u64,
                delivered: slot.outlet.delivered(),
                folded: slot.outlet.folded(),
            })
            .collect();
    }

    /// Waits until `ready` gives something, asking it whenever something has changed; `None` at
    /// the deadline, or once closed. `ready` runs without the lock: it may take its time.
    pub fn wait<T>(&self, deadline: Instant, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let mut seen = None;
        loop {
            let closed = {
                let mut state = self.state.lock();
                while seen == Some(state.generation) && !state.closed {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        return None;
                    }
                }
                seen = Some(state.generation);
                state.closed
            };
            if let Some(result) = ready() {
                return Some(result);
            }
            if closed || Instant::now() >= deadline {
                return None;
            }
        }
    }
}

/// For the operator. After the lock is released: a logger is user code.
fn report(out: &Output, told: &[Event]) {
    for notice in &out.notices {
        log::warn!("{notice}");
    }
    report_told(told);
}

fn report_told(told: &[Event]) {
    for event in told {
        match event {
            Event::ServerDown { revision, .. } => log::warn!("{event} at revision {revision}"),
            Event::MassLoss { held, until } => {
                let left = until.saturating_duration_since(Instant::now());
                log::warn!(
                    "many members vanished at once; {held} departures are held for {left:?}"
                );
            }
            Event::Suspect { .. } | Event::Cleared { .. } => log::info!("{event}"),
            _ => log::debug!("{event} at revision {}", event.revision().unwrap_or(0)),
        }
    }
}
