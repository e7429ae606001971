//! The own registration: grant, put, keepalive, verify, leave.
//!
//! Enforced here:
//!
//! * **G8 Self-healing**: whatever was lost is got back, for ever, with jittered back-off; only a
//!   displacement is final.
//! * **G10 Self-fencing**: the lease counts from when the last successful keepalive was *sent*,
//!   less a margin; past that we say `Lost`, before etcd could tell anybody. See [`Own`].

mod decide;
mod own;
mod requests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use crate::error::Error;
use crate::etcd::{Client, Failure};
use crate::event::Event;
use crate::hub::Hub;
use crate::jitter::{Backoff, about};
use crate::kv::Standing;
use crate::member::{Document, Keyspace, Metadata};
use crate::settings::OnConflict;
use crate::stats::{Counters, add};
use decide::{Decision, Verdict};

pub(crate) use own::Own;
pub(crate) use requests::leave;

/// Metadata to publish, and whom to tell how that went.
pub(crate) struct Update {
    pub metadata: Metadata,
    pub done: Sender<Result<(), Error>>,
}

pub(crate) struct Keeper {
    pub client: Arc<Client>,
    pub hub: Arc<Hub>,
    pub own: Arc<Own>,
    pub counters: Arc<Counters>,
    pub keys: Keyspace,
    pub name: Box<str>,
    pub document: Document,
    pub ttl: Duration,
    pub on_conflict: OnConflict,
    pub request_timeout: Duration,
    pub backoff: Backoff,
    /// The newest incarnation that we had.
    pub last: Option<i64>,
    /// Steps in a row that left us out.
    pub rounds: u32,
    /// The watch saw somebody else's hand on our key.
    pub touched: Receiver<()>,
    pub updates: Receiver<Update>,
}

/// A lease that etcd may still hold for us.
#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    ttl: Duration,
    /// When the grant, or the last keepalive that succeeded, was sent.
    sent: Instant,
}

/// To be in after a loss takes so many steps at most: to find that it is lost, to end another's
/// registration, to put ours. One more for luck.
const STEPS_IN: u32 = 4;

impl Lease {
    /// A third of the time to live: two renewals may fail.
    fn renewal(&self) -> Duration {
        self.ttl / 3
    }

    /// Whoever waits for a renewal wakes up a little before it, by some jitter.
    fn is_due(&self) -> bool {
        self.sent.elapsed() >= self.renewal().mul_f64(0.9)
    }

    /// From here on etcd may have let it run out, give or take the margin.
    fn fence(&self) -> Instant {
        self.sent + self.ttl - margin(self.ttl)
    }
}

/// Time for us to act on `Lost` before our peers could be told: a tenth of the TTL, and what a busy
/// machine may take to schedule a thread.
fn margin(ttl: Duration) -> Duration {
    (ttl / 10).max(Duration::from_millis(500))
}

/// Where the registration stands.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Not registered, or no longer.
    Out,
    /// Another one holds our name, and we wait for it to go.
    Waiting,
    /// Our key was there when last looked at.
    /// `verified` is when; `None`: look again now.
    In {
        incarnation: i64,
        verified: Option<Instant>,
    },
    /// Out for good: displaced, or in conflict.
    Ended,
}

impl Keeper {
    /// Runs until `stop` disconnects. To unblock it at once, shut its client down as well.
    pub fn run(&mut self, stop: &Receiver<()>) {
        // Doubtful where it begins anew.
        self.lost();
        let mut state = State::Out;
        let mut lease: Option<Lease> = None;
        loop {
            // Before anything that may block.
            self.fence(state, lease);
            let wait = match self.step(&mut state, &mut lease) {
                Ok(wait) => wait,
                Err(failure) => self.failed(failure, lease),
            };
            let wait = match (state, lease) {
                // Not past the fence: there is something to say then.
                (State::In { .. }, Some(lease)) if self.own.is_told() => {
                    wait.min(lease.fence().saturating_duration_since(Instant::now()))
                }
                _ => wait,
            };
            select! {
                recv(stop) -> _ => return,
                recv(self.touched) -> _ => if let State::In { verified, .. } = &mut state {
                    *verified = None;
                    if let Err(failure) = self.verify(&mut state, &mut lease) {
                        self.failed(failure, lease);
                    }
                },
                recv(self.updates) -> update => match update {
                    Ok(update) => self.update(update, &mut state, &mut lease),
                    Err(_) => return,
                },
                default(wait) => {}
            }
        }
    }

    /// One conversation with etcd; how long until the next.
    fn step(&mut self, state: &mut State, lease: &mut Option<Lease>) -> Result<Duration, Failure> {
        match *state {
            State::Ended => return Ok(Duration::from_secs(3600)),
            State::Out | State::Waiting => {
                self.register(state, lease)?;
            }
            State::In { verified, .. } => {
                let held = lease.expect("who is in has a lease");
                if held.is_due() {
                    self.keepalive(state, lease)?;
                }
                let fresh = verified.is_some_and(|at| at.elapsed() < self.ttl);
                if !fresh || !self.own.is_told() {
                    self.verify(state, lease)?;
                }
            }
        }
        let wait = match (*state, *lease) {
            (State::In { .. }, Some(lease)) => {
                about(lease.renewal()).saturating_sub(lease.sent.elapsed())
            }
            (State::Waiting, _) => about(self.ttl / 3),
            (State::Ended, _) => Duration::from_secs(3600),
            // On the way in: at once, unless it leads nowhere.
            _ => {
                self.rounds += 1;
                return Ok(match self.rounds {
                    ..=STEPS_IN => Duration::ZERO,
                    _ => self.backoff.next(),
                });
            }
        };
        self.rounds = 0;
        self.backoff.reset();
        Ok(wait)
    }

    fn failed(&mut self, failure: Failure, lease: Option<Lease>) -> Duration {
        let error = failure.into_error();
        log::debug!("own registration: {error}");
        self.hub.failed(&error);
        let wait = match error.is_setup() {
            true => self.backoff.slowest(),
            false => self.backoff.next(),
        };
        match lease {
            // Haste would lock the account.
            Some(_) if matches!(error, Error::WrongPassword { .. }) => wait,
            Some(lease) => wait.min(about(lease.renewal())),
            None => wait,
        }
    }

    /// G10: says `Lost` once the lease may have run out.
    fn fence(&self, state: State, lease: Option<Lease>) {
        let (State::In { .. }, Some(lease)) = (state, lease) else {
            return;
        };
        if self.own.is_told() && Instant::now() >= lease.fence() {
            self.lost();
        }
    }

    fn lost(&self) {
        if self.own.clear() {
            add(&self.counters.registration_losses);
            self.hub.own_event(Event::Lost);
        }
    }

    /// Another one has our name, for good.
    fn end(&self, state: &mut State) {
        let conflict = Error::Conflict {
            member: self.name.to_string(),
        };
        self.hub.failed(&conflict);
        // Should `start` still wait: no longer.
        self.own.refuse(conflict);
        self.own.end();
        *state = State::Ended;
        self.hub.own_event(Event::Displaced);
    }

    /// Looks who is there, and does what the policy says.
    fn register(&mut self, state: &mut State, lease: &mut Option<Lease>) -> Result<(), Failure> {
        let found = self.look(None)?.member;
        let instance = self.document.instance.as_deref();
        match decide::decide(found.as_ref(), instance, self.last, self.on_conflict) {
            Decision::Create => self.write(Standing::ABSENT, state, lease),
            Decision::Adopt(ours) => self.write(ours, state, lease),
            Decision::TakeOver(victim) => {
                let life = victim.incarnation;
                log::warn!("taking {} over from incarnation {life}", self.name);
                let ours = self.lease(lease)?;
                let ended = self.end_other(victim, ours.id);
                if let Err(Failure::LeaseGone) = ended {
                    *lease = None;
                }
                ended
            }
            Decision::Wait => {
                if !matches!(state, State::Waiting) {
                    log::info!(
                        "{} is held by another instance; waiting for it to go",
                        self.name
                    );
                }
                *state = State::Waiting;
                self.own.waiting();
                self.hub.waiting();
                Ok(())
            }
            Decision::Conflict | Decision::Displaced => {
                self.end(state);
                Ok(())
            }
        }
    }

    /// The lease at hand, or a new one.
    fn lease(&self, lease: &mut Option<Lease>) -> Result<Lease, Failure> {
        // One that might run out before the key hangs on it is no use.
        if let Some(lease) = lease.filter(|l| l.sent.elapsed() < l.renewal()) {
            return Ok(lease);
        }
        let sent = Instant::now();
        let (id, ttl) = self.client.grant(self.ttl, self.request_timeout)?;
        Ok(*lease.insert(Lease { id, ttl, sent }))
    }

    /// Puts our key over what is expected to stand there. If it stands otherwise, the next step
    /// looks again.
    fn write(
        &mut self,
        expected: Standing,
        state: &mut State,
        lease: &mut Option<Lease>,
    ) -> Result<(), Failure> {
        let on = match state {
            // A new one would keep us sure while our key, should the put fail, runs out on the old.
            State::In { .. } => lease.expect("who is in has a lease"),
            _ => self.lease(lease)?,
        };
        let written = match self.put(expected, on.id) {
            Err(Failure::LeaseGone) => {
                *lease = None;
                let State::In { .. } = state else {
                    // Granted a moment ago: that is none of the ways in.
                    return Err(Failure::LeaseGone);
                };
                self.lost();
                *state = State::Out;
                return Ok(());
            }
            other => other?,
        };
        match (written, &mut *state) {
            (Some(incarnation), state) => {
                self.last = Some(incarnation);
                *state = State::In {
                    incarnation,
                    verified: Some(Instant::now()),
                };
                self.tell(incarnation, on);
            }
            (None, State::In { verified, .. }) => *verified = None,
            (None, _) => {}
        }
        Ok(())
    }

    /// We are registered, as far as the lease reaches. After a doubt only a keepalive that succeeds
    /// makes us sure again.
    fn tell(&self, incarnation: i64, lease: Lease) {
        if Instant::now() >= lease.fence() {
            return;
        }
        if self.own.set(incarnation, lease.id, lease.fence()) {
            add(&self.counters.registrations);
            self.hub.own_event(Event::Registered {
                incarnation,
                lease: lease.id,
            });
        }
    }

    fn keepalive(&mut self, state: &mut State, lease: &mut Option<Lease>) -> Result<(), Failure> {
        let held = lease.expect("who is in has a lease");
        let sent = Instant::now();
        let ask = |budget| self.client.keepalive(held.id, budget);
        match self.within(held.renewal(), ask) {
            Ok(ttl) => {
                let renewed = Lease { ttl, sent, ..held };
                *lease = Some(renewed);
                self.own.extend(sent, renewed.fence());
                Ok(())
            }
            Err(Failure::LeaseGone) => {
                log::warn!("etcd no longer knows our lease {:x}", held.id);
                *lease = None;
                self.lost();
                *state = State::Out;
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Looks at our own key: keys get deleted by hand, stores get wiped, names get taken.
    fn verify(&mut self, state: &mut State, lease: &mut Option<Lease>) -> Result<(), Failure> {
        let State::In {
            incarnation,
            verified,
        } = state
        else {
            return Ok(());
        };
        let held = lease.expect("who is in has a lease");
        let seen = self.look(Some(*incarnation))?;
        let instance = self.document.instance.as_deref();
        let value = self.document.to_json(&self.name);
        let known = Standing {
            incarnation: *incarnation,
            lease: held.id,
        };
        match decide::verdict(&seen, instance, known, &value) {
            Verdict::Ours => {
                *verified = Some(Instant::now());
                let incarnation = *incarnation;
                self.tell(incarnation, held);
                Ok(())
            }
            Verdict::Rewrite(found) => self.write(found, state, lease),
            Verdict::Gone => {
                log::warn!("our key {} is gone from etcd; putting it back", self.name);
                self.lost();
                *state = State::Out;
                Ok(())
            }
            Verdict::Displaced => {
                self.end(state);
                Ok(())
            }
        }
    }

    /// New metadata: published now if we are in, else with the next registration.
    fn update(&mut self, update: Update, state: &mut State, lease: &mut Option<Lease>) {
        self.document.metadata = update.metadata;
        let published = match state {
            State::Ended => Err(Error::NotAMember),
            State::In { verified, .. } => {
                // Whatever fails now, the next look finds our key different from what it should be.
                *verified = None;
                self.verify(state, lease).map_err(Failure::into_error)
            }
            State::Out | State::Waiting => Ok(()),
        };
        // Whoever asked may have given up.
        let _ = update.done.send(published);
    }
}
