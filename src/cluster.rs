//! The handle that users hold.
//!
//! Enforced here: **G12 Clean end**. [`Cluster::leave`] (and drop, which calls it) is idempotent,
//! bounded, and joins every thread that Headcount started.

mod start;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::builder::Builder;
use crate::error::Error;
use crate::etcd::{Client, Shared};
use crate::event::Event;
use crate::hub::{Hub, Options};
use crate::lease::{self, Own, Update};
use crate::listener::{Handler, Listener, ListenerGuard};
use crate::member::{Keyspace, Member, Metadata};
use crate::settings::{Settings, check_metadata};
use crate::stats::{Counters, Stats};
use crate::worker::{Worker, join};

/// This process' connection to its cluster: it watches, and, as a member, is seen.
///
/// Queries never talk to etcd. Share it between threads with an [`Arc`]. Dropping it leaves: the
/// last `Arc`, that is, so a [`Listener`] that calls back should hold a [`Weak`](std::sync::Weak).
pub struct Cluster {
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    identity: Option<Identity>,
    settings: Settings,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    handlers: Mutex<Vec<Handler>>,
}

/// Who this process is.
struct Identity {
    name: Box<str>,
    instance: Box<str>,
    keys: Keyspace,
    own: Arc<Own>,
    updates: Sender<Update>,
}

/// What has to be stopped.
struct Running {
    watcher: Worker,
    checker: Option<Worker>,
    keeper: Option<Worker>,
    flusher: JoinHandle<()>,
}

impl Cluster {
    /// Settings, to begin with.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Waits until the view is complete and, for a member, it is registered and in the view.
    fn ready(&self) -> Result<(), Error> {
        let after = self.settings.start_timeout;
        let ready = self.hub.wait(Instant::now() + after, || {
            if let Some(error) = self.identity.as_ref().and_then(|me| me.own.refused()) {
                return Some(Err(error));
            }
            if let Some(error) = self.hub.last_error().filter(Error::is_setup) {
                return Some(Err(error));
            }
            // The watch may bring our key before `Registered` is told: who subscribes once we are
            // ready is to have it first.
            let told = || self.hub.registered();
            let there = |me: &Identity| {
                let seen = || self.member_named(&me.name).map(|m| m.incarnation());
                let stands = me.own.incarnation().filter(|&at| told() == Some(at));
                me.own.is_waiting() || stands.is_some_and(|at| seen() == Some(at))
            };
            let ready = self.hub.is_synced() && self.identity.as_ref().is_none_or(there);
            ready.then_some(Ok(()))
        });
        ready.unwrap_or_else(|| {
            let last = self.hub.last_error().map(Box::new);
            Err(Error::StartTimeout { after, last })
        })
    }

    fn member_named(&self, name: &str) -> Option<Arc<Member>> {
        let (server_type, id) = name.split_once('/')?;
        self.hub.member(server_type, id)
    }

    // ---- listening

    /// A channel of events, with the default [`Options`]. Iterate over it, or `select!` on it.
    ///
    /// First it tells how things stand: `StoreLost` if etcd is out of reach, `Registered` or
    /// `Displaced` if this process is. Then everybody who is there, this process included (see
    /// [`Options::others_only`]), with a `Suspect` for whoever is late; `Synced`; and then changes.
    ///
    /// Dropping the receiver unsubscribes; that is noticed with the next event meant for it, and
    /// until then costs the memory of its channel. The channel closes when the cluster is left.
    pub fn subscribe(&self) -> Receiver<Event> {
        self.subscribe_with(Options::new())
    }

    /// A channel of events as wanted.
    pub fn subscribe_with(&self, options: Options) -> Receiver<Event> {
        self.hub.subscribe(options).1
    }

    /// Runs `listener` on a thread of its own, with the default [`Options`], until the guard is
    /// dropped or the cluster is left.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system gives no thread, [`Error::Closed`] after leaving.
    pub fn add_listener(&self, listener: impl Listener) -> Result<ListenerGuard, Error> {
        self.add_listener_with(Options::new(), listener)
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`add_listener`](Self::add_listener).
    pub fn add_listener_with(
        &self,
        options: Options,
        listener: impl Listener,
    ) -> Result<ListenerGuard, Error> {
        let mut handlers = self.handlers.lock();
        if self.hub.is_closed() {
            return Err(Error::Closed);
        }
        handlers.retain(|handler| !handler.is_finished());
        let name = options.name.clone();
        let (id, events) = self.hub.subscribe(options);
        let (hub, counters) = (Arc::clone(&self.hub), Arc::clone(&self.counters));
        let spawned = Handler::spawn(&name, id, events, listener, hub, counters);
        let (guard, handler) = spawned.map_err(|e| {
            self.hub.unsubscribe(id);
            Error::Thread {
                reason: e.to_string(),
            }
        })?;
        handlers.push(handler);
        Ok(guard)
    }

    // ---- asking (never talks to etcd)

    /// All members, this process included, sorted by type and id.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.hub.members()
    }

    /// The members of one type, sorted by id.
    pub fn members_of(&self, server_type: &str) -> Vec<Arc<Member>> {
        self.hub.members_of(server_type)
    }

    /// One member.
    pub fn member(&self, server_type: &str, id: &str) -> Option<Arc<Member>> {
        self.hub.member(server_type, id)
    }

    /// Waits until `predicate` holds for the members (sorted by type and id), or the timeout, or
    /// that the cluster is left: whether it held. It is asked first at once, then after each change,
    /// on this thread.
    pub fn wait_for(
        &self,
        mut predicate: impl FnMut(&[Arc<Member>]) -> bool,
        timeout: Duration,
    ) -> bool {
        let ready = || predicate(&self.members()).then_some(());
        // `Duration::MAX`, "for ever", is beyond what an `Instant` can hold.
        let deadline = Instant::now() + timeout.min(Duration::from_secs(1 << 30));
        self.hub.wait(deadline, ready).is_some()
    }

    /// How long ago etcd last confirmed the view; `None` before the first listing. With etcd in
    /// reach it stays below half the stall bound.
    pub fn view_age(&self) -> Option<Duration> {
        self.hub.view_age()
    }

    /// etcd's revision that the view stands at.
    pub fn view_revision(&self) -> i64 {
        self.hub.applied()
    }

    /// Whether the view is complete: the first listing is done.
    pub fn is_synced(&self) -> bool {
        self.hub.is_synced()
    }

    /// Whether etcd is within reach: false before the first contact, and between `StoreLost` and
    /// `StoreRestored`.
    pub fn store_reachable(&self) -> bool {
        self.hub.store_reachable()
    }

    /// What went wrong last in the background, unless etcd was lost and has come back since.
    pub fn last_error(&self) -> Option<Error> {
        self.hub.last_error()
    }

    /// Counters and queues, as of now.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.hub.fill(&mut stats);
        self.counters.fill(&mut stats);
        let keepalive = self.identity.as_ref().and_then(|me| me.own.keepalive());
        stats.keepalive_age = keepalive.map(|at| at.elapsed());
        stats
    }

    // ---- oneself

    /// Whether this process is registered, as far as it can be sure: false as soon as its lease
    /// might have run out, which is before any peer is told of that. Cheap; ask before you act on it.
    ///
    /// That its key was deleted, or its name taken over, it learns as its peers do, and not before
    /// them. And time does not count while the machine is suspended: who wakes up learns with the
    /// next keepalive. Where two processes must never do the same work, let whatever they work on
    /// refuse the smaller [`incarnation`](Self::incarnation).
    pub fn is_registered(&self) -> bool {
        self.identity
            .as_ref()
            .is_some_and(|me| me.own.is_registered())
    }

    /// This process' incarnation, while it [is registered](Self::is_registered).
    pub fn incarnation(&self) -> Option<i64> {
        self.identity.as_ref()?.own.incarnation()
    }

    /// Replaces this process' metadata; the others get `UpdateMember`, under the same incarnation.
    /// (Servers of Pitaya's Go framework take no notice of such an update.)
    ///
    /// Blocks until etcd has it, for three times `request_timeout` at most. While this process is
    /// not registered it returns at once, and they go out with the next registration.
    ///
    /// # Errors
    /// [`Error::NotAMember`] for an observer or a displaced member, [`Error::Setting`] for a
    /// reserved key or more than `max_value_bytes`, [`Error::Closed`] after leaving. Any other says
    /// why etcd does not have them yet; they stay, and go out as soon as it answers.
    pub fn update_metadata<K, V>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Error>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let me = self.identity.as_ref().ok_or(Error::NotAMember)?;
        let metadata: Metadata = pairs.into_iter().collect();
        check_metadata(metadata.iter().map(|(key, _)| key))?;
        let document = start::document(&self.settings, metadata.clone(), &me.instance);
        start::check_size(&document, &me.name, &self.settings)?;
        let (done, answer) = bounded(1);
        // The thread may be in one request, then has to look and to put.
        let deadline = Instant::now() + 3 * self.settings.request_timeout;
        let sent = me
            .updates
            .send_deadline(Update { metadata, done }, deadline);
        let late = || {
            let all: Vec<&str> = self.shared.endpoints.iter().map(|e| &*e.url).collect();
            Error::Timeout {
                endpoint: all.join(", ").into(),
                limit: "request_timeout",
                after: 3 * self.settings.request_timeout,
            }
        };
        sent.map_err(|e| match e {
            SendTimeoutError::Timeout(_) => late(),
            SendTimeoutError::Disconnected(_) => Error::Closed,
        })?;
        answer.recv_deadline(deadline).unwrap_or_else(|e| {
            Err(match e {
                RecvTimeoutError::Timeout => late(),
                RecvTimeoutError::Disconnected => Error::Closed,
            })
        })
    }

    /// Leaves: the others are told `RemoveMember` at once; all threads end, but that of a handler
    /// still busy after `drain_timeout`, which ends when its call returns; channels close, after
    /// what they hold has been read.
    ///
    /// Blocks for `leave_timeout` and twice `drain_timeout` at most, and for up to a few
    /// `connect_timeout`s where a connection is just being made in vain; with etcd up and listeners
    /// that keep up, for milliseconds. The second call returns at once.
    /// A handler may call it: its thread then ends when the handler returns.
    ///
    /// # Errors
    /// If the others could not be told. Everything is ended all the same, and they find out when
    /// the lease runs out.
    pub fn leave(&self) -> Result<(), Error> {
        let Some(mut running) = self.running.lock().take() else {
            return Ok(());
        };
        let mut result = Ok(());
        // What they wait for, such as a login, must not hold up the leave.
        running.watcher.end();
        running.checker.iter_mut().for_each(Worker::end);
        let client = running.keeper.map(|keeper| keeper.stop().anew());
        if let Some(me) = self.identity.as_ref().filter(|me| me.own.is_at_stake()) {
            let client = client.unwrap_or_else(|| Client::new(Arc::clone(&self.shared)));
            let budget = self.settings.leave_timeout;
            let last = me.own.last();
            // G10: we stop being sure before anybody is told.
            me.own.end();
            result = lease::leave(&client, &me.keys, &me.name, &me.instance, last, budget);
            if let Err(Error::Timeout { limit, .. }) = &mut result {
                *limit = "leave_timeout";
            }
            match &result {
                Ok(()) => log::info!("{} has left", me.name),
                Err(error) => log::warn!("{} could not tell that it leaves: {error}", me.name),
            }
        }
        running.watcher.stop();
        if let Some(checker) = running.checker {
            checker.stop();
        }
        self.hub.close(Instant::now() + self.settings.drain_timeout);
        join(running.flusher);
        let deadline = Instant::now() + self.settings.drain_timeout;
        // Not under the lock: a handler may be about to add a listener.
        let handlers = std::mem::take(&mut *self.handlers.lock());
        for handler in handlers {
            handler.join(deadline);
        }
        result
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Whoever wants to know calls `leave`; it has been logged.
        let _ = self.leave();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("member", &self.identity.as_ref().map(|me| &me.name))
            .field("prefix", &self.settings.prefix)
            .field("endpoints", &self.shared.endpoints)
            .finish_non_exhaustive()
    }
}
