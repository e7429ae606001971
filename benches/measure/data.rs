//! The members that are measured with, and the bytes that etcd would send of them.

use std::io::Write;
use std::ops::Range;

use serde_json::{Value, json};

use crate::support::etcd::Etcd;
use crate::support::gateway::{Gateway, b64};

/// Everything is below it.
pub const PREFIX: &str = "bench/";
/// Its change is the last one.
pub const LAST: &str = "zz-last";

pub fn key(id: &str) -> String {
    format!("{PREFIX}servers/room/{id}")
}

pub fn range() -> (String, String) {
    (format!("{PREFIX}servers-"), format!("{PREFIX}servers0"))
}

/// 150 bytes as a Go server would write them; `stamp` is what changes.
pub fn value(id: &str, stamp: u64) -> String {
    format!(
        r#"{{"id":"{id}","type":"room","metadata":{{"grpcHost":"10.20.30.40","grpcPort":"34340","t":"{stamp:019}"}},"frontend":false,"hostname":"host-{id}"}}"#
    )
}

/// Revisions that the scripted replay starts behind.
pub const BASE: i64 = 1000;
pub const CLUSTER: u64 = 14_841_639_068_965_178_418;
/// Each member has a lease of its own, so far above this one.
const LEASE: i64 = 7_587_862_094_297_613_836;
/// The number that [`LAST`] has for that.
pub const NONE: i64 = -1;

/// One member's value as it is put.
pub struct Put {
    pub id: String,
    pub value: String,
    pub lease: i64,
}

impl Put {
    /// By member number `n`.
    pub fn of(n: usize, stamp: u64) -> Put {
        let id = format!("room-{n:06}");
        Put {
            value: value(&id, stamp),
            id,
            lease: LEASE + n as i64,
        }
    }

    pub fn last(stamp: u64) -> Put {
        Put {
            id: LAST.into(),
            value: value(LAST, stamp),
            lease: LEASE + NONE,
        }
    }

    pub fn send(&self, gateway: &Gateway) {
        gateway.put(&key(&self.id), &self.value, self.lease);
    }
}

/// One transaction of puts, for the gateway.
pub fn txn(puts: impl Iterator<Item = Put>) -> Value {
    let puts: Vec<Value> = puts
        .map(|Put { id, value, lease }| {
            json!({"request_put": {
                "key": b64(key(&id)), "value": b64(value), "lease": lease.to_string(),
            }})
        })
        .collect();
    json!({ "success": puts })
}

/// Leases that outlast the bench, for members by number; [`NONE`] stands for [`LAST`].
pub fn grant(etcd: &Etcd, members: Range<i64>) {
    let one = |gateway: &Gateway, n: i64| {
        let body = json!({ "ID": (LEASE + n).to_string(), "TTL": "7200" });
        let (status, answer) = gateway.post("/v3/lease/grant", &body);
        assert_eq!(status, 200, "{answer}");
    };
    // etcd takes several at a time, as they come from several servers.
    const THREADS: usize = 8;
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let own = members.clone().skip(first).step_by(THREADS);
            scope.spawn(move || {
                let gateway = etcd.gateway();
                own.for_each(|n| one(&gateway, n));
            });
        }
    });
}

/// A message of etcd's watch stream: puts of one revision, each with the revision that its key was
/// created at, in the chunks that its gateway makes.
pub fn frame(out: &mut Vec<u8>, revision: i64, puts: &[(Put, i64)]) {
    let mut line = Vec::with_capacity(500 * puts.len());
    write!(
        line,
        r#"{{"result":{{"header":{{"cluster_id":"{CLUSTER}","member_id":"10276657743932975437","revision":"{revision}","raft_term":"2"}},"events":["#
    )
    .expect("memory");
    for (n, (Put { id, value, lease }, created)) in puts.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let (key, value) = (b64(key(id)), b64(value));
        write!(
            line,
            r#"{comma}{{"kv":{{"key":"{key}","create_revision":"{created}","mod_revision":"{revision}","version":"2","value":"{value}","lease":"{lease}"}}}}"#
        )
        .expect("memory");
    }
    line.extend_from_slice(b"]}}");
    write!(out, "{:x}\r\n", line.len()).expect("memory");
    out.extend_from_slice(&line);
    out.extend_from_slice(b"\r\n1\r\n\n\r\n");
}

/// The puts of a replay: so many changes of so many members in turn, the last one of [`LAST`].
pub fn change(n: usize, changes: usize, members: usize) -> Put {
    match n + 1 == changes {
        true => Put::last(n as u64),
        false => Put::of(n % members, n as u64),
    }
}

/// A whole replay, so many in a transaction.
pub fn replay(changes: usize, per_txn: usize, members: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(changes * 460);
    let revision = |n: usize| BASE + 1 + (n / per_txn) as i64;
    // A key was created by its first change.
    let created = |n: usize| match n + 1 == changes {
        true => revision(n),
        false => revision(n % members),
    };
    for first in (0..changes).step_by(per_txn) {
        let all = first..(first + per_txn).min(changes);
        let puts = all.map(|n| (change(n, changes, members), created(n)));
        frame(&mut out, revision(first), &puts.collect::<Vec<_>>());
    }
    out
}
