//! Writing: `/v3/kv/put` and `/v3/kv/deleterange`.

use serde_json::{Value, json};

use super::talk::Talk;
use crate::conform;
use crate::support::gateway::b64;

fn put(t: &mut Talk, key: &str, value: &str, more: Value) {
    let mut body = json!({ "key": b64(key), "value": b64(value) });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    t.post("kv/put", body);
}

#[test]
fn put_new_and_over() {
    conform("put_new_and_over", |t| {
        put(t, "a", "1", json!({}));
        put(t, "a", "1", json!({}));
        put(t, "b", "", json!({}));
        t.post("kv/put", json!({ "key": b64("c") }));
        put(t, "", "1", json!({}));
        t.post("kv/put", json!({}));
        t.post("kv/put", json!({ "value": b64("1") }));
        t.all();
        // A key that was deleted starts anew.
        t.post("kv/deleterange", json!({ "key": b64("a") }));
        put(t, "a", "2", json!({}));
        t.all();
    });
}

#[test]
fn put_with_prev_kv() {
    conform("put_with_prev_kv", |t| {
        let lease = t.grant(600);
        put(t, "a", "1", json!({ "prev_kv": true, "lease": lease }));
        put(t, "a", "2", json!({ "prev_kv": true }));
        put(t, "a", "", json!({ "prev_kv": true }));
        put(t, "a", "3", json!({ "prev_kv": true }));
        put(t, "a", "4", json!({ "prev_kv": false }));
        put(t, "a", "5", json!({}));
        t.post("kv/deleterange", json!({ "key": b64("a") }));
        put(t, "a", "6", json!({ "prev_kv": true }));
        t.all();
    });
}

#[test]
fn put_that_keeps_value_or_lease() {
    conform("put_that_keeps_value_or_lease", |t| {
        let lease = t.grant(600);
        let other = t.grant(600);
        t.post("kv/put", json!({ "key": b64("a"), "ignore_value": true }));
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "value": b64("1"), "ignore_lease": true }),
        );
        put(t, "a", "1", json!({ "lease": lease }));
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "ignore_value": true, "prev_kv": true }),
        );
        t.all();
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "ignore_value": true, "lease": lease }),
        );
        t.all();
        put(
            t,
            "a",
            "2",
            json!({ "ignore_lease": true, "prev_kv": true }),
        );
        t.all();
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "ignore_lease": true, "ignore_value": true }),
        );
        t.all();
        // Both the thing and the wish to ignore it.
        put(t, "a", "3", json!({ "ignore_value": true }));
        put(t, "a", "3", json!({ "ignore_lease": true, "lease": other }));
        put(t, "", "3", json!({ "ignore_value": true }));
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "value": "", "ignore_value": true }),
        );
        t.all();
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
    });
}

#[test]
fn put_under_a_lease() {
    conform("put_under_a_lease", |t| {
        let lease = t.grant(600);
        put(t, "a", "1", json!({ "lease": lease.to_string() }));
        put(t, "b", "1", json!({ "lease": lease }));
        put(t, "c", "1", json!({ "lease": 4711 }));
        put(t, "a", "1", json!({ "lease": -1 }));
        put(t, "a", "1", json!({ "lease": "4711", "prev_kv": true }));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        // Without a lease it is let go.
        put(t, "a", "2", json!({}));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        t.all();
        put(t, "", "1", json!({ "lease": 4711 }));
    });
}

#[test]
fn put_too_much() {
    conform("put_too_much", |t| {
        for size in [
            1_500_000,
            1_572_864 - 6,
            1_572_864 - 5,
            1_600_000,
            2_097_152,
            2_500_000,
        ] {
            put(t, "a", &"x".repeat(size), json!({}));
        }
        t.post("kv/range", json!({ "key": b64("a"), "keys_only": true }));
        // A key may be as long as a value.
        put(t, &"k".repeat(100_000), "1", json!({}));
        put(t, &"k".repeat(1_600_000), "1", json!({}));
        t.post(
            "kv/range",
            json!({ "key": b64("k"), "range_end": b64("l"), "count_only": true }),
        );
    });
}

#[test]
fn delete_one_and_many() {
    conform("delete_one_and_many", |t| {
        for key in ["a", "b", "c", "d", "e"] {
            t.quietly("kv/put", json!({ "key": b64(key), "value": b64("1") }));
        }
        let mut delete = |from: &str, more: Value| {
            let mut body = json!({ "key": b64(from) });
            for (name, value) in more.as_object().into_iter().flatten() {
                body[name] = value.clone();
            }
            t.post("kv/deleterange", body);
        };
        delete("x", json!({}));
        delete("x", json!({ "prev_kv": true }));
        delete("x", json!({ "range_end": b64("z") }));
        delete("a", json!({}));
        delete("a", json!({}));
        delete("b", json!({ "prev_kv": true }));
        delete("d", json!({ "range_end": b64("c") }));
        delete("d", json!({ "range_end": b64("d") }));
        delete("c", json!({ "range_end": b64("e"), "prev_kv": true }));
        delete("", json!({}));
        delete("", json!({ "range_end": b64("\0") }));
        delete("e", json!({ "range_end": b64("\0") }));
        t.post("kv/deleterange", json!({}));
        t.all();
    });
}

#[test]
fn delete_everything() {
    conform("delete_everything", |t| {
        let lease = t.grant(600);
        for key in ["a", "b", "b/1", "b/2", "c"] {
            t.quietly(
                "kv/put",
                json!({ "key": b64(key), "value": b64(key), "lease": lease }),
            );
        }
        t.post(
            "kv/deleterange",
            json!({ "key": b64("b/"), "range_end": b64("b0"), "prev_kv": true }),
        );
        t.post(
            "kv/deleterange",
            json!({ "key": b64("\0"), "range_end": b64("\0"), "prev_kv": true }),
        );
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        t.all();
        t.post(
            "kv/deleterange",
            json!({ "key": b64("\0"), "range_end": b64("\0") }),
        );
    });
}
