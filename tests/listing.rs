//! What is listed, and what is not: pages, neighbours, hostile data, filters, limits.

mod follow;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use follow::{Follower, SOON, delete, key, ms, patient, put, put_all, value};
use headcount::Builder;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::fake::FakeGateway;
use support::gateway::{Gateway, b64, int};
use support::proxy::Proxy;
use support::wait::{throughout, until};

fn put_raw(etcd: &Gateway, key: &[u8], value: &[u8]) {
    let body = json!({ "key": b64(key), "value": b64(value) });
    assert_eq!(etcd.post("/v3/kv/put", &body).0, 200);
}

/// Makes the running observer list everything anew.
#[track_caller]
fn relist(follower: &Follower, etcd: &Gateway, proxy: &Proxy) {
    let before = follower.cluster.stats().relists.compacted;
    for n in 0..3 {
        etcd.put("elsewhere", n.to_string(), 0);
    }
    etcd.compact(etcd.revision());
    proxy.cut();
    until(SOON, "a listing", || {
        follower.cluster.stats().relists.compacted > before
    });
}

/// The warnings of this test binary that mention something.
fn warnings(word: &str) -> usize {
    Log::lines()
        .lock()
        .iter()
        .filter(|line| line.contains(word))
        .count()
}

struct Log(Mutex<Vec<String>>);

impl Log {
    /// Collects from the first call on.
    fn lines() -> &'static Mutex<Vec<String>> {
        static LOG: Log = Log(Mutex::new(Vec::new()));
        if log::set_logger(&LOG).is_ok() {
            log::set_max_level(log::LevelFilter::Warn);
        }
        &LOG.0
    }
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }
    fn log(&self, record: &log::Record) {
        self.0.lock().push(record.args().to_string());
    }
    fn flush(&self) {}
}

/// Failure-modes row 5: between the pages somebody else writes; the listing is of one revision, and
/// the stream brings the rest.
#[test]
fn g1_pages_are_of_one_revision_while_others_write() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let members: Vec<_> = (0..2300)
        .map(|n| (key(&format!("a/{n:04}")), value(&format!("a/{n:04}"), n)))
        .collect();
    put_all(&gateway, &members);
    let writer = Mutex::new(etcd.gateway());
    let ranges = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ranges);
    let answer = move |request: &support::fake::Request| {
        if request.path == "/v3/kv/range" && counted.fetch_add(1, SeqCst) == 1 {
            let etcd = writer.lock();
            // On the page that was read, on one to come, and on none yet.
            delete(&etcd, "a/0001");
            delete(&etcd, "a/2299");
            put(&etcd, "a/0002", "new");
            put(&etcd, "a/2200", "new");
            put(&etcd, "a/0000x", "new");
            put(&etcd, "b/1", "new");
        }
        None
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let mut follower = Follower::start(patient([relay.endpoint()]));
    follower.wait(SOON, "Synced");
    assert_eq!(follower.count("AddMember"), 2300);
    follower.settle(&gateway);
    assert_eq!(follower.told.len(), 2300 + 1 + 6);
    let pages = relay.requests();
    let pages = pages
        .iter()
        .filter(|request| request.path == "/v3/kv/range");
    let revisions: Vec<i64> = pages.map(|page| int(&page.body["revision"])).collect();
    assert_eq!(revisions.len(), 3, "{revisions:?}");
    assert_eq!(revisions[0], 0, "the newest");
    assert!(
        revisions[1] > 0 && revisions[1] == revisions[2],
        "{revisions:?}"
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

/// Names, of all kinds that stand for something that is no member, and how it counts.
fn corpus() -> Vec<(Vec<u8>, Vec<u8>, &'static str)> {
    let at = |rest: &[u8]| [b"pitaya/servers/", rest].concat();
    let good = value("bad/x", 1).into_bytes();
    let mut corpus: Vec<(Vec<u8>, Vec<u8>, &str)> = vec![];
    for rest in [
        &b"one"[..],
        b"a/b/c",
        b"a/",
        b"/b",
        b"/",
        b"",
        b"a/\xff\xfe",
        b"a//b",
    ] {
        corpus.push((at(rest), good.clone(), "bad_key"));
    }
    let values: [&[u8]; 12] = [
        b"null",
        b"",
        b"[]",
        b"7",
        b"\"text\"",
        b"{",
        b"{}{}",
        b"\xff\xfe",
        b"{\"id\":7}",
        b"{\"metadata\":{\"a\":1}}",
        b"{\"frontend\":\"yes\"}",
        &[b'['; 60_000],
    ];
    for (n, bad) in values.into_iter().enumerate() {
        corpus.push((
            at(format!("bad/{n}").as_bytes()),
            bad.to_vec(),
            "unparsable",
        ));
    }
    let mut huge = value("bad/huge", "x".repeat(65_536)).into_bytes();
    corpus.push((at(b"bad/huge"), huge.clone(), "too_large"));
    huge.resize(1_400_000, b' ');
    corpus.push((at(b"bad/huger"), huge, "too_large"));
    corpus
}

/// Failure-modes row 16, pitaya row 1: each is skipped, counted, and told once, however often it is
/// listed; the good ones among them are members.
#[test]
fn g13_hostile_corpus_is_skipped_counted_and_told_once() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let corpus = corpus();
    Log::lines();
    let proxy = Proxy::start(&etcd.endpoint());
    // First by the stream, then by the first listing.
    for round in 0..2 {
        let mut follower = Follower::start(patient([proxy.endpoint()]));
        if round == 0 {
            corpus
                .iter()
                .for_each(|(key, value, _)| put_raw(&gateway, key, value));
            put(&gateway, "bad/good", 1);
        }
        // Whatever was put before it has been seen when this has.
        let after = put(&gateway, "zz/after", round);
        until(SOON, "all of it", || {
            follower.cluster.view_revision() >= after
        });
        delete(&gateway, "zz/after");
        follower.drain();
        let good = follower.told.iter().filter(|line| line.contains("bad/"));
        assert_eq!(good.count(), 1, "{:?}", follower.told);
        let skipped = follower.cluster.stats().skipped;
        let count = |kind: &str| corpus.iter().filter(|(.., k)| *k == kind).count() as u64;
        assert_eq!(skipped.bad_key, count("bad_key"));
        assert_eq!(skipped.unparsable, count("unparsable"));
        assert_eq!(skipped.too_large, count("too_large"));
        assert_eq!((skipped.over_limit, skipped.mismatched), (0, 0));
        for _ in 0..2 {
            relist(&follower, &gateway, &proxy);
        }
        assert_eq!(follower.cluster.stats().skipped, skipped, "round {round}");
        for n in 0..12 {
            let told = warnings(&format!("servers/bad/{n} at"));
            assert_eq!(told, round + 1, "once by each follower: bad/{n}");
        }
    }
}

/// The same for a value that no reply has room for, which would otherwise stop every listing.
#[test]
fn g13_a_value_beyond_every_bound_stops_nothing() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let small = |builder: Builder| builder.max_value_bytes(1024).max_frame_bytes(64 * 1024);
    for n in 0..300 {
        put(&gateway, &format!("a/{n}"), n);
    }
    gateway.put(&key("a/1x"), "x".repeat(200_000), 0);
    let mut follower = Follower::start(small(patient([etcd.endpoint()])));
    follower.wait(SOON, "Synced");
    assert_eq!(follower.count("AddMember"), 300);
    assert_eq!(follower.cluster.stats().skipped.too_large, 1);
    // And by the stream.
    gateway.put(&key("a/2x"), "x".repeat(200_000), 0);
    let life = put(&gateway, "b/1", 1);
    follower.wait(SOON, &format!("AddMember b/1@{life}"));
    assert_eq!(follower.count("AddMember"), 301);
    let stats = follower.cluster.stats();
    assert_eq!((stats.skipped.too_large, stats.relists.oversized), (2, 1));
    gateway.delete(&key("a/1x"));
    gateway.delete(&key("a/2x"));
    follower.settle(&gateway);
}

/// The last good value is kept while a bad one stands, across listings too.
#[test]
fn g6_g13_a_member_whose_value_goes_bad_stays_as_it_was() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    let lease = gateway.grant(600);
    let life = gateway.put(&key("a/1"), value("a/1", "good"), lease);
    follower.wait(SOON, &format!("AddMember a/1@{life}"));
    gateway.put(&key("a/1"), "null", lease);
    relist(&follower, &gateway, &proxy);
    gateway.put(&key("a/1"), "x".repeat(70_000), lease);
    relist(&follower, &gateway, &proxy);
    until(SOON, "both were skipped", || {
        let skipped = follower.cluster.stats().skipped;
        (skipped.unparsable, skipped.too_large) == (1, 1)
    });
    let member = follower.cluster.member("a", "1").expect("it is kept");
    assert_eq!(member.metadata().get("m"), Some("good"));
    gateway.put(&key("a/1"), value("a/1", "better"), lease);
    follower.wait(SOON, &format!("UpdateMember a/1@{life}"));
    gateway.put(&key("a/1"), "null", lease);
    gateway.delete(&key("a/1"));
    follower.wait(SOON, &format!("ServerDown a/1@{life} (unknown)"));
    assert_eq!(follower.told.len(), 4, "{:?}", follower.told);
}

/// Pitaya row 4: the key wins, with one warning, and no relist makes anything of it.
#[test]
fn g3_g13_a_value_that_names_another_member() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    Log::lines();
    let life = gateway.put(&key("mis/match"), value("gate/other", 1), 0);
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    for _ in 0..3 {
        relist(&follower, &gateway, &proxy);
    }
    gateway.put(&key("mis/match"), value("gate/other", 2), 0);
    let wanted = ["Add", "Update"].map(|what| format!("{what}Member mis/match@{life}"));
    assert_eq!(follower.news(&gateway), [&wanted[0], "Synced", &wanted[1]]);
    assert_eq!(follower.cluster.stats().skipped.mismatched, 1);
    assert_eq!(warnings("mis/match at"), 1);
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
