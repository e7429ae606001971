//! Watches that begin in the past, or in the future.

use serde_json::{Value, json};

use super::{create, everything, put};
use crate::conform;
use crate::support::gateway::b64;

/// A watch of one key from a revision on.
fn from(key: &str, revision: i64) -> Value {
    create(key, json!({ "start_revision": revision.to_string() }))
}

#[test]
fn watch_from_a_revision() {
    conform("watch_from_a_revision", |t| {
        for value in ["1", "2", "3"] {
            put(t, "a", value);
        }
        super::delete(t, "a");
        put(t, "b", "1");
        for revision in [1, 2, 4, 5] {
            let w = t.watch(from("a", revision));
            t.take(w, 1);
            t.silent(w);
        }
        for revision in [6, 7] {
            let w = t.watch(from("a", revision));
            t.silent(w);
        }
        for revision in [0, -1] {
            let w = t.watch(from("a", revision));
            t.silent(w);
            put(t, "a", "9");
            t.take(w, 1);
        }
    });
}

#[test]
fn watch_from_a_revision_to_come() {
    conform("watch_from_a_revision_to_come", |t| {
        put(t, "a", "1");
        let w = t.watch(from("a", 5));
        let far = t.watch(from("a", i64::MAX));
        for value in ["3", "4"] {
            put(t, "a", value);
            t.silent(w);
        }
        put(t, "a", "5");
        t.take(w, 1);
        put(t, "a", "6");
        t.take(w, 1);
        t.silent(far);
    });
}

#[test]
fn watch_that_catches_up() {
    conform("watch_that_catches_up", |t| {
        for n in 0..2200 {
            put(t, "a", &n.to_string());
        }
        put(t, "b", "1");
        let w = t.watch(from("a", 1));
        t.take_summaries(w, 3);
        t.silent(w);
        put(t, "a", "last");
        t.take(w, 1);
        let w = t.watch(everything(
            json!({ "start_revision": 1200, "prev_kv": true }),
        ));
        t.take_summaries(w, 2);
        t.silent(w);
        let w = t.watch(from("b", 1));
        t.take(w, 1);
        t.silent(w);
    });
}

#[test]
fn watch_that_catches_up_with_txns() {
    conform("watch_that_catches_up_with_txns", |t| {
        // A batch counts revisions, not events.
        for n in 0..1100 {
            let value = b64(n.to_string());
            let puts = ["a", "b", "c"]
                .map(|key| json!({ "request_put": { "key": b64(key), "value": value } }));
            t.quietly("kv/txn", json!({ "success": puts }));
        }
        let w = t.watch(everything(json!({ "start_revision": 2 })));
        t.take_summaries(w, 2);
        t.silent(w);
    });
}

#[test]
fn watch_from_before_the_compaction() {
    conform("watch_from_before_the_compaction", |t| {
        for value in ["1", "2", "3", "4"] {
            put(t, "a", value);
        }
        t.quietly("kv/compaction", json!({ "revision": 4 }));
        for revision in [1, 3] {
            let w = t.watch(from("a", revision));
            t.take(w, 1);
            t.silent(w);
            put(t, "a", "5");
            t.silent(w);
        }
        let w = t.watch(from("a", 4));
        t.take(w, 1);
        t.silent(w);
        // Next to one that is well.
        let all = [from("a", 2), create("a", json!({})), from("b", 2)];
        let w = t.watch_row(&all, 5);
        put(t, "a", "6");
        t.take(w, 1);
        t.silent(w);
        // Nothing of it has ever changed.
        let w = t.watch(from("none", 2));
        t.take(w, 1);
    });
}

#[test]
fn watch_through_a_compaction() {
    conform("watch_through_a_compaction", |t| {
        put(t, "a", "1");
        let w = t.watch(create("a", json!({ "prev_kv": true })));
        let future = t.watch(from("a", 7));
        for value in ["2", "3"] {
            put(t, "a", value);
            t.take(w, 1);
        }
        t.quietly("kv/compaction", json!({ "revision": 4, "physical": true }));
        t.silent(w);
        put(t, "a", "4");
        t.take(w, 1);
        put(t, "a", "5");
        t.take(w, 1);
        t.quietly("kv/compaction", json!({ "revision": 6, "physical": true }));
        put(t, "a", "6");
        t.take(future, 1);
        // One that waits for a revision that is compacted before it comes.
        let future = t.watch(from("b", 9));
        for value in ["7", "8", "9"] {
            put(t, "a", value);
        }
        t.quietly("kv/compaction", json!({ "revision": 10, "physical": true }));
        t.silent(future);
        put(t, "b", "1");
        t.take(future, 1);
        t.silent(future);
    });
}

#[test]
fn watch_in_fragments() {
    conform("watch_in_fragments", |t| {
        for key in ["a", "b", "c", "d", "e"] {
            put(t, key, &key.repeat(1_000_000));
        }
        let w = t.watch(everything(json!({ "start_revision": 2 })));
        t.take_summaries(w, 1);
        t.silent(w);
        let w = t.watch(everything(json!({ "start_revision": 2, "fragment": true })));
        t.take_summaries(w, 3);
        t.silent(w);
        // One revision of many parts.
        let w = t.watch(everything(json!({ "prev_kv": true, "fragment": true })));
        let whole = t.watch(everything(json!({ "prev_kv": true })));
        t.quietly(
            "kv/deleterange",
            json!({ "key": b64("a"), "range_end": b64("z") }),
        );
        t.take_summaries(w, 3);
        t.silent(w);
        t.take_summaries(whole, 1);
        // Small ones stay whole.
        put(t, "a", "1");
        t.take(w, 1);
    });
}
