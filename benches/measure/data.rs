//! The members that are measured with, and the bytes that etcd would send of them.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::gateway::b64;

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

/// The id of change number `n` in a cluster of so many.
pub fn id(n: usize, members: usize) -> String {
    format!("room-{:06}", n % members)
}

/// One transaction of puts, for the gateway.
pub fn txn(puts: impl Iterator<Item = (String, String)>, lease: i64) -> Value {
    let puts: Vec<Value> = puts
        .map(|(id, value)| {
            json!({"request_put": {
                "key": b64(key(&id)), "value": b64(value), "lease": lease.to_string(),
            }})
        })
        .collect();
    json!({ "success": puts })
}

/// Revisions that the scripted replay starts behind.
pub const BASE: i64 = 1000;
pub const CLUSTER: u64 = 14_841_639_068_965_178_418;
pub const LEASE: i64 = 7_587_862_094_297_613_836;

/// A message of etcd's watch stream: puts of one revision, in the chunks that its gateway makes.
pub fn frame(out: &mut Vec<u8>, revision: i64, puts: &[(String, String, i64)]) {
    let mut line = Vec::with_capacity(500 * puts.len());
    write!(
        line,
        r#"{{"result":{{"header":{{"cluster_id":"{CLUSTER}","member_id":"10276657743932975437","revision":"{revision}","raft_term":"2"}},"events":["#
    )
    .expect("memory");
    for (n, (id, value, created)) in puts.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let (key, value) = (b64(key(id)), b64(value));
        write!(
            line,
            r#"{comma}{{"kv":{{"key":"{key}","create_revision":"{created}","mod_revision":"{revision}","version":"2","value":"{value}","lease":"{LEASE}"}}}}"#
        )
        .expect("memory");
    }
    line.extend_from_slice(b"]}}");
    write!(out, "{:x}\r\n", line.len()).expect("memory");
    out.extend_from_slice(&line);
    out.extend_from_slice(b"\r\n1\r\n\n\r\n");
}

/// A whole replay: so many changes, so many in a transaction, the last one of [`LAST`].
pub fn replay(changes: usize, per_txn: usize, members: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(changes * 460);
    let mut puts = Vec::new();
    let mut revision = BASE;
    for n in 0..changes {
        let last = n + 1 == changes;
        let id = if last {
            LAST.to_owned()
        } else {
            id(n, members)
        };
        // Its key was created by its first change.
        let created = match last {
            true => BASE + (n / per_txn) as i64 + 1,
            false => BASE + ((n % members) / per_txn) as i64 + 1,
        };
        let value = value(&id, n as u64);
        puts.push((id, value, created));
        if puts.len() == per_txn || last {
            revision += 1;
            frame(&mut out, revision, &puts);
            puts.clear();
        }
    }
    out
}
