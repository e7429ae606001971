//! The comparisons of transactions.

use serde_json::{Value, json};

use super::differences::{LENIENCE, NO_MEANING};
use super::talk::Talk;
use crate::conform;
use crate::support::gateway::b64;

const RESULTS: [&str; 4] = ["EQUAL", "GREATER", "LESS", "NOT_EQUAL"];

fn get(key: &str) -> Value {
    json!({ "request_range": { "key": b64(key) } })
}

/// What the comparison comes to, by a branch that says so and changes nothing.
fn compare(t: &mut Talk, compare: Value) {
    let (success, failure) = ([get("yes")], [get("no"), get("no")]);
    let body = json!({ "compare": [compare], "success": success, "failure": failure });
    t.post("kv/txn", body);
}

/// One target with each result.
fn with_results(t: &mut Talk, mut wanted: Value) {
    for result in RESULTS {
        wanted["result"] = json!(result);
        compare(t, wanted.clone());
    }
}

#[test]
fn txn_compares() {
    conform("txn_compares", |t| {
        let lease = t.grant(600);
        t.quietly("kv/put", json!({ "key": b64("x"), "value": b64("m") }));
        let body = json!({ "key": b64("a"), "value": b64("m"), "lease": lease });
        t.quietly("kv/put", body.clone());
        t.quietly("kv/put", body);
        let a = b64("a");
        for (target, field, values) in [
            ("VERSION", "version", ["1", "2", "3"]),
            ("CREATE", "create_revision", ["2", "3", "4"]),
            ("MOD", "mod_revision", ["3", "4", "5"]),
        ] {
            for value in values {
                with_results(t, json!({ "target": target, "key": a, field: value }));
            }
        }
        for value in ["l", "m", "n", "", "mm"] {
            with_results(
                t,
                json!({ "target": "VALUE", "key": a, "value": b64(value) }),
            );
        }
        for (id, name) in [
            (0, "none"),
            (1, "1"),
            (lease - 1, "less"),
            (lease, "it"),
            (lease + 1, "more"),
        ] {
            for result in RESULTS {
                let wanted = json!({ "target": "LEASE", "result": result, "key": a, "lease": id });
                let name = format!("lease {result} {name}");
                t.post_as(&name, "kv/txn", json!({ "compare": [wanted] }));
            }
        }
    });
}

#[test]
fn txn_compares_of_a_missing_key() {
    conform("txn_compares_of_a_missing_key", |t| {
        let none = b64("none");
        for (target, field) in [
            ("VERSION", "version"),
            ("CREATE", "create_revision"),
            ("MOD", "mod_revision"),
            ("LEASE", "lease"),
        ] {
            for value in [-1, 0, 1] {
                with_results(t, json!({ "target": target, "key": none, field: value }));
            }
        }
        for value in ["", "v"] {
            let value = b64(value);
            with_results(t, json!({ "target": "VALUE", "key": none, "value": value }));
        }
        with_results(t, json!({ "target": "VALUE", "key": none }));
    });
}

#[test]
fn txn_compares_as_they_are_written() {
    conform("txn_compares_as_they_are_written", |t| {
        t.quietly("kv/put", json!({ "key": b64("a"), "value": b64("m") }));
        let a = b64("a");
        for wanted in [
            // By number.
            json!({ "target": 0, "result": 0, "key": a, "version": 1 }),
            json!({ "target": 1, "result": 1, "key": a, "create_revision": 1 }),
            json!({ "target": 2, "result": 2, "key": a, "mod_revision": 3 }),
            json!({ "target": 3, "result": 3, "key": a, "value": b64("n") }),
            json!({ "target": 4, "result": 0, "key": a, "lease": 0 }),
            // By default.
            json!({ "key": a, "version": "1" }),
            json!({ "key": a, "version": "2" }),
            json!({ "key": a }),
            json!({ "key": b64("none") }),
            json!({}),
            json!({ "key": "" }),
            json!({ "target": "LEASE", "key": a }),
            json!({ "target": "CREATE", "key": a }),
            json!({ "target": "VALUE", "key": a }),
            // At odds with itself.
            json!({ "target": "MOD", "key": a, "version": 1 }),
            json!({ "target": "VERSION", "key": a, "mod_revision": 2 }),
            json!({ "target": "VALUE", "key": a, "version": 1 }),
            json!({ "key": a, "version": 0, "target": "CREATE", "result": "NOT_EQUAL" }),
            // In lowerCamelCase.
            json!({ "target": "CREATE", "key": a, "createRevision": "2" }),
            json!({ "target": "MOD", "key": a, "modRevision": "2" }),
        ] {
            compare(t, wanted);
        }
    });
}

#[test]
fn txn_compares_by_no_known_measure() {
    conform("txn_compares_by_no_known_measure", |t| {
        t.quietly("kv/put", json!({ "key": b64("a"), "value": b64("m") }));
        let a = b64("a");
        let wanted = |target: Value, result: Value| {
            let (key, version) = (a.as_str(), 1);
            json!({ "target": target, "result": result, "key": key, "version": version })
        };
        for (target, result) in [(5, 0), (-1, 0), (0, 4), (0, -1), (5, 3)] {
            t.allow(&NO_MEANING);
            compare(t, wanted(target.into(), result.into()));
        }
        for (target, result) in [
            ("SIZE", "EQUAL"),
            ("VERSION", "ALIKE"),
            ("version", "EQUAL"),
            ("VERSION", ""),
        ] {
            t.allow(&LENIENCE);
            compare(t, wanted(target.into(), result.into()));
        }
    });
}

#[test]
fn txn_compares_of_a_range() {
    conform("txn_compares_of_a_range", |t| {
        for (key, value) in [("p/1", "x"), ("p/2", "x"), ("p/2", "y"), ("q", "z")] {
            t.quietly("kv/put", json!({ "key": b64(key), "value": b64(value) }));
        }
        for (from, to) in [
            ("p/", "p0"),
            ("p/", "p/2"),
            ("none", "nonf"),
            ("q", "\0"),
            ("p/2", "p/1"),
            ("\0", "\0"),
            ("", "\0"),
        ] {
            let (key, end) = (b64(from), b64(to));
            for (target, field, value) in [
                ("VERSION", "version", json!(1)),
                ("CREATE", "create_revision", json!(0)),
                ("VALUE", "value", json!(b64("x"))),
                ("LEASE", "lease", json!(0)),
            ] {
                let wanted =
                    json!({ "target": target, "key": key, "range_end": end, field: value });
                with_results(t, wanted);
            }
        }
    });
}
