//! What the judge says.

use std::collections::BTreeMap;
use std::fmt;

use super::{Log, Nanos};

/// The first thing that breaks a guarantee.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Such as `G3`.
    pub guarantee: &'static str,
    /// Whose log, or whose answers.
    pub listener: String,
    /// Which entry of it.
    pub index: Option<usize>,
    pub why: String,
    /// The lines around it.
    pub around: Vec<String>,
}

/// How much was checked: a check that checked nothing is seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// By guarantee.
    pub checked: BTreeMap<&'static str, u64>,
    /// Changes that a listener was not told because they were folded, and that it was told so.
    pub folded: u64,
    /// Changes that came and went while nobody could see them, before a listing.
    pub netted: u64,
    /// Departures whose reason nobody could know.
    pub unknown: u64,
}

impl Summary {
    pub fn count(&mut self, guarantee: &'static str) {
        self.add(guarantee, 1);
    }

    pub fn add(&mut self, guarantee: &'static str, times: u64) {
        *self.checked.entry(guarantee).or_default() += times;
    }

    pub fn of(&self, guarantee: &str) -> u64 {
        self.checked.get(guarantee).copied().unwrap_or(0)
    }
}

impl Violation {
    pub fn at(guarantee: &'static str, log: &Log, index: usize, why: String) -> Violation {
        let mut violation = Violation::of(guarantee, log, why);
        let from = index.saturating_sub(6);
        let to = log.entries.len().min(index + 4);
        let start = log.entries.first().map_or(0, |e| e.at);
        violation.index = Some(index);
        for n in from..to {
            let entry = &log.entries[n];
            let mark = if n == index { '>' } else { ' ' };
            let line = format!("{mark} {n:>5} {} {}", since(start, entry.at), entry.what);
            violation.around.push(line);
        }
        violation
    }

    pub fn of(guarantee: &'static str, log: &Log, why: String) -> Violation {
        let listener = format!("{} of {}", log.listener, log.handle);
        Violation {
            guarantee,
            listener,
            index: None,
            why,
            around: Vec::new(),
        }
    }

    pub fn about(guarantee: &'static str, whom: &str, why: String) -> Violation {
        Violation {
            guarantee,
            listener: whom.into(),
            index: None,
            why,
            around: Vec::new(),
        }
    }
}

fn since(start: Nanos, at: Nanos) -> String {
    format!("{:>10.4}s", (at as f64 - start as f64) / 1e9)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.listener)?;
        if let Some(index) = self.index {
            write!(f, ", entry {index}")?;
        }
        write!(f, ": {}", self.why)?;
        for line in &self.around {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}
