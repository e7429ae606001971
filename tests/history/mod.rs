//! Histories: what everybody was told, what really was, and a judge over the two.
//!
//! * [`told`]: the data: what listeners were told and what queries answered.
//! * [`truth`]: etcd's own history, and [`truth_reader`], which reads it.
//! * [`deeds`]: what was done to members, to etcd, and to the way there.
//! * [`judge`] holds them against each other, by guarantee: [`gapless`] (G1), [`ordered`] (G2),
//!   [`pairing`] (G3), [`prompt`] (G4), [`converged`] (G5), [`truthful`] (G6), [`steady`] (G7),
//!   [`fenced`] (G10); [`placed`] lays a log beside the truth's [`timeline`] for them.
//! * [`recorder`] records a [`Cluster`](headcount::Cluster) of this process; [`json`] reads the lines
//!   that the example programs print.
//!
//! All times are [`Nanos`] of the wall clock, which all processes of one machine share.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code, unused_imports)]

pub mod converged;
pub mod deeds;
pub mod fenced;
pub mod gapless;
pub mod json;
mod judge;
pub mod ordered;
pub mod pairing;
pub mod placed;
pub mod prompt;
pub mod recorder;
pub mod steady;
pub mod timeline;
pub mod told;
pub mod truth;
pub mod truth_reader;
pub mod truthful;
pub mod verdict;

use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

pub use deeds::{Deed, Deeds, Whom};
pub use judge::judge;
pub use told::{Answer, Log, Previous, Seen, Told};
pub use truth::{Act, Change, Epoch, Truth};
pub use verdict::{Summary, Violation};

/// Nanoseconds since 1970.
pub type Nanos = u64;

/// Something, and when it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct At<T> {
    pub at: Nanos,
    pub what: T,
}

pub fn at<T>(at: Nanos, what: T) -> At<T> {
    At { at, what }
}

pub fn now() -> Nanos {
    nanos(SystemTime::now())
}

pub fn nanos(at: SystemTime) -> Nanos {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).expect("not so far in the future")
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub truth: Truth,
    pub logs: Vec<Log>,
    pub answers: Vec<Answer>,
    pub deeds: Deeds,
    pub bounds: Bounds,
}

/// What depends on the test, not on the guarantees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// A listener that keeps up is told within this, while nothing is broken.
    pub delivery: Nanos,
    /// From when to when nothing is broken.
    pub calm: Vec<(Nanos, Nanos)>,
    /// The longest time to live of a member's lease.
    pub ttl: Nanos,
    /// So far what one thread has seen may lag behind what another one has.
    pub slack: Nanos,
}
