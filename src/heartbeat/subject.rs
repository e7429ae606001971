//! A lease that is watched, and what is thought of its owner. Pure.

use std::time::{Duration, Instant};

use super::names::Names;
use super::window::{Observation, Window, least};
use crate::event::Evidence;

/// When to look again at a lease of which nothing was to be learnt.
const AGAIN: Duration = Duration::from_secs(1);
/// A node may know what an election did to the leases so long before it says that there was one.
const LAG: Duration = Duration::from_millis(500);

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

#[derive(Debug)]
pub(super) struct Subject {
    /// Whose.
    pub names: Names,
    /// Boxed: of 100,000 most are not looked at for long.
    pub window: Option<Box<Window>>,
    /// When it was first found to be gone.
    pub gone: Option<Instant>,
    pub suspected: Option<Box<Evidence>>,
    /// Since when it has looked well, though suspected.
    well: Option<Instant>,
    /// From when on another look is worth it, and by when it has to come.
    pub due: Instant,
    pub deadline: Instant,
}

impl Subject {
    pub fn new(name: &str, due: Instant) -> Self {
        Subject {
            names: Names::new(name),
            window: None,
            gone: None,
            suspected: None,
            well: None,
            due,
            deadline: due,
        }
    }

    /// Whether its owner had missed a renewal when last looked at.
    pub fn is_overdue(&self) -> bool {
        self.window.as_ref().is_some_and(|w| w.is_overdue())
    }

    /// etcd has told what is left of it. The evidence, where the owner is suspected from now on;
    /// `Some(None)` where it no longer is.
    pub fn look(
        &mut self,
        seen: Observation,
        fraction: f64,
        health: &Health,
    ) -> Option<Option<Evidence>> {
        let before = self.window.as_ref().map(|window| window.last.sent);
        match &mut self.window {
            Some(window) => window.look(seen),
            none => *none = Some(Box::new(Window::new(seen))),
        }
        let window = self.window.as_ref()?;
        self.gone = None;
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
            _ => {
                self.well = None;
                None
            }
        };
        if let Some(evidence) = news {
            self.suspected = evidence.map(Box::new);
            self.well = None;
        }
        news
    }

    /// It looks well, though suspected: whether that is its owner's doing. What an election gave is
    /// no sign of life, not before it is used up.
    fn is_renewed(&mut self, seen: &Observation, health: &Health) -> bool {
        let well = *self.well.get_or_insert(seen.answered);
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
        self.gone.get_or_insert(answered);
        (self.due, self.deadline) = (answered + AGAIN, answered + AGAIN);
    }

    /// etcd has told nothing.
    pub fn unknown(&mut self, answered: Instant, fraction: f64) {
        self.due = answered + AGAIN.mul_f64(0.5 + 0.5 * fraction);
        let deadline = self.window.as_ref().map(|window| window.deadline());
        self.deadline = deadline.unwrap_or(self.due);
    }
}
