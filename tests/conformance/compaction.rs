//! `/v3/kv/compaction`.

use serde_json::json;

use super::talk::Talk;
use crate::conform;
use crate::support::gateway::b64;

fn fill(t: &mut Talk, count: usize) {
    for n in 0..count {
        t.quietly(
            "kv/put",
            json!({ "key": b64("a"), "value": b64(n.to_string()) }),
        );
    }
}

#[test]
fn compaction_of_revisions() {
    conform("compaction_of_revisions", |t| {
        for revision in [0, 1, 2] {
            t.post("kv/compaction", json!({ "revision": revision }));
        }
        t.post("kv/compaction", json!({}));
        fill(t, 5);
        t.post("kv/compaction", json!({ "revision": "3" }));
        t.post("kv/compaction", json!({ "revision": "3" }));
        t.post("kv/compaction", json!({ "revision": 2 }));
        t.post("kv/compaction", json!({ "revision": 0 }));
        t.post("kv/compaction", json!({ "revision": -1 }));
        t.post("kv/compaction", json!({ "revision": 7 }));
        t.post("kv/compaction", json!({ "revision": 1000 }));
        t.post("kv/compaction", json!({ "revision": 5, "physical": true }));
        t.post("kv/compaction", json!({ "revision": 5, "physical": true }));
        t.post("kv/compaction", json!({ "revision": 6 }));
        t.post("kv/compaction", json!({ "revision": 6 }));
        for revision in [4, 5, 6] {
            t.post("kv/range", json!({ "key": b64("a"), "revision": revision }));
        }
        t.post("kv/range", json!({ "key": b64("a") }));
    });
}

#[test]
fn compaction_before_anything_was_written() {
    conform("compaction_before_anything_was_written", |t| {
        t.post("kv/compaction", json!({ "revision": 1 }));
        t.post("kv/range", json!({ "key": b64("a"), "revision": 1 }));
        t.post("kv/compaction", json!({ "revision": 1 }));
        fill(t, 1);
        t.post("kv/range", json!({ "key": b64("a"), "revision": 1 }));
        t.post("kv/range", json!({ "key": b64("a"), "revision": 2 }));
    });
}

#[test]
fn compaction_keeps_what_is_needed() {
    conform("compaction_keeps_what_is_needed", |t| {
        fill(t, 3);
        t.quietly("kv/put", json!({ "key": b64("b"), "value": b64("1") }));
        t.quietly("kv/deleterange", json!({ "key": b64("b") }));
        t.quietly("kv/put", json!({ "key": b64("c"), "value": b64("1") }));
        t.post("kv/compaction", json!({ "revision": 5, "physical": true }));
        for revision in 4..=7 {
            t.post(
                "kv/range",
                json!({ "key": b64("a"), "range_end": b64("z"), "revision": revision }),
            );
        }
        t.post("kv/compaction", json!({ "revision": 6, "physical": true }));
        for revision in 5..=7 {
            t.post(
                "kv/range",
                json!({ "key": b64("a"), "range_end": b64("z"), "revision": revision }),
            );
        }
        // Versions go on as if nothing had been.
        fill(t, 1);
        t.post(
            "kv/range",
            json!({ "key": b64("a"), "range_end": b64("z") }),
        );
    });
}
