//! What is listed, and what is not: pages, neighbours, hostile data, filters, limits.

mod follow;
mod history;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use follow::{Follower, SOON, delete, key, ms, patient, put, put_all, relist, value};
use headcount::Builder;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, Request};
use support::gateway::int;
use support::proxy::Proxy;
use support::wait::{throughout, until};

/// Failure-modes row 5: between the pages somebody else writes; the listing is of one revision, and
/// the stream brings the rest.
#[test]
fn g1_pages_are_of_one_revision_while_others_write() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let members: Vec<_> = (0..3300)
        .map(|n| (key(&format!("a/{n:04}")), value(&format!("a/{n:04}"), n)))
        .collect();
    put_all(&gateway, &members);
    let writer = Mutex::new(etcd.gateway());
    let second_page = AtomicUsize::new(0);
    let answer = move |request: &support::fake::Request| {
        // The first page, which may be asked for twice, is of revision 0: the newest.
        let pinned = request.path == "/v3/kv/range" && int(&request.body["revision"]) > 0;
        if pinned && second_page.fetch_add(1, SeqCst) == 0 {
            let etcd = writer.lock();
            // On the page that was read, on one to come, and on none yet.
            delete(&etcd, "a/0001");
            delete(&etcd, "a/3299");
            put(&etcd, "a/0002", "new");
            put(&etcd, "a/3200", "new");
            put(&etcd, "a/0000x", "new");
            put(&etcd, "b/1", "new");
        }
        None
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let mut follower = Follower::start(patient([relay.endpoint()]));
    follower.settle(&gateway);
    // The two of the marker are among them. Those six may have come before anybody listened.
    assert_eq!(follower.cluster.stats().events, 3300 + 6 + 2);
    let pages = relay.requests();
    let pages = pages
        .iter()
        .filter(|request| request.path == "/v3/kv/range");
    let revisions: Vec<i64> = pages.map(|page| int(&page.body["revision"])).collect();
    let pinned: Vec<i64> = revisions.into_iter().filter(|&at| at > 0).collect();
    assert!(
        pinned.len() >= 2 && pinned.iter().all(|at| *at == pinned[0]),
        "{pinned:?}"
    );
}

/// Failure-modes row 22.
#[test]
fn g13_neighbours_of_the_prefix_are_nobody() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let neighbours = [
        "pitaya/servers0/gate/1",
        "pitaya/servers2/gate/1",
        "pitaya/servers",
        "pitaya/server/gate/1",
        "pitaya/servers.bak/gate/1",
        "pitaya/servers-/gate/1",
        "pitaya/servers-gone",
        "pitaya/servers-gone/gate/1/x",
        "pitaya/servers-gone/gate/1/7",
        "pitaya/bindings/gate/7",
        "pitaya/groups/a",
        "pitaya/health-check",
        "pitaya2/servers/gate/1",
        "pitay/servers/gate/1",
        "servers/gate/1",
    ];
    for at_listing in [true, false] {
        let mut follower = Follower::start(patient([etcd.endpoint()]));
        for key in neighbours {
            gateway.put(key, value("gate/1", 1), 0);
        }
        let life = put(&gateway, "gate/1", 1);
        assert_eq!(
            follower.news(&gateway).last(),
            Some(&format!("AddMember gate/1@{life}")),
            "at the listing: {at_listing}"
        );
        assert_eq!(follower.cluster.members().len(), 1);
        assert_eq!(follower.cluster.stats().skipped, Default::default());
        delete(&gateway, "gate/1");
    }
}

/// Pitaya's type blacklist: an exclusion never hides oneself.
#[test]
fn type_filters_and_self() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for name in ["type1/a", "type2/b", "type3/c", "type4/d"] {
        put(&gateway, name, 1);
    }
    let seen = |builder: Builder| {
        let cluster = builder.member("type1", "self").start().expect("it starts");
        let names = |members: Vec<Arc<headcount::Member>>| {
            let names = members.iter().map(|m| m.name().to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        put(&gateway, "type1/late", 1);
        let life = put(&gateway, "type3/late", 1);
        until(SOON, "type3/late", || {
            cluster
                .member("type3", "late")
                .is_some_and(|m| m.incarnation() == life)
        });
        let names = names(cluster.members());
        delete(&gateway, "type1/late");
        delete(&gateway, "type3/late");
        names
    };
    let base = || patient([etcd.endpoint()]);
    assert_eq!(
        seen(base()),
        "type1/a type1/late type1/self type2/b type3/c type3/late type4/d"
    );
    assert_eq!(
        seen(base().except_type("type2")),
        "type1/a type1/late type1/self type3/c type3/late type4/d"
    );
    assert_eq!(
        seen(base().except_type("type1").except_type("type4")),
        "type1/self type2/b type3/c type3/late"
    );
    assert_eq!(
        seen(base().only_type("type3")),
        "type1/self type3/c type3/late"
    );
}

#[test]
fn g13_members_beyond_the_limit_wait_for_room() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for n in 2..=5 {
        put(&gateway, &format!("a/{n}"), n);
    }
    let proxy = Proxy::start(&etcd.endpoint());
    let builder = patient([proxy.endpoint()])
        .max_members(3)
        .reconcile_interval(ms(200));
    let mut follower = Follower::start(builder.request_timeout(ms(1800)).stall_bound(ms(2000)));
    follower.wait(SOON, "Synced");
    assert_eq!(follower.count("AddMember"), 3);
    // Newcomers, and listings with newcomers in front, push nobody out.
    put(&gateway, "a/1", 1);
    relist(&follower, &gateway, &proxy);
    throughout(ms(1500), "nothing is told", || {
        follower.next(ms(10)).is_none()
    });
    assert!(follower.cluster.stats().skipped.over_limit >= 2);
    assert_eq!(follower.cluster.stats().relists.lost_events, 0);
    delete(&gateway, "a/3");
    follower.next(SOON).expect("it is gone");
    follower.next(SOON).expect("another takes its place");
    assert_eq!(follower.count("RemoveMember a/3"), 1);
    assert_eq!(follower.count("AddMember"), 4);
    assert_eq!(follower.cluster.members().len(), 3);
    let relists = follower.cluster.stats().relists;
    assert_eq!((relists.lost_events, relists.room), (0, 1));
}

/// Pitaya rows 2, 3, 15: a PUT on a known id is an update, an identical one is nothing, and
/// identity is (type, id).
#[test]
fn g3_updates_identical_puts_and_identity() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let mut follower = Follower::start(patient([etcd.endpoint()]));
    let x = put(&gateway, "x/same", 1);
    let y = put(&gateway, "y/same", 1);
    put(&gateway, "x/same", 2);
    put(&gateway, "x/same", 2);
    let lease = gateway.grant(600);
    gateway.put(&key("x/same"), value("x/same", 2), lease);
    delete(&gateway, "y/same");
    let told = follower.news(&gateway);
    assert_eq!(
        told,
        [
            "Synced".to_owned(),
            format!("AddMember x/same@{x}"),
            format!("AddMember y/same@{y}"),
            format!("UpdateMember x/same@{x}"),
            format!("RemoveMember y/same@{y} (deregistered)"),
        ]
    );
    let member = follower.cluster.member("x", "same").expect("it is there");
    assert_eq!(
        (member.metadata().get("m"), member.lease()),
        (Some("2"), lease)
    );
    assert_eq!(follower.cluster.members_of("x").len(), 1);
    assert!(follower.cluster.members_of("y").is_empty());
}

/// Pitaya's own case of a bulk parse: the fields come through intact, whatever their order or case.
#[test]
fn what_go_writes_is_read_intact() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let metadata = [
        (json!({}), vec![]),
        (Value::Null, vec![]),
        (
            json!({ "zeta": "1", "alpha": "<&>" }),
            vec![("alpha", "<&>"), ("zeta", "1")],
        ),
        (
            json!({ "grpcHost": "10.0.0.1", "grpcPort": "3434" }),
            vec![("grpcHost", "10.0.0.1"), ("grpcPort", "3434")],
        ),
        (
            json!({ "ключ": "значение\n\u{1}" }),
            vec![("ключ", "значение\n\u{1}")],
        ),
    ];
    for (n, (metadata, _)) in metadata.iter().enumerate() {
        let go = json!({ "id": n.to_string(), "type": "go", "metadata": metadata,
                         "frontend": n % 2 == 0, "hostname": format!("vm{n}") });
        gateway.put(&key(&format!("go/{n}")), go.to_string(), 0);
    }
    gateway.put(
        &key("go/odd"),
        r#" {"HostName":"h","new":[1],"TYPE":"go","FRONTEND":true,"iD":"odd"} "#,
        0,
    );
    let follower = Follower::start(patient([etcd.endpoint()]));
    for (n, (_, wanted)) in metadata.iter().enumerate() {
        let member = follower
            .cluster
            .member("go", &n.to_string())
            .expect("it is there");
        assert_eq!(member.metadata().iter().collect::<Vec<_>>(), *wanted);
        assert_eq!(member.is_frontend(), n % 2 == 0);
        assert_eq!(member.hostname(), format!("vm{n}"));
    }
    let odd = follower.cluster.member("go", "odd").expect("it is there");
    assert!(odd.is_frontend() && odd.hostname() == "h" && odd.metadata().is_empty());
    assert_eq!(follower.cluster.stats().skipped, Default::default());
}

/// What is too much for the way, or for etcd, in the time that a request has, comes in smaller
/// pages.
#[test]
fn g1_g9_pages_that_do_not_come_in_time_are_asked_for_smaller() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let members: Vec<_> = (0..300)
        .map(|n| (key(&format!("a/{n:03}")), value(&format!("a/{n:03}"), n)))
        .collect();
    put_all(&gateway, &members);
    let large = |request: &Request| {
        let limit = int(&request.body["limit"]);
        (request.path == "/v3/kv/range" && limit > 20).then_some(Reply::Silence)
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), large, |_, line| Some(line));
    let builder = patient([relay.endpoint()]).request_timeout(ms(500));
    let follower = Follower::start(builder);
    assert_eq!(follower.cluster.members().len(), 300);
    // 1000 and 125 in vain; and pages that grow again, until that is in vain as well.
    let asked = relay.count("/v3/kv/range");
    assert!(asked < 100, "{asked}");
}
