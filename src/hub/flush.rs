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
            let (due, told) = self.change(|state, now| state.tick(now));
            report(&told);
            let Some(lagging) = self.change(|state, _| state.lagging()) else {
                return;
            };
            let mut select = Select::new();
            select.recv(nudged);
            for (_, channel) in &lagging {
                select.send(channel);
            }
            let ready = match due {
                Some(due) => select.ready_deadline(due),
                None => Ok(select.ready()),
            };
            match ready {
                Err(_) => {}
                Ok(0) => {
                    let _ = nudged.try_recv();
                }
                Ok(ready) => self.change(|state, _| state.flush(lagging[ready - 1].0)),
            }
        }
    }
}

impl State {
    /// Who has something waiting; `None` once all is over. They are the flusher's from now on.
    pub fn lagging(&mut self) -> Option<Vec<(u64, Sender<Event>)>> {
        if self.closed && self.listeners.is_empty() {
            return None;
        }
        let mut lagging = Vec::new();
        for slot in &mut self.listeners {
            slot.flushed = slot.outlet.is_waiting();
            if slot.flushed {
                lagging.push((slot.id, slot.channel.clone()));
            }
        }
        Some(lagging)
    }

    /// Its channel has room: hands it what waits.
    pub fn flush(&mut self, id: u64) {
        let Some(at) = self.listeners.iter().position(|slot| slot.id == id) else {
            return;
        };
        let slot = &mut self.listeners[at];
        match slot.outlet.flush(&mut slot.channel) {
            Delivery::Waiting => return,
            Delivery::Done => {}
            Delivery::Gone => {
                self.listeners.remove(at);
            }
        }
        // `close` waits for the last one to drain.
        self.wake();
    }
}
