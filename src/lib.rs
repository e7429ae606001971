#![forbid(unsafe_code)]
#![deny(missing_docs)]
//! A running head count of your cluster: who joined, who left, who died.

mod builder;
mod cluster;
mod error;
mod etcd;
mod event;
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
mod stats;
mod watch;
mod worker;

pub use builder::Builder;
pub use cluster::Cluster;
pub use error::Error;
pub use etcd::Tls;
pub use event::{DownCause, Event, RemoveReason};
pub use hub::Options;
pub use listener::{Listener, ListenerGuard};
pub use member::{Member, Metadata};
pub use settings::OnConflict;
pub use stats::{ListenerStats, Relists, SkippedCounts, Stats};
