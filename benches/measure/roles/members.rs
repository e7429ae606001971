//! Many members in one process, each with threads and connections of its own.

use std::time::Duration;

use headcount::{Check, Cluster};

use super::shared::{Args, cpu, done, ready, wait_go};
use crate::data;

/// All of them check nobody but silent members; then, once more, with some who check everybody.
pub fn run(args: &Args) {
    let start = |n: usize, check: Check| {
        Cluster::builder()
            .endpoints([args.text("endpoint")])
            .prefix(data::PREFIX)
            .member("room", format!("room-{n:06}"))
            .check(check)
            .start_timeout(Duration::from_secs(60))
            .start()
            .expect("etcd answers")
    };
    let count = args.number("count") as usize;
    let mut members: Vec<Cluster> = (0..count).map(|n| start(n, Check::Silent)).collect();
    let silent = measured();
    for n in 0..args.number("checkers") as usize {
        members[n].leave().expect("etcd answers");
        members[n] = start(n, Check::All);
    }
    let all = measured();
    // Of the checkers, the one whose lease waits longest for a look.
    let oldest = members.iter().filter_map(|m| m.stats().oldest_check).max();
    let lost: u64 = members.iter().map(|m| m.stats().registration_losses).sum();
    done(serde_json::json!({
        "silent": silent, "all": all, "lost": lost,
        "oldest": oldest.unwrap_or_default().as_secs_f64(),
    }));
    // A thousand goodbyes measure nothing.
    std::process::exit(0);
}

/// CPU time from one word of the bench to the next.
fn measured() -> f64 {
    ready();
    wait_go();
    let before = cpu();
    wait_go();
    cpu() - before
}
