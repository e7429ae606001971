//! A registry inside the process, for demos, tests and clusters on one machine. Real clusters use
//! etcd: this one is not replicated, keeps nothing on disk, and knows no authentication or TLS.
//!
//! It serves the part of etcd's HTTP gateway that Headcount uses, over loopback, so what runs
//! against it is the very code that runs against etcd. (Feature `embedded`.)
//!
//! # Testing a listener
//!
//! A [`Registry`] can be made to misbehave, and what your listener does about it be tested without
//! an etcd. (Members and their departures can't be made by hand: they come from a registry.)
//!
//! ```
//! use std::time::Duration;
//! use headcount::embedded::Registry;
//! use headcount::{Cluster, Event};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::start()?;
//! let join = |id| Cluster::builder().endpoints([registry.endpoint()]).member("room", id);
//!
//! let observer = Cluster::builder().endpoints([registry.endpoint()]).start()?;
//! let events = observer.subscribe_with(headcount::Options::new().initial(false));
//! // As your code would: a count of who is there.
//! let mut rooms = 0;
//! let mut next = || {
//!     loop {
//!         match events.recv_timeout(Duration::from_secs(5)).expect("an event comes") {
//!             Event::AddMember(_) => rooms += 1,
//!             Event::RemoveMember { .. } | Event::ServerDown { .. } => rooms -= 1,
//!             _ => continue,
//!         }
//!         return rooms;
//!     }
//! };
//!
//! let one = join("room-1").start()?;
//! let two = join("room-2").start()?;
//! assert_eq!((next(), next()), (1, 2));
//!
//! one.leave()?; // said so: `RemoveMember`
//! assert_eq!(next(), 1);
//!
//! let lease = observer.member("room", "room-2").expect("it is there").lease();
//! registry.expire(lease); // its lease is gone: `ServerDown`, and it comes back by itself
//! assert_eq!((next(), next()), (0, 1));
//! # drop(two);
//! # Ok(())
//! # }
//! ```
//!
//! # What is different from etcd
//!
//! | | etcd | here |
//! |---|---|---|
//! | a lease that ran out | deleted within the next half second | deleted at once |
//! | history | kept until compacted | the last 100,000 revisions or 64 MiB; older ones are compacted by itself |
//! | a watch that catches up | next round, up to 100 ms later | at once |
//! | size | quota of 2 GiB, then an alarm | 256 MiB of keys and values; puts beyond that get the same error, without an alarm |
//! | error replies | shaped by the version | as etcd 3.5 with a gateway of version 2 |
//! | a request that can't be read | Go's words for why | serde's, under the same code |
//! | numbers that stand for nothing, such as a sort order of 9 | taken for something | refused as unreadable |
//! | a watch by a client of HTTP/1.0 | without an encoding | in chunks |
//! | unclean paths, such as `//v3/kv/put` | redirected | `Not Found` |
//! | other paths | the whole API | maintenance `status` and `authenticate` (which says that authentication is off); the rest is `Not Found` |

mod api;
mod connection;
mod leases;
mod refusal;
mod reply;
mod request;
mod server;
mod session;
mod store;
mod watches;
mod wire;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use mio::{Poll, Waker};

use self::request::DeleteRange;
use self::server::{Command, Server, WAKER};

/// For the fuzz target: what a client is sent that sends these pieces.
#[cfg(any(test, fuzzing))]
pub(crate) fn serve<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    session::alone::serve(pieces)
}

/// A running registry; see the [module](self). Dropping it ends it, and joins its thread.
pub struct Registry {
    endpoint: String,
    address: SocketAddr,
    /// Dropped first: that is what ends the thread.
    commands: Option<Sender<Command>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Starts one on 127.0.0.1, at a port that the kernel chooses.
    ///
    /// # Errors
    /// What the system has against it: no port, no thread, no more file descriptors.
    pub fn start() -> io::Result<Registry> {
        Registry::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts one at this address. Whoever can reach it can read and write everything.
    ///
    /// # Errors
    /// As [`start`](Self::start), and where the address is in use or not this machine's.
    pub fn start_at(address: SocketAddr) -> io::Result<Registry> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let server = Server::bind(poll, address)?;
        let address = server.address();
        let (commands, orders) = bounded::<Command>(16);
        let thread = std::thread::Builder::new()
            .name("headcount-registry".into())
            .spawn(move || server.run(&orders))?;
        Ok(Registry {
            endpoint: format!("http://{address}"),
            address,
            commands: Some(commands),
            waker,
            thread: Some(thread),
        })
    }

    /// Its URL, as [`Builder::endpoints`](crate::Builder::endpoints) takes it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    // ---- for tests

    /// Ends a lease before its time, as a revoke does, its keys with it; whether there was such a
    /// lease.
    ///
    /// A member of Headcount registers again as soon as it notices, unless it has ended. Those who
    /// watch are told `ServerDown unknown` of it, after the 600 ms that tell a lone loss from a
    /// [mass loss](crate::Event::MassLoss), and of a silent one `RemoveMember revoked`. For
    /// `lease-expired`, a member has to stop renewing, and its lease to run out. To end more than
    /// half of the leases, and at least four, makes a mass loss.
    pub fn expire(&self, lease: i64) -> bool {
        self.ask(move |server| server.store().revoke(lease).is_ok())
    }

    /// Deletes a key, such as `pitaya/servers/gate/gate-1`, as somebody might by hand; whether it
    /// was there.
    pub fn delete(&self, key: &str) -> bool {
        let request = DeleteRange {
            key: key.as_bytes().into(),
            ..DeleteRange::default()
        };
        self.ask(move |server| {
            let deleted = server.store().delete_range(&request);
            deleted.is_ok_and(|deleted| !deleted.is_empty())
        })
    }

    /// Forgets all history; who watches from before is told so, and lists anew. The revision.
    pub fn compact(&self) -> i64 {
        self.ask(|server| {
            let revision = server.store().revision();
            // Refused only where nothing has happened since the last time.
            let _ = server.store().compact(revision);
            revision
        })
    }

    /// From now on it accepts, and never answers, as behind a broken network: time goes on, leases
    /// run out. Clients notice within their `stall_bound`, which a test may want to be short. Ended by
    /// [`come_back`](Self::come_back).
    pub fn silence(&self) {
        self.ask(Server::silence);
    }

    /// From now on all connections are refused, and the present ones closed, as by a host whose
    /// etcd has ended: time stands still. Ended by [`come_back`](Self::come_back).
    pub fn refuse(&self) {
        self.ask(Server::refuse);
    }

    /// All is well again. Having [refused](Self::refuse), it gives every lease its full time anew,
    /// as etcd does after a restart.
    ///
    /// # Errors
    /// If somebody else has taken its port meanwhile.
    pub fn come_back(&self) -> io::Result<()> {
        self.ask(Server::come_back)
    }

    /// Loses everything, as an etcd whose data was deleted: it is another cluster, without keys and
    /// leases, and its revisions start anew.
    pub fn wipe(&self) {
        self.ask(Server::wipe);
    }

    /// Runs on the registry's thread, which never waits for anything else.
    fn ask<T: Send + 'static>(&self, run: impl FnOnce(&mut Server) -> T + Send + 'static) -> T {
        let (tell, told) = bounded(1);
        let command: Command = Box::new(move |server| {
            let _ = tell.send(run(server));
        });
        let sent = self
            .commands
            .as_ref()
            .map(|commands| commands.send(command));
        let woken = self.waker.wake();
        assert!(
            matches!(sent, Some(Ok(()))) && woken.is_ok(),
            "the registry's thread has ended"
        );
        told.recv().expect("the registry's thread has ended")
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            crate::worker::join(thread);
        }
    }
}
