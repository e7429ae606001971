//! Whatever stands under the prefix without being a member: skipped, counted, told once.

mod follow;
mod history;
mod support;

use follow::{Follower, SOON, delete, key, patient, put, relist, value};
use headcount::Builder;
use parking_lot::Mutex;
use serde_json::json;
use support::etcd::Etcd;
use support::gateway::{Gateway, b64};
use support::proxy::Proxy;
use support::wait::until;

fn put_raw(etcd: &Gateway, key: &[u8], value: &[u8]) {
    let body = json!({ "key": b64(key), "value": b64(value) });
    assert_eq!(etcd.post("/v3/kv/put", &body).0, 200);
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
    // A name beyond its bound, and one nearly as long as etcd lets a key be.
    for length in [1025, 1_400_000] {
        let mut name = b"a/".to_vec();
        name.resize(length, b'x');
        corpus.push((at(&name), good.clone(), "bad_key"));
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
    // Its lease lives on.
    follower.wait(SOON, &format!("RemoveMember a/1@{life} (deregistered)"));
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
    // A busy machine may lose sight of etcd for a while: not what this is about.
    let mut told = follower.news(&gateway);
    told.retain(|line| !line.starts_with("Store"));
    let wanted = ["Add", "Update"].map(|what| format!("{what}Member mis/match@{life}"));
    assert_eq!(told, [&wanted[0], "Synced", &wanted[1]]);
    assert_eq!(follower.cluster.stats().skipped.mismatched, 1);
    assert_eq!(warnings("mis/match at"), 1);
}
