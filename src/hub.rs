//! Where everything meets: the roster, the listeners' outlets, and whoever asks.
//!
//! A lock, not a thread: the watch thread applies a batch and puts it into the listeners' channels
//! in one go, with no hand-over between. The lock is held for pushing pointers and never for I/O,
//! user code, or a wait. What is decided under it, [`State`] decides, which is pure.

mod beats;
mod flush;
mod listeners;
mod options;
mod state;
mod view;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use crate::error::Error;
use crate::event::Event;
use crate::jitter::Random;
use crate::kv::{Kv, KvEvent};
use crate::roster::Listing;
use crate::stats::{ListenerStats, Stats, Why};

pub use options::Options;
pub(crate) use state::{Setup, State, Told, Wakes};

pub(crate) struct Hub {
    state: Mutex<State>,
    /// Something that [`wait`](Self::wait) may be waiting for has changed.
    changed: Condvar,
    /// Wakes the flusher.
    nudge: Sender<()>,
    /// Wakes the registration thread.
    touched: Sender<()>,
    /// Wakes the heartbeat checker.
    ask: Sender<()>,
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

impl Hub {
    pub fn new(setup: Setup) -> (Self, Wakers) {
        let (nudge, nudged) = bounded(1);
        let (touch, touched) = bounded(1);
        let (ask, asked) = bounded(1);
        let hub = Hub {
            state: Mutex::new(State::new(setup, Random::new(), Instant::now())),
            changed: Condvar::new(),
            nudge,
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

    /// Does something under the lock, and wakes whom it concerns.
    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.lock();
        // Under the lock, so that for the state time never goes back.
        let done = change(&mut state, Instant::now());
        self.send(state.take_wakes());
        done
    }

    /// Full channels belong to those who are awake already.
    fn send(&self, wakes: Wakes) {
        if wakes.flusher {
            let _ = self.nudge.try_send(());
        }
        if wakes.registration {
            let _ = self.touched.try_send(());
        }
        if wakes.checker {
            let _ = self.ask.try_send(());
        }
        if wakes.waiting {
            self.changed.notify_all();
        }
    }

    // ---- what the watch thread brings

    pub fn events(&self, batch: Vec<KvEvent>) {
        report(&self.change(|state, now| state.events(batch, now)));
    }

    /// Complete, as of that revision of that cluster; listed because of this.
    pub fn listing(&self, listing: Listing, of: (i64, u64), why: Why) {
        report(&self.change(|state, now| state.listing(listing, of, why, now)));
    }

    /// An empty listing that knows what the view holds.
    pub fn new_listing(&self) -> Listing {
        self.state.lock().new_listing()
    }

    pub fn matches(&self, page: &[Kv]) -> Result<usize, Why> {
        self.state.lock().matches(page)
    }

    pub fn applied(&self) -> i64 {
        self.state.lock().applied()
    }

    /// How many keys etcd holds of members, as far as has been heard.
    pub fn known(&self) -> usize {
        self.state.lock().known()
    }

    /// etcd has just spoken: the view is current.
    pub fn confirmed(&self) {
        let restored = self.change(|state, now| state.confirmed(now).then(|| state.applied()));
        if let Some(revision) = restored {
            log::info!("etcd is back; the view stands at revision {revision}");
        }
    }

    /// etcd is out of reach. `concerns`: users may want to know the reason.
    pub fn lost(&self, error: &Error, concerns: bool) {
        let why = concerns.then_some(error);
        let members = self.change(|state, _| state.lost(why).then(|| state.len()));
        if let Some(members) = members {
            log::warn!("etcd is out of reach, the view of {members} members is kept: {error}");
        }
    }

    // ---- what the registration thread brings

    /// Something happened to our own registration.
    pub fn own_event(&self, event: Event) {
        self.change(|state, _| state.own_event(&event));
        match &event {
            Event::Displaced | Event::Lost => log::warn!("own registration: {event}"),
            _ => log::info!("own registration: {event}"),
        }
    }

    /// Our registration waits for its turn; `start` does not.
    pub fn waiting(&self) {
        self.change(|state, _| state.wake());
    }

    pub fn failed(&self, error: &Error) {
        self.change(|state, _| state.failed(error));
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
        match self.state.lock().standing {
            Some(Event::Registered { incarnation, .. }) => Some(incarnation),
            _ => None,
        }
    }

    pub fn store_reachable(&self) -> bool {
        self.state.lock().store_reachable()
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
        stats.store_reachable = state.store_reachable();
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
fn report(told: &Told) {
    for notice in &told.notices {
        log::warn!("{notice}");
    }
    for event in &told.events {
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
