//! Expected against seen.

use std::time::{Duration, Instant};

use crate::sighting::{Side, Sighting};

/// One event that has to come.
pub struct Expected {
    side: Side,
    id: String,
    event: &'static str,
    words: &'static [&'static str],
    note: String,
    quiet: bool,
}

impl Expected {
    /// The listener is told this about that member; if about none, the id is empty.
    pub fn told(id: &str, event: &'static str) -> Expected {
        Expected::new(Side::Listener, id, event)
    }

    /// That process says this of itself.
    pub fn said(pid: u32, id: &str, event: &'static str) -> Expected {
        Expected::new(Side::Member(pid), id, event)
    }

    fn new(side: Side, id: &str, event: &'static str) -> Expected {
        Expected {
            side,
            id: id.into(),
            event,
            words: &[],
            note: String::new(),
            quiet: false,
        }
    }

    /// With one of these words for its reason or cause.
    pub fn why(mut self, words: &'static [&'static str]) -> Expected {
        self.words = words;
        self
    }

    /// What the time it takes is to be compared with.
    pub fn beside(mut self, note: String) -> Expected {
        self.note = note;
        self
    }

    /// Not worth a line in the timeline.
    pub fn quietly(mut self) -> Expected {
        self.quiet = true;
        self
    }

    fn fits(&self, sighting: &Sighting) -> bool {
        let right = self.words.is_empty() || self.words.contains(&sighting.word);
        right && self.event == sighting.event
    }

    fn describe(&self) -> String {
        match (self.side, self.words) {
            (Side::Member(_), _) => format!("{}, itself", self.event),
            (Side::Listener, [word]) => format!("{} ({word})", self.event),
            _ => self.event.into(),
        }
    }
}

/// Everything that has to come, act by act, and what came.
#[derive(Default)]
pub struct Tally {
    acts: Vec<Act>,
    surprises: Vec<String>,
}

struct Act {
    title: String,
    due: Vec<Due>,
}

struct Due {
    expected: Expected,
    /// When that was done which brings it about.
    cause: Instant,
    /// How long after that it came.
    took: Option<Duration>,
}

/// What a sighting is.
pub enum Verdict {
    Expected {
        took: Duration,
        note: String,
    },
    /// Expected, but not worth a line.
    Quiet,
    Surprise,
}

/// A line of the closing table: events of one act that are alike.
pub struct Row<'a> {
    /// Empty where it is the same as in the row above.
    pub act: &'a str,
    pub what: String,
    pub expected: usize,
    pub took: Vec<Duration>,
    pub note: &'a str,
}

impl Tally {
    pub fn act(&mut self, title: &str) {
        let (title, due) = (title.to_owned(), Vec::new());
        self.acts.push(Act { title, due });
    }

    pub fn expect(&mut self, cause: Instant, expected: Expected) {
        let act = self.acts.last_mut().expect("an act has begun");
        act.due.push(Due {
            expected,
            cause,
            took: None,
        });
    }

    /// What one side has to say about one member has to come in the order in which it is expected.
    pub fn take(&mut self, sighting: &Sighting) -> Verdict {
        let next = self
            .acts
            .iter_mut()
            .flat_map(|act| &mut act.due)
            .find(|due| {
                let Expected { side, id, .. } = &due.expected;
                due.took.is_none() && *side == sighting.side && *id == sighting.id
            });
        if let Some(due) = next.filter(|due| due.expected.fits(sighting)) {
            let took = sighting.at.saturating_duration_since(due.cause);
            due.took = Some(took);
            if due.expected.quiet {
                return Verdict::Quiet;
            }
            let note = due.expected.note.clone();
            return Verdict::Expected { took, note };
        }
        let Sighting { event, id, why, .. } = sighting;
        self.surprise(format!("{event} {id} {why}"));
        Verdict::Surprise
    }

    /// Something that should not have been.
    pub fn surprise(&mut self, what: String) {
        self.surprises.push(what);
    }

    pub fn surprises(&self) -> &[String] {
        &self.surprises
    }

    /// How many events are expected so far, and how many of them have come.
    pub fn count(&self) -> (usize, usize) {
        let all = || self.acts.iter().flat_map(|act| &act.due);
        let seen = all().filter(|due| due.took.is_some());
        (all().count(), seen.count())
    }

    pub fn is_complete(&self) -> bool {
        let (expected, seen) = self.count();
        expected == seen
    }

    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row> = Vec::new();
        for act in &self.acts {
            let first = rows.len();
            for due in &act.due {
                let what = due.expected.describe();
                let alike = rows[first..].iter().position(|row| row.what == what);
                let at = alike.map_or(rows.len(), |at| first + at);
                if at == rows.len() {
                    rows.push(Row {
                        act: if at == first { &act.title } else { "" },
                        what,
                        expected: 0,
                        took: Vec::new(),
                        note: &due.expected.note,
                    });
                }
                rows[at].expected += 1;
                rows[at].took.extend(due.took);
            }
        }
        rows
    }
}
