//! The example programs as processes: how to start them, and what their lines add up to.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::etcd::Etcd;
use crate::support::gateway::Gateway;
use crate::support::process::{Example, Line};
use crate::support::wait::eventually;

/// Generous: the machine may be small and busy.
pub const SOON: Duration = Duration::from_secs(30);

/// An observer that has been told of everybody.
#[track_caller]
pub fn watch(etcd: &Etcd, more: &[&str]) -> Example {
    let endpoint = etcd.endpoint();
    let options = ["--json", "--endpoints", &endpoint];
    let watch = Example::spawn("watch", [&options, more].concat());
    watch.wait_line(SOON, |line| line["event"] == "Synced");
    watch
}

#[track_caller]
pub fn spawn_member(etcd: &Etcd, id: &str, more: &[&str]) -> Example {
    let endpoint = etcd.endpoint();
    let options = ["--json", "--endpoints", &endpoint, "--type", "gate", "--id"];
    Example::spawn("member", [&options[..], &[id, "--ttl", "2"], more].concat())
}

/// A registered member, and its incarnation.
#[track_caller]
pub fn member(etcd: &Etcd, id: &str, more: &[&str]) -> (Example, i64) {
    let member = spawn_member(etcd, id, more);
    let line = member.wait_line(SOON, |line| line["event"] == "Registered");
    let incarnation = line.json()["incarnation"].as_i64().expect("a number");
    assert!(line.json()["lease"].is_i64(), "{}", line.text);
    (member, incarnation)
}

/// The next line about `gate/<id>`, but for doubts that may come in between.
#[track_caller]
pub fn next_about(watch: &Example, id: &str, bound: Duration) -> Line {
    watch.wait_line(bound, |line| {
        let doubt = line["event"] == "Suspect" || line["event"] == "Cleared";
        !doubt && line["type"] == "gate" && line["id"] == id
    })
}

/// `event` is the expected one; the line.
#[track_caller]
pub fn expect(watch: &Example, id: &str, event: &str) -> Value {
    let line = next_about(watch, id, SOON).json();
    assert_eq!(line["event"], event, "{line}");
    line
}

#[track_caller]
pub fn end(program: &Example, signal: i32) -> Duration {
    let asked = Instant::now();
    program.signal(signal);
    let status = program.wait_exit(SOON);
    assert_eq!(status.code(), Some(0), "{}", program.errors());
    asked.elapsed()
}

/// The view, with which a `watch` ends; it may still be on its way when the process is gone.
#[track_caller]
pub fn last_line(watch: &Example) -> Value {
    eventually(SOON, "a last line with the view", || {
        let last = watch.lines().last()?.json();
        (last["event"] == "View").then_some(last)
    })
}

/// What its last line says that is there: `type/id`, with incarnation and metadata.
#[track_caller]
pub fn view(watch: &Example) -> BTreeMap<String, (i64, Value)> {
    let last = last_line(watch);
    assert!(last["stats"]["revision"].is_i64(), "{last}");
    let members = last["members"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let entry = |m: &Value| {
        let name = format!("{}/{}", text(&m["type"]), text(&m["id"]));
        let incarnation = m["incarnation"].as_i64().expect("a number");
        (name, (incarnation, m["metadata"].clone()))
    };
    let view: BTreeMap<_, _> = members.iter().map(entry).collect();
    assert_eq!(view.len(), members.len(), "somebody is there twice");
    view
}

/// The same of etcd's content.
#[track_caller]
pub fn truth(etcd: &Gateway) -> BTreeMap<String, (i64, Value)> {
    let all = etcd.list_prefix("pitaya/servers/");
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("a server's JSON");
    all.iter()
        .map(|kv| {
            let mut metadata = parse(&kv.text())["metadata"].take();
            let pairs = metadata.as_object_mut().expect("an object");
            pairs.retain(|key, _| !key.starts_with("headcount."));
            let name = kv.key["pitaya/servers/".len()..].to_owned();
            (name, (kv.create_revision, metadata))
        })
        .collect()
}

/// Adds up the lines about members of a `watch` that has ended, as a user of them would.
#[track_caller]
pub fn folded(watch: &Example) -> BTreeMap<String, (i64, Value)> {
    last_line(watch);
    let mut view = BTreeMap::new();
    for line in watch.lines() {
        let line = line.json();
        let name = format!(
            "{}/{}",
            line["type"].as_str().unwrap_or_default(),
            line["id"].as_str().unwrap_or_default()
        );
        let now = || {
            (
                line["incarnation"].as_i64().unwrap_or_default(),
                line["metadata"].clone(),
            )
        };
        match line["event"].as_str() {
            Some("AddMember") => assert!(view.insert(name, now()).is_none(), "{line}"),
            Some("UpdateMember") => assert!(view.insert(name, now()).is_some(), "{line}"),
            Some("RemoveMember" | "ServerDown") => {
                assert!(view.remove(&name).is_some(), "{line}");
            }
            _ => {}
        }
    }
    view
}
