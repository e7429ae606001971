//! A running head count of your cluster: who joined, who left, who died.
//!
//! A server links Headcount, registers itself in etcd, and is told about every other server:
//! [`AddMember`](Event::AddMember) when one joins, [`RemoveMember`](Event::RemoveMember) when one
//! leaves, [`ServerDown`](Event::ServerDown) when one dies. It is for programs with threads and no
//! async runtime, and it speaks the registration layout of the [Pitaya] game server framework, so
//! it can join and watch a running Pitaya cluster.
//!
//! [Pitaya]: https://github.com/topfreegames/pitaya
//!
//! # Join and listen
//!
//! ```no_run
//! use headcount::{Cluster, Event};
//!
//! # fn main() -> Result<(), headcount::Error> {
//! let cluster = Cluster::builder()
//!     .endpoints(["http://127.0.0.1:2379"])
//!     .member("gate", "gate-1")
//!     .metadata("region", "eu")
//!     .start()?;
//!
//! for event in cluster.subscribe().iter() {
//!     match event {
//!         Event::AddMember(member) => println!("{member} joined: {:?}", member.metadata()),
//!         Event::RemoveMember { member, .. } => println!("{member} left"),
//!         Event::ServerDown { member, cause, .. } => println!("{member} died: {cause:?}"),
//!         other => println!("{other}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Builder::start`] returns once everybody present is known and this process is registered.
//! Without [`Builder::member`] it is a pure observer. [`Cluster::update_metadata`] changes what the
//! others see of it.
//!
//! # Leave
//!
//! A process that just ends, by a signal or by `exit`, has died, and its peers find out when its
//! lease runs out. To leave is to say so: call [`Cluster::leave`] where you catch `SIGTERM`, or drop
//! the handle.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = headcount::Cluster::builder().start()?;
//! let cluster = Arc::new(cluster);
//! let leaving = Arc::clone(&cluster);
//! ctrlc::set_handler(move || drop(leaving.leave()))?; // the `ctrlc` crate
//!
//! for event in cluster.subscribe().iter() {
//!     println!("{event}");
//! }
//! // The channel was closed, for we have left.
//! # Ok(())
//! # }
//! ```
//!
//! # Listen in other ways
//!
//! A [`Receiver`](crossbeam_channel::Receiver) fits into a `select!` over your own channels:
//!
//! ```no_run
//! # fn main() -> Result<(), headcount::Error> {
//! # let cluster = headcount::Cluster::builder().start()?;
//! # let (_work_tx, work) = crossbeam_channel::bounded::<String>(1);
//! let events = cluster.subscribe();
//! loop {
//!     crossbeam_channel::select! {
//!         recv(events) -> event => match event {
//!             Ok(event) => println!("{event}"),
//!             Err(_) => break, // the cluster was left
//!         },
//!         recv(work) -> job => println!("working on {job:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Listener`] has a method per event and runs on a thread of its own:
//!
//! ```no_run
//! use std::sync::Arc;
//! use headcount::{Cluster, DownCause, Listener, Member, RemoveReason};
//!
//! struct Routes(Vec<String>);
//!
//! impl Listener for Routes {
//!     fn add_member(&mut self, member: &Arc<Member>) {
//!         self.0.push(member.name().to_owned());
//!     }
//!     fn remove_member(&mut self, member: &Arc<Member>, _reason: RemoveReason) {
//!         self.0.retain(|name| name != member.name());
//!     }
//!     fn server_down(&mut self, member: &Arc<Member>, cause: &DownCause) {
//!         eprintln!("{member} is down: {}", cause.as_str());
//!         self.0.retain(|name| name != member.name());
//!     }
//! }
//!
//! # fn main() -> Result<(), headcount::Error> {
//! let cluster = Cluster::builder().start()?;
//! let guard = cluster.add_listener(Routes(Vec::new()))?;
//! // A closure does as well:
//! cluster.add_listener(|event: &headcount::Event| println!("{event}"))?.keep();
//! drop(guard); // unsubscribes
//! # Ok(())
//! # }
//! ```
//!
//! # Ask
//!
//! Queries read the view that the threads keep, and never talk to etcd:
//!
//! ```no_run
//! # use std::time::Duration;
//! # fn main() -> Result<(), headcount::Error> {
//! # let cluster = headcount::Cluster::builder().start()?;
//! for gate in cluster.members_of("gate") {
//!     println!("{} at {:?}", gate.id(), gate.metadata().get("grpcHost"));
//! }
//! let enough = cluster.wait_for(
//!     |members| members.iter().filter(|m| m.server_type() == "room").count() >= 3,
//!     Duration::from_secs(10),
//! );
//! assert!(enough, "only {:?}", cluster.members_of("room"));
//! # Ok(())
//! # }
//! ```
//!
//! # What you can rely on
//!
//! * You are told of everybody present, then [`Synced`](Event::Synced), then every change, in the
//!   order of etcd's revisions, across reconnects and compactions.
//! * Per member: added, updated, gone, added … Only a mass loss that was held may change an
//!   incarnation by an update. A restart under the same id is always the departure
//!   of the old life, then the addition of the new one. [`Member::incarnation`] tells lives apart.
//! * No listener delays detection, the lease, or another listener. A slow one has what it misses
//!   [folded](Event::Lagged) per member; what it is told still adds up to the view.
//! * Without etcd the view stays, and [ages](Cluster::view_age). Nobody is called down because *we*
//!   lost etcd. The own registration comes back after whatever befell it.
//! * [`Cluster::is_registered`] turns false before our lease can have run out.
//! * Every call is bounded, and [`Cluster::leave`] joins every thread, but that of a handler still
//!   busy after [`Builder::drain_timeout`].
//!
//! # What a `ServerDown` knows
//!
//! A departure's reason is what was proven. A member of Headcount says that it leaves, so for it a
//! key that vanishes without a word is a death. A Pitaya server in Go says nothing: its leaving
//! looks like its crash. So a thread asks etcd what is left of each member's lease
//! ([`Builder::check`], at most [`Builder::check_rate`] requests a second), and keeps the earliest
//! moment at which it can run out. If a key goes
//!
//! * before that moment, and the lease with it, the lease was [revoked](RemoveReason::Revoked), if it
//!   was a server that says nothing; a member of Headcount would have said so, and the cause is
//!   [unknown](DownCause::Unknown);
//! * while its lease lives on, it was [deregistered](RemoveReason::Deregistered);
//! * when its lease, seen not to be renewed, had to run out, the lease
//!   [expired](DownCause::LeaseExpired);
//! * and otherwise, as before the first look, the cause is [unknown](DownCause::Unknown).
//!
//! # Suspicion
//!
//! A lease that has less left than its owner would let it have makes a
//! [`Suspect`](Event::Suspect), long before it runs out. What a server should do: give it no new
//! work, and take nothing away from it. It ends with [`Cleared`](Event::Cleared) or a departure.
//!
//! # When many vanish at once
//!
//! etcd has lost the leases of live owners. So the departures of a large share of the members are
//! held for a moment, which [`MassLoss`](Event::MassLoss) tells; whoever is back by then as the same
//! process is told as an [`UpdateMember`](Event::UpdateMember) to its new incarnation. What a server
//! should do: nothing but go on. [`Builder::mass_loss_hold`] says when to turn it off.
//!
//! # When etcd is away
//!
//! [`StoreLost`](Event::StoreLost) comes within [`Builder::stall_bound`] of etcd going silent, and
//! at once when it refuses; in order with all other events, to every listener. What a server should
//! do: go on with the members it knows, and let its own time-outs decide about each; not take on
//! what needs a new member's consent; and, where old news does harm, look at
//! [`Cluster::view_age`]. Its own registration may lapse meanwhile, which [`Lost`](Event::Lost)
//! tells it in time.
//!
//! [`StoreRestored`](Event::StoreRestored) comes when etcd is back, before what has changed
//! meanwhile. What a server should do: take on again what it had put off, and expect departures and
//! additions in one burst. Nobody is suspected until a renewal was due again.
//!
//! # Features
//!
//! * `tls`: `https` endpoints, by rustls.
//! * `embedded`: a registry inside the process, for demos, tests, and clusters on one machine; see
//!   `headcount::embedded`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod builder;
mod cluster;
mod delay;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod etcd;
mod event;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(fuzzing)))]
mod fuzzing;
mod heartbeat;
mod hub;
mod jitter;
mod kv;
mod lease;
mod listener;
mod member;
mod note;
mod outlet;
mod roster;
mod settings;
#[cfg(test)]
mod simulation;
mod stats;
mod watch;
mod worker;

pub use builder::Builder;
pub use cluster::Cluster;
pub use error::Error;
pub use etcd::Tls;
pub use event::{DownCause, Event, Evidence, RemoveReason};
pub use hub::Options;
pub use listener::{Listener, ListenerGuard};
pub use member::{Member, Metadata};
pub use settings::{Check, OnConflict};
pub use stats::{ListenerStats, Relists, SkippedCounts, Stats};

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
