//! Many members in one process, each with threads and connections of its own.

use std::time::Duration;

use headcount::Cluster;

use super::shared::{Args, cpu, done, ready, wait_go};
use crate::data;

pub fn run(args: &Args) {
    let start = |n: i64| {
        Cluster::builder()
            .endpoints([args.text("endpoint")])
            .prefix(data::PREFIX)
            .member("room", format!("room-{n:06}"))
            .start_timeout(Duration::from_secs(60))
            .start()
            .expect("etcd answers")
    };
    let members: Vec<Cluster> = (0..args.number("count")).map(start).collect();
    ready();
    wait_go();
    let before = cpu();
    wait_go();
    let spent = cpu() - before;
    let lost = members.iter().filter(|m| !m.is_registered()).count();
    done(serde_json::json!({ "cpu": spent, "lost": lost }));
    // A thousand goodbyes measure nothing.
    std::process::exit(0);
}
