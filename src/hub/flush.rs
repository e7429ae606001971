//! Hands lagging listeners what waits for them, the moment their channel has room; and lets go of
//! departures that have been delayed long enough.

use crossbeam_channel::{Receiver, Select, Sender};

use super::{Hub, State, report};
use crate::event::Event;
use crate::outlet::Delivery;

impl Hub {
    /// Runs until the hub is closed. It sleeps in a `Select` on the lagging listeners' channels
    /// (and on `nudged`), so it costs nothing while everybody keeps up, and never polls.
    pub fn run_flusher(&self, nudged: &Receiver<()>) {
        loop {
            let (due, told, lagging) = self.change(|state, now| {
                let (due, told) = state.tick(now);
                (due, told, state.flush())
            });
            report(&told);
            let Some(lagging) = lagging else {
                return;
            };
            let mut select = Select::new();
            select.recv(nudged);
            for channel in &lagging {
                select.send(channel);
            }
            let ready = match due {
                Some(due) => select.ready_deadline(due),
                None => Ok(select.ready()),
            };
            if ready == Ok(0) {
                let _ = nudged.try_recv();
            }
        }
    }
}

impl State {
    /// Hands all who lag what their channels have room for: one pass for many places. The channels
    /// of those who lag on, which are the flusher's from now on; `None` once all is over.
    pub fn flush(&mut self) -> Option<Vec<Sender<Event>>> {
        let (mut lagging, mut done) = (Vec::new(), false);
        self.listeners.retain_mut(|slot| {
            slot.flushed = false;
            if !slot.outlet.is_waiting() {
                return true;
            }
            let delivery = slot.outlet.flush(&mut slot.channel);
            if delivery == Delivery::Waiting {
                slot.flushed = true;
                lagging.push(slot.channel.clone());
            } else {
                done = true;
            }
            delivery != Delivery::Gone
        });
        if done {
            // `close` waits for the last one to drain.
            self.wake();
        }
        (!self.closed || !self.listeners.is_empty()).then_some(lagging)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::Options;
    use super::super::state::tests::{kv, observing};
    use super::*;
    use crate::stats::Why;

    /// A pass over all for each event that each of them is told would be quadratic.
    #[test]
    fn g4_one_pass_serves_all_who_have_room() {
        let mut state = observing();
        let mut listing = state.new_listing();
        listing.page((1..=5).map(|n| kv(&format!("t/{n}"), n, 0)).collect());
        state.listing(listing.complete(), (5, 1), Why::First, Instant::now());
        let subscribe = |state: &mut State| state.subscribe(Options::new().capacity(1)).1;
        let idle = subscribe(&mut state);
        let gone = subscribe(&mut state);
        let readers: Vec<_> = (0..50).map(|_| subscribe(&mut state)).collect();
        assert!(state.take_wakes().flusher);
        assert_eq!(state.flush().map(|lagging| lagging.len()), Some(52));
        drop(gone);
        for left in (0..5).rev() {
            assert!(readers.iter().all(|reader| reader.try_recv().is_ok()));
            state.take_wakes();
            let lagging = state.flush().expect("it is not over");
            assert_eq!(lagging.len(), 1 + if left > 0 { 50 } else { 0 });
            // Somebody is gone, or has drained.
            assert_eq!(state.take_wakes().waiting, left == 4 || left == 0);
        }
        let synced = |r: &Receiver<Event>| matches!(r.try_recv(), Ok(Event::Synced));
        assert!(readers.iter().all(synced));
        assert_eq!((idle.len(), state.listeners.len()), (1, 51));
    }
}
