//! Departures that are not told at once, between the roster and the listeners.
//!
//! Some wait for etcd's answer to one question ([`pending`]), some to see whether they are part of
//! a mass loss ([`hold`]). Pure: no I/O, no threads; it is told the time. Enforced here:
//!
//! * **G3 Paired**: what comes of a member whose departure waits, waits behind it; what comes of
//!   others does not.
//! * Bounded: a departure waits for `verdict_timeout` and `mass_loss_hold` at most, and no more
//!   than [`BEHIND`] events wait behind it.
//!
//! Whoever waits here is still in the view: it is what listeners were told.

mod hold;
mod pending;
mod shelf;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Event, Evidence};
use crate::heartbeat::{Answer, Finding, verdict};
use crate::member::Member;
use hold::Hold;
use pending::{Pending, Released};

pub(crate) use hold::MassLoss;
pub(crate) use pending::Question;

/// Events that may wait behind a departure. A member that lives so busily is no longer waited for.
const BEHIND: usize = 16;

/// A departure by a DELETE without a note, of a key on a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    pub finding: Finding,
    /// The member was suspected.
    pub suspect: Option<Evidence>,
}

/// How things stand when something happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub now: Instant,
    /// Members in the view before it.
    pub members: usize,
    /// Leases that were not renewed in time; its own, if it is about one, among them.
    pub overdue: usize,
}

pub(crate) struct Delay {
    pending: Pending,
    hold: Hold,
}

impl Delay {
    pub fn new(verdict_timeout: Duration, mass_loss: MassLoss) -> Self {
        Delay {
            pending: Pending::new(verdict_timeout),
            hold: Hold::new(mass_loss),
        }
    }

    /// Passes an event about a member on to `out`, now or later. `silence`: it is a departure that
    /// nobody has explained.
    pub fn take(
        &mut self,
        event: Event,
        silence: Option<Silence>,
        scene: &Scene,
        out: &mut Vec<Event>,
    ) {
        let name = event.member().expect("about a member").name();
        if !self.pending.is_empty() && self.pending.has(name) {
            if !event.is_departure() && self.pending.has_room(name) {
                return self.pending.follow(event);
            }
            // What is known by now has to do.
            if let Some(released) = self.pending.force(name) {
                self.release(released, scene, out);
            }
        }
        let (
            Event::ServerDown {
                member, revision, ..
            },
            Some(silence),
        ) = (&event, silence)
        else {
            return self.hold.take(event, None, scene, out);
        };
        let (member, revision) = (Arc::clone(member), *revision);
        if silence.finding.is_open() && self.pending.is_on() {
            return self.pending.open(member, revision, silence, scene.now);
        }
        let event = verdict(member, revision, silence.finding, Answer::None);
        self.hold.take(event, Some(silence), scene, out);
    }

    /// What to ask etcd now, if anything; and when next.
    pub fn question(&mut self, now: Instant) -> (Option<Question>, Option<Instant>) {
        self.pending.question(now)
    }

    /// Whether there is anything to ask now.
    pub fn has_question(&self, now: Instant) -> bool {
        self.pending.has_question(now)
    }

    /// G6: etcd is another now, and knows nothing of the leases of those who wait.
    pub fn ask_no_more(&mut self) {
        self.pending.ask_no_more();
    }

    pub fn answered(&mut self, ticket: u64, answer: Answer, scene: &Scene, out: &mut Vec<Event>) {
        if let Some(released) = self.pending.answered(ticket, answer, scene.now) {
            self.release(released, scene, out);
        }
    }

    /// When [`tick`](Self::tick) is due.
    pub fn deadline(&self) -> Option<Instant> {
        let both = [self.pending.deadline(), self.hold.deadline()];
        both.into_iter().flatten().min()
    }

    /// Lets go of what has waited long enough.
    pub fn tick(&mut self, scene: &Scene, out: &mut Vec<Event>) {
        while let Some(released) = self.pending.expire(scene.now) {
            self.release(released, scene, out);
        }
        self.hold.tick(scene.now, out);
    }

    /// Nothing waits any longer.
    pub fn drain(&mut self, scene: &Scene, out: &mut Vec<Event>) {
        while let Some(released) = self.pending.pop() {
            self.release(released, scene, out);
        }
        self.hold.drain(out);
    }

    fn release(&mut self, released: Released, scene: &Scene, out: &mut Vec<Event>) {
        let Released {
            event,
            silence,
            behind,
        } = released;
        self.hold.take(event, Some(silence), scene, out);
        for event in behind {
            self.hold.take(event, None, scene, out);
        }
    }

    // ---- the view

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.hold.is_empty()
    }

    /// Whom listeners still believe to be there.
    pub fn kept(&self) -> impl Iterator<Item = (&Arc<Member>, Option<Evidence>)> {
        // Of two lives under one name, the one that is further on its way was told.
        let pending = self.pending.kept();
        let pending = pending.filter(|(member, _)| self.hold.get(member.name()).is_none());
        self.hold.kept().chain(pending)
    }

    /// The one of that name, and why it was suspected, if it was.
    pub fn get(&self, name: &str) -> Option<(&Arc<Member>, Option<Evidence>)> {
        self.hold.get(name).or_else(|| self.pending.get(name))
    }

    /// How many wait: a name may be counted twice.
    pub fn len(&self) -> usize {
        self.pending.len() + self.hold.len()
    }
}
