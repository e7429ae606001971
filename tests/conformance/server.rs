//! The server itself: what it says about itself, and what it says to those who knock at no door.

use std::time::Duration;

use serde_json::json;

use super::differences::{HEALTH_REASON, NEEDLESS_TOKEN};
use crate::conform;
use crate::support::wait::until;

#[test]
fn version_and_health() {
    conform("version_and_health", |t| {
        // A node that has just started does not know it yet.
        until(Duration::from_secs(30), "the cluster's version", || {
            let version = t.gateway.try_get("/version");
            version.is_ok_and(|(_, version)| version["etcdcluster"] != "not_decided")
        });
        t.send_with("GET", "/version", &[], None);
        t.allow(&HEALTH_REASON)
            .send_with("GET", "/health", &[], None);
        t.allow(&HEALTH_REASON)
            .send_with("GET", "/health?serializable=true", &[], None);
        for path in ["/version", "/health"] {
            for method in ["POST", "PUT", "DELETE"] {
                t.send_with(method, path, &[], None);
            }
        }
    });
}

#[test]
fn paths_and_methods_that_are_none() {
    conform("paths_and_methods_that_are_none", |t| {
        let json = &[("Content-Type", "application/json")];
        for path in [
            "/v3/",
            "/v3/kv",
            "/v3/kv/",
            "/v3/kv/nothing",
            "/v3/kv/range/",
            "/v3/nothing",
            "/v3/watch/",
            "/v3/kv/range%20",
            "/v3/kv/range:x",
            "/",
            "/v2/keys",
            "/v3alpha/kv/range",
            "/V3/kv/range",
            "/versions",
            "/version/",
            "/health/",
        ] {
            t.send_with("POST", path, json, Some(b"{}"));
            t.send_with("GET", path, &[], None);
        }
        for path in [
            "/v3/kv/range",
            "/v3/kv/txn",
            "/v3/watch",
            "/v3/lease/grant",
            "/v3/lease/leases",
        ] {
            for method in ["GET", "PUT", "DELETE", "PATCH"] {
                t.send_with(method, path, &[], None);
            }
        }
        t.send("POST", "/v3/kv/range?key=Yg==", r#"{"key":"YQ=="}"#);
    });
}

#[test]
fn older_paths_of_leases() {
    conform("older_paths_of_leases", |t| {
        let lease = t.grant(60);
        t.post("kv/lease/timetolive", json!({ "ID": lease }));
        t.post("kv/lease/leases", json!({}));
        t.post("kv/lease/revoke", json!({ "ID": lease }));
    });
}

#[test]
fn logging_in_where_nobody_has_to() {
    conform("logging_in_where_nobody_has_to", |t| {
        t.post(
            "auth/authenticate",
            json!({ "name": "root", "password": "x" }),
        );
        t.post("auth/authenticate", json!({}));
        // A token that was never asked for does no harm.
        let headers = [
            ("Content-Type", "application/json"),
            ("Authorization", "whatever"),
        ];
        let body = Some(&br#"{"key":"YQ=="}"#[..]);
        t.allow(&NEEDLESS_TOKEN)
            .send_with("POST", "/v3/kv/range", &headers, body);
    });
}
