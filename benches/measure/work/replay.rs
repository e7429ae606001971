//! (a) A long history, from bytes to a listener.

use std::sync::Arc;

use serde_json::Value;

use super::{bar, each, float, samples};
use crate::child::{Job, Who, able};
use crate::report::{Report, Section, ratios};
use crate::roles::now;
use crate::source::{Source, Stream};
use crate::support::etcd::Etcd;
use crate::{Plan, data};

const MEMBERS: usize = 1000;
const PER_TXN: usize = 10;

pub fn run(plan: &Plan, report: &mut Report) {
    let changes = plan.pick(200_000, 2_000);
    scripted(plan, report, changes);
    from_etcd(plan, report, changes);
}

/// What everybody said, round by round.
fn rounds(
    plan: &Plan,
    who: &[Who],
    rounds: usize,
    mut job: impl FnMut(Who) -> Value,
) -> Vec<Vec<Value>> {
    let mut results = vec![Vec::new(); who.len()];
    for round in 0..rounds {
        plan.progress(&format!("replay, round {} of {rounds}", round + 1));
        for (who, results) in who.iter().zip(&mut results) {
            results.push(job(*who));
        }
    }
    results
}

fn arguments(endpoint: String, from: i64) -> Vec<(&'static str, String)> {
    let (begin, to) = data::range();
    vec![
        ("endpoint", endpoint),
        ("from", from.to_string()),
        ("timed", "0".into()),
        ("begin", begin),
        ("to", to),
        ("last", data::key(data::LAST)),
    ]
}

/// A job that gets its stream from a source of its own.
fn from_source(who: Who, stream: Stream, revision: i64, cluster: u64) -> Value {
    let mut source = Source::start(stream, revision, cluster);
    let args = arguments(source.endpoint(), revision + 1);
    let job = Job::start(None, who, "watch", &args);
    job.wait_ready();
    source.wait_watched();
    let began = now();
    source.release();
    job.result_since(began)
}

/// The bytes are there already, so that only the client's work counts.
fn scripted(plan: &Plan, report: &mut Report, changes: usize) {
    let bytes = Arc::new(data::replay(changes, PER_TXN, MEMBERS));
    let megabytes = bytes.len() as f64 / 1e6;
    let who = [Who::Raw, Who::Minimal, Who::Headcount];
    let results = rounds(plan, &who, plan.pick(9, 1), |who| {
        let stream = Stream::Script(Arc::clone(&bytes));
        from_source(who, stream, data::BASE, data::CLUSTER)
    });
    let cpu = |at: usize| each(&results[at], |r| float(&r["cpu"]) / changes as f64 * 1e6);
    let rate = |at: usize| each(&results[at], |r| changes as f64 / float(&r["wall"]));
    let folded: f64 = each(&results[2], |r| float(&r["extra"])).iter().sum();
    let about = format!(
        "{changes} changes of {MEMBERS} members, {PER_TXN} in a transaction, {megabytes:.0} MB \
         from a socket as etcd would send them. Headcount's `stall_bound` is long, so that it \
         does not renew its stream meanwhile. Events folded: {folded}."
    );
    let mut section = Section::new("replay-scripted", "a. Replay, scripted", about);
    section.head = vec![
        "",
        "CPU per event, µs",
        "events a second",
        "CPU beside the minimal reader",
    ];
    section.plot = ("Replay: client CPU per event".into(), "µs");
    for (at, who) in who.iter().enumerate() {
        section.rows.push(vec![
            who.name().into(),
            samples(&cpu(at)).spread(2),
            format!("{:.0}", samples(&rate(at)).median()),
            ratios(&cpu(at), &cpu(1)).spread(2),
        ]);
        section.bars.push(bar(*who, &cpu(at)));
    }
    let ours = samples(&cpu(2));
    let met = ours.median() <= 1.5;
    let measured = format!("{} µs", ours.spread(2));
    section.target('a', "CPU per event ≤ 1.5 µs", measured, met);
    let beside = ratios(&cpu(2), &cpu(1));
    let met = beside.median() <= 2.5;
    let target = "CPU per event ≤ 2.5 × the minimal reader's decode";
    section.target('a', target, beside.spread(2), met);
    report.add(section);
}

/// The same history in a real etcd, which makes the bytes as it goes.
fn from_etcd(plan: &Plan, report: &mut Report, changes: usize) {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    data::grant(&etcd, data::NONE..MEMBERS as i64);
    let (from, cluster) = (gateway.revision() + 1, gateway.cluster_id());
    for txn in 0..changes.div_ceil(PER_TXN) {
        if txn % 5000 == 0 {
            plan.progress(&format!("replay: {} changes put", txn * PER_TXN));
        }
        let numbers = txn * PER_TXN..((txn + 1) * PER_TXN).min(changes);
        let puts = numbers.map(|n| data::change(n, changes, MEMBERS));
        gateway.txn(&data::txn(puts));
    }
    let peers = plan.peers.as_deref();
    let who = able(peers, &Who::ALL);
    let results = rounds(plan, &who, plan.pick(5, 1), |who| {
        if !who.is_async() {
            let stream = Stream::Etcd(etcd.address());
            return from_source(who, stream, from - 1, cluster);
        }
        let job = Job::start(peers, who, "watch", &arguments(etcd.endpoint(), from));
        job.wait_ready();
        let began = now();
        job.go();
        job.result_since(began)
    });
    let cpu = |at: usize| each(&results[at], |r| float(&r["cpu"]) / changes as f64 * 1e6);
    let rate = |at: usize| each(&results[at], |r| changes as f64 / float(&r["wall"]));
    let about = format!(
        "The same {changes} changes in a real etcd, which packs some 1000 revisions into a \
         message. The HTTP candidates get its bytes through a relay, which answers the listing \
         that comes before with nothing; etcd-client asks etcd itself. None but Headcount reads \
         the members' JSON. Its `stall_bound` is long here, too."
    );
    let mut section = Section::new("replay-etcd", "a. Replay, from etcd", about);
    section.head = vec![
        "",
        "events a second",
        "beside the raw stream",
        "CPU per event, µs",
    ];
    section.plot = ("Replay from etcd".into(), "events a second");
    for (at, who) in who.iter().enumerate() {
        section.rows.push(vec![
            who.name().into(),
            format!("{:.0}", samples(&rate(at)).median()),
            ratios(&rate(at), &rate(0)).spread(3),
            samples(&cpu(at)).spread(2),
        ]);
        section.bars.push(bar(*who, &rate(at)));
    }
    let beside = ratios(&rate(2), &rate(0));
    let met = beside.median() >= 0.97;
    let target = "events a second ≥ 0.97 × raw drain";
    section.target('a', target, beside.spread(3), met);
    report.add(section);
}
