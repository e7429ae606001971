//! Mass loss: when many vanish at once, they may all be alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shelf::{Item, Shelf};
use super::{Scene, Silence};
use crate::event::{DownCause, Event, Evidence};
use crate::heartbeat::is_silent;
use crate::member::Member;

/// Losses that come less than this after one another are one run: etcd ends leases twice a second.
/// So long each of them waits, for they might be many.
pub(super) const GATHER: Duration = Duration::from_millis(600);
/// Fewer are never a mass.
const LEAST: usize = 4;

/// The settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MassLoss {
    /// More than this part of the members.
    pub share: f64,
    /// How long to hold; zero: never.
    pub hold: Duration,
}

struct Held {
    event: Event,
    since: Instant,
    suspect: Option<Evidence>,
}

/// A run of losses. It is no longer than a mass is held.
struct Burst {
    first: Instant,
    last: Instant,
    /// Those that were told, too.
    count: usize,
    /// As many make it a mass.
    mass: usize,
    /// It is one: until then, departures are held.
    until: Option<Instant>,
}

pub(super) struct Hold {
    settings: MassLoss,
    shelf: Shelf<Held>,
    burst: Option<Burst>,
}

impl Hold {
    pub fn new(settings: MassLoss) -> Self {
        Hold {
            settings,
            shelf: Shelf::new(),
            burst: None,
        }
    }

    fn mass_of(&self, members: usize) -> usize {
        let share = (self.settings.share * members as f64) as usize + 1;
        share.max(LEAST)
    }

    pub fn take(
        &mut self,
        event: Event,
        silence: Option<Silence>,
        scene: &Scene,
        out: &mut Vec<Event>,
    ) {
        self.tick(scene.now, out);
        let name = event.member().expect("about a member").name();
        if !self.shelf.is_empty() && self.shelf.has(name) {
            let is_mass = self.until().is_some();
            if !is_mass && !event.is_departure() && self.shelf.has_room(name) {
                // Whether it has just come back, or been lost in a mass, is not yet known.
                return self.shelf.follow(event);
            }
            let item = self.shelf.remove_named(name).expect("was just there");
            if is_mass {
                let mut item = item;
                item.behind.push(event);
                return back(item, out);
            }
            apart(item, out);
        }
        let suspect = silence.and_then(|s| s.suspect);
        if self.settings.hold.is_zero() || !is_loss(&event, silence.is_some()) {
            return out.push(event);
        }
        let expired = matches!(
            &event,
            Event::ServerDown {
                cause: DownCause::LeaseExpired,
                ..
            }
        );
        let mass = self.mass_of(scene.members);
        // Where leases run out, those that are about to follow are known.
        let imminent = match expired {
            true => scene.overdue,
            false => 0,
        };
        let since = scene.now;
        let oldest = self.shelf.first().map(|(_, item)| item.what.since);
        // Who dies alone is told at once.
        if self.burst.is_none() && oldest.is_none() && expired && imminent < mass {
            return out.push(event);
        }
        let first = oldest.unwrap_or(since);
        let burst = self.burst.get_or_insert(Burst {
            first,
            last: since,
            count: self.shelf.len(),
            mass,
            until: None,
        });
        burst.last = since;
        burst.count += 1;
        let member = Arc::clone(event.member().expect("about a member"));
        let held = Held {
            event,
            since,
            suspect,
        };
        self.shelf.add(member, held);
        if burst.until.is_none() && burst.count + imminent.saturating_sub(1) >= burst.mass {
            let until = first + self.settings.hold;
            burst.until = Some(until);
            let held = self.shelf.len();
            out.push(Event::MassLoss { held, until });
            self.sort_out(out);
        }
    }

    /// It is a mass: those that are back already are told so.
    fn sort_out(&mut self, out: &mut Vec<Event>) {
        let back_already = self.shelf.iter().filter(|item| !item.behind.is_empty());
        let names: Vec<Box<str>> = back_already.map(|item| item.member.name().into()).collect();
        for name in names {
            back(self.shelf.remove_named(&name).expect("was just there"), out);
        }
    }

    /// It is a mass: until when it is held.
    fn until(&self) -> Option<Instant> {
        self.burst.as_ref()?.until
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.until().or_else(|| {
            let (_, oldest) = self.shelf.first()?;
            Some(oldest.what.since + GATHER.min(self.settings.hold))
        })
    }

    pub fn tick(&mut self, now: Instant, out: &mut Vec<Event>) {
        while self.deadline().is_some_and(|deadline| now >= deadline) {
            if self.until().is_some() {
                return self.drain(out);
            }
            apart(self.shelf.pop().expect("it has a deadline"), out);
        }
        let hold = self.settings.hold;
        self.burst.take_if(|burst| {
            let end = (burst.last + GATHER).min(burst.first + hold);
            burst.until.is_none() && now >= end
        });
    }

    pub fn drain(&mut self, out: &mut Vec<Event>) {
        self.burst = None;
        while let Some(item) = self.shelf.pop() {
            apart(item, out);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.shelf.is_empty()
    }

    pub fn kept(&self) -> impl Iterator<Item = (&Arc<Member>, Option<Evidence>)> {
        self.shelf
            .iter()
            .map(|item| (&item.member, item.what.suspect))
    }

    pub fn get(&self, name: &str) -> Option<(&Arc<Member>, Option<Evidence>)> {
        let item = self.shelf.named(name)?;
        Some((&item.member, item.what.suspect))
    }

    pub fn len(&self) -> usize {
        self.shelf.len()
    }
}

/// Whether a lease was lost with it, as far as can be known. Who leaves on purpose is never held; a
/// silent one may have left.
fn is_loss(event: &Event, silence: bool) -> bool {
    match event {
        Event::ServerDown { member, cause, .. } => match cause {
            DownCause::LeaseExpired => true,
            DownCause::Unknown => silence && !is_silent(member),
            _ => false,
        },
        _ => false,
    }
}

/// Told as it was: gone, then whatever followed.
fn apart(item: Item<Held>, out: &mut Vec<Event>) {
    out.push(item.what.event);
    out.extend(item.behind);
}

/// The member is there again: if it is the same process, it was never away.
fn back(item: Item<Held>, out: &mut Vec<Event>) {
    let old = &item.member;
    let mut behind = item.behind.into_iter();
    match behind.next() {
        Some(Event::AddMember(new))
            if old.instance().is_some() && old.instance() == new.instance() =>
        {
            out.push(Event::UpdateMember {
                member: Arc::clone(&new),
                previous: Arc::clone(old),
            });
            if item.what.suspect.is_some() {
                out.push(Event::Cleared { member: new });
            }
        }
        next => {
            out.push(item.what.event);
            out.extend(next);
        }
    }
    out.extend(behind);
}
