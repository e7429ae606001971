//! Transactions: `/v3/kv/txn`.

use serde_json::{Value, json};

use super::talk::Talk;
use crate::conform;
use crate::support::gateway::b64;

fn put(key: &str, value: &str) -> Value {
    json!({ "request_put": { "key": b64(key), "value": b64(value) } })
}

fn put_under(key: &str, lease: i64) -> Value {
    json!({ "request_put": { "key": b64(key), "value": b64("1"), "lease": lease.to_string() } })
}

fn get(key: &str) -> Value {
    json!({ "request_range": { "key": b64(key) } })
}

fn delete(key: &str) -> Value {
    json!({ "request_delete_range": { "key": b64(key) } })
}

fn delete_range(from: &str, to: &str) -> Value {
    json!({ "request_delete_range": { "key": b64(from), "range_end": b64(to), "prev_kv": true } })
}

/// A transaction in another.
fn nested(compare: &[Value], success: &[Value], failure: &[Value]) -> Value {
    json!({ "request_txn": { "compare": compare, "success": success, "failure": failure } })
}

fn created(key: &str, result: &str, revision: i64) -> Value {
    let revision = revision.to_string();
    json!({ "target": "CREATE", "result": result, "key": b64(key), "create_revision": revision })
}

fn txn(t: &mut Talk, compare: &[Value], success: &[Value], failure: &[Value]) {
    let body = json!({ "compare": compare, "success": success, "failure": failure });
    t.post("kv/txn", body);
}

fn ops(t: &mut Talk, ops: &[Value]) {
    t.post("kv/txn", json!({ "success": ops }));
}

fn ops_not_taken(t: &mut Talk, ops: &[Value]) {
    t.post("kv/txn", json!({ "failure": ops }));
}

#[test]
fn txn_branches() {
    conform("txn_branches", |t| {
        let new = [created("a", "EQUAL", 0)];
        for _ in 0..2 {
            txn(t, &new, &[put("a", "1")], &[get("a")]);
        }
        t.post("kv/txn", json!({}));
        txn(t, &[], &[], &[]);
        ops(t, &[put("b", "1")]);
        ops_not_taken(t, &[put("b", "2")]);
        let never = created("a", "EQUAL", 99);
        let old = created("a", "GREATER", 0);
        txn(t, &[old.clone(), never.clone()], &[], &[put("b", "4")]);
        txn(t, &[never], &[put("b", "3")], &[]);
        txn(t, &[old.clone(), old], &[put("b", "5")], &[]);
        t.all();
    });
}

#[test]
fn txn_many_ops_at_one_revision() {
    conform("txn_many_ops_at_one_revision", |t| {
        ops(t, &[put("a", "1"), put("b", "2"), put("c", "3")]);
        t.all();
        let (new, back) = (put("d", "4"), put("b", "5"));
        let all = [
            new,
            delete("a"),
            get("a"),
            get("d"),
            back,
            get("b"),
            delete("none"),
        ];
        ops(t, &all);
        t.all();
        // What only reads, or finds nothing to delete, makes no revision.
        ops(t, &[get("a"), get("b")]);
        ops(t, &[delete("none")]);
        ops(t, &[delete("none"), get("b"), delete("none")]);
        ops(t, &[delete_range("b", "d"), put("e", "1")]);
        let mut with_prev = put("e", "2");
        with_prev["request_put"]["prev_kv"] = json!(true);
        ops(t, &[with_prev]);
        let last = json!({ "request_range": {
            "key": b64("\0"), "range_end": b64("\0"), "limit": 1, "keys_only": true,
            "sort_order": "DESCEND", "sort_target": "MOD",
        }});
        // A range sees what the ops before it have done.
        ops(
            t,
            &[
                last.clone(),
                put("f", "1"),
                last.clone(),
                put("g", "1"),
                last,
            ],
        );
        let count = json!({ "key": b64("\0"), "range_end": b64("\0"), "count_only": true });
        ops(t, &[json!({ "request_range": count })]);
        t.all();
    });
}

#[test]
fn txn_one_key_twice() {
    conform("txn_one_key_twice", |t| {
        t.quietly("kv/put", json!({ "key": b64("b"), "value": b64("0") }));
        for both in [
            vec![put("a", "1"), put("a", "2")],
            vec![put("a", "1"), put("b", "1"), put("a", "1")],
            vec![put("a", "1"), delete("a")],
            vec![delete("a"), put("a", "1")],
            vec![delete("b"), delete("b")],
            vec![delete_range("a", "c"), delete("b")],
            vec![delete_range("a", "c"), put("b", "1")],
            vec![put("b", "1"), delete_range("a", "c")],
            vec![put("c", "1"), delete_range("a", "c")],
            vec![get("a"), get("a"), put("a", "3"), get("a")],
        ] {
            ops(t, &both);
            ops_not_taken(t, &both);
        }
        // In different branches is fine.
        txn(t, &[], &[put("a", "4")], &[put("a", "5")]);
        t.all();
    });
}

#[test]
fn txn_one_key_twice_up_to_the_end() {
    conform("txn_one_key_twice_up_to_the_end", |t| {
        for key in ["a", "d"] {
            t.quietly("kv/put", json!({ "key": b64(key), "value": b64("0") }));
        }
        ops(t, &[delete_range("d", "\0"), put("a", "1")]);
        // etcd doesn't notice that they meet.
        ops(t, &[delete_range("d", "\0"), put("x", "1")]);
        ops(t, &[put("x", "1"), delete_range("d", "\0")]);
        t.all();
    });
}

#[test]
fn txn_inside_a_txn() {
    conform("txn_inside_a_txn", |t| {
        ops(t, &[nested(&[], &[], &[])]);
        let inner = nested(&[], &[put("a", "1"), get("a")], &[get("b")]);
        ops(t, &[put("b", "1"), inner, get("a")]);
        let never = created("a", "EQUAL", 99);
        ops(t, &[nested(&[never], &[put("a", "2")], &[put("a", "3")])]);
        // The inner comparison sees the store as it was before the whole.
        let unseen = created("n", "EQUAL", 0);
        let inner = nested(&[unseen], &[put("m", "1")], &[put("m", "2")]);
        ops(t, &[put("n", "1"), inner]);
        let innermost = nested(&[], &[put("z", "1")], &[]);
        ops(t, &[nested(&[], &[innermost], &[])]);
        // One key twice, on two floors.
        let inner = nested(&[], &[put("a", "1")], &[]);
        ops(t, &[put("a", "1"), inner.clone()]);
        ops(t, &[inner.clone(), inner.clone()]);
        ops(t, &[delete("a"), inner]);
        ops(t, &[nested(&[], &[put("q", "1")], &[put("q", "2")])]);
        ops(t, &[nested(&[json!({})], &[], &[])]);
        ops(t, &[nested(&[], &[put("", "1")], &[])]);
        t.all();
    });
}

#[test]
fn txn_too_many_ops() {
    conform("txn_too_many_ops", |t| {
        let many = |count: usize| -> Vec<Value> {
            (0..count).map(|n| put(&format!("k{n:03}"), "1")).collect()
        };
        ops(t, &many(128));
        ops(t, &many(129));
        ops_not_taken(t, &many(129));
        txn(t, &[], &many(128), &many(128));
        let compares = vec![created("none", "EQUAL", 0); 129];
        txn(t, &compares[..128], &[], &[]);
        txn(t, &compares, &[], &[]);
        // Each floor counts for itself.
        ops(t, &[nested(&[], &many(129), &[])]);
        let other = |n: usize| put(&format!("other{n:03}"), "1");
        let others: Vec<Value> = (0..100).map(other).collect();
        ops(
            t,
            &[nested(&[], &many(100), &[]), nested(&[], &others, &[])],
        );
    });
}

#[test]
fn txn_that_fails_changes_nothing() {
    conform("txn_that_fails_changes_nothing", |t| {
        for value in ["1", "2", "3"] {
            t.quietly("kv/put", json!({ "key": b64("a"), "value": b64(value) }));
        }
        let at =
            |revision: i64| json!({ "request_range": { "key": b64("a"), "revision": revision } });
        ops(t, &[at(2), at(3), at(4)]);
        ops(t, &[put("b", "1"), at(4)]);
        // The revision that the txn itself makes is not there yet.
        for revision in [6, 7, 99] {
            ops(t, &[put("b", "2"), at(revision)]);
        }
        ops_not_taken(t, &[at(99)]);
        ops(t, &[at(-1)]);
        t.quietly("kv/compaction", json!({ "revision": 4 }));
        ops(t, &[put("b", "1"), at(3)]);
        ops(t, &[put("b", "1"), put_under("c", 4711)]);
        ops_not_taken(t, &[put_under("b", 4711)]);
        for op in [
            put("", "1"),
            get(""),
            delete(""),
            json!({ "request_range": {} }),
            json!({ "request_put": {} }),
            json!({}),
            json!({ "request_put": null }),
            json!({ "unknown": 1 }),
            json!({ "request_put": { "key": b64("b"), "value": b64("1"), "ignore_value": true } }),
            json!({ "request_put": { "key": b64("b"), "lease": 1, "ignore_lease": true } }),
            json!({ "request_put": { "key": b64("none"), "ignore_value": true } }),
            json!({ "request_put": { "key": b64("none"), "ignore_lease": true } }),
        ] {
            ops(t, &[put("c", "1"), op.clone()]);
            ops_not_taken(t, &[op]);
        }
        t.all();
    });
}

#[test]
fn txn_with_leases() {
    conform("txn_with_leases", |t| {
        let lease = t.grant(600);
        let keys = json!({ "ID": lease, "keys": true });
        ops(
            t,
            &[put_under("a", lease), put_under("b", lease), put("c", "1")],
        );
        t.post("lease/timetolive", keys.clone());
        ops(t, &[put_under("a", 0), delete("b")]);
        t.post("lease/timetolive", keys.clone());
        let keep = json!({ "key": b64("c"), "ignore_value": true, "lease": lease });
        ops(t, &[json!({ "request_put": keep })]);
        t.post("lease/timetolive", keys);
        t.all();
        // As Headcount registers.
        let new = [created("own", "EQUAL", 0)];
        for _ in 0..2 {
            txn(t, &new, &[put_under("own", lease)], &[get("own")]);
        }
    });
}
