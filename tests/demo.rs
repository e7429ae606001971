//! The demo, from outside: what it tells, how it ends, and that it leaves no process behind.

mod history;
mod ledger;
mod programs;
mod support;

use std::fs;
use std::time::{Duration, Instant};

use ledger::add;
use programs::SOON;
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::process::Example;
use support::wait::until;

/// What whoever waits for it is promised.
const BOUND: Duration = Duration::from_secs(30);

/// Without an etcd, whatever the environment says.
fn demo() -> Example {
    demo_on("")
}

fn demo_on(endpoints: &str) -> Example {
    let no_options: [&str; 0] = [];
    Example::spawn_with("demo", no_options, &[("HEADCOUNT_ENDPOINTS", endpoints)])
}

/// Waits for its end, and what it has said by then.
fn told(demo: &Example) -> String {
    let started = Instant::now();
    let status = demo.wait_exit(BOUND);
    println!("the demo took {:?} more", started.elapsed());
    // The end of its output may still be on its way.
    until(SOON, "its last word", || {
        demo.output().contains("It took") || status.code() != Some(0)
    });
    let output = demo.output();
    assert_eq!(status.code(), Some(0), "{output}\n{}", demo.errors());
    output
}

/// What the timeline says of one member, in its own voice or not: the events, departures with
/// their reason.
fn about(output: &str, id: &str, by_itself: bool) -> Vec<String> {
    // Time, who, what, how long and its unit, why.
    let words = output
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let events = words.filter(|words| words.len() > 5 && words[0].ends_with('s'));
    let about = events.filter(|words| words[1] == id && (words[5] == "itself:") == by_itself);
    let names = about.map(|words| match words[2] {
        "RemoveMember" | "ServerDown" => format!("{} {}", words[2], words[5].trim_end_matches(':')),
        event => event.to_owned(),
    });
    names.collect()
}

/// The word in its second line that begins so.
#[track_caller]
fn word(demo: &Example, begin: &str) -> String {
    let output = demo.output();
    let mut words = output.split_whitespace();
    let word = words.find(|word| word.starts_with(begin));
    word.expect("it says where it is")
        .trim_end_matches(',')
        .into()
}

/// Process ids of its members that run, in whosever care they are.
fn members(demo: &Example) -> Vec<u32> {
    let prefix = word(demo, "demo-");
    let all = fs::read_dir("/proc").expect("a Linux machine").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_member = |pid: &u32| {
        // One that has ended has none, even if nobody has waited for it yet.
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line.contains(&prefix))
    };
    pids.filter(is_member).collect()
}

#[test]
fn it_tells_the_whole_story_and_only_that() {
    let started = Instant::now();
    let demo = demo();
    let output = told(&demo);
    println!("{output}");
    assert!(started.elapsed() < BOUND);
    assert!(
        !output.contains('\x1b'),
        "no colours where nobody sees them"
    );

    let told = |id| about(&output, id, false);
    let (dead, left) = ("ServerDown lease-expired", "RemoveMember announced");
    let replaced = "ServerDown replaced";
    assert_eq!(told("chat-1"), ["AddMember", "UpdateMember", left]);
    assert_eq!(told("gate-2"), ["AddMember", left]);
    assert_eq!(told("gate-1"), ["AddMember", replaced, "AddMember", left]);
    assert_eq!(told("room-1"), ["AddMember", "Suspect", dead]);
    let room_2 = ["AddMember", "Suspect", dead, "AddMember", left];
    assert_eq!(told("room-2"), room_2);
    let itself = |id| about(&output, id, true);
    assert_eq!(itself("gate-1"), ["Displaced"]);
    assert_eq!(itself("room-2"), ["Here", "Lost", "Registered"]);
}

#[test]
fn what_should_not_have_come_is_seen_and_counts() {
    let demo = demo();
    let moment = "room-1 is killed";
    until(BOUND, moment, || demo.output().contains(moment));
    let gateway = Gateway::new(word(&demo, "http:"));
    let key = format!("{}servers/gate/stranger", word(&demo, "demo-"));
    let value = r#"{"id":"stranger","type":"gate","metadata":{},"frontend":false,"hostname":"vm"}"#;
    gateway.put(&key, value, 0);
    assert_eq!(demo.wait_exit(BOUND).code(), Some(1));
    until(SOON, "its account", || {
        demo.output().contains("Not expected: AddMember stranger")
    });
    assert!(
        demo.output().contains("0 did not come, and 1 came"),
        "{}",
        demo.output()
    );
    assert_eq!(
        about(&demo.output(), "room-1", false).len(),
        3,
        "the rest is told as ever"
    );
}

/// Against a real one, twice at once, beside others that are none of its business.
#[test]
fn on_an_etcd_neither_it_nor_others_are_disturbed() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    add(&gateway, "gate/gate-1");
    let both = [demo_on(&etcd.endpoint()), demo_on(&etcd.endpoint())];
    for demo in &both {
        let output = told(demo);
        let place = format!("etcd: {}", etcd.endpoint());
        assert!(output.contains(&place), "{output}");
    }
    // Notes that a member is gone die with its lease.
    let left = gateway.list_prefix("demo-");
    let left: Vec<_> = left.iter().map(|kv| &kv.key).collect();
    assert!(
        !left.iter().any(|key| key.contains("/servers/")),
        "{left:?}"
    );
    assert!(gateway.get("pitaya/servers/gate/gate-1").is_some());
}

#[test]
fn interrupted_it_leaves_no_process_behind() {
    for (moment, least, signal) in [
        ("five servers start", 0, libc::SIGINT),
        ("room-2 stops for", 5, libc::SIGINT),
        ("room-1 is killed", 4, libc::SIGTERM),
        ("room-2 stops again", 4, libc::SIGINT),
    ] {
        let demo = demo();
        until(BOUND, moment, || demo.output().contains(moment));
        let before = members(&demo);
        assert!(before.len() >= least, "{moment}: {before:?}");
        demo.signal(signal);
        let status = demo.wait_exit(SOON);
        assert_eq!(status.code(), Some(130), "{moment}: {}", demo.errors());
        let left = members(&demo);
        assert!(left.is_empty(), "{moment}: {left:?}");
    }
}

/// Nobody is there to end them then, and one of them stands still.
#[test]
fn killed_it_leaves_no_process_behind() {
    let demo = demo();
    let moment = "room-2 stops again";
    until(BOUND, moment, || demo.output().contains(moment));
    assert_eq!(members(&demo).len(), 4, "gate-1 twice, room-2, chat-1");
    demo.signal(libc::SIGKILL);
    demo.wait_exit(SOON);
    until(SOON, "all members end", || members(&demo).is_empty());
}

#[test]
fn without_an_etcd_where_one_should_be_it_says_so() {
    let port = support::sys::ReservedPort::new().expect("a free port");
    let endpoint = format!("http://127.0.0.1:{}", port.port);
    let demo = Example::spawn("demo", ["--endpoints", &endpoint]);
    assert_eq!(demo.wait_exit(SOON).code(), Some(1));
    until(SOON, "it says why", || demo.errors().contains(&endpoint));
    let confused = Example::spawn("demo", ["--nonsense"]);
    assert_eq!(confused.wait_exit(SOON).code(), Some(2));
}
