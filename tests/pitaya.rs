//! Wire compatibility with Pitaya's Go servers: the contract's points, and Pitaya's own test cases
//! as black-box tests. What they say of lost leases is in `registration.rs`, of the order of a
//! take-over (point 5) in `conflict.rs`.

mod support;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use headcount::{Cluster, Error, Member};
use parking_lot::Mutex;

use support::etcd::Etcd;
use support::fake::FakeGateway;
use support::gateway::{Gateway, unb64};
use support::wait::until;
use told::{SOON, Told, key, member, observer};

/// A server as Go writes it.
fn go(name: &str) -> String {
    let (server_type, id) = name.split_once('/').expect("type/id");
    format!(
        r#"{{"id":"{id}","type":"{server_type}","metadata":null,"frontend":false,"hostname":"go"}}"#
    )
}

fn names(members: &[Arc<Member>]) -> Vec<&str> {
    members.iter().map(|m| m.name()).collect()
}

/// Waits until the view is made of just these.
#[track_caller]
fn sees(cluster: &Cluster, wanted: &[&str]) {
    let there = cluster.wait_for(|members| names(members) == wanted, SOON);
    assert!(there, "{:?}, not {wanted:?}", names(&cluster.members()));
}

/// Our value, with the one key of ours in its metadata taken out.
#[track_caller]
fn without_token(gateway: &Gateway, name: &str) -> String {
    let text = gateway.get(&key(name)).expect("registered").text();
    let token = text.find(r#""headcount.instance":""#).expect("a token");
    let rest = &text[token + r#""headcount.instance":""#.len()..];
    let (value, rest) = rest.split_once('"').expect("its end");
    assert!(value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()));
    let before = &text[..token];
    // The comma behind it, or else the one before it.
    match (rest.strip_prefix(','), before.strip_suffix(',')) {
        (Some(rest), _) => format!("{before}{rest}"),
        (None, Some(before)) => format!("{before}{rest}"),
        (None, None) => format!("{before}{rest}"),
    }
}

/// Point 2, and "JSON text equals the canonical one for metadata map / nil / empty".
#[test]
fn pitaya_2_values_are_byte_equal_to_gos() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    type Case<'a> = (&'a [(&'a str, &'a str)], bool, &'a str);
    let cases: [Case; 4] = [
        (
            &[],
            false,
            r#"{"id":"b","type":"gate","metadata":{},"frontend":false,"hostname":"vm"}"#,
        ),
        (
            &[("zeta", "1"), ("alpha", "<&>")],
            true,
            r#"{"id":"b","type":"gate","metadata":{"alpha":"\u003c\u0026\u003e","zeta":"1"},"frontend":true,"hostname":"vm"}"#,
        ),
        (
            &[
                ("grpcHost", "10.0.0.1"),
                ("grpcPort", "3434"),
                ("region", "eu"),
            ],
            false,
            r#"{"id":"b","type":"gate","metadata":{"grpcHost":"10.0.0.1","grpcPort":"3434","region":"eu"},"frontend":false,"hostname":"vm"}"#,
        ),
        (
            &[("é\u{2028}\"\\", "\u{1}\n\t\r/\u{7f}漢")],
            false,
            "{\"id\":\"b\",\"type\":\"gate\",\"metadata\":{\"é\\u2028\\\"\\\\\":\"\\u0001\\n\\t\\r/\u{7f}漢\"},\"frontend\":false,\"hostname\":\"vm\"}",
        ),
    ];
    for (metadata, frontend, wanted) in cases {
        let mut builder = member(etcd.endpoint(), "gate/b", 5).frontend(frontend);
        for (k, v) in metadata {
            builder = builder.metadata(*k, *v);
        }
        let cluster = builder.start().expect("a member");
        assert_eq!(without_token(&gateway, "gate/b"), wanted);
        let me = cluster.member("gate", "b").expect("self is listed");
        let seen: Vec<(&str, &str)> = me.metadata().iter().collect();
        let mut sorted = metadata.to_vec();
        sorted.sort();
        assert_eq!(seen, sorted);
        assert_eq!((me.is_frontend(), me.hostname()), (frontend, "vm"));
    }
}

/// Point 4; "after registration exactly one key, member in the view", "init: lease held, self
/// listed", "get self by id equals the registered one".
#[test]
fn pitaya_4_one_key_on_a_lease_renewed_at_a_third() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let relay = FakeGateway::relay(etcd.endpoint(), |_, line| Some(line));
    let ttl = 3;
    let cluster = member(relay.endpoint(), "gate/1", ttl)
        .start()
        .expect("a member");
    let keys = gateway.list_prefix("pitaya/");
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].key, "pitaya/servers/gate/1");
    assert_eq!(gateway.leases(), [keys[0].lease]);
    let me = cluster.member("gate", "1").expect("self is listed");
    assert_eq!(
        (me.lease(), me.incarnation()),
        (keys[0].lease, keys[0].create_revision)
    );

    let mut least = i64::MAX;
    until(SOON, "four renewals", || {
        least = least.min(gateway.time_to_live(me.lease()));
        relay.count("/v3/lease/keepalive") >= 4
    });
    // One renewal was never missed.
    assert!(least >= 1, "{least} s were left");
    let at: Vec<Instant> = relay
        .requests()
        .iter()
        .filter(|r| r.path == "/v3/lease/grant" || r.path == "/v3/lease/keepalive")
        .map(|r| r.at)
        .collect();
    let third = Duration::from_secs(ttl) / 3;
    for pair in at.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap > third * 8 / 10 && gap < third * 3 / 2, "{gap:?}");
    }

    // Leaving: gone for everybody at once. (The lease carries the gone note, and runs out.)
    cluster.leave().expect("told");
    assert_eq!(gateway.list_prefix("pitaya/servers/"), []);
}

/// Points 3 and 7; "bulk parse of 9 payloads, fields intact".
#[test]
fn pitaya_3_members_as_others_write_them() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let lease = gateway.grant(60);
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    type Fields<'a> = (&'a [(&'a str, &'a str)], bool, &'a str);
    let payloads: [(&str, &str, Fields); 9] = [
        (
            "a/1",
            r#"{"id":"1","type":"a","metadata":null,"frontend":false,"hostname":"h"}"#,
            (&[], false, "h"),
        ),
        (
            "a/2",
            r#"{"id":"2","type":"a","metadata":{},"frontend":true,"hostname":"h"}"#,
            (&[], true, "h"),
        ),
        (
            "a/3",
            r#"{"id":"3","type":"a","frontend":true,"hostname":"h"}"#,
            (&[], true, "h"),
        ),
        (
            "b/1",
            r#"{"id":"1","type":"b","metadata":{"k":"\u003c\u0026\u003e"},"frontend":false,"hostname":"h"}"#,
            (&[("k", "<&>")], false, "h"),
        ),
        (
            "b/2",
            r#"{"ID":"2","Type":"b","METADATA":{"K":"v"},"Frontend":true,"HostName":"h"}"#,
            (&[("K", "v")], true, "h"),
        ),
        (
            "b/3",
            r#"{"hostname":"h","frontend":false,"metadata":{"z":"1","a":"2"},"type":"b","id":"3"}"#,
            (&[("a", "2"), ("z", "1")], false, "h"),
        ),
        (
            "c/1",
            r#" { "id" : "1" , "type" : "c" , "new" : [ { } ] , "hostname" : "h" } "#,
            (&[], false, "h"),
        ),
        (
            "c/2",
            r#"{"id":"2","type":"c","metadata":{"k":null},"frontend":null,"hostname":null}"#,
            (&[("k", "")], false, ""),
        ),
        // The key says who it is, whatever the value claims.
        (
            "c/3",
            r#"{"id":"1","type":"a","metadata":null,"frontend":false,"hostname":"h"}"#,
            (&[], false, "h"),
        ),
    ];
    for (name, value, _) in &payloads {
        gateway.put(&key(name), value, lease);
    }
    let mut wanted: Vec<&str> = payloads.iter().map(|(name, ..)| *name).collect();
    sees(&cluster, &wanted);
    // And the same by a listing.
    let late = observer(etcd.endpoint()).start().expect("an observer");
    for cluster in [&cluster, &late] {
        for (name, _, (metadata, frontend, hostname)) in &payloads {
            let (server_type, id) = name.split_once('/').expect("type/id");
            let m = cluster.member(server_type, id).expect("seen");
            assert_eq!(m.metadata().iter().collect::<Vec<_>>(), *metadata, "{name}");
            assert_eq!(
                (m.is_frontend(), m.hostname()),
                (*frontend, *hostname),
                "{name}"
            );
            assert_eq!((m.lease(), m.instance()), (lease, None), "{name}");
        }
    }
    // A value that every Go node would crash on, and others, cost nobody anything.
    for (id, value) in [("4", "null"), ("5", ""), ("6", "[]"), ("7", "\"x\"")] {
        gateway.put(&key(&format!("c/{id}")), value, lease);
    }
    gateway.put(&key("d/1"), go("d/1"), lease);
    wanted.push("d/1");
    sees(&cluster, &wanted);
}

/// "delete → gone by id and by type", "a foreign PUT of the same type: by-type count 1→2; its
/// DELETE: 2→1", "duplicate DELETE harmless"; weakness 3: `y/same` is not `x/same`.
#[test]
fn pitaya_put_and_delete_of_others() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let lease = gateway.grant(60);
    let cluster = member(etcd.endpoint(), "x/same", 5)
        .start()
        .expect("a member");
    let mut told = Told::by(&cluster);
    assert_eq!(names(&cluster.members_of("x")), ["x/same"]);
    gateway.put(&key("x/other"), go("x/other"), lease);
    gateway.put(&key("y/same"), go("y/same"), lease);
    sees(&cluster, &["x/other", "x/same", "y/same"]);
    assert_eq!(cluster.members_of("x").len(), 2);

    assert_eq!(gateway.delete(&key("y/same")), 1);
    assert_eq!(gateway.delete(&key("x/other")), 1);
    assert_eq!(gateway.delete(&key("x/other")), 0);
    assert_eq!(gateway.delete(&key("x/never")), 0);
    gateway.put(&key("z/mark"), go("z/mark"), lease);
    sees(&cluster, &["x/same", "z/mark"]);
    assert_eq!(cluster.members_of("x").len(), 1);
    assert!(cluster.member("x", "other").is_none() && cluster.members_of("y").is_empty());
    told.next(SOON, "AddMember z/mark@");
    // Their leases are looked at first, which holds up nobody else.
    until(SOON, "both departures", || told.departures() >= 2);
    assert_eq!(told.departures(), 2);
}

/// "register 0/3/3 members: list = those + self".
#[test]
fn pitaya_sync_lists_those_and_self() {
    let etcd = Etcd::start();
    let mut others: Vec<Cluster> = Vec::new();
    let mut wanted: Vec<String> = vec!["self/0".into()];
    for round in 0..3 {
        if round > 0 {
            for n in 0..3 {
                let name = format!("other{round}/{n}");
                others.push(member(etcd.endpoint(), &name, 5).start().expect("a member"));
                wanted.push(name);
            }
        }
        wanted.sort();
        let cluster = member(etcd.endpoint(), "self/0", 5)
            .start()
            .expect("a member");
        assert_eq!(names(&cluster.members()), wanted);
    }
    let last = others.last().expect("six");
    wanted.retain(|name| name != "self/0");
    sees(last, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
}

/// "type blacklist nil / [type2] / [type1, type4]: only the rest plus self, even when self's type is
/// blacklisted".
#[test]
fn pitaya_blacklisted_types_are_not_seen_but_self_is() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let lease = gateway.grant(60);
    for n in 1..=4 {
        let name = format!("type{n}/id{n}");
        gateway.put(&key(&name), go(&name), lease);
    }
    let cases: [(&[&str], &[&str]); 3] = [
        (
            &[],
            &[
                "type1/id1",
                "type1/self",
                "type2/id2",
                "type3/id3",
                "type4/id4",
            ],
        ),
        (
            &["type2"],
            &["type1/id1", "type1/self", "type3/id3", "type4/id4"],
        ),
        (
            &["type1", "type4"],
            &["type1/self", "type2/id2", "type3/id3"],
        ),
    ];
    for (excluded, wanted) in cases {
        let mut builder = member(etcd.endpoint(), "type1/self", 5);
        for server_type in excluded {
            builder = builder.except_type(*server_type);
        }
        let cluster = builder.start().expect("a member");
        assert_eq!(names(&cluster.members()), wanted);
        // The same for what comes later.
        let mut told = Told::by(&cluster);
        told.next(SOON, "Synced");
        for name in ["type1/late", "type2/late", "type3/late"] {
            gateway.put(&key(name), go(name), lease);
        }
        told.next(SOON, "AddMember type3/late@");
        let hidden = told.all("AddMember type1/late@").is_empty();
        assert_eq!(hidden, excluded.contains(&"type1"));
        let hidden = told.all("AddMember type2/late@").is_empty();
        assert_eq!(hidden, excluded.contains(&"type2"));
        for name in ["type1/late", "type2/late", "type3/late"] {
            gateway.delete(&key(name));
        }
    }
}

/// Point 1; "foreign prefix ignored"; row 22: neighbours of the prefix, and other keys below it.
#[test]
fn pitaya_foreign_keys_are_ignored() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let mut told = Told::by(&cluster);
    for foreign in [
        "pitaya2/servers/a/1",
        "pitay/servers/a/1",
        "pitaya/servers2/a/1",
        "pitaya/servers-/a/1",
        "pitaya/servers.d/a/1",
        "pitaya/server/a/1",
        "pitaya/bindings/gate/uid",
        "pitaya/groups/name/members/uid",
        "pitaya/health-check",
        "servers/a/1",
        // Below `servers/`, but neither Go nor we take them for a member.
        "pitaya/servers/a",
        "pitaya/servers/a/1/x",
        "pitaya/servers//1",
        "pitaya/servers/a/",
    ] {
        gateway.put(foreign, go("a/1"), 0);
    }
    gateway.put(&key("mark/1"), go("mark/1"), 0);
    sees(&cluster, &["mark/1"]);
    told.next(SOON, "AddMember mark/1@");
    assert_eq!(told.all("AddMember").len(), 1);
    let late = observer(etcd.endpoint()).start().expect("an observer");
    sees(&late, &["mark/1"]);
    // A prefix of one's own is another cluster.
    let elsewhere = member(etcd.endpoint(), "a/1", 5).prefix("pitaya2/").start();
    let elsewhere = elsewhere.expect("a member");
    assert_eq!(names(&elsewhere.members()), ["a/1"]);
}

/// Point 6: whatever we do, below `servers/` there is nothing of ours but members.
#[test]
fn pitaya_6_nothing_but_members_below_servers() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let raw = gateway.watch_prefix("pitaya/", 0);
    let first = member(etcd.endpoint(), "gate/1", 5)
        .start()
        .expect("a member");
    first.update_metadata([("k", "v")]).expect("put");
    let second = member(etcd.endpoint(), "gate/1", 5)
        .start()
        .expect("taken over");
    gateway.revoke(gateway.get(&key("gate/1")).expect("registered").lease);
    until(SOON, "it is back", || {
        second.incarnation().is_some() && gateway.get(&key("gate/1")).is_some()
    });
    second.leave().expect("told");
    drop(first);
    gateway.put("pitaya/end", "", 0);
    let mut seen = Vec::new();
    raw.find(SOON, |line| {
        let events = line["result"]["events"].as_array().cloned();
        for event in events.unwrap_or_default() {
            seen.push(unb64(&event["kv"]["key"]));
        }
        seen.iter().any(|key| key == "pitaya/end")
    });
    seen.retain(|key| key != "pitaya/end");
    assert!(seen.len() >= 8, "{seen:?}");
    for key in &seen {
        let note = key.starts_with("pitaya/servers-gone/gate/1/");
        assert!(note || key == "pitaya/servers/gate/1", "{key}");
    }
}

/// "From the C++ library: empty id/type rejected", and what Go could not split.
#[test]
fn pitaya_1_names_that_make_no_key_are_refused() {
    for (server_type, id) in [
        ("", "1"),
        ("gate", ""),
        ("", ""),
        ("ga/te", "1"),
        ("gate", "/"),
    ] {
        // Nobody is there: it is refused before anybody is asked.
        let builder = Cluster::builder().endpoints(["http://127.0.0.1:9"]);
        let refused = builder.member(server_type, id).start();
        assert!(
            matches!(
                refused,
                Err(Error::Setting {
                    setting: "member",
                    ..
                })
            ),
            "{refused:?}"
        );
    }
}

/// "late listener gets the current members, a removed listener nothing".
#[test]
fn pitaya_late_and_removed_listeners() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for name in ["a/1", "b/1"] {
        gateway.put(&key(name), go(name), 0);
    }
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let heard = Arc::new(Mutex::new(0));
    let count = Arc::clone(&heard);
    let guard = cluster.add_listener(move |_: &headcount::Event| *count.lock() += 1);
    until(SOON, "it is told of both, and Synced", || {
        *heard.lock() == 3
    });
    drop(guard);
    let mut late = Told::by(&cluster);
    late.next(SOON, "AddMember a/1@");
    late.next(SOON, "AddMember b/1@");
    late.next(SOON, "Synced");
    gateway.put(&key("c/1"), go("c/1"), 0);
    late.next(SOON, "AddMember c/1@");
    assert_eq!(*heard.lock(), 3);
}
