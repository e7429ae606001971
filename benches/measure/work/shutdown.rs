//! (f) How long leaving blocks.

use std::time::Instant;

use headcount::{Cluster, Event};

use super::{labelled, samples};
use crate::report::{Report, Section};
use crate::support::etcd::Etcd;
use crate::{Plan, data};

pub fn run(plan: &Plan, report: &mut Report) {
    let etcd = Etcd::start();
    let rounds = plan.pick(200, 3);
    plan.progress("shutdowns");
    let one = |n: usize| {
        let builder = Cluster::builder().endpoints([etcd.endpoint()]);
        let builder = builder
            .prefix(data::PREFIX)
            .member("room", format!("leaver-{n}"));
        let member = builder.start().expect("etcd answers");
        let guard = member.add_listener(|_: &Event| {}).expect("a thread");
        let at = Instant::now();
        member.leave().expect("etcd answers");
        let took = at.elapsed();
        drop(guard);
        took.as_secs_f64() * 1e3
    };
    let took: Vec<f64> = (0..rounds).map(one).collect();
    let took = samples(&took);
    let about = format!("`leave()` of a member with a listener, etcd up; {rounds} times.");
    let mut section = Section::new("shutdown", "f. Shutdown", about);
    section.head = vec!["p50, ms", "p99, ms", "longest, ms"];
    let row = [0.5, 0.99, 1.0].map(|share| format!("{:.2}", took.at(share)));
    section.rows.push(row.to_vec());
    section.plot = ("How long `leave()` blocks".into(), "ms");
    for (label, share) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
        let bar = labelled(label.into(), &[took.at(share)], true);
        section.bars.push(bar);
    }
    let [mid, high] = [0.5, 0.99].map(|share| took.at(share));
    section.target('f', "median ≤ 20 ms", format!("{mid:.2} ms"), mid <= 20.0);
    section.target('f', "p99 ≤ 50 ms", format!("{high:.2} ms"), high <= 50.0);
    report.add(section);
}
