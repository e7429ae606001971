//! (c) The first listing, until everybody is known.

use serde_json::Value;

use super::{bar, each, float, samples};
use crate::Plan;
use crate::child::{Job, Who, able};
use crate::data::{self, Put};
use crate::report::{Report, Section, ratios};
use crate::support::etcd::Etcd;

const PER_TXN: usize = 100;

pub fn run(plan: &Plan, report: &mut Report) {
    let peers = plan.peers.as_deref();
    let who = able(peers, &Who::ALL);
    let sizes: &[usize] = plan.pick(&[1_000, 10_000, 100_000], &[1_000]);
    let largest = sizes[sizes.len() - 1];
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let about = "From nothing to everybody known. The raw stream and the minimal reader ask for \
                 all at once. Each member has a lease of its own, which Headcount is to check, as in \
                 a real cluster. Memory is what the process has grown by: at most, and once all is \
                 known."
        .into();
    let mut section = Section::new("listing", "c. First listing", about);
    section.head = vec![
        "",
        "members",
        "wall, ms",
        "beside raw",
        "CPU, ms",
        "peak, MB",
        "held, MB",
        "held per member, bytes",
    ];
    section.plot = (format!("First listing of {largest} members"), "ms");
    let mut there = 0;
    for &size in sizes {
        plan.progress(&format!("registering {size} members, each with a lease"));
        data::grant(&etcd, there as i64..size as i64);
        for from in (there..size).step_by(PER_TXN) {
            let numbers = from..(from + PER_TXN).min(size);
            gateway.txn(&data::txn(numbers.map(|n| Put::of(n, 0))));
        }
        there = size;
        let rounds = plan.pick(if size < 100_000 { 7 } else { 5 }, 1);
        let mut results: Vec<Vec<Value>> = vec![Vec::new(); who.len()];
        for round in 0..rounds {
            let what = format!("listing {size} members, round {} of {rounds}", round + 1);
            plan.progress(&what);
            for (at, who) in who.iter().enumerate() {
                let (begin, to) = data::range();
                let args = [("endpoint", etcd.endpoint()), ("begin", begin), ("to", to)];
                results[at].push(Job::start(peers, *who, "list", &args).result());
            }
        }
        let number =
            |at: usize, name: &str, scale: f64| each(&results[at], |r| float(&r[name]) * scale);
        let wall = |at: usize| number(at, "wall", 1e3);
        for (at, who) in who.iter().enumerate() {
            let held = number(at, "held", 1024.0 / size as f64);
            section.rows.push(vec![
                who.name().into(),
                size.to_string(),
                samples(&wall(at)).spread(0),
                ratios(&wall(at), &wall(0)).spread(2),
                samples(&number(at, "cpu", 1e3)).spread(0),
                format!("{:.1}", samples(&number(at, "peak", 1024e-6)).median()),
                format!("{:.1}", samples(&number(at, "held", 1024e-6)).median()),
                format!("{:.0}", samples(&held).median()),
            ]);
            if size == largest {
                section.bars.push(bar(*who, &wall(at)));
            }
        }
        if size < largest {
            continue;
        }
        let beside = ratios(&wall(2), &wall(0));
        let met = beside.median() <= 1.25;
        let target = format!("{size} members: wall ≤ 1.25 × the raw one-shot listing");
        section.target('c', &target, beside.spread(2), met);
        let above = samples(&each(&results[2], |r| {
            (float(&r["peak"]) - float(&r["held"])) * 1024e-6
        }));
        let measured = format!("the view + {} MB", above.spread(1));
        let met = above.median() <= 8.0;
        section.target('c', "peak memory ≤ the view + 8 MB", measured, met);
        let held = samples(&number(2, "held", 1024.0 / size as f64));
        let met = held.median() <= 600.0;
        let target = "≤ 600 bytes held per member of 150 bytes of JSON";
        section.target('c', target, held.spread(0), met);
    }
    report.add(section);
}
