//! One set of requests, two stores: what etcd answers, the embedded registry answers too.
//!
//! Each scenario runs against the etcd that the other tests use, and against a registry; what they
//! said is compared field by field, errors included. What may differ is in `differences.rs`.
//! `HEADCOUNT_ALL_DIFFERENCES=1` shows all differences of a scenario, not only the first;
//! `HEADCOUNT_TRANSCRIPTS=FOLDER` keeps what was said.

mod conformance {
    pub mod compare;
    pub mod differences;
    pub mod normal;
    pub mod talk;

    mod bodies;
    mod compaction;
    mod compares;
    mod connection;
    mod kv;
    mod lease;
    mod range;
    mod server;
    mod txn;
    mod watch;
}
mod support;

use conformance::compare::{assert_same, keep};
use conformance::talk::Talk;
use headcount::embedded::Registry;
use support::etcd::Etcd;

/// Runs a scenario against both stores, each fresh, and compares what they said.
#[track_caller]
pub fn conform(scenario: &str, run: impl Fn(&mut Talk)) {
    let talk = |store: &str, endpoint: &str| {
        let mut talk = Talk::new(endpoint);
        run(&mut talk);
        keep(store, scenario, &talk.entries);
        talk.entries
    };
    let etcd = Etcd::start();
    let (major, minor, patch) = etcd.version();
    let version = format!("etcd-{major}.{minor}.{patch}");
    let one = talk(&version, &etcd.endpoint());
    drop(etcd);
    let registry = Registry::start().expect("a registry");
    let other = talk("registry", registry.endpoint());
    assert_same(scenario, (&version, &one), ("registry", &other));
}
