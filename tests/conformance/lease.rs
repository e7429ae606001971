//! Leases: `/v3/lease/…`.

use std::time::Duration;

use serde_json::json;

use super::differences::{EMPTY_STREAM, UNREADABLE_STREAM};
use super::talk::Talk;
use crate::conform;
use crate::support::gateway::b64;
use crate::support::wait::until;

fn put(t: &mut Talk, key: &str, lease: i64) {
    t.quietly(
        "kv/put",
        json!({ "key": b64(key), "value": b64("1"), "lease": lease.to_string() }),
    );
}

#[test]
fn lease_grants() {
    conform("lease_grants", |t| {
        for ttl in [
            60,
            0,
            1,
            2,
            3,
            -1,
            i64::MIN,
            9_000_000_000,
            9_000_000_001,
            i64::MAX,
        ] {
            t.post("lease/grant", json!({ "TTL": ttl.to_string() }));
        }
        t.post("lease/grant", json!({}));
        t.post("lease/grant", json!({ "TTL": 60, "ID": 0 }));
        t.post("lease/grant", json!({ "TTL": "60", "ID": "4711" }));
        t.post("lease/grant", json!({ "TTL": "60", "ID": "4711" }));
        t.post("lease/grant", json!({ "TTL": 7, "ID": 4711 }));
        t.post("lease/grant", json!({ "TTL": 60, "ID": -5 }));
        t.post("lease/grant", json!({ "TTL": 60, "ID": i64::MAX }));
        // Both at fault.
        t.post("lease/grant", json!({ "TTL": i64::MAX, "ID": 4711 }));
        t.post("lease/revoke", json!({ "ID": 4711 }));
        t.post("lease/grant", json!({ "TTL": 60, "ID": 4711 }));
    });
}

#[test]
fn lease_keepalives() {
    conform("lease_keepalives", |t| {
        let lease = t.grant(60);
        t.post("lease/keepalive", json!({ "ID": lease.to_string() }));
        t.post("lease/keepalive", json!({ "ID": lease }));
        t.post("lease/keepalive", json!({ "ID": 4711 }));
        t.post("lease/keepalive", json!({ "ID": 0 }));
        t.post("lease/keepalive", json!({ "ID": -1 }));
        t.post("lease/keepalive", json!({}));
        t.post("lease/revoke", json!({ "ID": lease }));
        t.post("lease/keepalive", json!({ "ID": lease }));
        let least = t.grant(1);
        t.post("lease/keepalive", json!({ "ID": least }));
        // A stream of its own: several in one body, one reply each.
        let (one, two) = (t.grant(61), t.grant(62));
        t.post_text(
            "lease/keepalive",
            &format!(r#"{{"ID":"{one}"}}{{"ID":"4711"}}{{"ID":"{two}"}}"#),
        );
        t.allow(&EMPTY_STREAM).post_text("lease/keepalive", "");
        t.allow(&UNREADABLE_STREAM)
            .post_text("lease/keepalive", "{");
        t.post_text("lease/keepalive", &format!(r#"{{"ID":"{one}"}}{{"#));
    });
}

#[test]
fn lease_times_to_live() {
    conform("lease_times_to_live", |t| {
        let lease = t.grant(60);
        t.post("lease/timetolive", json!({ "ID": lease }));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        for key in ["b", "a", "c"] {
            put(t, key, lease);
        }
        t.post("lease/timetolive", json!({ "ID": lease }));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": false }));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        t.post("kv/deleterange", json!({ "key": b64("a") }));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        t.post("lease/timetolive", json!({ "ID": "4711" }));
        t.post("lease/timetolive", json!({ "ID": "4711", "keys": true }));
        t.post("lease/timetolive", json!({ "ID": 0 }));
        t.post("lease/timetolive", json!({}));
        t.post("lease/timetolive", json!({ "ID": -1 }));
    });
}

#[test]
fn lease_revokes() {
    conform("lease_revokes", |t| {
        let lease = t.grant(60);
        let empty = t.grant(60);
        for key in ["b", "a", "c"] {
            put(t, key, lease);
        }
        t.quietly("kv/put", json!({ "key": b64("d"), "value": b64("1") }));
        t.post("lease/revoke", json!({ "ID": lease.to_string() }));
        t.all();
        t.post("lease/revoke", json!({ "ID": lease }));
        t.post("lease/revoke", json!({ "ID": empty }));
        t.post("lease/revoke", json!({ "ID": 4711 }));
        t.post("lease/revoke", json!({ "ID": 0 }));
        t.post("lease/revoke", json!({}));
        t.post("lease/revoke", json!({ "ID": -1 }));
        t.all();
        t.post("lease/leases", json!({}));
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "lease": lease.to_string() }),
        );
    });
}

#[test]
fn lease_lists() {
    conform("lease_lists", |t| {
        t.post("lease/leases", json!({}));
        // By when they run out.
        for ttl in [500, 100, 300] {
            t.grant(ttl);
        }
        t.post("lease/leases", json!({}));
        let last = t.grant(900);
        let first = t.grant(50);
        t.post("lease/leases", json!({ "ignored": 1 }));
        t.post("lease/revoke", json!({ "ID": first }));
        t.post("lease/leases", json!({}));
        t.post("lease/revoke", json!({ "ID": last }));
        t.post("lease/leases", json!({}));
    });
}

#[test]
fn lease_of_a_key_that_moves_on() {
    conform("lease_of_a_key_that_moves_on", |t| {
        let (old, new) = (t.grant(60), t.grant(60));
        for key in ["a", "b", "c"] {
            put(t, key, old);
        }
        put(t, "a", new);
        put(t, "b", 0);
        for lease in [old, new] {
            t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        }
        t.post("lease/revoke", json!({ "ID": old }));
        t.all();
        t.post("lease/revoke", json!({ "ID": new }));
        t.all();
    });
}

#[test]
fn lease_of_a_key_deleted_and_put_again() {
    conform("lease_of_a_key_deleted_and_put_again", |t| {
        let lease = t.grant(60);
        put(t, "a", lease);
        t.post("kv/deleterange", json!({ "key": b64("a") }));
        put(t, "a", 0);
        t.post("lease/revoke", json!({ "ID": lease }));
        t.all();
    });
}

#[test]
fn lease_that_runs_out() {
    conform("lease_that_runs_out", |t| {
        let lease = t.grant(3);
        for key in ["b", "a", "c"] {
            put(t, key, lease);
        }
        t.quietly("kv/put", json!({ "key": b64("d"), "value": b64("1") }));
        t.post("lease/keepalive", json!({ "ID": lease }));
        let gateway = &t.gateway;
        until(Duration::from_secs(15), "the lease runs out", || {
            gateway.get("a").is_none()
        });
        t.all();
        t.post("lease/keepalive", json!({ "ID": lease }));
        t.post("lease/timetolive", json!({ "ID": lease, "keys": true }));
        t.post("lease/revoke", json!({ "ID": lease }));
        t.post("lease/leases", json!({}));
        t.post(
            "kv/put",
            json!({ "key": b64("a"), "lease": lease.to_string() }),
        );
    });
}

#[test]
fn lease_that_runs_out_without_keys() {
    conform("lease_that_runs_out_without_keys", |t| {
        let lease = t.grant(2);
        let gateway = &t.gateway;
        until(Duration::from_secs(15), "the lease runs out", || {
            gateway.leases().is_empty()
        });
        t.post("lease/timetolive", json!({ "ID": lease }));
        // Did it cost a revision?
        t.post("kv/put", json!({ "key": b64("a") }));
    });
}
