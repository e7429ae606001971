//! Departures that wait for etcd's answer: does the lease live on?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Silence;
use super::shelf::{Item, Shelf};
use crate::event::{Event, Evidence};
use crate::heartbeat::{Answer, verdict};
use crate::member::Member;

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub ticket: u64,
    pub lease: i64,
    /// Whose key is gone.
    pub name: Box<str>,
    pub within: Duration,
}

pub(super) struct Released {
    pub event: Event,
    pub silence: Silence,
    pub behind: Vec<Event>,
}

struct Case {
    revision: i64,
    silence: Silence,
    deadline: Instant,
    /// When to ask (again); `None` while an answer is awaited.
    ask: Option<Instant>,
    alive: bool,
}

/// In the order of their deadlines: all wait equally long.
pub(super) struct Pending {
    wait: Duration,
    shelf: Shelf<Case>,
    asks: BTreeSet<(Instant, u64)>,
    /// Who has a smaller ticket is past being asked about.
    askable: u64,
}

impl Pending {
    pub fn new(wait: Duration) -> Self {
        Pending {
            wait,
            shelf: Shelf::new(),
            asks: BTreeSet::new(),
            askable: 0,
        }
    }

    pub fn is_on(&self) -> bool {
        !self.wait.is_zero()
    }

    pub fn open(&mut self, member: Arc<Member>, revision: i64, silence: Silence, now: Instant) {
        let case = Case {
            revision,
            silence,
            deadline: now + self.wait,
            ask: Some(now),
            alive: false,
        };
        let ticket = self.shelf.add(member, case);
        self.asks.insert((now, ticket));
    }

    pub fn question(&mut self, now: Instant) -> (Option<Question>, Option<Instant>) {
        while let Some((at, ticket)) = self.asks.first().copied() {
            if at > now {
                return (None, Some(at));
            }
            self.asks.pop_first();
            let Some(item) = self.shelf.get_mut(ticket) else {
                continue;
            };
            item.what.ask = None;
            let within = item.what.deadline.saturating_duration_since(now);
            let (lease, name) = (item.member.lease(), item.member.name().into());
            if !within.is_zero() {
                let question = Question {
                    ticket,
                    lease,
                    name,
                    within,
                };
                return (Some(question), None);
            }
        }
        (None, None)
    }

    pub fn has_question(&self, now: Instant) -> bool {
        self.asks.first().is_some_and(|(at, _)| *at <= now)
    }

    /// For those who wait by now, no answer counts any more.
    pub fn ask_no_more(&mut self) {
        self.asks.clear();
        self.askable = self.shelf.next();
    }

    /// One that is gone has been judged meanwhile.
    pub fn answered(&mut self, ticket: u64, answer: Answer, now: Instant) -> Option<Released> {
        if ticket < self.askable {
            return None;
        }
        let wait = self.wait;
        let item = self.shelf.get_mut(ticket)?;
        match answer {
            answer if is_put_back(item) => self.remove(ticket, answer),
            // What revokes a lease takes its keys away first. So it counts only if it is said again,
            // as late as we can wait.
            Answer::Alive if !std::mem::replace(&mut item.what.alive, true) => {
                let last = item.what.deadline.checked_sub(wait / 4);
                self.ask_again(ticket, last.unwrap_or(now).max(now));
                None
            }
            // Soon it will know more.
            Answer::Behind => {
                self.ask_again(ticket, now + wait / 8);
                None
            }
            Answer::None => None,
            answer => self.remove(ticket, answer),
        }
    }

    fn ask_again(&mut self, ticket: u64, at: Instant) {
        if let Some(item) = self.shelf.get_mut(ticket) {
            item.what.ask = Some(at);
            self.asks.insert((at, ticket));
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.shelf.first().map(|(_, item)| item.what.deadline)
    }

    /// The next one whose time is up.
    pub fn expire(&mut self, now: Instant) -> Option<Released> {
        match self.shelf.first()? {
            (ticket, item) if item.what.deadline <= now => self.remove(ticket, Answer::None),
            _ => None,
        }
    }

    pub fn force(&mut self, name: &str) -> Option<Released> {
        self.remove(self.shelf.ticket(name)?, Answer::None)
    }

    pub fn pop(&mut self) -> Option<Released> {
        let (ticket, _) = self.shelf.first()?;
        self.remove(ticket, Answer::None)
    }

    fn remove(&mut self, ticket: u64, answer: Answer) -> Option<Released> {
        let item = self.shelf.remove(ticket)?;
        if let Some(at) = item.what.ask {
            self.asks.remove(&(at, ticket));
        }
        Some(released(item, answer))
    }

    pub fn is_empty(&self) -> bool {
        self.shelf.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.shelf.has(name)
    }

    pub fn has_room(&self, name: &str) -> bool {
        self.shelf.has_room(name)
    }

    pub fn follow(&mut self, event: Event) {
        self.shelf.follow(event);
    }

    pub fn kept(&self) -> impl Iterator<Item = (&Arc<Member>, Option<Evidence>)> {
        let kept = self.shelf.iter();
        kept.map(|item| (&item.member, item.what.silence.suspect))
    }

    pub fn get(&self, name: &str) -> Option<(&Arc<Member>, Option<Evidence>)> {
        let item = self.shelf.named(name)?;
        Some((&item.member, item.what.silence.suspect))
    }

    pub fn len(&self) -> usize {
        self.shelf.len()
    }
}

/// Whoever has put the key back on the same lease has shown that it lived on, whatever became of it
/// since.
fn is_put_back(item: &Item<Case>) -> bool {
    let mut behind = item.behind.iter().filter_map(Event::member);
    behind.any(|member| member.lease() == item.member.lease())
}

fn released(item: Item<Case>, answer: Answer) -> Released {
    let answer = match is_put_back(&item) {
        true => Answer::Alive,
        false => answer,
    };
    let Item {
        member,
        what,
        behind,
    } = item;
    let event = verdict(member, what.revision, what.silence.finding, answer);
    Released {
        event,
        silence: what.silence,
        behind,
    }
}
