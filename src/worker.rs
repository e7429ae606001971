//! A thread that talks to etcd, and how to end it at once.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Error;
use crate::etcd::Client;

/// Its channel tells it to end; shutting its client down unblocks whatever it waits for.
pub(crate) struct Worker {
    client: Arc<Client>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `run` gets a channel that never carries anything, and disconnects when it is to end.
    pub fn spawn(
        name: &str,
        client: Arc<Client>,
        run: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> Result<Worker, Error> {
        let (stop, stopped) = bounded(0);
        let thread = spawn(name, move || run(stopped))?;
        Ok(Worker {
            client,
            stop,
            thread,
        })
    }

    /// Ends and joins it: its client, of no more use but for what it knows of the endpoints. Blocks
    /// for as long as name resolution and connecting may take.
    pub fn stop(self) -> Arc<Client> {
        drop(self.stop);
        self.client.shutdown();
        join(self.thread);
        self.client
    }
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
