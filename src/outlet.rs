//! One listener's queue: what waits for it while its channel is full, and how that folds.
//!
//! Pure: no I/O, no clock, no threads; the channel is behind [`Sink`]. Enforced here:
//!
//! * **G5 Converges**: per member at most one departure and one addition or update wait. What
//!   cancels out vanishes, what a later event replaces is folded; so memory is bounded by the
//!   number of members, and what the listener was told adds up to the view once it has drained.
//! * **G3 Paired**, under folding: an entry remembers what the listener was told last of a member,
//!   and what waits continues from there.
//! * **G1 Gapless**, under folding: that something was spared is told before anything that came
//!   after it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::event::Event;
use crate::member::Member;

/// Where events go: a channel, or in tests a queue.
pub(crate) trait Sink {
    /// Takes the event, or says at once why not.
    fn try_send(&mut self, event: Event) -> Result<(), Refused>;
}

#[derive(Debug)]
pub(crate) enum Refused {
    Full,
    /// Nobody will ever read from it again.
    Gone,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Nothing waits.
    Done,
    /// The channel is full; the rest waits.
    Waiting,
    /// The listener is gone.
    Gone,
}

impl From<Refused> for Delivery {
    fn from(refused: Refused) -> Delivery {
        match refused {
            Refused::Full => Delivery::Waiting,
            Refused::Gone => Delivery::Gone,
        }
    }
}

/// What waits for a listener. While it keeps up, all that is held is whom it was told to suspect.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    members: HashMap<Box<str>, Waiting>,
    synced: Option<u64>,
    store: Option<(u64, Event)>,
    told_lost: bool,
    /// Whom the listener was told to suspect. A tree: it is mostly empty, and takes nothing then.
    told_suspect: BTreeSet<Box<str>>,
    mass: Option<(u64, Event)>,
    own: Option<(u64, Event)>,
    /// The order of what waits. An item counts only while its ticket is the entry's.
    order: VecDeque<(u64, Slot)>,
    next_ticket: u64,
    /// Events that a flush would send now.
    depth: u64,
    delivered: u64,
    folded: u64,
    folded_untold: u64,
}

#[derive(Debug)]
enum Slot {
    Member(Box<str>),
    Synced,
    Store,
    Mass,
    Own,
}

/// What waits about one member.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    /// What the listener knows of it: `None`, that there is no such member.
    told: Option<Arc<Member>>,
    /// The departure of what it was told.
    gone: Option<Event>,
    /// What it is to know in the end.
    now: Option<Arc<Member>>,
    /// The last `Suspect` or `Cleared` of it; none where that is what it was told.
    doubt: Option<Event>,
}

impl Waiting {
    /// Whether an addition or an update waits.
    fn news(&self) -> bool {
        match (&self.told, &self.gone, &self.now) {
            (Some(told), None, Some(now)) => !Arc::ptr_eq(told, now),
            (_, _, now) => now.is_some(),
        }
    }

    fn depth(&self) -> u64 {
        let news = self.news();
        let parts = [
            self.gone.is_some(),
            self.bridge().is_some(),
            news,
            self.doubt.is_some(),
        ];
        parts.into_iter().filter(|part| *part).count() as u64
    }

    /// Held in a mass loss it came back as another incarnation, which is the one that went: it has
    /// to be told in between.
    fn bridge(&self) -> Option<Event> {
        let (told, gone) = (self.told.as_ref()?, self.gone.as_ref()?.member()?);
        (told.incarnation() != gone.incarnation()).then(|| Event::UpdateMember {
            member: Arc::clone(gone),
            previous: Arc::clone(told),
        })
    }

    /// The next event to send about it.
    fn next(&self) -> Option<Event> {
        if let Some(gone) = &self.gone {
            return Some(self.bridge().unwrap_or_else(|| gone.clone()));
        }
        match (&self.told, &self.now) {
            (None, Some(now)) => Some(Event::AddMember(Arc::clone(now))),
            (Some(told), Some(now)) if !Arc::ptr_eq(told, now) => Some(Event::UpdateMember {
                member: Arc::clone(now),
                previous: Arc::clone(told),
            }),
            _ => self.doubt.clone(),
        }
    }

    /// [`next`](Self::next) was sent.
    fn sent(&mut self) {
        if let Some(Event::UpdateMember { member, .. }) = self.bridge() {
            self.told = Some(member);
        } else if self.gone.take().is_some() {
            self.told = None;
        } else if self.news() {
            self.told = self.now.clone();
        } else {
            self.doubt = None;
        }
    }
}

impl Outlet {
    /// Whether a flush is due.
    pub fn is_waiting(&self) -> bool {
        // Of what has vanished altogether it remains to be told that something has.
        !self.order.is_empty() || self.folded_untold > 0
    }

    /// Events that wait outside the channel.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Events that were spared: each was cancelled by, or is contained in, another one.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Delivers the event, or lets it wait. Never blocks (G4).
    pub fn offer(&mut self, event: &Event, sink: &mut impl Sink) -> Delivery {
        if self.order.is_empty() {
            match self
                .tell_folded(sink)
                .and_then(|()| sink.try_send(event.clone()))
            {
                Ok(()) => {
                    self.delivered += 1;
                    self.note(event);
                    return Delivery::Done;
                }
                Err(Refused::Gone) => return Delivery::Gone,
                Err(Refused::Full) => {}
            }
        }
        self.wait(event);
        Delivery::Waiting
    }

    /// Sends what waits, until nothing does or the channel is full.
    pub fn flush(&mut self, sink: &mut impl Sink) -> Delivery {
        while let Some((ticket, slot)) = self.order.front() {
            let ticket = *ticket;
            let event = match slot {
                Slot::Member(name) => match self.members.get(name) {
                    Some(entry) if entry.ticket == ticket => entry.next(),
                    _ => None,
                },
                Slot::Synced => self.synced.filter(|t| *t == ticket).map(|_| Event::Synced),
                Slot::Store => current(&self.store, ticket),
                Slot::Mass => current(&self.mass, ticket),
                Slot::Own => current(&self.own, ticket),
            };
            let Some(event) = event else {
                self.drop_front(ticket);
                continue;
            };
            match self
                .tell_folded(sink)
                .and_then(|()| sink.try_send(event.clone()))
            {
                Ok(()) => self.sent_front(ticket, &event),
                Err(refused) => return refused.into(),
            }
        }
        match self.tell_folded(sink) {
            Ok(()) => Delivery::Done,
            Err(refused) => refused.into(),
        }
    }

    fn tell_folded(&mut self, sink: &mut impl Sink) -> Result<(), Refused> {
        if self.folded_untold > 0 {
            let folded = self.folded_untold;
            sink.try_send(Event::Lagged { folded })?;
            self.folded_untold = 0;
        }
        Ok(())
    }

    fn sent_front(&mut self, ticket: u64, event: &Event) {
        self.note(event);
        self.delivered += 1;
        self.depth -= 1;
        match &self.order[0].1 {
            Slot::Member(name) => {
                // Stays in front while it has more to tell; then `flush` drops it.
                self.members.get_mut(name).expect("was just sent").sent();
                return;
            }
            Slot::Synced => self.synced = None,
            Slot::Store => self.store = None,
            Slot::Mass => self.mass = None,
            Slot::Own => self.own = None,
        }
        self.drop_front(ticket);
    }

    fn drop_front(&mut self, ticket: u64) {
        if let Some((_, Slot::Member(name))) = self.order.pop_front() {
            if self
                .members
                .get(&name)
                .is_some_and(|entry| entry.ticket == ticket)
            {
                self.members.remove(&name);
            }
        }
        if self.order.is_empty() {
            // A burst is over: give its memory back.
            self.members.shrink_to(64);
            self.order.shrink_to(64);
        }
    }

    /// What was told, as far as it matters to what is folded later.
    fn note(&mut self, event: &Event) {
        match event {
            Event::StoreLost => self.told_lost = true,
            Event::StoreRestored => self.told_lost = false,
            Event::Suspect { member, .. } => {
                self.told_suspect.insert(member.name().into());
            }
            Event::Cleared { member }
            | Event::RemoveMember { member, .. }
            | Event::ServerDown { member, .. } => {
                self.told_suspect.remove(member.name());
            }
            _ => {}
        }
    }

    fn wait(&mut self, event: &Event) {
        let before = self.depth;
        match event {
            Event::AddMember(_)
            | Event::UpdateMember { .. }
            | Event::RemoveMember { .. }
            | Event::ServerDown { .. }
            | Event::Suspect { .. }
            | Event::Cleared { .. } => self.wait_member(event),
            Event::Synced => {
                if self.synced.is_none() {
                    self.synced = Some(self.queue(Slot::Synced));
                    self.depth += 1;
                }
            }
            Event::StoreLost | Event::StoreRestored => {
                let told = match self.told_lost {
                    true => matches!(event, Event::StoreLost),
                    false => matches!(event, Event::StoreRestored),
                };
                if self.store.take().is_some() {
                    self.depth -= 1;
                }
                if !told {
                    let ticket = self.queue(Slot::Store);
                    self.store = Some((ticket, event.clone()));
                    self.depth += 1;
                }
            }
            Event::MassLoss { .. } => match &mut self.mass {
                Some((_, waiting)) => *waiting = event.clone(),
                None => {
                    let ticket = self.queue(Slot::Mass);
                    self.mass = Some((ticket, event.clone()));
                    self.depth += 1;
                }
            },
            // Of one's own states only the last one is worth knowing late.
            _ => match &mut self.own {
                Some((_, waiting)) => *waiting = event.clone(),
                None => {
                    let ticket = self.queue(Slot::Own);
                    self.own = Some((ticket, event.clone()));
                    self.depth += 1;
                }
            },
        }
        // What was offered and does not add to what will be sent was folded.
        let folded = (before + 1).saturating_sub(self.depth);
        self.folded += folded;
        self.folded_untold += folded;
        self.compact();
    }

    fn wait_member(&mut self, event: &Event) {
        let member = event.member().expect("a member's event");
        let known = self.members.get_mut(member.name());
        let before = known.as_ref().map_or(0, |entry| entry.depth());
        let entry = match known {
            Some(entry) => entry,
            None => {
                let ticket = self.queue(Slot::Member(member.name().into()));
                let told = match event {
                    Event::AddMember(_) => None,
                    Event::UpdateMember { previous, .. } => Some(previous),
                    _ => Some(member),
                };
                let told = told.map(Arc::clone);
                let entry = Waiting {
                    ticket,
                    now: told.clone(),
                    told,
                    gone: None,
                    doubt: None,
                };
                self.members.entry(member.name().into()).or_insert(entry)
            }
        };
        if let Event::Suspect { .. } | Event::Cleared { .. } = event {
            // Not what the last one was, for that may never have been told. G3: a departure that
            // waits ends the doubt about whoever was there before.
            let told = entry.gone.is_none() && self.told_suspect.contains(member.name());
            let news = matches!(event, Event::Suspect { .. }) != told;
            entry.doubt = news.then(|| event.clone());
        } else if event.is_departure() {
            entry.now = None;
            entry.doubt = None;
            if entry.told.is_some() && entry.gone.is_none() {
                entry.gone = Some(event.clone());
            }
        } else {
            entry.now = Some(Arc::clone(member));
            // G3: told after it, the doubt is about who is there then.
            if let Some(Event::Suspect { member: m, .. } | Event::Cleared { member: m }) =
                &mut entry.doubt
            {
                *m = Arc::clone(member);
            }
        }
        let after = entry.depth();
        if after == 0 {
            self.members.remove(member.name());
        }
        self.depth = self.depth + after - before;
    }

    fn queue(&mut self, slot: Slot) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.order.push_back((ticket, slot));
        ticket
    }

    /// Members that come and go unheard leave dead items behind; they may not pile up.
    fn compact(&mut self) {
        let live = self.members.len() + 4;
        if self.order.len() > 2 * live + 64 {
            let (members, synced) = (&self.members, self.synced);
            let (store, mass, own) = (&self.store, &self.mass, &self.own);
            self.order.retain(|(ticket, slot)| match slot {
                Slot::Member(name) => members.get(name).is_some_and(|e| e.ticket == *ticket),
                Slot::Synced => synced == Some(*ticket),
                Slot::Store => store.as_ref().is_some_and(|(t, _)| t == ticket),
                Slot::Mass => mass.as_ref().is_some_and(|(t, _)| t == ticket),
                Slot::Own => own.as_ref().is_some_and(|(t, _)| t == ticket),
            });
        }
    }
}

fn current(waiting: &Option<(u64, Event)>, ticket: u64) -> Option<Event> {
    waiting
        .as_ref()
        .filter(|(t, _)| *t == ticket)
        .map(|(_, event)| event.clone())
}
