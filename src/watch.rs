//! The poll thread: list, watch, resume, reconcile.
//!
//! A loop over an explicit [`State`]; each step is one conversation with etcd. Enforced here:
//!
//! * **G1 Gapless**: a watch starts one past the last revision that the roster has applied, and
//!   that moves by events and listings only; a time-out, or a revision that some header carries,
//!   never moves it.
//! * **G9 No silent stall**: etcd is asked to end each stream after half the stall bound, so an
//!   idle one proves itself alive; one silent for 7/10 of the bound is dropped, and the attempt
//!   to open another is given 1/4. So `StoreLost` comes within the bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::error::Error;
use crate::etcd::{Client, Failure, Frame, Page, WatchRequest};
use crate::hub::Hub;
use crate::jitter::{Backoff, about};
use crate::roster::Rules;
use crate::stats::{Counters, Why, add};

/// Members a page of a listing; halved again and again where their values are huge.
const PAGE: i64 = 1000;

pub(crate) struct Watcher {
    pub client: Arc<Client>,
    pub hub: Arc<Hub>,
    pub rules: Arc<Rules>,
    pub counters: Arc<Counters>,
    pub stall_bound: Duration,
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    pub reconcile_interval: Duration,
    pub backoff: Backoff,
}

/// Revisions that a quiet prefix may fall behind the store. Each new stream makes etcd read all of
/// them to find that none is for us; a listing catches up.
const BEHIND: i64 = 10_000;

/// What to do next.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Read everything, and tell the differences.
    List(Why),
    /// Follow the stream from where the roster stands.
    Watch,
    /// Compare the roster with what etcd held at the same revision.
    Reconcile,
}

/// Why a step failed.
enum Trouble {
    /// A stream that had been open broke.
    Broken(Failure),
    /// etcd could not be asked at all.
    Unasked(Failure),
}

/// What the thread remembers between steps.
struct Memory<'a> {
    stop: &'a Receiver<()>,
    cluster: Option<u64>,
    contact: Instant,
    /// Attempts in a row that did not even reach etcd.
    misses: usize,
    reconcile_at: Instant,
    streams_failed: bool,
    /// How far the store was ahead of us when the last stream was opened.
    behind: i64,
    /// Since the last listing no stream has brought a change, or stood for its whole period.
    just_listed: bool,
}

impl Memory<'_> {
    /// Waits for the end, or so long.
    fn stopped(&self, within: Duration) -> bool {
        self.stop.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Watcher {
    /// Runs until `stop` disconnects. To unblock it at once, shut its client down as well.
    pub fn run(mut self, stop: &Receiver<()>) {
        let mut memory = Memory {
            stop,
            cluster: None,
            contact: Instant::now(),
            misses: 0,
            reconcile_at: Instant::now() + about(self.reconcile_interval),
            streams_failed: false,
            behind: 0,
            just_listed: false,
        };
        let mut state = State::List(Why::First);
        loop {
            let step = match state {
                State::List(why) => self.list(why, &mut memory),
                State::Watch => self.watch(&mut memory),
                State::Reconcile => self.reconcile(&mut memory),
            };
            let wait;
            (state, wait) = match step {
                // Where one listing leads straight to the next, not in haste.
                Ok(State::List(why)) if memory.just_listed => {
                    (State::List(why), self.backoff.next())
                }
                Ok(next) => (next, Duration::ZERO),
                Err(_) if memory.stopped(Duration::ZERO) => return,
                Err(trouble) => {
                    let next = match &trouble {
                        // What the stream can't bring, a listing does.
                        Trouble::Broken(Failure::Final(Error::TooLarge { .. })) => {
                            State::List(Why::Oversized)
                        }
                        Trouble::Broken(Failure::Final(Error::Protocol { .. })) => {
                            State::List(Why::Unreadable)
                        }
                        _ => match state {
                            State::List(why) => State::List(why),
                            State::Watch | State::Reconcile => State::Watch,
                        },
                    };
                    (next, self.failed(trouble, &mut memory))
                }
            };
            if memory.stopped(wait) {
                return;
            }
        }
    }

    /// Takes note of a failure; how long to wait before the next try.
    fn failed(&mut self, trouble: Trouble, memory: &mut Memory<'_>) -> Duration {
        memory.streams_failed = true;
        let (missed, failure) = match trouble {
            Trouble::Broken(failure) => (0, failure),
            Trouble::Unasked(failure) => (1, failure),
        };
        memory.misses += missed;
        let all_missed = memory.misses >= self.client.endpoints();
        let substitute = matches!(failure, Failure::Elsewhere(_)) && !all_missed;
        let error = failure.into_error();
        log::debug!("watching: {error}");
        let silence = memory.contact.elapsed();
        if all_missed || silence >= self.stall_bound.mul_f64(0.9) {
            self.hub.lost(&error);
        }
        // One endpoint's wrong set-up is nobody's concern while another may do.
        if !(substitute && error.is_setup()) {
            self.hub.failed(&error);
        }
        let wait = match error.is_setup() && !substitute {
            // Haste would not help, and may lock an account.
            true => self.backoff.slowest(),
            false => self.backoff.next(),
        };
        match self.hub.store_reachable() {
            // Until etcd counts as lost, the next try has to end within the stall bound.
            true => wait.min(self.stall_bound.mul_f64(0.75).saturating_sub(silence)),
            false => wait,
        }
    }

    /// etcd has answered.
    fn contact(&self, memory: &mut Memory<'_>) {
        memory.contact = Instant::now();
        memory.misses = 0;
        self.hub.confirmed();
    }

    /// All pages of the range at one revision: (revision, cluster).
    fn pages(
        &self,
        memory: &Memory<'_>,
        pinned: i64,
        keys_only: bool,
        mut page: impl FnMut(Vec<crate::kv::Kv>) -> bool,
    ) -> Result<(i64, u64), Failure> {
        let keys = &self.rules.keys;
        let (mut from, to) = (keys.range_start(), keys.range_end());
        let mut limit = PAGE;
        let (mut revision, mut cluster) = (pinned, None);
        loop {
            let answer =
                self.client
                    .range(&from, &to, revision, limit, keys_only, self.request_timeout);
            let found = match answer {
                Err(Failure::Final(Error::TooLarge { .. })) if limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                Err(Failure::Final(Error::TooLarge { .. })) if !keys_only => {
                    self.without_value(&from, &to, revision)?
                }
                other => other?,
            };
            limit = (limit * 2).min(PAGE);
            if revision == 0 {
                revision = found.revision;
            }
            if *cluster.get_or_insert(found.cluster) != found.cluster {
                let reason = "pages of one listing came from different etcd clusters".into();
                return Err(Failure::Elsewhere(Error::Protocol { reason }));
            }
            let done = !found.more || memory.stopped(Duration::ZERO);
            match found.kvs.last() {
                Some(last) if last.key < from => {
                    let reason = "a page begins before where it was asked to".into();
                    return Err(Failure::Elsewhere(Error::Protocol { reason }));
                }
                Some(last) => {
                    from.clone_from(&last.key);
                    from.push(0);
                }
                None if !done => {
                    let reason = "a page without keys says that there are more".into();
                    return Err(Failure::Elsewhere(Error::Protocol { reason }));
                }
                None => {}
            }
            if !page(found.kvs) || done {
                return Ok((revision, cluster.unwrap_or_default()));
            }
        }
    }

    /// The next key, whose value does not even fit into a reply.
    fn without_value(&self, from: &[u8], to: &[u8], revision: i64) -> Result<Page, Failure> {
        let budget = self.request_timeout;
        let mut page = self.client.range(from, to, revision, 1, true, budget)?;
        for kv in &mut page.kvs {
            // Stands for it: beyond the bound as well.
            kv.value = vec![0; self.rules.max_value_bytes + 1];
        }
        Ok(page)
    }

    fn list(&mut self, why: Why, memory: &mut Memory<'_>) -> Result<State, Trouble> {
        let started = Instant::now();
        memory.just_listed = true;
        let mut listing = self.hub.new_listing();
        let pages = self.pages(memory, 0, false, |kvs| {
            listing.page(kvs);
            true
        });
        let (revision, cluster) = match pages {
            Ok(found) => found,
            // Its pages outlived their revision: from the start.
            Err(Failure::NoSuchRevision) => return Ok(State::List(Why::Compacted)),
            Err(other) => return Err(Trouble::Unasked(other)),
        };
        if memory.stopped(Duration::ZERO) {
            return Ok(State::Watch);
        }
        memory.cluster = Some(cluster);
        memory.reconcile_at = Instant::now() + about(self.reconcile_interval);
        self.counters.relist(why);
        self.contact(memory);
        self.hub.listing(listing.complete(), revision, cluster);
        let (members, took) = (self.hub.known(), started.elapsed());
        log::info!("listed {members} members at revision {revision} in {took:?} ({why:?})");
        Ok(State::Watch)
    }

    fn watch(&mut self, memory: &mut Memory<'_>) -> Result<State, Trouble> {
        let start_revision = self.hub.applied().saturating_add(1);
        let keys = &self.rules.keys;
        // Jittered: clients that came back together would renew together, for ever.
        let period = about(self.stall_bound / 2);
        let quarter = self.stall_bound / 4;
        let connect = self.connect_timeout.min(quarter / 4);
        let request = WatchRequest {
            from: &keys.range_start(),
            to: &keys.range_end(),
            start_revision,
            period,
            connect,
            // A hanging endpoint that has substitutes costs no more than a dead one.
            answer: match self.client.endpoints() {
                1 => quarter - connect,
                _ => self.connect_timeout.min(quarter - connect),
            },
            silence: self.stall_bound.mul_f64(0.7),
        };
        let opened = Instant::now();
        let mut stream = self.client.watch(&request).map_err(|failure| {
            self.client.rotate();
            Trouble::Unasked(failure)
        })?;
        let mut alive = false;
        loop {
            let frame = stream.next().map_err(|failure| {
                self.client.rotate();
                // A refused token is an answer, too.
                match alive || matches!(failure, Failure::TokenExpired) {
                    true => Trouble::Broken(failure),
                    false => Trouble::Unasked(failure),
                }
            })?;
            if memory.stopped(Duration::ZERO) {
                return Ok(State::Watch);
            }
            match frame {
                Some(Frame::Created { revision, cluster }) => {
                    if memory.cluster != Some(cluster) {
                        return Ok(State::List(Why::ClusterChanged));
                    }
                    // This endpoint is behind us: etcd was wiped or restored, or it lags. A
                    // linearizable listing tells which.
                    if revision < start_revision - 1 {
                        return Ok(State::List(Why::WentBack));
                    }
                    alive = true;
                    memory.behind = revision.saturating_sub(start_revision);
                    if std::mem::take(&mut memory.streams_failed) {
                        add(&self.counters.reconnects);
                        log::info!("watching again, from revision {start_revision}");
                    }
                    self.contact(memory);
                    // It waits for a stream to end in good order, but not for ever.
                    if Instant::now() >= memory.reconcile_at + self.stall_bound {
                        return Ok(State::Reconcile);
                    }
                }
                Some(Frame::Events(events)) => {
                    self.backoff.reset();
                    memory.just_listed = false;
                    self.hub.events(events);
                    self.contact(memory);
                }
                Some(Frame::Compacted) => return Ok(State::List(Why::Compacted)),
                None => {
                    // Good order, but far too early: something between us and etcd ends streams.
                    if !alive || opened.elapsed() < period / 2 {
                        self.client.rotate();
                        let reason = "the watch stream ended before its time".into();
                        let failure = Failure::Elsewhere(Error::Protocol { reason });
                        return Err(match alive {
                            true => Trouble::Broken(failure),
                            false => Trouble::Unasked(failure),
                        });
                    }
                    self.backoff.reset();
                    memory.just_listed = false;
                    self.contact(memory);
                    return Ok(match Instant::now() >= memory.reconcile_at {
                        true => State::Reconcile,
                        false => State::Watch,
                    });
                }
            }
        }
    }

    /// Covers what etcd itself has lost: its watches have dropped events around compactions. Reads
    /// the past, so that a change since then is still told by the stream, with its reason.
    fn reconcile(&mut self, memory: &mut Memory<'_>) -> Result<State, Trouble> {
        if memory.behind > BEHIND {
            return Ok(State::List(Why::Behind));
        }
        memory.reconcile_at = Instant::now() + about(self.reconcile_interval);
        let (mut same, mut seen) = (true, 0);
        let pages = self.pages(memory, self.hub.applied(), true, |keys| {
            match self.hub.matches(&keys) {
                Some(known) => seen += known,
                None => same = false,
            }
            same
        });
        let cluster = match pages {
            Ok((_, cluster)) => cluster,
            Err(Failure::NoSuchRevision) => return Ok(State::List(Why::Compacted)),
            Err(other) => return Err(Trouble::Unasked(other)),
        };
        if memory.stopped(Duration::ZERO) {
            return Ok(State::Watch);
        }
        self.contact(memory);
        if memory.cluster != Some(cluster) {
            return Ok(State::List(Why::ClusterChanged));
        }
        if !same || seen != self.hub.known() {
            log::warn!("etcd's watch stream has lost something; listing everything");
            return Ok(State::List(Why::LostEvents));
        }
        Ok(State::Watch)
    }
}
