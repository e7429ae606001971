//! Watches: `/v3/watch`.

mod past;
mod requests;

use serde_json::{Value, json};

use super::differences::LENIENCE;
use super::talk::{Talk, Watch};
use crate::conform;
use crate::support::gateway::b64;

fn put(t: &mut Talk, key: &str, value: &str) {
    t.quietly("kv/put", json!({ "key": b64(key), "value": b64(value) }));
}

fn put_under(t: &mut Talk, key: &str, value: &str, lease: i64) {
    let body = json!({ "key": b64(key), "value": b64(value), "lease": lease });
    t.quietly("kv/put", body);
}

fn delete(t: &mut Talk, key: &str) {
    t.quietly("kv/deleterange", json!({ "key": b64(key) }));
}

fn create(key: &str, more: Value) -> Value {
    let mut create = json!({ "key": b64(key) });
    for (name, value) in more.as_object().into_iter().flatten() {
        create[name] = value.clone();
    }
    json!({ "create_request": create })
}

fn below(prefix: &str, end: &str, more: Value) -> Value {
    let mut create = create(prefix, more);
    create["create_request"]["range_end"] = json!(b64(end));
    create
}

fn everything(more: Value) -> Value {
    below("\0", "\0", more)
}

#[test]
fn watch_from_now() {
    conform("watch_from_now", |t| {
        put(t, "a", "0");
        let w = t.watch(create("a", json!({})));
        t.silent(w);
        put(t, "a", "1");
        t.take(w, 1);
        put(t, "b", "1");
        t.silent(w);
        put(t, "a", "");
        t.take(w, 1);
        delete(t, "a");
        t.take(w, 1);
        delete(t, "a");
        t.silent(w);
        put(t, "a", "2");
        t.take(w, 1);
        // A put under a lease shows it.
        let lease = t.grant(60);
        put_under(t, "a", "3", lease);
        t.take(w, 1);
        t.silent(w);
    });
}

#[test]
fn watch_of_ranges() {
    conform("watch_of_ranges", |t| {
        let keys = ["a", "b", "b/1", "b/2", "b0", "c"];
        for key in keys {
            put(t, key, "1");
        }
        for (from, to) in [
            ("b/", "b0"),
            ("b", "\0"),
            ("\0", "\0"),
            ("a", "c"),
            ("a", "a\0"),
            ("", "\0"),
            ("", "b"),
            ("\0", "b"),
        ] {
            let w = t.watch(below(from, to, json!({ "start_revision": 2 })));
            t.take(w, 1);
            t.silent(w);
            t.close(w);
        }
        for (from, to) in [("c", "a"), ("b", "b"), ("", "")] {
            let w = t.watch(below(from, to, json!({ "start_revision": 2 })));
            t.silent(w);
            t.close(w);
        }
        let w = t.watch(below("b/", "b0", json!({})));
        for key in keys {
            put(t, key, "2");
        }
        t.take(w, 2);
        t.silent(w);
    });
}

#[test]
fn watch_of_no_key() {
    conform("watch_of_no_key", |t| {
        let w = t.watch(json!({ "create_request": {} }));
        put(t, "a", "1");
        put(t, "\0", "1");
        t.take(w, 1);
        let w = t.watch(json!({ "create_request": { "start_revision": 1 } }));
        t.take(w, 1);
        t.silent(w);
    });
}

#[test]
fn watch_with_prev_kv() {
    conform("watch_with_prev_kv", |t| {
        let lease = t.grant(60);
        let w = t.watch(create("a", json!({ "prev_kv": true })));
        put_under(t, "a", "1", lease);
        t.take(w, 1);
        put(t, "a", "2");
        t.take(w, 1);
        put_under(t, "a", "3", lease);
        t.take(w, 1);
        delete(t, "a");
        t.take(w, 1);
        put(t, "a", "4");
        t.take(w, 1);
        // From the past, too.
        let w = t.watch(create("a", json!({ "prev_kv": true, "start_revision": 2 })));
        t.take(w, 1);
        let w = t.watch(create("a", json!({ "prev_kv": true, "start_revision": 4 })));
        t.take(w, 1);
        // What was before the compaction is no longer known.
        t.quietly("kv/compaction", json!({ "revision": 4, "physical": true }));
        let w = t.watch(create("a", json!({ "prev_kv": true, "start_revision": 5 })));
        t.take(w, 1);
        let w = t.watch(create("a", json!({ "prev_kv": true, "start_revision": 4 })));
        t.take(w, 1);
    });
}

#[test]
fn watch_with_filters() {
    conform("watch_with_filters", |t| {
        // Whether it still sees puts, and deletes.
        let filters = [
            (json!(["NOPUT"]), false, true),
            (json!(["NODELETE"]), true, false),
            (json!(["NOPUT", "NODELETE"]), false, false),
            (json!([0]), false, true),
            (json!([1]), true, false),
            (json!([]), true, true),
            (json!(null), true, true),
            (json!(["NOPUT", "NOPUT"]), false, true),
        ];
        let watches: Vec<Watch> = filters
            .iter()
            .map(|(filters, ..)| t.watch(create("a", json!({ "filters": filters }))))
            .collect();
        put(t, "a", "1");
        for (watch, (_, puts, _)) in watches.iter().zip(&filters) {
            t.take(*watch, usize::from(*puts));
        }
        delete(t, "a");
        for (watch, (.., deletes)) in watches.iter().zip(&filters) {
            t.take(*watch, usize::from(*deletes));
            t.silent(*watch);
        }
        let past = json!({ "filters": ["NOPUT"], "start_revision": 2 });
        let w = t.watch(create("a", past));
        t.take(w, 1);
        t.silent(w);
        t.watch(create("a", json!({ "filters": [7] })));
        let unknown = create("a", json!({ "filters": ["NOTHING"] })).to_string();
        t.allow(&LENIENCE).watch_in_vain(&unknown);
    });
}

#[test]
fn watch_of_a_txn() {
    conform("watch_of_a_txn", |t| {
        for key in ["a", "b", "c"] {
            put(t, key, "0");
        }
        let w = t.watch(everything(json!({ "prev_kv": true })));
        let part = t.watch(create("b", json!({})));
        let put = |key: &str| json!({ "request_put": { "key": b64(key), "value": b64("1") } });
        let delete = |key: &str| json!({ "request_delete_range": { "key": b64(key) } });
        let ops = [put("z"), delete("c"), put("a"), delete("b"), put("y")];
        t.post("kv/txn", json!({ "success": ops }));
        t.take(w, 1);
        t.take(part, 1);
        let reads = json!({ "request_range": { "key": b64("a") } });
        t.post("kv/txn", json!({ "success": [reads] }));
        t.silent(w);
        let inner = json!({ "request_txn": { "success": [put("m"), delete("a")] } });
        t.post("kv/txn", json!({ "success": [put("n"), inner, put("l")] }));
        t.take(w, 1);
        t.post(
            "kv/deleterange",
            json!({ "key": b64("a"), "range_end": b64("\0"), "prev_kv": true }),
        );
        t.take(w, 1);
        t.silent(w);
        let w = t.watch(everything(json!({ "prev_kv": true, "start_revision": 1 })));
        t.take(w, 1);
        t.silent(w);
    });
}

#[test]
fn watch_of_leases() {
    conform("watch_of_leases", |t| {
        let lease = t.grant(60);
        let short = t.grant(4);
        for key in ["c", "a", "b"] {
            put_under(t, key, "1", lease);
            put_under(t, &format!("short/{key}"), "1", short);
        }
        put_under(t, "kept", "1", lease);
        put(t, "kept", "2");
        let w = t.watch(everything(json!({ "prev_kv": true })));
        t.take(w, 1);
        t.post("lease/revoke", json!({ "ID": lease }));
        t.take(w, 1);
        t.silent(w);
        t.all();
    });
}
