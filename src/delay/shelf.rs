//! Things that wait, each under a member's name, in the order in which they came.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::BEHIND;
use crate::event::Event;
use crate::member::Member;

/// A departure that waits, with what came of the member behind it.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub member: Arc<Member>,
    pub what: T,
    pub behind: Vec<Event>,
}

#[derive(Debug)]
pub(super) struct Shelf<T> {
    items: BTreeMap<u64, Item<T>>,
    tickets: HashMap<Box<str>, u64>,
    next: u64,
}

impl<T> Shelf<T> {
    pub fn new() -> Self {
        Shelf {
            items: BTreeMap::new(),
            tickets: HashMap::new(),
            next: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The ticket of whoever comes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn has(&self, name: &str) -> bool {
        self.tickets.contains_key(name)
    }

    pub fn add(&mut self, member: Arc<Member>, what: T) -> u64 {
        let ticket = self.next;
        self.next += 1;
        let before = self.tickets.insert(member.name().into(), ticket);
        debug_assert!(before.is_none(), "G3: a second departure");
        let behind = Vec::new();
        self.items.insert(
            ticket,
            Item {
                member,
                what,
                behind,
            },
        );
        ticket
    }

    pub fn ticket(&self, name: &str) -> Option<u64> {
        self.tickets.get(name).copied()
    }

    pub fn named(&self, name: &str) -> Option<&Item<T>> {
        self.items.get(self.tickets.get(name)?)
    }

    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut Item<T>> {
        self.items.get_mut(&ticket)
    }

    pub fn has_room(&self, name: &str) -> bool {
        self.named(name).is_some_and(|i| i.behind.len() < BEHIND)
    }

    /// Lets the event wait behind its member's departure.
    pub fn follow(&mut self, event: Event) {
        let name = event.member().expect("about a member").name();
        let ticket = self.tickets[name];
        let item = self.items.get_mut(&ticket).expect("by its ticket");
        item.behind.push(event);
    }

    pub fn first(&self) -> Option<(u64, &Item<T>)> {
        self.items.first_key_value().map(|(t, item)| (*t, item))
    }

    pub fn remove(&mut self, ticket: u64) -> Option<Item<T>> {
        let item = self.items.remove(&ticket)?;
        self.tickets.remove(item.member.name());
        if self.items.is_empty() {
            // A burst is over: give its memory back.
            self.tickets.shrink_to(64);
        }
        Some(item)
    }

    pub fn remove_named(&mut self, name: &str) -> Option<Item<T>> {
        self.remove(*self.tickets.get(name)?)
    }

    pub fn pop(&mut self) -> Option<Item<T>> {
        let ticket = *self.items.first_key_value()?.0;
        self.remove(ticket)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Item<T>> {
        self.items.values()
    }
}
