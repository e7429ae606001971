//! The heartbeat checker's part.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Violation;
use super::super::bug::Bug;
use super::super::dice::Dice;
use super::super::network::Trip;
use super::super::store::{Ms, Store};
use super::{Client, World};
use crate::etcd::TimeToLive;
use crate::heartbeat::{Request, Shown};
use crate::jitter::Backoff;

pub struct Checking {
    doing: Doing,
    endpoint: usize,
    backoff: Backoff,
    /// There is something to ask sooner than was known.
    pub asked: bool,
    /// By lease and the moment of the answer.
    pub seen: BTreeMap<(i64, Ms), Seen>,
    /// By lease and the moment of the answer, what a departure waited for: it is not known, in this
    /// history of those that were listed.
    pub gone: BTreeMap<(i64, Ms), usize>,
}

/// What a look at a lease was based on.
#[derive(Clone, Copy)]
pub struct Seen {
    pub sent: Ms,
    /// When etcd looked, and the lease's true end then.
    pub looked: Ms,
    pub end: Ms,
}

enum Doing {
    Sleeping(Option<Ms>),
    Asking {
        lease: i64,
        ticket: Option<u64>,
        trip: Trip,
        /// With the lease's true end, where there is one.
        answer: Option<(Shown, Option<Ms>)>,
    },
}

/// The node that leads until an election. While there is none, it answers on.
const LED: usize = 0;
const FOR_EVER: Ms = 365 * 24 * 3600 * 1000;

fn time_to_live(store: &Store, lease: i64, now: Ms) -> (Shown, Option<Ms>) {
    match store.leases.get(&lease) {
        Some(found) => {
            // A leader that has just lost its lead says "for ever", and knows of no new term.
            let (left, term) = match store.leads() {
                true => (found.end.saturating_sub(now), store.term),
                false => (FOR_EVER, store.term - 1),
            };
            let shown = Shown::Lease(TimeToLive {
                remaining: Duration::from_secs(left / 1000),
                granted: Duration::from_millis(found.ttl),
                term,
                by_election: left > found.ttl,
                cluster: store.epoch().cluster,
                revision: store.epoch().revision(),
            });
            (shown, Some(found.end))
        }
        None => {
            let cluster = store.epoch().cluster;
            (Shown::Gone { cluster }, None)
        }
    }
}

impl Checking {
    pub fn new(backoff: Backoff, dice: &mut Dice) -> Self {
        Checking {
            doing: Doing::Sleeping(Some(0)),
            endpoint: dice.below(3),
            backoff,
            asked: false,
            seen: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    /// How long the last question about this lease was on its way: what was left of it is counted
    /// from before that.
    pub fn way(&self, lease: i64) -> Ms {
        let mut seen = self.seen.range((lease, 0)..=(lease, Ms::MAX));
        seen.next_back().map_or(0, |(_, s)| s.looked - s.sent)
    }

    pub fn serve(&mut self, now: Ms, world: &mut World) {
        if let Doing::Asking {
            lease,
            trip,
            answer,
            ..
        } = &mut self.doing
        {
            if answer.is_none() && now >= trip.seen {
                trip.seen = now;
                *answer = Some(match trip.by {
                    Some(by) if world.store.leads() || by == LED => {
                        time_to_live(world.store, *lease, now)
                    }
                    _ => (Shown::Nothing, None),
                });
            }
        }
    }
}

impl Client {
    pub(super) fn check(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        loop {
            match &mut self.checking.doing {
                Doing::Sleeping(until) => {
                    let due = until.is_some_and(|until| now >= until);
                    if !std::mem::take(&mut self.checking.asked) && !due {
                        return Ok(());
                    }
                    self.ask(now, world);
                }
                Doing::Asking { trip, answer, .. } if now < trip.done || answer.is_none() => {
                    return Ok(());
                }
                Doing::Asking {
                    lease,
                    ticket,
                    trip,
                    answer,
                } => {
                    let (lease, ticket, trip) = (*lease, *ticket, *trip);
                    let answer = answer.take().expect("it has come");
                    self.answer(lease, ticket, trip, answer, now, world)?;
                }
            }
        }
    }

    fn ask(&mut self, now: Ms, world: &mut World) {
        let budget = self.settings.request.min(1000);
        let (lease, ticket, within) = match self.state.next_request(self.at(now)) {
            Request::Look(lease) => (lease, None, budget),
            Request::Ask(question) => (
                question.lease,
                Some(question.ticket),
                question.within.as_millis() as Ms,
            ),
            Request::Wait(until) => {
                // At the next tick at the soonest: time does not pass within one.
                let until = until.map(|until| self.ms(until).max(now + 1));
                self.checking.doing = Doing::Sleeping(until);
                return;
            }
        };
        let connect = self.settings.connect;
        let trip = world.network.ask(
            &mut self.checking.endpoint,
            now,
            within.max(1),
            connect,
            world.dice,
        );
        self.counts.looks += 1;
        self.checking.doing = Doing::Asking {
            lease,
            ticket,
            trip,
            answer: None,
        };
    }

    fn answer(
        &mut self,
        lease: i64,
        ticket: Option<u64>,
        trip: Trip,
        (mut shown, mut end): (Shown, Option<Ms>),
        now: Ms,
        world: &mut World,
    ) -> Result<(), Violation> {
        if trip.by.is_some_and(|by| !world.network.passes(by)) {
            (shown, end) = (Shown::Nothing, None);
        }
        match (&mut shown, self.bug) {
            (Shown::Lease(found), Some(Bug::ShortLooks)) => {
                found.remaining = found.remaining.saturating_sub(Duration::from_secs(3));
            }
            (Shown::Lease(found), Some(Bug::ForEver)) => found.by_election = false,
            (Shown::Gone { .. }, Some(Bug::AlwaysAlive)) if ticket.is_some() => {
                shown = Shown::Lease(TimeToLive {
                    remaining: Duration::from_secs(1),
                    granted: Duration::from_secs(5),
                    term: world.store.term,
                    by_election: false,
                    cluster: world.store.epoch().cluster,
                    revision: world.store.epoch().revision(),
                });
            }
            _ => {}
        }
        self.checking.doing = Doing::Sleeping(Some(now));
        if let Some(end) = end {
            let (sent, looked) = (trip.sent, trip.seen);
            let seen = Seen { sent, looked, end };
            self.checking.seen.insert((lease, now), seen);
        }
        if ticket.is_some() && matches!(shown, Shown::Gone { .. }) {
            self.checking.gone.insert((lease, now), self.oracle.history);
        }
        let at = self.at(now);
        let told = match ticket {
            Some(ticket) => self.state.answered(ticket, shown, at),
            None => self.state.shown(lease, shown, (self.at(trip.sent), at), at),
        };
        if shown == Shown::Nothing {
            let wait = self.checking.backoff.next();
            self.checking.doing = Doing::Sleeping(Some(self.ms(at + wait)));
        } else {
            self.checking.backoff.reset();
        }
        self.hear(told, now, world)
    }
}
