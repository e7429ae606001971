//! A model etcd with one lease, questions on their way, and a judge with its clock.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::ms;
use crate::etcd::TimeToLive;
use crate::heartbeat::judge::{Doubt, Judge, Next, Shown};
use crate::heartbeat::window::{Observation, Window};
use crate::settings::Check;

/// A lease as etcd has it: when it was renewed, and for how long.
#[derive(Debug, Clone)]
pub struct Lease {
    pub granted: Duration,
    /// Moments at which it was given its whole time.
    pub renewed: Vec<Duration>,
}

impl Lease {
    /// Renewed each third, a little late by turns, until the owner stops at `until`.
    pub fn kept(ttl: u64, until: Duration, late: &[u64]) -> Self {
        let granted = Duration::from_secs(ttl);
        let mut renewed = vec![Duration::ZERO];
        for late in late.iter().cycle() {
            let next = *renewed.last().unwrap() + granted / 3 + ms(*late);
            if next >= until {
                break;
            }
            renewed.push(next);
        }
        Lease { granted, renewed }
    }

    /// When it ends if nothing is renewed after `at`.
    pub fn end(&self, at: Duration) -> Duration {
        let last = self.renewed.iter().rev().find(|r| **r <= at);
        *last.unwrap() + self.granted
    }

    /// What etcd says at `at`.
    pub fn left(&self, at: Duration) -> TimeToLive {
        let left = self.end(at).saturating_sub(at);
        TimeToLive {
            remaining: Duration::from_secs(left.as_secs()),
            granted: self.granted,
            term: 2,
            by_election: false,
            cluster: 1,
            revision: 1,
        }
    }
}

/// A question on its way: it is answered as of somewhere between.
#[derive(Debug, Clone, Copy)]
pub struct Trip {
    pub there: u64,
    pub back: u64,
}

pub fn trips() -> impl Strategy<Value = Vec<Trip>> {
    let trip = (0..60u64, 0..60u64).prop_map(|(there, back)| Trip { there, back });
    prop::collection::vec(trip, 1..12)
}

pub fn look(lease: &Lease, zero: Instant, at: Duration, trip: Trip) -> Observation {
    let seen = at + ms(trip.there);
    Observation::new(lease.left(seen), 0, zero + at, zero + seen + ms(trip.back))
}

/// What a window claims, against the truth: `None`, or how it is wrong.
pub fn wrong(window: &Window, lease: &Lease, zero: Instant) -> Option<String> {
    let last = window.last;
    let of = |at: Instant| at.duration_since(zero);
    // As of the moment at which the question may have been answered, at the latest.
    let (sooner, later) = (lease.end(of(last.sent)), lease.end(of(last.answered)));
    if of(window.earliest) > later {
        return Some(format!(
            "not before {:?}, but {later:?}",
            of(window.earliest)
        ));
    }
    if of(window.latest) < sooner {
        return Some(format!("before {:?}, but {sooner:?}", of(window.latest)));
    }
    None
}

/// A judge with its clock and its etcd.
pub struct Run {
    pub judge: Judge,
    pub zero: Instant,
    now: Duration,
    pub looks: Vec<(Duration, i64)>,
    /// From, to, and whether it is we who stand still, or etcd that does not answer.
    pub outage: Option<(Duration, Duration, bool)>,
    pub election: Option<Duration>,
}

impl Run {
    pub fn new(zero: Instant, rate: u32) -> Self {
        Run {
            judge: Judge::new(Check::All, rate, None, zero),
            zero,
            now: Duration::ZERO,
            looks: Vec::new(),
            outage: None,
            election: None,
        }
    }

    pub fn until<'a>(
        &mut self,
        end: Duration,
        fractions: &[f64],
        trips: &[Trip],
        lease: impl Fn(i64) -> &'a Lease,
    ) -> Vec<(Duration, Doubt)> {
        let (mut now, mut told) = (self.now, Vec::new());
        let mut n = 0;
        while now < end {
            n += 1;
            let (fraction, trip) = (fractions[n % fractions.len()], trips[n % trips.len()]);
            if let Some((from, to, true)) = self.outage {
                if now > from && now < to {
                    now = to;
                }
            }
            match self.judge.next(self.zero + now) {
                Next::Wait(None) => now = end,
                Next::Wait(Some(until)) => {
                    let until = until.duration_since(self.zero);
                    assert!(until > now || now.is_zero(), "it waits for what is past");
                    now = until;
                }
                Next::Look(of) => {
                    self.looks.push((now, of));
                    let sent = self.zero + now;
                    let mut shown = look(lease(of), self.zero, now, trip);
                    let mut found = lease(of).left(now + ms(trip.there));
                    if self.election.is_some_and(|at| now + ms(trip.there) >= at) {
                        found.term += 1;
                    }
                    let mut what = Shown::Lease(found);
                    if let Some((from, to, false)) = self.outage {
                        if now > from && now < to {
                            what = Shown::Nothing;
                            shown.answered = sent + ms(500);
                        }
                    }
                    let answered = shown.answered;
                    now = answered.duration_since(self.zero);
                    for doubt in self.judge.shown(of, what, sent, answered, fraction) {
                        told.push((now, doubt));
                    }
                }
            }
        }
        self.now = now;
        told
    }
}
