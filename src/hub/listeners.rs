//! Who listens: coming, going, and the end.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use super::{Hub, Options, Slot};
use crate::event::Event;
use crate::outlet::Outlet;

impl Hub {
    /// A new listener: it is told of the store's state, of us, of everybody (unless it does not
    /// want that), then `Synced`, then changes.
    pub fn subscribe(&self, options: Options) -> (u64, Receiver<Event>) {
        let (channel, receiver) = bounded(options.capacity);
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        if state.closed {
            return (id, receiver);
        }
        let quiet_until_synced = !options.initial && !state.synced;
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
        if state.store_lost {
            slot.offer(&Event::StoreLost, own);
        }
        if let Some(standing) = &state.own {
            slot.offer(standing, own);
        }
        if state.synced {
            if initial {
                for member in state.view() {
                    let suspicion = state.suspicion(&member);
                    slot.offer(&Event::AddMember(Arc::clone(&member)), own);
                    if let Some(evidence) = suspicion {
                        slot.offer(&Event::Suspect { member, evidence }, own);
                    }
                }
            }
            slot.offer(&Event::Synced, own);
        }
        state.listeners.push(slot);
        self.settle(&mut state);
        (id, receiver)
    }

    pub fn unsubscribe(&self, id: u64) {
        let mut state = self.state.lock();
        state.listeners.retain(|slot| slot.id != id);
        // `close` may be waiting for it.
        self.wake(&mut state);
        drop(state);
        // The flusher may hold its channel.
        let _ = self.nudge.try_send(());
    }

    /// Ends all listening: whoever lags has until `deadline` to take what waits, then channels are
    /// closed (what is in them can still be read).
    pub fn close(&self, deadline: Instant) {
        let mut state = self.state.lock();
        let (scene, mut told) = (state.scene(), Vec::new());
        state.delay.drain(&scene, &mut told);
        self.pass_on(&mut state, &told);
        state.closed = true;
        while state.listeners.iter().any(|slot| slot.outlet.is_waiting()) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let listeners = std::mem::take(&mut state.listeners);
        self.wake(&mut state);
        drop(state);
        let _ = self.nudge.try_send(());
        for slot in listeners.iter().filter(|slot| slot.outlet.is_waiting()) {
            let (name, left) = (&slot.options.name, slot.outlet.depth());
            log::warn!("listener {name:?} never took its last {left} events");
        }
    }
}
