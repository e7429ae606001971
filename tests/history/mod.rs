//! Histories: what everybody was told, what really was, and a judge over the two.
//!
//! * [`told`]: the data: what listeners were told and what queries answered.
//! * [`truth`]: etcd's own history, and [`truth_reader`], which reads it.
//! * [`deeds`]: what was done to members, to etcd, and to the way there.
//! * [`recorder`] records a [`Cluster`](headcount::Cluster) of this process; [`json`] reads the lines
//!   that the example programs print.
//!
//! All times are [`Nanos`] of the wall clock, which all processes of one machine share.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code, unused_imports)]

pub mod deeds;
pub mod json;
pub mod recorder;
pub mod told;
pub mod truth;
pub mod truth_reader;

use std::time::{SystemTime, UNIX_EPOCH};

pub use deeds::{Deed, Deeds, Whom};
pub use told::{Answer, Log, Previous, Seen, Told};
pub use truth::{Act, Change, Epoch, Truth};

/// Nanoseconds since 1970.
pub type Nanos = u64;

/// Something, and when it was.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub truth: Truth,
    pub logs: Vec<Log>,
    pub answers: Vec<Answer>,
    pub deeds: Deeds,
}
