//! The example programs, from outside: what `watch` tells of what `member` does.

mod history;
mod ledger;
mod programs;
mod support;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use ledger::{Random, add, commit, delete, put};
use programs::{SOON, end, expect, folded, member, next_about, truth, view, watch};
use support::etcd::Etcd;
use support::process::Example;
use support::wait::{throughout, until};

#[test]
fn g1_g6_a_member_joins_changes_and_leaves_which_is_told_within_100_ms() {
    let etcd = Etcd::start();
    let watch = watch(&etcd, &[]);
    let options = ["--metadata", "a=1", "--metadata", "b=x y", "--frontend"];
    let (one, incarnation) = member(&etcd, "1", &options);
    let line = expect(&watch, "1", "AddMember");
    assert_eq!(line["incarnation"], incarnation);
    assert_eq!(line["revision"], incarnation, "not changed since");
    assert_eq!(line["metadata"], json!({ "a": "1", "b": "x y" }));
    assert_eq!(line["frontend"], true);
    assert!(line["hostname"].is_string() && line["ts_us"].as_u64() > Some(1 << 50));

    one.write_line("set b=2=3");
    let line = expect(&watch, "1", "UpdateMember");
    assert_eq!(line["metadata"], json!({ "a": "1", "b": "2=3" }));
    assert_eq!(line["previous"], json!({ "a": "1", "b": "x y" }));
    assert_eq!(line["incarnation"], incarnation);
    assert!(line["revision"].as_i64() > Some(incarnation));
    one.write_line("what?");
    one.write_line("set c=");
    one.close_stdin();
    let line = expect(&watch, "1", "UpdateMember");
    assert_eq!(
        line["metadata"],
        json!({ "a": "1", "b": "2=3", "c": "" }),
        "{line}"
    );
    until(SOON, "the word it does not know is named", || {
        one.errors().contains("what?")
    });
    throughout(
        Duration::from_millis(300),
        "the end of its input is not its own",
        || one.running(),
    );

    let mut times = vec![];
    let mut leave = |member: Example, id: &str, signal: i32| {
        let asked = Instant::now();
        member.signal(signal);
        let line = next_about(&watch, id, SOON);
        times.push(line.at.saturating_duration_since(asked));
        let line = line.json();
        assert_eq!(
            (&line["event"], &line["reason"]),
            (&json!("RemoveMember"), &json!("announced"))
        );
        let status = member.wait_exit(SOON);
        assert_eq!(status.code(), Some(0), "{}", member.errors());
    };
    leave(one, "1", libc::SIGTERM);
    for n in 2..9 {
        let id = n.to_string();
        let (member, _) = member(&etcd, &id, &[]);
        expect(&watch, &id, "AddMember");
        leave(
            member,
            &id,
            if n % 2 == 0 {
                libc::SIGTERM
            } else {
                libc::SIGINT
            },
        );
    }
    times.sort();
    println!("from the signal to the watcher's line: {times:?}");
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(100), "{times:?}");
}

#[test]
fn g6_a_killed_member_is_down_within_its_ttl_and_a_second() {
    let etcd = Etcd::start();
    let watch = watch(&etcd, &[]);
    let (member, incarnation) = member(&etcd, "1", &[]);
    expect(&watch, "1", "AddMember");
    let killed = Instant::now();
    member.signal(libc::SIGKILL);
    let line = next_about(&watch, "1", SOON);
    let took = line.at - killed;
    println!("TTL 2 s; down after {took:?}: {}", line.text);
    let line = line.json();
    assert_eq!(line["event"], "ServerDown", "{line}");
    assert_eq!(line["incarnation"], incarnation);
    let cause = line["cause"].as_str().expect("a cause");
    assert_eq!(cause, "lease-expired", "{line}");
    // A second more for a busy machine.
    assert!(took < Duration::from_secs(2 + 1 + 1), "{took:?}");
}

/// Row 23, both ways: the one before is dead, or lives on.
#[test]
fn g3_g6_a_restart_under_the_same_id_is_replaced_then_added() {
    let etcd = Etcd::start();
    let watch = watch(&etcd, &[]);
    // Long enough not to run out before the second one comes.
    let ttl = ["--ttl", "60"];
    let (first, old) = member(&etcd, "1", &ttl);
    expect(&watch, "1", "AddMember");
    first.signal(libc::SIGKILL);
    first.wait_exit(SOON);
    let mut before = old;
    let mut alive: Option<Example> = None;
    for _ in 0..2 {
        let (next, new) = member(&etcd, "1", &ttl);
        let line = expect(&watch, "1", "ServerDown");
        assert_eq!(
            (&line["cause"], &line["incarnation"]),
            (&json!("replaced"), &json!(before))
        );
        let line = expect(&watch, "1", "AddMember");
        assert_eq!(line["incarnation"], new);
        assert!(new > before);
        if let Some(displaced) = alive.replace(next) {
            displaced.wait_line(SOON, |line| line["event"] == "Displaced");
            assert!(displaced.running());
            // It is no longer its name to give up.
            end(&displaced, libc::SIGTERM);
        }
        before = new;
    }
    let key = etcd.gateway().get("pitaya/servers/gate/1");
    assert_eq!(
        key.map(|kv| kv.create_revision),
        Some(before),
        "the last one stays"
    );
    end(&watch, libc::SIGTERM);
    assert_eq!(view(&watch), truth(&etcd.gateway()));
}

/// Rows 2 and 23.
#[test]
fn g8_g10_a_member_stopped_longer_than_its_ttl_comes_back_as_a_new_incarnation() {
    let etcd = Etcd::start();
    let watch = watch(&etcd, &[]);
    let (member, old) = member(&etcd, "1", &[]);
    expect(&watch, "1", "AddMember");
    member.signal(libc::SIGSTOP);
    let line = expect(&watch, "1", "ServerDown");
    assert_eq!(line["incarnation"], old);
    member.signal(libc::SIGCONT);
    // Before anything else about itself; that etcd has not been heard for long it may say first.
    let about_itself = loop {
        let line = member.next_line(SOON).expect("it says something").json();
        if line["event"] != "StoreLost" && line["event"] != "StoreRestored" {
            break line;
        }
    };
    assert_eq!(about_itself["event"], "Lost", "{about_itself}");
    let line = member.wait_line(SOON, |line| line["event"] == "Registered");
    let new = line.json()["incarnation"].as_i64();
    assert!(new > Some(old), "{}", line.text);
    let line = expect(&watch, "1", "AddMember");
    assert_eq!(line["incarnation"].as_i64(), new);
    end(&member, libc::SIGTERM);
}

#[test]
fn g5_a_slow_watch_with_a_tiny_channel_folds_to_the_view() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let options = ["--capacity", "1", "--delay-ms", "50"];
    let watch = watch(&etcd, &options);
    let names: Vec<String> = (0..20).map(|n| format!("load/{n}")).collect();
    let mut random = Random(5);
    for _ in 0..100 {
        commit(&gateway, random.changes(&names));
    }
    add(&gateway, "end/1");
    // Slow as it is, it gets there.
    watch.wait_line(SOON, |line| line["type"] == "end");
    commit(&gateway, names.iter().map(|name| put(name, 1)).collect());
    commit(&gateway, names.iter().map(|name| delete(name)).collect());
    commit(&gateway, vec![put("load/0", 2), put("load/1", 2)]);
    watch.wait_line(SOON, |line| {
        line["revision"].as_i64() > Some(gateway.revision() - 3)
    });
    end(&watch, libc::SIGTERM);
    assert_eq!(view(&watch), truth(&gateway));
    assert_eq!(folded(&watch), truth(&gateway));
    let lines = watch.lines();
    let lagged = lines
        .iter()
        .filter_map(|line| line.json()["folded"].as_u64());
    let folded: u64 = lagged.sum();
    let stats = lines.last().expect("the view").json()["stats"].clone();
    println!("{} lines, {folded} folded; {stats}", lines.len());
    assert!(folded > 300, "{folded}");
    assert_eq!(stats["listeners"][0]["folded"], folded);
}

/// However slow its handler is, once it is told to end it takes the rest at full speed.
#[test]
fn g12_a_slow_watch_ends_at_once_and_has_told_all_that_it_knew() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let names: Vec<String> = (0..600).map(|n| format!("load/{n}")).collect();
    for names in names.chunks(100) {
        commit(&gateway, names.iter().map(|name| put(name, 0)).collect());
    }
    let endpoint = etcd.endpoint();
    let slow = ["--capacity", "2", "--delay-ms", "3000"];
    let options = ["--json", "--endpoints", &endpoint];
    let watch = Example::spawn("watch", [&options[..], &slow].concat());
    // When the first is told, all the others wait.
    watch.wait_line(SOON, |line| line["event"] == "AddMember");
    // Far less than 600 times its delay.
    end(&watch, libc::SIGTERM);
    assert!(view(&watch) == truth(&gateway));
    assert!(folded(&watch) == truth(&gateway));
}

#[test]
fn g9_twenty_thousand_members_are_listed() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let names: Vec<String> = (0..20_000).map(|n| format!("gate/{n}")).collect();
    for names in names.chunks(100) {
        commit(&gateway, names.iter().map(|name| put(name, 0)).collect());
    }
    let started = Instant::now();
    let watch = Example::spawn("watch", ["--json", "--endpoints", &etcd.endpoint()]);
    let bound = 3 * SOON;
    watch.wait_line(bound, |line| line["event"] == "Synced");
    let took = started.elapsed();
    let status = fs::read_to_string(format!("/proc/{}/status", watch.pid()));
    let status = status.expect("it runs");
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let peak: usize = peak
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("a number");
    println!("20,000 members told by a new process after {took:?}, peak memory {peak} KiB");
    assert!(peak < 100 * 1024, "{peak} KiB");
    end(&watch, libc::SIGTERM);
    assert_eq!(view(&watch).len(), 20_000);
    assert_eq!(folded(&watch).len(), 20_000);
}
