//! What a watch is asked for: several on one connection, ids, cancels, progress, an end.

use serde_json::{Value, json};

use super::{below, create, delete, put};
use crate::conform;
use crate::conformance::differences::{LONE_PROGRESS, NO_TIME, UNREADABLE_STREAM};

fn cancel(id: impl Into<Value>) -> Value {
    json!({ "cancel_request": { "watch_id": id.into() } })
}

fn with_id(id: i64) -> Value {
    create("a", json!({ "watch_id": id }))
}

#[test]
fn watch_several_on_one_connection() {
    conform("watch_several_on_one_connection", |t| {
        put(t, "a", "0");
        let all = [
            create("a", json!({})),
            create("b", json!({})),
            below("a", "c", json!({})),
        ];
        let w = t.watch_row(&all, 3);
        put(t, "a", "1");
        t.take(w, 2);
        put(t, "b", "1");
        t.take(w, 2);
        delete(t, "a");
        t.take(w, 2);
        t.silent(w);
        // With space between them, and as a list, which they aren't.
        let spaced = format!("{}\n \n{} ", all[0], all[1]);
        let w = t.watch_text(&spaced);
        t.take(w, 1);
        let list = json!(all).to_string();
        t.allow(&UNREADABLE_STREAM).watch_in_vain(&list);
        let past = ["a", "b"].map(|key| create(key, json!({ "start_revision": 1 })));
        let w = t.watch_row(&past, 4);
        t.silent(w);
    });
}

#[test]
fn watch_ids_of_ones_own() {
    conform("watch_ids_of_ones_own", |t| {
        let w = t.watch(with_id(7));
        put(t, "a", "1");
        t.take(w, 1);
        for ids in [[7, 7], [7, 0], [0, 7], [1, 0], [0, 1], [-1, 0], [-5, 0]] {
            let w = t.watch_row(&ids.map(with_id), 2);
            t.silent(w);
        }
        t.watch_row(&[1, 0, 0, 0].map(with_id), 4);
    });
}

#[test]
fn watch_that_is_canceled() {
    conform("watch_that_is_canceled", |t| {
        let (a, b) = (create("a", json!({})), create("b", json!({})));
        let w = t.watch_row(&[a.clone(), b, cancel(1)], 3);
        put(t, "b", "1");
        t.silent(w);
        put(t, "a", "1");
        t.take(w, 1);
        // The only one, one that there isn't, one twice.
        let w = t.watch_row(&[a.clone(), cancel("0")], 2);
        put(t, "a", "2");
        t.silent(w);
        let w = t.watch_row(&[a.clone(), cancel(9)], 1);
        t.silent(w);
        let w = t.watch_row(&[a.clone(), cancel(0), cancel(0)], 2);
        t.silent(w);
        // An id of one's own is free again, one of the store's isn't.
        t.watch_row(&[with_id(3), cancel(3), with_id(3)], 3);
        t.watch_row(&[a.clone(), cancel(0), a], 3);
        t.watch_in_vain(&cancel(0).to_string());
    });
}

#[test]
fn watch_progress_on_request() {
    conform("watch_progress_on_request", |t| {
        put(t, "a", "1");
        let progress = json!({ "progress_request": {} });
        let (a, b) = (create("a", json!({})), create("b", json!({})));
        let w = t.watch_row(&[a.clone(), progress.clone()], 2);
        t.silent(w);
        let w = t.watch_row(&[a, b, progress.clone()], 3);
        t.silent(w);
        t.allow(&LONE_PROGRESS).watch_in_vain(&progress.to_string());
    });
}

#[test]
fn watch_with_progress_notify() {
    conform("watch_with_progress_notify", |t| {
        put(t, "a", "1");
        let w = t.watch(create("a", json!({ "progress_notify": true })));
        t.silent(w);
        put(t, "a", "2");
        t.take(w, 1);
        t.silent(w);
    });
}

#[test]
fn watch_that_is_given_a_time() {
    conform("watch_that_is_given_a_time", |t| {
        let body = create("a", json!({})).to_string();
        let w = t.watch_with(&body, &[("Grpc-Timeout", "1S")]);
        put(t, "a", "1");
        t.take_all(w);
        for time in ["500m", "200000u", "200000000n", "1000m"] {
            let w = t.watch_with(&body, &[("Grpc-Timeout", time)]);
            t.take_all(w);
        }
        for time in ["1H", "1M", "99999999S", "999999999S", " 60S", "0S", ""] {
            let w = t.watch_with(&body, &[("Grpc-Timeout", time)]);
            t.silent(w);
        }
        let w = t.watch_with(&body, &[("Grpc-Metadata-hasleader", "true")]);
        put(t, "a", "2");
        t.take(w, 1);
    });
}

#[test]
fn watch_that_is_given_no_time() {
    conform("watch_that_is_given_no_time", |t| {
        let body = create("a", json!({})).to_string();
        for time in ["x", "1", "S", "1s", "1.5S", "1 S"] {
            let w = t.watch_with(&body, &[("Grpc-Timeout", time)]);
            t.silent(w);
            let headers = [("Grpc-Timeout", time)];
            t.send_with("POST", "/v3/kv/range", &headers, Some(b"{}"));
        }
        let headers = [("Grpc-Timeout", "-1S")];
        t.allow(&NO_TIME)
            .send_with("POST", "/v3/kv/range", &headers, Some(b"{}"));
        let headers = [("Grpc-Timeout", "5S")];
        t.send_with("POST", "/v3/kv/range", &headers, Some(b"{}"));
    });
}

#[test]
fn watch_bodies() {
    conform("watch_bodies", |t| {
        put(t, "a", "1");
        // Nothing is asked, so nothing is said.
        for body in [
            "",
            "{}",
            r#"{"create_request":null}"#,
            r#"{"unknown":{}}"#,
            r#"{"key":"YQ=="}"#,
            r#"{"cancel_request":{}}"#,
            r#"{"progress_request":null}"#,
        ] {
            t.watch_in_vain(body);
        }
        for body in [
            "[]",
            "x",
            "{",
            r#"{"create_request":1}"#,
            r#"{"create_request":{"key":"!"}}"#,
            r#"{"create_request":{"key":1}}"#,
            r#"{"create_request":{"key":"YQ==","start_revision":"x"}}"#,
        ] {
            t.allow(&UNREADABLE_STREAM).watch_in_vain(body);
        }
        for body in [
            r#"{"createRequest":{"key":"YQ==","startRevision":"1","prevKv":true}}"#,
            r#"{"create_request":{"key":"YQ==","start_revision":1,"unknown":1,"range_end":null}}"#,
            r#"{"create_request":{"key":"YQ==","start_revision":1}}{"#,
            r#"{"create_request":{"key":"YQ==","start_revision":1}} x"#,
            r#"{"create_request":{"key":"YQ==","start_revision":1}}{}"#,
            r#"{"create_request":{"key":"YQ==","start_revision":1}}{"create_request":1}"#,
            r#"{"create_request":{"key":"YQ==","start_revision":1}}{"unknown":1}"#,
        ] {
            let w = t.watch_text(body);
            t.take(w, 1);
            t.silent(w);
            t.close(w);
        }
    });
}
