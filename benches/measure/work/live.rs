//! (b) Changes as they happen: from the put's being sent to the handler.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{bar, each, float, samples};
use crate::Plan;
use crate::child::{Job, Who, able};
use crate::data::{self, Put};
use crate::report::{Report, Samples, Section, ratios};
use crate::roles::{WARM, now};
use crate::support::etcd::Etcd;
use crate::support::gateway::Gateway;

const MEMBERS: usize = 100;
const EVERY: Duration = Duration::from_millis(5);

pub fn run(plan: &Plan, report: &mut Report) {
    let changes = plan.pick(400, 40);
    let rounds = plan.pick(7, 1);
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    // Everybody is there before, so that each change is one of a member's value.
    data::grant(&etcd, data::NONE..MEMBERS as i64);
    let all = (0..MEMBERS).map(|n| Put::of(n, 0));
    all.chain([Put::last(0)]).for_each(|put| put.send(&gateway));
    let peers = plan.peers.as_deref();
    let all = [Who::Minimal, Who::Headcount, Who::Single, Who::Multi];
    let who = able(peers, &all);
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); who.len()];
    for round in 0..rounds {
        plan.progress(&format!("live changes, round {} of {rounds}", round + 1));
        for (at, who) in who.iter().enumerate() {
            results[at].push(one(&etcd, &gateway, peers, *who, changes));
        }
    }
    let late = |at: usize, share: f64| {
        each(&results[at], |r| {
            let late = r["late"].as_array().expect("times").iter();
            late.map(|t| float(t) / 1e3).collect::<Samples>().at(share)
        })
    };
    let cpu = |at: usize| {
        each(&results[at], |r| {
            float(&r["cpu"]) / float(&r["events"]) * 1e6
        })
    };
    let about = format!(
        "{} puts a second through etcd's gateway, {changes} a round, of {MEMBERS} members with \
         leases of their own; from the put's being sent to the handler. All with default settings, \
         and CPU time from the {WARM}th event on: Headcount's renewals of its stream are in it, the \
         heartbeat checks are not, for these leases are long; (g) is about them.",
        1000 / EVERY.as_millis()
    );
    let mut section = Section::new("live", "b. Live changes", about);
    section.head = vec![
        "",
        "p50, µs",
        "p99, µs",
        "CPU per event, µs",
        "p50 beside the minimal reader",
    ];
    section.plot = ("Put sent → handler, p50, 200 changes a second".into(), "µs");
    for (at, who) in who.iter().enumerate() {
        section.rows.push(vec![
            who.name().into(),
            samples(&late(at, 0.5)).spread(0),
            samples(&late(at, 0.99)).spread(0),
            samples(&cpu(at)).spread(1),
            ratios(&late(at, 0.5), &late(0, 0.5)).spread(2),
        ]);
        section.bars.push(bar(*who, &late(at, 0.5)));
    }
    let beside = ratios(&late(1, 0.5), &late(0, 0.5));
    let met = beside.median() <= 1.08;
    section.target(
        'b',
        "p50 ≤ 1.08 × the minimal reader's",
        beside.spread(2),
        met,
    );
    let beside = ratios(&cpu(1), &cpu(0));
    let met = beside.median() <= 1.3;
    let target = "CPU per event ≤ 1.3 × the minimal reader's";
    section.target('b', target, beside.spread(2), met);
    report.add(section);
}

fn one(etcd: &Etcd, gateway: &Gateway, peers: Option<&Path>, who: Who, changes: usize) -> Value {
    let (begin, to) = data::range();
    let args = [
        ("endpoint", etcd.endpoint()),
        ("from", (gateway.revision() + 1).to_string()),
        ("timed", "1".into()),
        ("begin", begin),
        ("to", to),
        ("last", data::key(data::LAST)),
    ];
    let job = Job::start(peers, who, "watch", &args);
    job.wait_ready();
    job.go();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    for n in 0..=changes {
        std::thread::sleep((EVERY * n as u32).saturating_sub(began.elapsed()));
        let put = match n == changes {
            true => Put::last(now()),
            false => Put::of(n % MEMBERS, now()),
        };
        put.send(gateway);
    }
    job.result()
}
