//! One listener: what it is told, and when.

use std::collections::BTreeMap;

use super::{LAG, Maker, Member};
use crate::history::{At, Log, Nanos, Previous, Seen, Told};

/// A listener, and what it knows.
pub(super) struct Ear {
    pub log: Log,
    pub knows: BTreeMap<String, Seen>,
    pub deaf: bool,
    /// First departures since it went deaf, of what it knows.
    pub gone: BTreeMap<String, Told>,
    pub missed: u64,
    /// Departures that wait for a verdict, by name, each with what came of the member behind it.
    pub waiting: BTreeMap<String, Vec<Told>>,
}

impl Maker {
    /// A slow listener takes what waited for it.
    pub(super) fn unfold(&mut self, which: usize) {
        let (ear, at) = (&mut self.ears[which], self.at + LAG);
        if !std::mem::take(&mut ear.deaf) {
            return;
        }
        let folded = std::mem::take(&mut ear.missed);
        if folded > 0 {
            ear.tell(at, Told::Lagged { folded });
        }
        let gone = std::mem::take(&mut ear.gone);
        for told in gone.into_values() {
            ear.tell(at, told);
        }
        ear.news(at, &self.members);
    }
}

impl Ear {
    pub fn new(log: Log) -> Ear {
        Ear {
            log,
            knows: BTreeMap::new(),
            deaf: false,
            gone: BTreeMap::new(),
            missed: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Its departure waits for a verdict.
    pub fn wait(&mut self, name: &str, departure: Told) {
        self.waiting.insert(name.into(), vec![departure]);
    }

    /// The verdict is there, or has to be done without.
    pub fn release(&mut self, at: Nanos, name: &str) {
        for told in self.waiting.remove(name).unwrap_or_default() {
            self.tell(at, told);
        }
    }

    pub fn release_all(&mut self, at: Nanos) {
        let names: Vec<String> = self.waiting.keys().cloned().collect();
        for name in names {
            self.release(at, &name);
        }
    }

    pub fn tell(&mut self, at: Nanos, told: Told) {
        let name = told.change().map(|seen| seen.name.clone());
        if self.deaf {
            self.missed += 1;
            if let (Some(name), Some((seen, _))) = (name, told.departure()) {
                let life = self.knows.get(&name).map(|known| known.incarnation);
                if life == Some(seen.incarnation) {
                    self.gone.entry(name).or_insert(told);
                }
            }
            return;
        }
        if let Some(name) = &name {
            if told.departure().is_some() {
                self.release(at, name);
            } else if let Some(behind) = self.waiting.get_mut(name) {
                return behind.push(told);
            }
        }
        if let (Some(name), Some(seen)) = (name, told.change()) {
            match told.departure() {
                Some(_) => self.knows.remove(&name),
                None => self.knows.insert(name, seen.clone()),
            };
        }
        self.log.entries.push(At { at, what: told });
    }

    /// What is there and not known, or known otherwise.
    pub fn news(&mut self, at: Nanos, members: &BTreeMap<String, Member>) {
        for (name, member) in members {
            let now = member.seen.clone();
            // Whose departure waits is as good as gone.
            let known = self.knows.get(name).cloned();
            match known.filter(|_| !self.waiting.contains_key(name)) {
                None => self.tell(at, Told::Added(now)),
                Some(known) if known.content != now.content => {
                    let previous = Previous {
                        incarnation: known.incarnation,
                        revision: known.revision,
                        content: Some(known.content),
                    };
                    self.tell(at, Told::Updated { now, previous });
                }
                _ => {}
            }
        }
    }
}
