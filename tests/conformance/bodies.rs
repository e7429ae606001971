//! What a request's body may look like, and what it must not.

use serde_json::json;

use super::differences::{LENIENCE, UNREADABLE_STREAM};
use crate::conform;
use crate::support::gateway::b64;

#[test]
fn bodies_in_every_allowed_spelling() {
    conform("bodies_in_every_allowed_spelling", |t| {
        t.quietly("kv/put", json!({ "key": b64("a"), "value": b64("1") }));
        t.quietly("kv/put", json!({ "key": b64("b"), "value": b64("1") }));
        for body in [
            r#"{"key":"YQ==","range_end":"Yw==","limit":1}"#,
            r#"{"key":"YQ==","range_end":"Yw==","limit":"1"}"#,
            r#"{"key":"YQ==","rangeEnd":"Yw==","limit":"1"}"#,
            r#"{"key":"YQ==","rangeEnd":"Yw==","keysOnly":true}"#,
            r#"{"key":"YQ==","rangeEnd":"Yw==","countOnly":true}"#,
            r#"{"key":"YQ==","range_end":"Yw==","sortOrder":"DESCEND","sortTarget":"MOD"}"#,
            r#"{"key":"YQ==","unknown":{"a":[1,2,{"b":null}]}}"#,
            r#"{"key":"YQ==","limit":null,"range_end":null,"keys_only":null,"sort_order":null}"#,
            r#"{"key":null}"#,
            r#"  { "key" : "YQ==" }  "#,
            "\n\t{\"key\":\"YQ==\"}\r\n",
            r#"{"key":"\u0059Q=="}"#,
            r#"{"\u006bey":"YQ=="}"#,
        ] {
            t.post_text("kv/range", body);
        }
        for body in [
            r#"{"key":"YQ==","limit":-0}"#,
            r#"{"key":"YQ==","limit":1.0}"#,
            r#"{"key":"YQ==","limit":"1.0"}"#,
            r#"{"key":"YQ==","limit":1e0}"#,
        ] {
            t.allow(&LENIENCE).post_text("kv/range", body);
        }
        let (p, q) = (b64("p"), b64("q"));
        for value in ["1", "2"] {
            let value = b64(value);
            let body = json!({ "key": p, "value": value, "prevKv": true, "ignoreLease": false });
            t.post("kv/put", body);
        }
        let txn = json!({
            "compare": [{ "key": p, "target": "MOD", "modRevision": "5" }],
            "success": [
                { "requestRange": { "key": p } },
                { "requestPut": { "key": q } },
                { "requestDeleteRange": { "key": p, "prevKv": true } },
                { "requestTxn": {} },
            ],
        });
        t.post("kv/txn", txn);
        t.allow(&LENIENCE)
            .post_text("lease/grant", r#"{"TTL":60.0}"#);
    });
}

#[test]
fn bodies_in_other_alphabets_of_base64() {
    conform("bodies_in_other_alphabets_of_base64", |t| {
        t.quietly("kv/put", json!({ "key": "+/+/", "value": b64("1") }));
        for key in [
            "+/+/", "YQ==", "YWI=", "YQ=", "YR==", "Y", "Y Q==", "!!!!", "", "YQ==YQ==", "YQ==Y",
        ] {
            t.post("kv/range", json!({ "key": key }));
        }
        for key in ["-_-_", "YQ", "YWI", "YQ==\n", "YQ\n=="] {
            t.allow(&LENIENCE).post("kv/range", json!({ "key": key }));
        }
    });
}

#[test]
fn bodies_of_the_wrong_type() {
    conform("bodies_of_the_wrong_type", |t| {
        for body in [
            r#"{"key":1}"#,
            r#"{"key":true}"#,
            r#"{"key":["YQ=="]}"#,
            r#"{"key":{"a":1}}"#,
            r#"{"key":"YQ==","limit":"x"}"#,
            r#"{"key":"YQ==","limit":""}"#,
            r#"{"key":"YQ==","limit":true}"#,
            r#"{"key":"YQ==","limit":1.5}"#,
            r#"{"key":"YQ==","limit":9223372036854775808}"#,
            r#"{"key":"YQ==","limit":"9223372036854775808"}"#,
            r#"{"key":"YQ==","limit":[1]}"#,
            r#"{"key":"YQ==","keys_only":1}"#,
            r#"{"key":"YQ==","keys_only":"true"}"#,
            r#"{"key":"YQ==","keys_only":"x"}"#,
            r#"{"key":"YQ==","sort_order":true}"#,
            r#"{"key":"YQ==","sort_order":1.5}"#,
        ] {
            t.post_text("kv/range", body);
        }
        for body in [
            r#"{"success":{}}"#,
            r#"{"success":[1]}"#,
            r#"{"success":[{"request_put":1}]}"#,
            r#"{"compare":null,"success":null,"failure":null}"#,
        ] {
            t.post_text("kv/txn", body);
        }
        t.allow(&UNREADABLE_STREAM)
            .post_text("lease/keepalive", r#"{"ID":"x"}"#);
        t.post_text("lease/grant", r#"{"TTL":"soon"}"#);
        t.post_text("lease/revoke", r#"{"ID":"x"}"#);
        t.post_text("lease/timetolive", r#"{"ID":"x"}"#);
        t.post_text("lease/leases", r#"[]"#);
        t.post_text("kv/compaction", r#"{"revision":"x"}"#);
        t.post_text("kv/put", r#"{"key":"YQ==","value":1}"#);
        t.post_text("kv/deleterange", r#"{"key":1}"#);
        t.post_text("auth/authenticate", r#"{"name":1}"#);
    });
}

#[test]
fn bodies_that_some_take_and_some_refuse() {
    conform("bodies_that_some_take_and_some_refuse", |t| {
        for body in [
            r#"{"key":"YQ==","sort_order":"SIDEWAYS"}"#,
            r#"{"key":"YQ==","sort_order":"descend"}"#,
            r#"{"key":"YQ==","sort_order":"2"}"#,
            r#"{"key":"YQ==","key":"YQ=="}"#,
            r#"{"key":"YQ==","range_end":"Yg==","rangeEnd":"Yw=="}"#,
            "null",
        ] {
            t.allow(&LENIENCE).post_text("kv/range", body);
        }
        let headers = [("Content-Type", "application/json")];
        let body = Some(&b"{\"\xff\":1,\"key\":\"YQ==\"}"[..]);
        t.allow(&LENIENCE)
            .send_with("POST", "/v3/kv/range", &headers, body);
        for body in [
            r#"{"success":[null]}"#,
            r#"{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}"#,
            r#"{"compare":[null]}"#,
            r#"{"compare":[{"key":"YQ==","version":1,"mod_revision":2}]}"#,
        ] {
            t.allow(&LENIENCE).post_text("kv/txn", body);
        }
    });
}

#[test]
fn bodies_that_are_no_json() {
    conform("bodies_that_are_no_json", |t| {
        for body in [
            "",
            " ",
            "\n",
            "{}",
            "[]",
            "1",
            "true",
            "\"x\"",
            "x",
            "{",
            "}",
            "{\"key\"",
            "{\"key\":",
            "{\"key\":\"YQ==\"",
            "{\"key\":\"YQ==\"}}",
            "{\"key\":\"YQ==\"} x",
            "{\"key\":\"YQ==\"}{\"key\":\"Yg==\"}",
            "{\"key\":\"YQ==\",}",
            "{'key':'YQ=='}",
            "{key:\"YQ==\"}",
            "{\"key\":\"YQ==\" \"limit\":1}",
            "{\"key\":\"YQ==\",\"limit\":01}",
            "{\"key\":\"YQ==\",\"limit\":NaN}",
            "{\"key\":\"\\x\"}",
            "{\"key\":\"YQ==\"}\0",
            "\u{feff}{\"key\":\"YQ==\"}",
            "{\"key\":\"\u{1}\"}",
            "// x\n{}",
        ] {
            t.post_text("kv/range", body);
        }
        let headers = [("Content-Type", "application/json")];
        t.send_with("POST", "/v3/kv/range", &headers, Some(b"\xff\xfe{}"));
        t.send_with(
            "POST",
            "/v3/kv/range",
            &headers,
            Some(b"{\"key\":\"\xff\"}"),
        );
        let deep = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"key":"YQ==","unknown":{open}{close}}}"#)
        };
        for depth in [50, 200] {
            t.post_text("kv/range", &deep(depth));
        }
        t.allow(&LENIENCE).post_text("kv/range", &deep(100_000));
        for path in [
            "kv/put",
            "kv/deleterange",
            "kv/txn",
            "kv/compaction",
            "lease/grant",
            "lease/revoke",
            "lease/timetolive",
            "lease/leases",
            "auth/authenticate",
        ] {
            t.post_text(path, "");
            t.post_text(path, "{");
        }
    });
}

#[test]
fn bodies_of_any_content_type() {
    conform("bodies_of_any_content_type", |t| {
        let body = Some(&br#"{"key":"YQ=="}"#[..]);
        t.send_with("POST", "/v3/kv/range", &[], body);
        for kind in [
            "application/json; charset=utf-8",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/grpc-web",
            "application/octet-stream",
            "",
        ] {
            t.send_with("POST", "/v3/kv/range", &[("Content-Type", kind)], body);
        }
        t.send_with("POST", "/v3/kv/range", &[("Accept", "text/html")], body);
        t.send_with("POST", "/v3/kv/range", &[("Accept-Encoding", "gzip")], body);
        t.send_with("POST", "/v3/kv/range", &[], None);
    });
}
