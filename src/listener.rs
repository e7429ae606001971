//! Handlers on threads of their own.
//!
//! Enforced here: **G11 Isolated**. A panic in a handler is caught, logged and counted; the
//! handler goes on with the next event, and nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::event::{DownCause, Event, Evidence, RemoveReason};
use crate::hub::Hub;
use crate::member::Member;
use crate::stats::{Counters, add};
use crate::worker::panics;

/// Whoever wants to be told. Implement it for a type of your own, or pass a closure
/// `FnMut(&Event)`.
///
/// Its methods run on one thread that belongs to this listener alone, one at a time, in order.
/// They may block, call back into the [`Cluster`](crate::Cluster), drop their own guard, or panic:
/// nobody else is held up. To call back hold a [`Weak`](std::sync::Weak): an `Arc` would keep the
/// cluster from being dropped for as long as the listener is subscribed.
pub trait Listener: Send + 'static {
    /// A member joined, or was there already.
    fn add_member(&mut self, member: &Arc<Member>);

    /// A member left on purpose.
    fn remove_member(&mut self, member: &Arc<Member>, reason: RemoveReason);

    /// A member is gone without having left.
    fn server_down(&mut self, member: &Arc<Member>, cause: &DownCause);

    /// The same incarnation of a member has a new value; or the same process is back after a mass
    /// loss, as a new incarnation.
    fn update_member(&mut self, _member: &Arc<Member>, _previous: &Arc<Member>) {}

    /// A member's heartbeat is late; it is not down yet.
    fn suspect(&mut self, _member: &Arc<Member>, _evidence: &Evidence) {}

    /// A suspected member is well again.
    fn cleared(&mut self, _member: &Arc<Member>) {}

    /// Everybody who was there has been told; what follows are changes.
    fn synced(&mut self) {}

    /// etcd is out of reach; the view is kept.
    fn store_lost(&mut self) {}

    /// etcd is back.
    fn store_restored(&mut self) {}

    /// Many vanished at once; so many departures, and those that follow, are held until then.
    fn mass_loss(&mut self, _held: usize, _until: Instant) {}

    /// This listener was too slow; so many events were folded into others.
    fn lagged(&mut self, _folded: u64) {}

    /// This process is registered.
    fn registered(&mut self, _incarnation: i64) {}

    /// This process' registration is, or may be, lost.
    fn lost(&mut self) {}

    /// Another instance has taken this process' (type, id).
    fn displaced(&mut self) {}

    /// Every event comes here first. The default hands it to the methods above; override it to
    /// see events as values.
    fn event(&mut self, event: &Event) {
        match event {
            Event::AddMember(member) => self.add_member(member),
            Event::UpdateMember { member, previous } => self.update_member(member, previous),
            Event::RemoveMember { member, reason, .. } => self.remove_member(member, *reason),
            Event::ServerDown { member, cause, .. } => self.server_down(member, cause),
            Event::Suspect { member, evidence } => self.suspect(member, evidence),
            Event::Cleared { member } => self.cleared(member),
            Event::Synced => self.synced(),
            Event::StoreLost => self.store_lost(),
            Event::StoreRestored => self.store_restored(),
            Event::MassLoss { held, until } => self.mass_loss(*held, *until),
            Event::Lagged { folded } => self.lagged(*folded),
            Event::Registered { incarnation, .. } => self.registered(*incarnation),
            Event::Lost => self.lost(),
            Event::Displaced => self.displaced(),
        }
    }
}

impl<F: FnMut(&Event) + Send + 'static> Listener for F {
    fn add_member(&mut self, _: &Arc<Member>) {}
    fn remove_member(&mut self, _: &Arc<Member>, _: RemoveReason) {}
    fn server_down(&mut self, _: &Arc<Member>, _: &DownCause) {}
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

/// Keeps a listener subscribed. Dropping it unsubscribes: a call that is under way ends, no other
/// begins. It never waits, so a handler may drop its own.
#[must_use = "dropping the guard unsubscribes the listener at once"]
pub struct ListenerGuard {
    id: u64,
    hub: Arc<Hub>,
    silenced: Arc<AtomicBool>,
    kept: bool,
}

impl ListenerGuard {
    /// Leaves the listener subscribed until the cluster handle leaves.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.silenced.store(true, Ordering::Release);
            self.hub.unsubscribe(self.id);
        }
    }
}

impl std::fmt::Debug for ListenerGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerGuard")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A handler's thread, to be joined at the end.
pub(crate) struct Handler {
    thread: JoinHandle<()>,
    silenced: Arc<AtomicBool>,
    /// Disconnects when the thread is through.
    done: Receiver<()>,
}

impl Handler {
    pub fn spawn(
        name: &str,
        id: u64,
        events: Receiver<Event>,
        listener: impl Listener,
        hub: Arc<Hub>,
        counters: Arc<Counters>,
    ) -> std::io::Result<(ListenerGuard, Handler)> {
        let silenced = Arc::new(AtomicBool::new(false));
        let (through, done) = bounded(0);
        let label = if name.is_empty() {
            format!("listener {id}")
        } else {
            name.to_owned()
        };
        let flag = Arc::clone(&silenced);
        let thread = std::thread::Builder::new()
            .name(format!("headcount-{label}"))
            .spawn(move || handle(&label, &events, listener, &flag, &counters, through))?;
        let guard = ListenerGuard {
            id,
            hub,
            silenced: Arc::clone(&silenced),
            kept: false,
        };
        Ok((
            guard,
            Handler {
                thread,
                silenced,
                done,
            },
        ))
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the handler has taken what is in its channel, or the deadline; then it ends
    /// after the call that is under way. From the handler itself: ends after this call.
    pub fn join(self, deadline: Instant) {
        if self.thread.thread().id() == std::thread::current().id() {
            self.silenced.store(true, Ordering::Release);
            return;
        }
        let in_time = matches!(
            self.done.recv_deadline(deadline),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected)
        );
        if in_time {
            // It catches panics; what could fail is past.
            let _ = self.thread.join();
        } else {
            self.silenced.store(true, Ordering::Release);
            let name = self.thread.thread().name().unwrap_or_default().to_owned();
            log::warn!("{name} is still in a handler; its thread is left to end by itself");
        }
    }
}

fn handle(
    name: &str,
    events: &Receiver<Event>,
    mut listener: impl Listener,
    silenced: &AtomicBool,
    counters: &Counters,
    _through: Sender<()>,
) {
    for event in events {
        if silenced.load(Ordering::Acquire) {
            break;
        }
        // Safe to go on: after a panic only the listener's own state may be half-changed, and
        // that is its author's to mind.
        if panics(|| listener.event(&event)) {
            add(&counters.handler_panics);
            log::error!("{name} panicked while handling {event}; it goes on with the next event");
        }
    }
    // Dropping it is user code as well.
    if panics(|| drop(listener)) {
        add(&counters.handler_panics);
        log::error!("{name} panicked while being dropped");
    }
}
