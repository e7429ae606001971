//! A lease that is watched, and what is thought of its owner. Pure.

use std::time::{Duration, Instant};

use super::names::Names;
use super::window::{Observation, Window, least};
use crate::event::Evidence;

/// When to look again at a lease of which nothing was to be learnt.
const AGAIN: Duration = Duration::from_secs(1);
/// A node may know what an election did to the leases so long before it says that there was one; so
/// long may one be ahead of another.
pub(super) const LAG: Duration = Duration::from_millis(500);

/// How we and etcd are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    /// Since when nothing was wrong with either.
    pub sound_since: Option<Instant>,
    /// When an election was last heard of.
    pub elected: Option<Instant>,
    /// What was seen before may not hold any more: etcd has been silent since, or has elected,
    /// which gives every lease its whole time.
    pub shaken: Option<Instant>,
}

/// What looking at it has shown.
#[derive(Debug)]
pub(super) struct Seen {
    pub window: Window,
    /// When it was first found to be gone.
    pub gone: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Suspected {
    pub evidence: Evidence,
    /// Since when it has looked well all the same.
    well: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Subject {
    /// Whose.
    pub names: Names,
    /// Boxed, as what follows: of 100,000 most are not looked at for long, and few are late.
    pub seen: Option<Box<Seen>>,
    pub suspected: Option<Box<Suspected>>,
    /// From when on another look is worth it, and by when it has to come.
    pub due: Instant,
    pub deadline: Instant,
}

impl Subject {
    pub fn new(name: &str, due: Instant) -> Self {
        Subject {
            names: Names::new(name),
            seen: None,
            suspected: None,
            due,
            deadline: due,
        }
    }

    /// Whether its owner had missed a renewal when last looked at.
    pub fn is_overdue(&self) -> bool {
        self.seen.as_ref().is_some_and(|s| s.window.is_overdue())
    }

    /// etcd has told what is left of it. The evidence, where the owner is suspected from now on;
    /// `Some(None)` where it no longer is.
    pub fn look(
        &mut self,
        seen: Observation,
        fraction: f64,
        health: &Health,
    ) -> Option<Option<Evidence>> {
        let before = self.seen.as_ref().map(|before| before.window.last.sent);
        match &mut self.seen {
            Some(before) => {
                before.window.look(seen);
                before.gone = None;
            }
            none => {
                let window = Window::new(seen);
                *none = Some(Box::new(Seen { window, gone: None }));
            }
        }
        let window = &self.seen.as_ref()?.window;
        (self.due, self.deadline) = (window.due(fraction), window.deadline());
        let evidence = Evidence {
            remaining: window.remaining(),
            granted: seen.granted,
            seen: seen.answered,
        };
        let news = match (self.is_overdue(), self.suspected.is_some()) {
            // G6: the second look, with time for a renewal, since something was wrong with us.
            (true, false) => health
                .sound_since
                .filter(|since| before.is_some_and(|before| before >= *since))
                .filter(|since| seen.sent >= *since + seen.granted / 3)
                .map(|_| Some(evidence)),
            (false, true) => self.is_renewed(&seen, health).then_some(None),
            (true, true) => {
                self.suspected.as_mut()?.well = None;
                None
            }
            (false, false) => None,
        };
        if let Some(evidence) = news {
            let well = None;
            self.suspected = evidence.map(|evidence| Box::new(Suspected { evidence, well }));
        }
        news
    }

    /// It looks well, though suspected: whether that is its owner's doing. What an election gave is
    /// no sign of life, not before it is used up.
    fn is_renewed(&mut self, seen: &Observation, health: &Health) -> bool {
        let Some(suspected) = &mut self.suspected else {
            return false;
        };
        let well = *suspected.well.get_or_insert(seen.answered);
        // Just before that it would have to be looked at once more.
        if seen.sent < well + LAG {
            self.due = well + LAG;
        }
        // etcd adds an election's own time, and may spread the ends of many.
        let given = seen.granted - least(seen.granted) + 2 * AGAIN;
        seen.sent >= well + LAG && health.elected.is_none_or(|at| seen.sent >= at + given)
    }

    /// etcd does not know it.
    pub fn is_gone(&mut self, answered: Instant) {
        if let Some(seen) = &mut self.seen {
            seen.gone.get_or_insert(answered);
        }
        (self.due, self.deadline) = (answered + AGAIN, answered + AGAIN);
    }

    /// etcd has told nothing.
    pub fn unknown(&mut self, answered: Instant, fraction: f64) {
        self.due = answered + AGAIN.mul_f64(0.5 + 0.5 * fraction);
        let deadline = self.seen.as_ref().map(|seen| seen.window.deadline());
        self.deadline = deadline.unwrap_or(self.due);
    }
}
