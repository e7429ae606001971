//! When one lease can run out, as far as looking at it tells. Pure.
//!
//! etcd says what is left in whole seconds, the rest cut off, as of some moment between question
//! and answer. So each look gives a window: the lease ends no sooner than `sent + remaining`, and,
//! if nobody renews it, before `answered + remaining + 1 s`. Looks that are known to be of one
//! renewal narrow it.

use std::time::{Duration, Instant};

use crate::etcd::TimeToLive;

/// etcd's granularity.
const GRAIN: Duration = Duration::from_secs(1);
/// Beyond the window, a lease that ran out may take so long to be ended and told: etcd looks twice
/// a second, and may be busy.
const ENDING: Duration = Duration::from_secs(2);
/// A lease is looked at in time for the answer to come before it could have run out.
const GUARD: Duration = Duration::from_millis(300);
/// A look that is older than this when the lease can run out is no look in its last moment.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// With less to live, a missed renewal can't show before half of it has passed.
const SHORT: Duration = Duration::from_secs(5);
/// The golden section of a second: looks so far apart divide it the most evenly.
const EVENLY: Duration = Duration::from_millis(382);
/// Between two looks at the same lease, at least.
const LEAST_GAP: Duration = Duration::from_millis(100);

/// One look at a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    pub sent: Instant,
    pub answered: Instant,
    pub remaining: Duration,
    pub granted: Duration,
    /// It has come after that revision of the store.
    pub after: i64,
}

impl Observation {
    pub fn new(found: TimeToLive, after: i64, sent: Instant, answered: Instant) -> Self {
        Observation {
            sent,
            answered,
            remaining: found.remaining,
            granted: found.granted,
            after,
        }
    }

    fn earliest(&self) -> Instant {
        // A node that has just lost its lead says "for ever"; an election gives the whole time.
        self.sent + self.remaining.min(self.granted)
    }

    fn latest(&self) -> Instant {
        self.answered + self.remaining + GRAIN
    }
}

/// How an end of the key fits to what is known of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Before the lease could have run out.
    Early,
    /// When it had to run out, with nobody renewing it. (Whoever misses a renewal, and then leaves
    /// in the very second in which its lease would have run out, can't be told from that.)
    RanOut,
    /// The last look was too long ago: an owner may have renewed it since, and then left.
    Unclear,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The lease can't run out before. It holds whatever comes: renewals only move the end away.
    pub earliest: Instant,
    /// If it was not renewed after the last look, it runs out before this.
    pub latest: Instant,
    pub last: Observation,
}

impl Window {
    pub fn new(first: Observation) -> Self {
        Window {
            earliest: first.earliest(),
            latest: first.latest(),
            last: first,
        }
    }

    pub fn look(&mut self, now: Observation) {
        // A renewal gives the whole time. So a lease that ends sooner than that after the last look
        // was not renewed since.
        let unrenewed = now.latest() <= self.last.sent + now.granted;
        self.latest = match unrenewed {
            true => self.latest.min(now.latest()),
            false => now.latest(),
        };
        self.earliest = self.earliest.max(now.earliest());
        self.last = now;
    }

    /// The most that was left at the last look.
    pub fn remaining(&self) -> Duration {
        self.latest.saturating_duration_since(self.last.sent)
    }

    /// Whether at the last look its owner had missed a renewal.
    pub fn is_overdue(&self) -> bool {
        self.remaining() < least(self.last.granted)
    }

    /// Its key is gone at `at`, by our clock.
    pub fn ended(&self, at: Instant) -> Ended {
        if at < self.earliest {
            Ended::Early
        } else if self.is_overdue()
            && self.last.sent + LAST_MOMENT >= self.earliest
            && at <= self.latest + ENDING
        {
            Ended::RanOut
        } else {
            Ended::Unclear
        }
    }

    /// From when on another look is worth its cost; `fraction`, in `[0, 1)`, spreads it.
    pub fn due(&self, fraction: f64) -> Instant {
        let width = self.latest.saturating_duration_since(self.earliest);
        let granted = self.last.granted;
        let due = match granted > SHORT && least(granted) < granted / 2 + width {
            // So wide a window would show a missed renewal only after half the time to live. Each
            // look cuts it where its own second begins.
            true => (self.last.sent + EVENLY).max(self.last.answered + 2 * LEAST_GAP),
            false => self.halving(width, (granted / 10).max(2 * LEAST_GAP), fraction),
        };
        if self.is_overdue() {
            // In its last moment the owner may still renew it, and then leave.
            let soon = self.last.answered + 2 * LEAST_GAP;
            return due.min(self.last_moment().max(soon));
        }
        // A missed renewal shows from here on.
        let left = least(self.last.granted).saturating_sub(Duration::from_millis(5));
        let soonest = self.last.answered + LEAST_GAP;
        let telling = self.latest.checked_sub(left).unwrap_or(soonest);
        due.min(telling.max(soonest))
    }

    /// Half way through the window (or so) a look halves it, for the second that it brings us is then
    /// cut off or not. Where that is too far off: after `gap`, or a little later.
    fn halving(&self, width: Duration, gap: Duration, fraction: f64) -> Instant {
        let from = self.last.answered + gap;
        let middle = self.earliest + width.mul_f64(0.25 + 0.5 * fraction);
        let halving = (middle.saturating_duration_since(from).subsec_nanos()) as u64;
        let halving = Duration::from_nanos(halving);
        match middle > from && halving <= gap {
            true => from + halving,
            false => from + gap.mul_f64(0.5 * fraction),
        }
    }

    /// A look that comes later than this may find that it is too late to tell a leave from a crash.
    pub fn deadline(&self) -> Instant {
        let last_moment = self.last_moment();
        match last_moment > self.last.answered {
            true => last_moment,
            // Looked at in time. Further looks may not push aside those that have yet to be.
            false => self.last.answered + GRAIN,
        }
    }

    fn last_moment(&self) -> Instant {
        self.earliest.checked_sub(GUARD).unwrap_or(self.earliest)
    }
}

/// What a lease has left at least while its owner renews it each third, less a margin: a twelfth of
/// the time to live, and at least 600 ms, for owners that wake up twice a second (Go's client) and
/// for the way.
pub(crate) fn least(granted: Duration) -> Duration {
    let margin = (granted / 12).max(Duration::from_millis(600));
    (granted * 2 / 3).saturating_sub(margin)
}
