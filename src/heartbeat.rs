//! The heartbeat checker: are the others alive?
//!
//! A thread with connections of its own asks etcd what is left of each member's lease, in a
//! jittered round, at a bounded rate. So it knows the earliest moment at which a lease can run out,
//! and a key that went without a word can be judged; and it sees an owner that no longer renews,
//! long before its lease is gone. What decides is pure: [`window`], [`judge`], [`verdict`].
//!
//! It delays nothing: the keepalive, the watch and the listeners have threads of their own, and
//! each request here is bounded.

mod judge;
mod names;
mod subject;
mod verdict;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, select};

use crate::delay::Question;
use crate::etcd::{Client, Looked};
use crate::hub::Hub;
use crate::jitter::Backoff;
use crate::member::Keyspace;
use crate::stats::{Counters, add};

pub(crate) use judge::{Judge, Next, Shown};
pub(crate) use verdict::{Answer, Finding, is_silent, verdict};
#[cfg(test)]
pub(crate) use window::Ended;

/// What the hub wants to be asked of etcd.
pub(crate) enum Request {
    Look(i64),
    /// Whether the lease of a member whose key is gone lives.
    Ask(Question),
    Wait(Option<Instant>),
}

pub(crate) struct Checker {
    pub client: Arc<Client>,
    pub hub: Arc<Hub>,
    pub counters: Arc<Counters>,
    /// For one look.
    pub budget: Duration,
    pub backoff: Backoff,
    pub keys: Keyspace,
    /// There is something to ask sooner than was known.
    pub nudged: Receiver<()>,
}

impl Checker {
    /// Runs until `stop` disconnects. To unblock it at once, shut its client down as well.
    pub fn run(&mut self, stop: &Receiver<()>) {
        let mut complained = false;
        loop {
            let request = self.hub.next_request();
            let sent = Instant::now();
            let found = match &request {
                Request::Look(lease) => self.client.time_to_live(*lease, self.budget),
                Request::Ask(Question {
                    lease,
                    name,
                    within,
                    ..
                }) => {
                    let key = self.keys.member(name);
                    self.client.lives_without(*lease, &key, *within)
                }
                Request::Wait(until) => {
                    if self.sleep(stop, *until) {
                        return;
                    }
                    continue;
                }
            };
            let answered = Instant::now();
            if stop.try_recv() == Err(TryRecvError::Disconnected) {
                return;
            }
            add(&self.counters.checks);
            let (shown, failure) = match found {
                Ok(Looked::Lives(found)) => (Shown::Lease(found), None),
                Ok(Looked::Gone { cluster }) => (Shown::Gone { cluster }, None),
                Ok(Looked::Behind) => (Shown::Behind, None),
                Err(failure) => (Shown::Nothing, Some(failure)),
            };
            match request {
                Request::Ask(question) => self.hub.answered(question.ticket, shown),
                Request::Look(lease) => self.hub.shown(lease, shown, sent, answered),
                Request::Wait(_) => {}
            }
            let Some(failure) = failure else {
                self.backoff.reset();
                complained = false;
                continue;
            };
            add(&self.counters.checks_failed);
            let error = failure.into_error();
            // Where etcd is away, others say so; what is not allowed only we find out.
            match error.is_setup() && !std::mem::replace(&mut complained, true) {
                true => log::warn!("the members' heartbeats can't be checked: {error}"),
                false => log::debug!("checking heartbeats: {error}"),
            }
            let wait = match error.is_setup() {
                true => self.backoff.slowest(),
                false => self.backoff.next(),
            };
            if self.sleep(stop, Some(Instant::now() + wait)) {
                return;
            }
        }
    }

    /// Until then, or a nudge; for ever where there is no then. True: it is over.
    fn sleep(&self, stop: &Receiver<()>, until: Option<Instant>) -> bool {
        let hour = Instant::now() + Duration::from_secs(3600);
        let wait = until
            .unwrap_or(hour)
            .saturating_duration_since(Instant::now());
        select! {
            recv(stop) -> _ => true,
            recv(self.nudged) -> _ => false,
            default(wait) => false,
        }
    }
}
