//! What the integration tests stand on: real etcd processes, a raw client of their own, and the
//! means to break the connection between them.
//!
//! Nothing here uses the crate under test, so that a bug in it can't hide behind itself.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code, unused_imports)]

/// Several etcd processes as one cluster.
pub mod cluster;
/// One real etcd process.
pub mod etcd;
/// A scripted HTTP server, for faults that real etcd can't be made to show.
pub mod fake;
/// A small raw client of the JSON gateway.
pub mod gateway;
/// This process's own threads, files and memory.
pub mod load;
/// One of the crate's example programs as a process.
pub mod process;
/// A TCP proxy that stalls, cuts, delays and splits.
pub mod proxy;
/// Chance that is the same in every run.
pub mod random;
/// The fake in front of a real etcd: tampers with what passes through.
pub mod relay;
/// The few system calls that std has no word for.
pub mod sys;
/// Waiting for a condition, never for a time.
pub mod wait;
