//! A store that says what a test wants, and real etcd's way of saying it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use super::{Follower, key, value};
use crate::support::fake::{FakeGateway, Reply, StreamStep};
use crate::support::gateway::{b64, int};

/// The header of a reply.
pub fn header(revision: i64) -> Value {
    json!({ "cluster_id": "77", "member_id": "1", "revision": revision.to_string() })
}

pub fn put_event(name: &str, life: i64, revision: i64) -> Value {
    json!({ "kv": {
        "key": b64(key(name)), "value": b64(value(name, revision)),
        "create_revision": life.to_string(), "mod_revision": revision.to_string(),
    }})
}

pub fn delete_event(name: &str, revision: i64) -> Value {
    let kv = json!({ "key": b64(key(name)), "mod_revision": revision.to_string() });
    json!({ "type": "DELETE", "kv": kv })
}

/// A message of the stream.
pub fn message(revision: i64, rest: Value) -> Value {
    let mut result = rest;
    result["header"] = header(revision);
    json!({ "result": result })
}

pub fn created(revision: i64) -> Value {
    message(revision, json!({ "created": true }))
}

pub fn events(revision: i64, events: &[Value]) -> Value {
    message(revision, json!({ "events": events }))
}

/// The end that was asked for, as etcd says it: without a newline.
pub fn period_over() -> StreamStep {
    let error = json!({ "error": { "grpc_code": 4, "http_code": 504,
        "message": "context deadline exceeded", "http_status": "Gateway Timeout" }});
    StreamStep::Send(error.to_string().into_bytes())
}

pub fn lines(messages: &[Value]) -> Vec<StreamStep> {
    messages.iter().map(StreamStep::line).collect()
}

/// A stream that says this, and then nothing.
pub fn open(messages: &[Value]) -> Reply {
    let mut steps = lines(messages);
    steps.push(StreamStep::WaitUntilClosed);
    Reply::Stream(steps)
}

/// A gateway of a store at revision 10 that is empty but for `a/1`, with a script for its watches:
/// the how manyth, and from which revision.
pub fn scripted(watch: impl Fn(usize, i64) -> Reply + Send + Sync + 'static) -> FakeGateway {
    let watches = AtomicUsize::new(0);
    FakeGateway::start(move |request| match request.path.as_str() {
        "/v3/kv/range" => {
            let mut kv = put_event("a/1", 2, 2);
            let body = json!({ "header": header(10), "kvs": [kv["kv"].take()], "count": "1" });
            Reply::Json(200, body)
        }
        "/v3/watch" => {
            let from = int(&request.body["create_request"]["start_revision"]);
            watch(watches.fetch_add(1, SeqCst), from)
        }
        _ => Reply::Text(404, "no such thing".into()),
    })
}

/// The revisions that watches began at.
pub fn starts(fake: &FakeGateway) -> Vec<i64> {
    let requests = fake.requests();
    let watches = requests
        .iter()
        .filter(|request| request.path == "/v3/watch");
    watches
        .map(|watch| int(&watch.body["create_request"]["start_revision"]))
        .collect()
}

/// About members; how much of it comes before `Synced` is chance here.
pub fn told(follower: &Follower) -> Vec<String> {
    let members = follower.told.iter().filter(|line| line.contains('/'));
    members.cloned().collect()
}
