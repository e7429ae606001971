//! (d) One change to many listeners.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde_json::Value;

use super::{each, float, labelled, samples};
use crate::Plan;
use crate::child::{Job, Who};
use crate::data::{self, Put};
use crate::report::{Report, Section, ratios};
use crate::roles::fanout::BLOCK;
use crate::roles::now;
use crate::source::{Source, Stream};

const PER_TXN: usize = 10;
const MEMBERS: usize = 100;

pub fn run(plan: &Plan, report: &mut Report) {
    let rounds = plan.pick(5, 1);
    let mut folded = 0.0;
    let mut section = Section::new("fanout", "d. Fan-out", String::new());
    section.head = vec![
        "listeners",
        "thousand deliveries a second, one core",
        "p50, µs",
        "p50 beside one more, stalled, µs",
        "ratio",
    ];
    section.plot = ("Deliveries a second on one core".into(), "thousands");
    for listeners in [1_usize, 10, 100, 1000] {
        let (mut bursts, mut singles) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let what = format!("fan-out to {listeners}, round {} of {rounds}", round + 1);
            plan.progress(&what);
            bursts.push(burst(plan, listeners));
            singles.push(single(plan, listeners));
        }
        let rate = each(&bursts, |r| {
            float(&r["deliveries"]) / float(&r["wall"]) / 1e3
        });
        folded += each(&bursts, |r| float(&r["folded"])).iter().sum::<f64>();
        let p50 = |which: &str| each(&singles, |r| float(&r[which]) / 1e3);
        let (alone, beside) = (p50("alone"), p50("beside"));
        let more = ratios(&beside, &alone);
        section.rows.push(vec![
            listeners.to_string(),
            samples(&rate).spread(0),
            samples(&alone).spread(1),
            samples(&beside).spread(1),
            more.spread(3),
        ]);
        section
            .bars
            .push(labelled(format!("to {listeners}"), &rate, true));
        if listeners == 100 {
            let rate = samples(&rate);
            let measured = format!("{} thousand", rate.spread(0));
            let target = "≥ 5 million deliveries a second on one core at 100 listeners";
            section.target('d', target, measured, rate.median() >= 5000.0);
            let met = (more.median() - 1.0).abs() < 0.05;
            let target = "one stalled listener changes the others' p50 by < 5 %";
            section.target('d', target, format!("× {}", more.spread(3)), met);
        }
    }
    section.about = format!(
        "Changes to many listeners. The rate: a scripted replay, {PER_TXN} changes in a message, on \
         one core, which decodes, delivers, and takes the events out of all channels again; events \
         folded: {folded}. The time: single changes, source → `recv`, on all cores; each listener \
         on a thread of its own, of 1,000 every tenth (the others' channels are not read). A \
         stalled listener, whose channel is full, comes and goes each {BLOCK} changes."
    );
    report.add(section);
}

fn start(source: &mut Source, job: &str, listeners: usize, capacity: usize) -> Job {
    let args = [
        ("endpoint", source.endpoint()),
        ("listeners", listeners.to_string()),
        ("capacity", capacity.to_string()),
    ];
    let job = Job::start(None, Who::Headcount, job, &args);
    job.wait_ready();
    source.wait_watched();
    job
}

fn burst(plan: &Plan, listeners: usize) -> Value {
    let changes = plan.pick(2_000_000, 20_000) / listeners.max(20);
    let bytes = Arc::new(data::replay(changes, PER_TXN, MEMBERS));
    let mut source = Source::start(Stream::Script(bytes), data::BASE, data::CLUSTER);
    // Whoever shares a core may wait for it.
    let capacity = (200_000 / listeners).max(1024);
    let job = start(&mut source, "burst", listeners, capacity);
    let began = now();
    source.release();
    job.result_since(began)
}

fn single(plan: &Plan, listeners: usize) -> Value {
    let changes = BLOCK * plan.pick(13, 3);
    let (send, bytes) = unbounded();
    let mut source = Source::start(Stream::Live(bytes), data::BASE, data::CLUSTER);
    let job = start(&mut source, "single", listeners, 1024);
    source.release();
    for n in 1..=changes as i64 {
        std::thread::sleep(Duration::from_millis(3));
        let revision = data::BASE + n;
        let put = match n == changes as i64 {
            true => (Put::last(now()), revision),
            false => (Put::of(1, now()), data::BASE + 1),
        };
        let mut frame = Vec::new();
        data::frame(&mut frame, revision, &[put]);
        send.send(frame).expect("the source serves");
    }
    job.result()
}
