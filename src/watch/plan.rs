//! What the watch does next. Pure: it is told what happened, and the time.
//!
//! Enforced here:
//!
//! * **G1 Gapless**: a watch starts one past the last revision that the roster has applied, and
//!   that moves by events and listings only; a time-out, or a revision that some header carries,
//!   never moves it.
//! * **G9 No silent stall**: etcd is asked to end each stream after half the stall bound, so an
//!   idle one proves itself alive; one silent for 7/10 of the bound is dropped, and the attempt
//!   to open another is given 1/4. Where the next try could not end within the bound, etcd counts
//!   as lost before it. So `StoreLost` comes within the bound.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::etcd::Failure;
use crate::jitter::{Backoff, Random};
use crate::stats::Why;

/// Revisions that a quiet prefix may fall behind the store. Each new stream makes etcd read all of
/// them to find that none is for us; a listing catches up.
const BEHIND: i64 = 10_000;

/// The settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub stall_bound: Duration,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub reconcile_interval: Duration,
    /// How many there are to ask.
    pub endpoints: usize,
}

/// What to do now: one conversation with etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read everything, and tell the differences.
    List(Why),
    /// Follow the stream from where the roster stands.
    Watch(Open),
    /// Compare the roster with what etcd held at the same revision.
    Reconcile,
}

/// A stream to open, and how long nothing may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub start_revision: i64,
    /// etcd is to end it after so long.
    pub period: Duration,
    /// Bound on connecting.
    pub connect: Duration,
    /// Bound on the wait for an answer then.
    pub answer: Duration,
    /// Bound on silence.
    pub silence: Duration,
}

/// What follows from what happened.
#[derive(Debug, Default)]
pub(crate) struct Reaction {
    /// etcd has answered: the view is current.
    pub confirmed: bool,
    /// A stream stands again after one had failed.
    pub reconnected: bool,
    /// Another endpoint is to be tried.
    pub rotate: bool,
    pub failed: Option<Failed>,
    /// The conversation is over; the next begins after this. `None`: it goes on.
    pub over: Option<Duration>,
}

/// Something went wrong.
#[derive(Debug)]
pub(crate) struct Failed {
    pub error: Error,
    /// etcd is out of reach (which may be known).
    pub lost: bool,
    /// Users may want to know.
    pub concerns: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    List(Why),
    Watch,
    Reconcile,
}

/// Why a step failed.
enum Trouble {
    /// A stream that had been open broke.
    Broken(Failure),
    /// etcd could not be asked at all.
    Unasked(Failure),
}

/// The stream that is followed.
#[derive(Debug, Clone, Copy)]
struct Stream {
    start_revision: i64,
    opened: Instant,
    /// It has been created.
    alive: bool,
}

#[derive(Debug)]
pub(crate) struct Plan {
    timing: Timing,
    backoff: Backoff,
    random: Random,
    state: State,
    stream: Stream,
    cluster: Option<u64>,
    /// When etcd's last word came, whatever it said.
    heard: Instant,
    /// It has answered once, and is not lost since.
    reachable: bool,
    /// Attempts in a row that did not even reach etcd.
    misses: usize,
    reconcile_at: Instant,
    streams_failed: bool,
    /// How far the store was ahead of us when the last stream was opened.
    behind: i64,
    /// Since the last listing no stream has brought a change, or stood for its whole period.
    just_listed: bool,
}

impl Plan {
    pub fn new(timing: Timing, backoff: Backoff, mut random: Random, now: Instant) -> Self {
        Plan {
            reconcile_at: now + random.about(timing.reconcile_interval),
            timing,
            backoff,
            random,
            state: State::List(Why::First),
            stream: Stream {
                start_revision: 1,
                opened: now,
                alive: false,
            },
            cluster: None,
            heard: now,
            reachable: false,
            misses: 0,
            streams_failed: false,
            behind: 0,
            just_listed: false,
        }
    }

    /// A listing comes first.
    pub fn begin(&mut self) {
        let why = match self.cluster {
            None => Why::First,
            Some(_) => Why::LostEvents,
        };
        self.state = State::List(why);
    }

    /// What to do now. `applied`: the revision that the roster stands at.
    pub fn step(&mut self, applied: i64, now: Instant) -> Step {
        match self.state {
            State::List(why) => {
                self.just_listed = true;
                Step::List(why)
            }
            State::Watch => Step::Watch(self.open(applied, now)),
            State::Reconcile => {
                self.plan_reconcile(now);
                Step::Reconcile
            }
        }
    }

    fn open(&mut self, applied: i64, now: Instant) -> Open {
        let start_revision = applied.saturating_add(1);
        self.stream = Stream {
            start_revision,
            opened: now,
            alive: false,
        };
        let (connect, answer) = self.limits();
        Open {
            start_revision,
            // Jittered: clients that came back together would renew together, for ever.
            period: self.random.about(self.period()),
            connect,
            answer,
            silence: self.timing.stall_bound.mul_f64(0.7),
        }
    }

    /// Bounds on connecting for a stream, and on the wait for its answer then.
    fn limits(&self) -> (Duration, Duration) {
        let Timing {
            stall_bound,
            connect_timeout,
            ..
        } = self.timing;
        let quarter = stall_bound / 4;
        let connect = connect_timeout.min(quarter / 4);
        let answer = match self.timing.endpoints {
            1 => quarter - connect,
            // A hanging endpoint that has substitutes costs no more than a dead one.
            _ => connect_timeout.min(quarter - connect),
        };
        (connect, answer)
    }

    /// G9: so long after etcd's last word the next try may begin, to end within the bound.
    fn latest(&self) -> Duration {
        let longest = match self.state {
            State::Watch => {
                let (connect, answer) = self.limits();
                connect + answer
            }
            State::List(_) | State::Reconcile => self.timing.request_timeout,
        };
        self.timing.stall_bound.saturating_sub(longest)
    }

    fn period(&self) -> Duration {
        self.timing.stall_bound / 2
    }

    fn plan_reconcile(&mut self, now: Instant) {
        self.reconcile_at = now + self.random.about(self.timing.reconcile_interval);
    }

    // ---- listings

    /// All pages have come, or not: of which cluster.
    pub fn listed(&mut self, pages: Result<u64, Failure>, now: Instant) -> Reaction {
        match pages {
            Ok(cluster) => {
                self.cluster = Some(cluster);
                self.plan_reconcile(now);
                let next = self.next(State::Watch);
                self.contact(next, now)
            }
            // Its pages outlived their revision: from the start. A doubt stays.
            Err(Failure::NoSuchRevision) => match self.state {
                State::List(why) if why.doubts_store() => self.anew(why, now),
                _ => self.anew(Why::Compacted, now),
            },
            Err(other) => self.failed(Trouble::Unasked(other), now),
        }
    }

    /// What etcd held at the roster's revision has come, or not: of which cluster, and why, unless
    /// the roster holds the same, all has to be listed.
    pub fn reconciled(
        &mut self,
        found: Result<(u64, Option<Why>), Failure>,
        now: Instant,
    ) -> Reaction {
        match found {
            Ok((cluster, _)) if self.cluster != Some(cluster) => {
                self.anew(Why::ClusterChanged, now)
            }
            Ok((_, Some(why))) => self.anew(why, now),
            Ok((_, None)) => {
                let next = self.next(State::Watch);
                self.contact(next, now)
            }
            Err(Failure::NoSuchRevision) => self.anew(Why::Compacted, now),
            Err(other) => self.failed(Trouble::Unasked(other), now),
        }
    }

    /// A reconcile has found that something was lost.
    pub fn is_mending(&self) -> bool {
        matches!(self.state, State::List(Why::LostEvents))
    }

    // ---- the stream

    /// It could not be opened.
    pub fn unopened(&mut self, failure: Failure, now: Instant) -> Reaction {
        self.elsewhere(Trouble::Unasked(failure), now)
    }

    /// The watch stands.
    pub fn created(&mut self, revision: i64, cluster: u64, now: Instant) -> Reaction {
        if self.cluster != Some(cluster) {
            return self.anew(Why::ClusterChanged, now);
        }
        // This endpoint is behind us: etcd was wiped or restored, or it lags. A linearizable
        // listing tells which.
        if revision < self.stream.start_revision - 1 {
            return self.anew(Why::WentBack, now);
        }
        self.stream.alive = true;
        self.behind = revision.saturating_sub(self.stream.start_revision);
        let reconnected = std::mem::take(&mut self.streams_failed);
        if reconnected {
            // etcd may have been wiped, or restored, and be as far again: neither its id nor its
            // revision need tell. Not at once, or all who lost it would come together.
            self.reconcile_at = self.reconcile_at.min(now);
        }
        let next = self.when_overdue(now);
        Reaction {
            reconnected,
            ..self.contact(next, now)
        }
    }

    /// Changes have come, and the roster has them.
    pub fn events(&mut self, now: Instant) -> Reaction {
        self.is_well();
        let next = self.when_overdue(now);
        self.contact(next, now)
    }

    /// Where it was to start is compacted away.
    pub fn compacted(&mut self, now: Instant) -> Reaction {
        self.anew(Why::Compacted, now)
    }

    /// The server has ended it in good order.
    pub fn ended(&mut self, now: Instant) -> Reaction {
        let Stream { opened, alive, .. } = self.stream;
        // Good order, but far too early: something between us and etcd ends streams.
        if !alive || now.saturating_duration_since(opened) < self.period() / 2 {
            let reason = "the watch stream ended before its time".into();
            let failure = Failure::Elsewhere(Error::Protocol { reason });
            return self.elsewhere(self.of_stream(failure), now);
        }
        self.is_well();
        let next = match now >= self.reconcile_at {
            true => self.compare(),
            false => self.next(State::Watch),
        };
        self.contact(next, now)
    }

    /// It broke, or nothing came for too long.
    pub fn broke(&mut self, failure: Failure, now: Instant) -> Reaction {
        let trouble = match failure {
            // A refused token is an answer, too.
            Failure::TokenExpired => Trouble::Broken(failure),
            failure => self.of_stream(failure),
        };
        self.elsewhere(trouble, now)
    }

    fn of_stream(&self, failure: Failure) -> Trouble {
        match self.stream.alive {
            true => Trouble::Broken(failure),
            false => Trouble::Unasked(failure),
        }
    }

    fn is_well(&mut self) {
        self.backoff.reset();
        self.just_listed = false;
    }

    // ---- what follows

    fn next(&mut self, state: State) -> Reaction {
        self.state = state;
        let wait = match state {
            // Where one listing leads straight to the next, not in haste.
            State::List(_) if self.just_listed => self.backoff.next(),
            _ => Duration::ZERO,
        };
        let wait = match self.reachable {
            true => wait.min(self.latest()),
            false => wait,
        };
        Reaction {
            over: Some(wait),
            ..Reaction::default()
        }
    }

    /// etcd's word shows that all has to be listed. It confirms nothing of the view.
    fn anew(&mut self, why: Why, now: Instant) -> Reaction {
        self.heard(now);
        self.next(State::List(why))
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.misses = 0;
    }

    /// A comparison waits for a stream to end in good order, but not for ever.
    fn when_overdue(&mut self, now: Instant) -> Reaction {
        match now >= self.reconcile_at + self.timing.stall_bound {
            true => self.compare(),
            false => Reaction::default(),
        }
    }

    /// Time to look whether the stream has brought everything.
    fn compare(&mut self) -> Reaction {
        self.next(match self.behind > BEHIND {
            true => State::List(Why::Behind),
            false => State::Reconcile,
        })
    }

    fn contact(&mut self, reaction: Reaction, now: Instant) -> Reaction {
        self.heard(now);
        self.reachable = true;
        Reaction {
            confirmed: true,
            ..reaction
        }
    }

    fn elsewhere(&mut self, trouble: Trouble, now: Instant) -> Reaction {
        Reaction {
            rotate: true,
            ..self.failed(trouble, now)
        }
    }

    fn failed(&mut self, trouble: Trouble, now: Instant) -> Reaction {
        // What the stream can't bring, a listing does.
        let unfit = match &trouble {
            Trouble::Broken(Failure::Final(Error::TooLarge { .. })) => Some(Why::Oversized),
            Trouble::Broken(Failure::Final(Error::Protocol { .. })) => Some(Why::Unreadable),
            // Asked for again, it would take as long again.
            Trouble::Broken(Failure::Unfinished(_)) => Some(Why::Oversized),
            _ => None,
        };
        // G9: what was not whole was no word of etcd's.
        if matches!(trouble, Trouble::Broken(Failure::Final(_))) && unfit.is_some() {
            self.heard(now);
        }
        self.state = match (unfit, self.state) {
            (Some(why), _) => State::List(why),
            (_, State::List(why)) => State::List(why),
            (_, State::Watch | State::Reconcile) => State::Watch,
        };
        self.streams_failed = true;
        let (missed, failure) = match trouble {
            Trouble::Broken(failure) => (0, failure),
            Trouble::Unasked(failure) => (1, failure),
        };
        self.misses += missed;
        let all_missed = self.misses >= self.timing.endpoints;
        let substitute = matches!(failure, Failure::Elsewhere(_)) && !all_missed;
        let error = failure.into_error();
        let bound = self.timing.stall_bound;
        let silence = now.saturating_duration_since(self.heard);
        let latest = self.latest();
        let lost = all_missed || silence >= bound.mul_f64(0.9) || silence > latest;
        self.reachable &= !lost;
        let wait = match error.is_setup() && !substitute {
            // Haste would not help, and may lock an account.
            true => self.backoff.slowest(),
            false => self.backoff.next(),
        };
        let wait = match self.reachable {
            // Until etcd counts as lost, the next try has to end within the stall bound.
            true => wait.min(latest - silence),
            false => wait,
        };
        let failed = Failed {
            lost,
            // One endpoint's wrong set-up is nobody's concern while another may do.
            concerns: !(substitute && error.is_setup()),
            error,
        };
        Reaction {
            failed: Some(failed),
            over: Some(wait),
            ..Reaction::default()
        }
    }
}
