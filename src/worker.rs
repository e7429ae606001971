//! A thread that talks to etcd, and how to end it at once.
//!
//! Should it panic, which would be a fault of ours, it says so and begins anew (**G8**): a process
//! that neither renews its lease nor watches, and does not know, would be worse.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::Error;
use crate::etcd::Client;

/// So long after a panic it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Its channel tells it to end; shutting its client down unblocks whatever it waits for.
pub(crate) struct Worker {
    client: Arc<Client>,
    stop: Option<Sender<()>>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `run` gets a channel that never carries anything, and disconnects when it is to end.
    pub fn spawn(
        name: &'static str,
        client: Arc<Client>,
        run: impl FnMut(&Receiver<()>) + Send + 'static,
    ) -> Result<Worker, Error> {
        let (stop, stopped) = bounded(0);
        let thread = spawn(name, move || keep_running(name, run, &stopped, PAUSE))?;
        Ok(Worker {
            client,
            stop: Some(stop),
            thread,
        })
    }

    /// Tells it to end, without waiting for that.
    pub fn end(&mut self) {
        self.stop = None;
        self.client.shutdown();
    }

    /// Ends and joins it: its client, of no more use but for what it knows of the endpoints. Blocks
    /// for as long as name resolution and connecting may take.
    pub fn stop(mut self) -> Arc<Client> {
        self.end();
        join(self.thread);
        self.client
    }
}

fn keep_running(
    name: &str,
    mut run: impl FnMut(&Receiver<()>),
    stop: &Receiver<()>,
    pause: Duration,
) {
    while panics(|| run(stop)) {
        log::error!("{name} panicked; it begins anew. Please report it");
        if stop.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
}

/// Whether that panics. Dropping what it panicked with may be a panic as well, whose own is never
/// dropped.
pub(crate) fn panics(call: impl FnOnce()) -> bool {
    let caught = catch_unwind(AssertUnwindSafe(call));
    let panicked = caught.is_err();
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(caught))) {
        std::mem::forget(again);
    }
    panicked
}

pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map_err(|e| Error::Thread {
        reason: e.to_string(),
    })
}

pub(crate) fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        log::error!("{name} panicked; please report it");
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    #[test]
    fn g11_whatever_a_panic_carries_it_is_caught() {
        struct Carried(u8);
        impl Drop for Carried {
            fn drop(&mut self) {
                if self.0 > 0 {
                    resume_unwind(Box::new(Carried(self.0 - 1)));
                }
            }
        }
        for depth in 0..4 {
            assert!(panics(|| resume_unwind(Box::new(Carried(depth)))));
        }
        assert!(!panics(|| {}));
    }

    #[test]
    fn g8_a_panic_ends_no_thread() {
        let (_going_on, stop) = bounded(0);
        let mut rounds = 0;
        let run = |_: &Receiver<()>| {
            rounds += 1;
            assert!(rounds > 2, "a fault of ours");
        };
        keep_running("a test", run, &stop, Duration::ZERO);
        assert_eq!(rounds, 3);
        // Nor is it begun anew where it is to end.
        let (ended, stop) = bounded(0);
        drop(ended);
        let mut rounds = 0;
        let run = |_: &Receiver<()>| {
            rounds += 1;
            panic!("a fault of ours");
        };
        keep_running("a test", run, &stop, Duration::from_secs(60));
        assert_eq!(rounds, 1);
    }
}
