//! Who listens: coming, going, and the end.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use super::state::Slot;
use super::{Hub, Options, State};
use crate::event::Event;
use crate::outlet::Outlet;

impl State {
    /// A new listener: it is told of the store's state, of us, of everybody (unless it does not
    /// want that), then `Synced`, then changes.
    pub fn subscribe(&mut self, options: Options) -> (u64, Receiver<Event>) {
        let (channel, receiver) = bounded(options.capacity);
        let id = self.next_id;
        self.next_id += 1;
        if self.closed {
            return (id, receiver);
        }
        let quiet_until_synced = !options.initial && !self.synced;
        let initial = options.initial;
        let outlet = Outlet::default();
        let mut slot = Slot {
            id,
            options,
            outlet,
            channel,
            quiet_until_synced,
            flushed: false,
            gone: false,
        };
        let own = self.own_name();
        if self.store_lost {
            slot.offer(&Event::StoreLost, own);
        }
        if let Some(standing) = &self.standing {
            slot.offer(standing, own);
        }
        if self.synced {
            if initial {
                for member in self.view() {
                    let suspicion = self.suspicion(&member);
                    slot.offer(&Event::AddMember(Arc::clone(&member)), own);
                    if let Some(evidence) = suspicion {
                        slot.offer(&Event::Suspect { member, evidence }, own);
                    }
                }
            }
            slot.offer(&Event::Synced, own);
        }
        self.listeners.push(slot);
        self.settle();
        (id, receiver)
    }

    pub fn unsubscribe(&mut self, id: u64) {
        self.listeners.retain(|slot| slot.id != id);
        // `close` may be waiting for it.
        self.wake();
        // The flusher may hold its channel.
        self.wakes.flusher = true;
    }

    /// How many events wait for a listener outside its channel.
    #[cfg(test)]
    pub fn waiting(&self, id: u64) -> Option<u64> {
        let slot = self.listeners.iter().find(|slot| slot.id == id);
        slot.map(|slot| slot.outlet.depth())
    }

    /// The end: what was delayed is told, and nobody can come any more.
    fn end(&mut self, now: Instant) {
        let (scene, mut told) = (self.scene(now), Vec::new());
        self.delay.drain(&scene, &mut told);
        self.pass_on(&told);
        self.closed = true;
    }
}

impl Hub {
    pub fn subscribe(&self, options: Options) -> (u64, Receiver<Event>) {
        self.change(|state, _| state.subscribe(options))
    }

    pub fn unsubscribe(&self, id: u64) {
        self.change(|state, _| state.unsubscribe(id));
    }

    /// Ends all listening: whoever lags has until `deadline` to take what waits, then channels are
    /// closed (what is in them can still be read).
    pub fn close(&self, deadline: Instant) {
        self.change(State::end);
        let mut state = self.state.lock();
        while state.listeners.iter().any(|slot| slot.outlet.is_waiting()) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let listeners = std::mem::take(&mut state.listeners);
        state.wake();
        state.wakes.flusher = true;
        self.send(state.take_wakes());
        drop(state);
        for slot in listeners.iter().filter(|slot| slot.outlet.depth() > 0) {
            let (name, left) = (&slot.options.name, slot.outlet.depth());
            log::warn!("listener {name:?} never took its last {left} events");
        }
    }
}
