//! (d) One change to many listeners.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde_json::Value;

use super::{each, float, labelled, samples};
use crate::child::{Job, Who};
use crate::report::{Report, Section, ratios};
use crate::roles::now;
use crate::source::{Source, Stream};
use crate::{Plan, data};

const PER_TXN: usize = 10;

pub fn run(plan: &Plan, report: &mut Report) {
    let about =
        "Changes to many listeners. The rate: a scripted replay, ten changes in a message, \
                 on one core, which decodes, delivers, and takes the events out of all channels \
                 again. The time: single changes, source → `recv`, on all cores; each listener on \
                 a thread of its own, of 1,000 every tenth (the others' channels are not read)."
            .into();
    let mut section = Section::new("fanout", "d. Fan-out", about);
    section.head = vec![
        "listeners",
        "deliveries a second, one core",
        "p50, µs",
        "p50 beside one more, stalled, µs",
    ];
    section.plot = ("Deliveries a second on one core".into(), "millions");
    let rounds = plan.pick(5, 1);
    for listeners in [1_usize, 10, 100, 1000] {
        let (mut rate, mut alone, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let what = format!("fan-out to {listeners}, round {} of {rounds}", round + 1);
            plan.progress(&what);
            rate.push(burst(plan, listeners));
            alone.push(single(plan, listeners, 0));
            stalled.push(single(plan, listeners, 1));
        }
        let rate = each(&rate, |r| float(&r["deliveries"]) / float(&r["wall"]) / 1e6);
        let p50 = |rounds: &[Value]| each(rounds, |r| float(&r["p50"]) / 1e3);
        let (alone, stalled) = (p50(&alone), p50(&stalled));
        section.rows.push(vec![
            listeners.to_string(),
            format!("{} million", samples(&rate).spread(2)),
            samples(&alone).spread(1),
            samples(&stalled).spread(1),
        ]);
        section
            .bars
            .push(labelled(format!("to {listeners}"), &rate, true));
        if listeners == 100 {
            let rate = samples(&rate);
            let measured = format!("{} million", rate.spread(2));
            let target = "≥ 5 million deliveries a second on one core at 100 listeners";
            section.target('d', target, measured, rate.median() >= 5.0);
            let more = ratios(&stalled, &alone);
            let met = (more.median() - 1.0).abs() < 0.05;
            let target = "one stalled listener changes the others' p50 by < 5 %";
            section.target('d', target, format!("× {}", more.spread(3)), met);
        }
    }
    report.add(section);
}

fn start(source: &Source, listeners: usize, stalled: usize, mode: &str) -> Job {
    let args = [
        ("endpoint", source.endpoint()),
        ("listeners", listeners.to_string()),
        ("stalled", stalled.to_string()),
        ("mode", mode.into()),
    ];
    let job = Job::start(None, Who::Headcount, "fanout", &args);
    job.wait_ready();
    job
}

fn burst(plan: &Plan, listeners: usize) -> Value {
    let changes = plan.pick(2_000_000, 20_000) / listeners.max(20);
    let bytes = Arc::new(data::replay(changes, PER_TXN, 100));
    let source = Source::start(Stream::Script(bytes), data::BASE, data::CLUSTER);
    let job = start(&source, listeners, 0, "burst");
    let began = now();
    source.release();
    let mut result = job.result();
    let took = result["at"].as_u64().expect("a time") - began;
    result["wall"] = (took as f64 * 1e-9).into();
    result
}

fn single(plan: &Plan, listeners: usize, stalled: usize) -> Value {
    let changes = plan.pick(300, 30);
    let (send, bytes) = unbounded();
    let source = Source::start(Stream::Live(bytes), data::BASE, data::CLUSTER);
    let job = start(&source, listeners, stalled, "single");
    source.release();
    for n in 0..=changes {
        std::thread::sleep(Duration::from_millis(3));
        let revision = data::BASE + 1 + n;
        let (id, created) = match n == changes {
            true => (data::LAST, revision),
            false => ("room-000001", data::BASE + 1),
        };
        let mut frame = Vec::new();
        let put = (id.to_owned(), data::value(id, now()), created);
        data::frame(&mut frame, revision, &[put]);
        send.send(frame).expect("the source serves");
    }
    job.result()
}
