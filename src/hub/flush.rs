//! Hands lagging listeners what waits for them, the moment their channel has room; and lets go of
//! departures that have been delayed long enough.

use crossbeam_channel::{Receiver, Select, Sender};

use super::Hub;
use crate::event::Event;
use crate::outlet::Delivery;

impl Hub {
    /// Runs until the hub is closed. It sleeps in a `Select` on the lagging listeners' channels
    /// (and on `nudged`), so it costs nothing while everybody keeps up, and never polls.
    pub fn run_flusher(&self, nudged: &Receiver<()>) {
        loop {
            let due = self.tick();
            let Some(lagging) = self.lagging() else {
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
                Ok(ready) => self.flush(lagging[ready - 1].0),
            }
        }
    }

    /// Who has something waiting; `None` once all is over.
    fn lagging(&self) -> Option<Vec<(u64, Sender<Event>)>> {
        let mut state = self.state.lock();
        if state.closed && state.listeners.is_empty() {
            return None;
        }
        let mut lagging = Vec::new();
        for slot in &mut state.listeners {
            slot.flushed = slot.outlet.is_waiting();
            if slot.flushed {
                lagging.push((slot.id, slot.channel.clone()));
            }
        }
        Some(lagging)
    }

    fn flush(&self, id: u64) {
        let mut state = self.state.lock();
        let Some(at) = state.listeners.iter().position(|slot| slot.id == id) else {
            return;
        };
        let slot = &mut state.listeners[at];
        match slot.outlet.flush(&mut slot.channel) {
            Delivery::Waiting => return,
            Delivery::Done => {}
            Delivery::Gone => {
                state.listeners.remove(at);
            }
        }
        // `close` waits for the last one to drain.
        self.wake(&mut state);
    }
}
