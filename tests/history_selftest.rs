//! The history's own tests: what the checker must find, and what it must let pass.

mod history;
mod lies;
mod support;

use std::time::Duration;

use history::json::{Line, parse};
use history::truth_reader::TruthReader;
use history::{Act, Deed, History, Previous, Seen, Told, judge, now};
use lies::Mutation;
use lies::excused;
use lies::late;
use lies::made::{self, Wipe};
use support::etcd::Etcd;

const SOON: Duration = Duration::from_secs(15);

#[test]
fn the_truth_is_read_whole_over_a_restart_a_compaction_and_a_wipe() {
    let etcd = Etcd::start();
    let reader = TruthReader::start("pitaya/", vec![etcd.endpoint()]);
    let gateway = etcd.gateway();
    let lease = gateway.grant(60);
    gateway.put("a", "1", lease);
    gateway.delete("a");
    reader.catch_up(SOON);
    if etcd.is_durable() {
        etcd.restart();
    }
    gateway.put("b", "2", 0);
    let last = reader.catch_up(SOON);
    gateway.compact(last);
    gateway.put("b", "3", 0);
    reader.catch_up(SOON);
    etcd.wipe();
    gateway.put("c", "4", 0);
    reader.catch_up(SOON);

    let truth = reader.truth();
    let put = |value: &str, lease, create_revision, version| Act::Put {
        value: value.into(),
        lease,
        create_revision,
        version,
    };
    let acts = |epoch: usize| {
        let changes = truth.epochs[epoch].changes.iter();
        let acts = changes.map(|c| (c.revision, &*c.key, c.act.clone()));
        acts.collect::<Vec<_>>()
    };
    assert_eq!(truth.epochs.len(), 2, "{truth:#?}");
    let create_revision = 2;
    let gone = Act::Delete {
        create_revision,
        lease,
    };
    let first = [
        (2, "a", put("1", lease, 2, 1)),
        (3, "a", gone),
        (4, "b", put("2", 0, 4, 1)),
        (5, "b", put("3", 0, 4, 2)),
    ];
    assert_eq!(acts(0), first);
    assert_eq!(acts(1), [(2, "c", put("4", 0, 2, 1))]);
    assert!(truth.epochs.iter().all(|e| e.changes[0].at <= now()));
}

fn told(line: &str) -> Told {
    match parse(line) {
        Ok(Line::Told(told)) => told.what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lines_of_the_examples_are_understood() {
    let member = r#""type":"gate","id":"1","incarnation":5,"revision":7,"frontend":true,"hostname":"vm","metadata":{"b":"2","a":"1"}"#;
    let line = |event: &str, more: &str| {
        told(&format!(
            r#"{{"ts_us":12,"event":"{event}",{member}{more}}}"#
        ))
    };
    let seen = Seen {
        name: "gate/1".into(),
        incarnation: 5,
        revision: 7,
        content: r#"[{"a":"1","b":"2"},true,"vm"]"#.into(),
    };
    assert_eq!(line("AddMember", ""), Told::Added(seen.clone()));
    let more = r#","previous":{"a":"0"},"previous_incarnation":5,"previous_revision":6"#;
    let previous = Previous {
        incarnation: 5,
        revision: 6,
        content: None,
    };
    let now = seen.clone();
    assert_eq!(line("UpdateMember", more), Told::Updated { now, previous });
    let (member, reason) = (seen.clone(), "announced".to_owned());
    let left = line("RemoveMember", r#","reason":"announced""#);
    assert_eq!(left, Told::Removed { member, reason });
    let (member, cause) = (seen.clone(), "unknown".to_owned());
    let down = line("ServerDown", r#","cause":"unknown""#);
    assert_eq!(down, Told::Down { member, cause });
    let suspect = line("Suspect", r#","remaining_s":1.5,"granted_s":3.0"#);
    assert_eq!(suspect, Told::Suspect(seen));
    let own = told(r#"{"ts_us":1,"event":"Registered","incarnation":3,"lease":77}"#);
    let (incarnation, lease) = (3, 77);
    assert_eq!(own, Told::Registered { incarnation, lease });
    assert_eq!(told(r#"{"ts_us":1,"event":"Synced"}"#), Told::Synced);
}

#[test]
fn what_is_no_line_is_an_error() {
    for line in [
        "",
        "{}",
        r#"{"ts_us":1,"event":"Sunk"}"#,
        r#"{"ts_us":1,"event":"AddMember"}"#,
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn good_histories_pass() {
    for seed in 0..40 {
        for wipe in [Wipe::Never, Wipe::AtRest, Wipe::WhileSomeWait] {
            let history = made::good(seed, 120, wipe);
            let summary = match judge(&history) {
                Ok(summary) => summary,
                Err(violation) => panic!("seed {seed}, wipe {wipe:?}: {violation}"),
            };
            for guarantee in ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G10"] {
                let count = summary.of(guarantee);
                assert!(count > 0 || guarantee == "G10", "{guarantee}: {summary:?}");
            }
        }
    }
}

#[test]
fn g6_departures_that_waited_over_a_wipe_may_come_after_the_new_listing() {
    for seed in 0..40 {
        let history = made::good(seed, 120, Wipe::WhileSomeWait);
        let order = lies::told_after_a_wipe(&history, made::FAST);
        assert!(order.len() >= 2, "seed {seed}: {order:?}");
        if let Err(violation) = judge(&history) {
            panic!("seed {seed}: {violation}");
        }
    }
}

/// Good histories pass with that change, too. How many of them it could be made in.
#[track_caller]
fn pass_with(seeds: u64, change: impl Fn(&mut History) -> Option<()>) -> usize {
    let mut changed = 0;
    for seed in 0..seeds {
        let mut history = made::good(seed, 120, Wipe::Never);
        if change(&mut history).is_none() {
            continue;
        }
        changed += 1;
        if let Err(violation) = judge(&history) {
            panic!("seed {seed}: {violation}");
        }
    }
    changed
}

#[test]
fn g7_who_lags_may_be_told_late_that_etcd_is_back() {
    for lag in [late::back, late::lost_and_back] {
        let late = pass_with(40, |history| {
            let mut lags = history.logs[made::CUT].clone();
            lags.listener = "lags".into();
            lag(&mut lags)?;
            history.logs.push(lags);
            Some(())
        });
        assert!(late > 20, "{late}");
    }
}

#[test]
fn g7_an_answer_that_takes_long_knows_what_was_seen_meanwhile() {
    let slow = pass_with(100, late::answer);
    assert!(slow > 10, "{slow}");
}

#[test]
fn g6_a_silent_server_runs_out_with_members_that_were_in_doubt() {
    let mut blamed = 0;
    for seed in 0..40 {
        let mut history = made::good(seed, 120, Wipe::Never);
        let Some(had_to_end) = excused::never_killed(&mut history) else {
            continue;
        };
        match judge(&history) {
            Err(violation) if violation.guarantee == "G6" => blamed += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        excused::doubt(&mut history, had_to_end);
        if let Err(violation) = judge(&history) {
            panic!("seed {seed}: {violation}");
        }
    }
    assert!(blamed > 20, "{blamed}");
}

#[test]
fn g10_nobody_knows_beforehand_what_others_do_to_it() {
    let thrown_out: fn(String) -> Deed = |name| Deed::KeyDeleted { name };
    let by_an_old_leader = |_| Deed::EtcdUp { node: 0 };
    for to in [thrown_out, by_an_old_leader] {
        let late = pass_with(40, |history| excused::lost_late(history, to));
        assert!(late > 20, "{late}");
    }
}

#[test]
fn every_lie_is_found_and_named() {
    for Mutation {
        guarantee,
        what,
        lie,
    } in lies::TABLE
    {
        let (mut told, mut wrong) = (0, Vec::new());
        for seed in 0..12 {
            let wipe = [Wipe::AtRest, Wipe::Never, Wipe::WhileSomeWait][seed as usize % 3];
            let mut history = made::good(seed, 80, wipe);
            if lie(&mut history, &mut support::random::Random(seed)).is_none() {
                continue;
            }
            told += 1;
            match judge(&history) {
                Err(violation) if violation.guarantee == *guarantee => {}
                Err(violation) => wrong.push(format!("seed {seed}: it found {violation}")),
                Ok(_) => wrong.push(format!("seed {seed}: not found")),
            }
        }
        println!(
            "{guarantee} {what}: told {told} times, {} wrong",
            wrong.len()
        );
        assert!(told > 0, "{what}: there was no opportunity for it");
        assert!(wrong.is_empty(), "{guarantee} {what}: {}", wrong[0]);
    }
}
