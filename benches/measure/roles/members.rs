//! Many members in one process, each with threads and connections of its own.

use std::time::Duration;

use headcount::{Check, Cluster};

use super::shared::{Args, cpu, done, ready, wait_go};
use crate::data;

/// So many start at the same time.
const AT_ONCE: usize = 20;

/// All of them check nobody but silent members; then, once more, with some who check everybody.
pub fn run(args: &Args) {
    let start = |n: usize, check: Check| -> Cluster {
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
    let mut members = Vec::with_capacity(count);
    // Each waits for etcd most of the time.
    for first in (0..count).step_by(AT_ONCE) {
        std::thread::scope(|scope| {
            let some = first..(first + AT_ONCE).min(count);
            let starts = some.map(|n| scope.spawn(move || start(n, Check::Silent)));
            let starts: Vec<_> = starts.collect();
            members.extend(starts.into_iter().map(|s| s.join().expect("no panic")));
        });
    }
    let silent = measured();
    let checkers = args.number("checkers") as usize;
    for (n, member) in members.iter_mut().enumerate().take(checkers) {
        member.leave().expect("etcd answers");
        *member = start(n, Check::All);
    }
    let all = measured();
    let lost: u64 = members.iter().map(|m| m.stats().registration_losses).sum();
    done(serde_json::json!({ "silent": silent, "all": all, "lost": lost }));
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
