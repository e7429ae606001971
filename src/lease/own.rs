//! What this process knows of its own registration, for whoever asks.

use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Error;
use crate::kv::Standing;

/// Shared by the registration thread, which writes, and the handle, which reads.
#[derive(Default)]
pub(crate) struct Own(Mutex<Status>);

#[derive(Default)]
struct Status {
    registered: Option<Registered>,
    keepalive: Option<Instant>,
    /// Another instance is there, and the policy is to wait.
    waiting: bool,
    /// A key of ours may be there, to be given up when we leave.
    at_stake: bool,
    refused: Option<Error>,
}

#[derive(Debug, Clone, Copy)]
struct Registered {
    incarnation: i64,
    lease: i64,
    fence: Instant,
}

impl Own {
    /// G10: true only while the lease can't have run out, by the clock of whoever asks; a process
    /// that was stopped and goes on gets the truth with its first question.
    pub fn is_registered(&self) -> bool {
        self.0
            .lock()
            .registered
            .is_some_and(|r| Instant::now() < r.fence)
    }

    /// The incarnation, while [`is_registered`](Self::is_registered).
    pub fn incarnation(&self) -> Option<i64> {
        let registered = self.0.lock().registered;
        registered
            .filter(|r| Instant::now() < r.fence)
            .map(|r| r.incarnation)
    }

    /// Whether `Registered` was told, and not taken back.
    pub fn is_told(&self) -> bool {
        self.0.lock().registered.is_some()
    }

    /// Until when we may be sure, while `Registered` stands.
    pub(super) fn fence(&self) -> Option<Instant> {
        self.0.lock().registered.map(|r| r.fence)
    }

    /// Our key as known last, for leaving.
    pub fn last(&self) -> Option<Standing> {
        let registered = self.0.lock().registered;
        registered.map(|r| Standing {
            incarnation: r.incarnation,
            lease: r.lease,
        })
    }

    /// When the last successful keepalive was sent.
    pub fn keepalive(&self) -> Option<Instant> {
        self.0.lock().keepalive
    }

    /// Whether nothing more will come of the registration for now.
    pub fn is_waiting(&self) -> bool {
        self.0.lock().waiting
    }

    pub fn refused(&self) -> Option<Error> {
        self.0.lock().refused.clone()
    }

    /// Registered. True if that is news.
    pub(super) fn set(&self, incarnation: i64, lease: i64, fence: Instant) -> bool {
        let mut status = self.0.lock();
        status.waiting = false;
        let news = status
            .registered
            .is_none_or(|r| (r.incarnation, r.lease) != (incarnation, lease));
        status.registered = Some(Registered {
            incarnation,
            lease,
            fence,
        });
        news
    }

    /// The lease was renewed by a keepalive sent at `sent`.
    pub(super) fn extend(&self, sent: Instant, fence: Instant) {
        let mut status = self.0.lock();
        status.keepalive = Some(sent);
        if let Some(registered) = &mut status.registered {
            registered.fence = fence;
        }
    }

    /// No longer registered. True if that is news.
    pub(super) fn clear(&self) -> bool {
        self.0.lock().registered.take().is_some()
    }

    /// Out for good.
    pub fn end(&self) {
        let mut status = self.0.lock();
        status.registered = None;
        status.at_stake = false;
    }

    /// A put of our key is about to be sent.
    pub(super) fn stake(&self) {
        self.0.lock().at_stake = true;
    }

    /// Whether there is anything to give up: not before the first put, nor after the end.
    pub fn is_at_stake(&self) -> bool {
        self.0.lock().at_stake
    }

    pub(super) fn waiting(&self) {
        self.0.lock().waiting = true;
    }

    pub(super) fn refuse(&self, error: Error) {
        self.0.lock().refused = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn g10_past_the_fence_nobody_has_to_be_told() {
        let own = Own::default();
        assert!(!own.is_registered());
        let now = Instant::now();
        assert!(own.set(5, 1, now + Duration::from_secs(60)));
        assert!(!own.set(5, 1, now + Duration::from_secs(60)), "no news");
        assert!(own.is_registered());
        // The thread that would say `Lost` may be held up: the answer does not depend on it.
        own.extend(now, now);
        assert!(!own.is_registered() && own.is_told());
        assert!(own.clear());
        assert!(!own.clear(), "no news");
    }
}
