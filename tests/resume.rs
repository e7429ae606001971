//! Nothing is lost, doubled or made up when the connection, or the store's history, goes away.

mod follow;
mod history;
mod support;

use follow::{Follower, SOON, delete, key, leave, ms, patient, put, value};
use history::truth_reader::TruthReader;
use serde_json::json;
use support::etcd::Etcd;
use support::gateway::b64;
use support::proxy::Proxy;
use support::wait::{throughout, until};

const LEAVE: &str = r#"{"reason":"leave"}"#;

/// Changes of 40 members by two writers, each of which is exactly one event: so many a writer, from
/// the `from`th on.
fn churn(etcd: &Etcd, from: usize, changes: usize) {
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let gateway = etcd.gateway();
            scope.spawn(move || {
                for n in from..from + changes {
                    // Joins, is updated twice, leaves.
                    let name = format!("w{writer}/{}", n / 4 % 20);
                    match n % 4 {
                        3 => delete(&gateway, &name),
                        _ => drop(put(&gateway, &name, n)),
                    }
                }
            });
        }
    });
}

/// Failure-modes rows 3, 5.
#[test]
fn g1_g2_g3_resume_after_cuts_loses_nothing() {
    let etcd = Etcd::start();
    let reader = TruthReader::start("pitaya/", vec![etcd.endpoint()]);
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    // The first cut, too, is to find a stream.
    follower.settle(&etcd.gateway());
    for round in 0..50 {
        // In the middle of a frame, of a header, of nothing; and the moment it is back.
        let cut_after = [None, Some(700), Some(150), Some(5000)][round % 4];
        proxy.cut_after(cut_after);
        let connections = proxy.connections();
        proxy.cut();
        churn(&etcd, round * 25, 25);
        match cut_after {
            // A stream stands again. Not by `reconnects`: the cut may have fallen between two
            // streams, and then it is no failure that the next one stands.
            None => follower.settle(&etcd.gateway()),
            Some(_) => until(SOON, "it tries again", || proxy.connections() > connections),
        }
    }
    proxy.pass();
    follower.settle(&etcd.gateway());
    // No change of the 2500 was folded, told twice, or passed over.
    let told = follower.told.iter().filter(|line| line.contains(" w"));
    assert_eq!(told.count(), 2500);
    let reconnects = follower.cluster.stats().reconnects;
    assert!(reconnects >= 10, "most of the uncut ones: {reconnects}");
    follower.never_relisted();
    let judged = follower.judge(&reader);
    assert!(
        judged.of("G2") >= 2500 && judged.of("G6") >= 600,
        "{judged:?}"
    );
    assert_eq!((judged.folded, judged.netted), (0, 0), "{judged:?}");
}

/// Failure-modes row 3: each batch of a catch-up carries the store's newest revision in its header.
#[test]
fn g1_catch_up_cut_after_its_first_batch_loses_nothing() {
    let etcd = Etcd::start();
    let reader = TruthReader::start("pitaya/", vec![etcd.endpoint()]);
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    let from = etcd.gateway().revision() + 1;
    proxy.refuse();
    proxy.cut();
    churn(&etcd, 0, 1250);

    // How long a batch is on the wire.
    let create = json!({ "create_request": {
        "key": b64("pitaya/servers-"), "range_end": b64("pitaya/servers0"),
        "start_revision": from.to_string(), "fragment": true,
    }});
    let gateway = etcd.gateway();
    let raw = gateway.stream("/v3/watch", &create);
    let (_, batch) = raw.find(SOON, |line| line["result"]["events"].is_array());
    let events = batch["result"]["events"].as_array().map_or(0, Vec::len);
    assert!(
        events < 2500,
        "etcd sent {events} at once: nothing to be cut between"
    );
    let length = batch.to_string().len() as u64;

    proxy.cut_after(length * 3 / 2);
    let before = proxy.connections();
    proxy.set_mode(support::proxy::Mode::Pass);
    follower.settle(&etcd.gateway());
    assert!(proxy.connections() >= before + 2);
    assert_eq!(follower.count("AddMember"), 626, "each life");
    assert_eq!(
        follower.told.iter().filter(|l| l.contains(" w")).count(),
        2500
    );
    follower.never_relisted();
    let judged = follower.judge(&reader);
    assert!(judged.of("G2") >= 2500, "{judged:?}");
}

/// Failure-modes rows 4, 5; pitaya row 6: no ghosts, no unseen newcomers, and what is told is what
/// can be known.
#[test]
fn g1_g3_g6_a_compaction_while_disconnected() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let lease = gateway.grant(600);
    for name in [
        "a/same",
        "a/changed",
        "a/left",
        "a/evicted",
        "a/gone",
        "a/restarted",
    ] {
        gateway.put(&key(name), value(name, 1), lease);
    }
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    follower.settle(&gateway);
    follower.told.clear();
    let life = |name: &str| gateway.get(&key(name)).map_or(0, |kv| kv.create_revision);
    let lives = ["a/left", "a/evicted", "a/gone", "a/restarted", "a/changed"].map(life);

    proxy.refuse();
    proxy.cut();
    gateway.put(&key("a/changed"), value("a/changed", 2), lease);
    leave(&gateway, "a/left", LEAVE);
    leave(
        &gateway,
        "a/evicted",
        r#"{"reason":"evicted","by":["x/1"]}"#,
    );
    delete(&gateway, "a/gone");
    delete(&gateway, "a/restarted");
    put(&gateway, "a/restarted", 2);
    put(&gateway, "a/new", 1);
    put(&gateway, "a/shortlived", 1);
    delete(&gateway, "a/shortlived");
    gateway.compact(gateway.revision());
    follower.wait(SOON, "StoreLost");
    proxy.pass();
    follower.wait(SOON, "StoreRestored");
    follower.settle(&gateway);

    let [left, evicted, gone, restarted, changed] = lives;
    let mut told = follower.told.clone();
    told.retain(|line| !line.starts_with("Store"));
    told.sort();
    let mut wanted = [
        format!("UpdateMember a/changed@{changed}"),
        format!("RemoveMember a/left@{left} (announced)"),
        format!("ServerDown a/evicted@{evicted} (evicted by x/1)"),
        format!("ServerDown a/gone@{gone} (missing)"),
        format!("ServerDown a/restarted@{restarted} (replaced)"),
        format!("AddMember a/restarted@{}", life("a/restarted")),
        format!("AddMember a/new@{}", life("a/new")),
    ];
    wanted.sort();
    assert_eq!(told, wanted);
    assert_eq!(follower.cluster.stats().relists.compacted, 1);
}

/// Failure-modes row 4: a compaction does nothing to a watch that stands; but afterwards the point
/// to resume from is gone, though nothing of ours has changed.
#[test]
fn g1_a_compaction_under_a_live_watch() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let life = put(&gateway, "a/1", 1);
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    follower.settle(&gateway);
    assert_eq!(
        follower.news(&gateway),
        [format!("AddMember a/1@{life}"), "Synced".into()]
    );
    for n in 0..10 {
        gateway.put("elsewhere", n.to_string(), 0);
        gateway.compact(gateway.revision());
    }
    assert_eq!(follower.news(&gateway), [""; 0]);
    follower.never_relisted();

    for n in 0..3 {
        gateway.put("elsewhere", n.to_string(), 0);
    }
    gateway.compact(gateway.revision());
    proxy.cut();
    until(SOON, "it is listed anew", || {
        follower.cluster.stats().relists.compacted == 1
    });
    assert_eq!(follower.news(&gateway), [""; 0]);
    follower.settle(&gateway);
}

/// Failure-modes row 4: what has not been read yet is compacted away; the stream, which stays open,
/// ends with that after what etcd had already sent.
#[test]
fn g1_a_compaction_under_a_slow_reader() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    put(&gateway, "a/1", 1);
    let proxy = Proxy::start(&etcd.endpoint());
    // Silence is what it gets here; that is another test's matter.
    let builder = patient([proxy.endpoint()]).stall_bound(ms(120_000));
    let mut follower = Follower::start(builder);
    follower.settle(&gateway);
    proxy.stall();
    // More than all buffers between etcd and its reader hold.
    let big = "x".repeat(60_000);
    for n in 0..500 {
        put(&gateway, &format!("a/{}", n % 10), format!("{n}{big}"));
    }
    gateway.compact(gateway.revision());
    proxy.pass();
    until(SOON, "it is listed anew", || {
        follower.cluster.stats().relists.compacted == 1
    });
    // By the stream that was open all the time.
    assert_eq!(follower.cluster.stats().reconnects, 0);
    follower.settle(&gateway);
}

/// The same under churn: compactions and cuts at any moment, and still no ghost and no gap.
#[test]
fn g1_g3_cuts_and_compactions_under_churn() {
    let etcd = Etcd::start();
    let reader = TruthReader::start("pitaya/", vec![etcd.endpoint()]);
    let gateway = etcd.gateway();
    let proxy = Proxy::start(&etcd.endpoint());
    put(&gateway, "steady/1", 0);
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    for round in 0..8 {
        proxy.refuse();
        proxy.cut();
        // Of two values that are compacted away a listing tells one.
        put(&gateway, "steady/1", format!("{round} is missed"));
        put(&gateway, "steady/1", format!("{round} is told"));
        churn(&etcd, round * 100, 30);
        gateway.compact(reader.catch_up(SOON));
        // The rest comes while it finds out, lists, and watches again.
        std::thread::scope(|scope| {
            scope.spawn(|| churn(&etcd, round * 100 + 30, 70));
            proxy.pass();
            until(SOON, "it is listed anew", || {
                follower.cluster.stats().relists.compacted > round as u64
            });
        });
    }
    follower.settle(&gateway);
    assert_eq!(follower.cluster.stats().relists.compacted, 8);
    let judged = follower.judge(&reader);
    assert!(judged.of("G1") > 0 && judged.netted >= 8, "{judged:?}");
}

/// Failure-modes row 7.
#[test]
fn g1_g3_g6_a_wiped_etcd() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for n in 0..20 {
        gateway.put("elsewhere", n.to_string(), 0);
    }
    let gone = put(&gateway, "a/gone", 1);
    let back = put(&gateway, "a/back", 1);
    let mut follower = Follower::start(patient([etcd.endpoint()]));
    follower.settle(&gateway);
    follower.told.clear();
    etcd.wipe();
    follower.new_epoch();
    let gateway = etcd.gateway();
    let again = put(&gateway, "a/back", 1);
    let new = put(&gateway, "a/new", 1);
    assert!(new < gone, "the revision went back");
    follower.settle(&gateway);
    for line in [
        format!("ServerDown a/gone@{gone} (missing)"),
        format!("ServerDown a/back@{back} (replaced)"),
        format!("AddMember a/back@{again}"),
        format!("AddMember a/new@{new}"),
    ] {
        // It may have been listed before the newcomers came: then all were missing.
        let early = line.replace("replaced", "missing");
        let told = |line: &String| follower.told.iter().filter(|told| *told == line).count();
        assert_eq!(
            told(&line).max(told(&early)),
            1,
            "{line}: {:?}",
            follower.told
        );
    }
    assert_eq!(follower.count("ServerDown"), 2);
    assert_eq!(follower.count("AddMember"), 2);
    let relists = follower.cluster.stats().relists;
    assert!(
        relists.cluster_changed + relists.went_back >= 1,
        "{relists:?}"
    );
    // And it goes on from there.
    follower.told.clear();
    assert_eq!(follower.news(&gateway), [""; 0]);
}

/// Failure-modes row 7: another cluster, in which the revision has not even gone back.
#[test]
fn g1_g3_g6_another_cluster_behind_the_same_address() {
    let etcds = [Etcd::start(), Etcd::start()];
    let gateways = etcds.each_ref().map(Etcd::gateway);
    let old = ["a/both", "a/old"].map(|name| put(&gateways[0], name, 1));
    for n in 0..20 {
        gateways[1].put("elsewhere", n.to_string(), 0);
    }
    let new = ["a/both", "a/new"].map(|name| put(&gateways[1], name, 1));
    let proxy = Proxy::start(&etcds[0].endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    follower.news(&gateways[0]);
    proxy.set_target(&etcds[1].endpoint());
    proxy.cut();
    follower.new_epoch();
    let mut told = follower.news(&gateways[1]);
    told.retain(|line| !line.starts_with("Store"));
    assert_eq!(
        told,
        [
            format!("ServerDown a/both@{} (replaced)", old[0]),
            format!("ServerDown a/old@{} (missing)", old[1]),
            format!("AddMember a/both@{}", new[0]),
            format!("AddMember a/new@{}", new[1]),
        ]
    );
    assert_eq!(follower.cluster.stats().relists.cluster_changed, 1);
}

/// Failure-modes row 7: wiped, under the same id, and as far again as it was before we are back.
#[test]
fn g1_g3_g6_a_wiped_etcd_that_looks_as_before() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let (id, proxy) = (gateway.cluster_id(), Proxy::start(&etcd.endpoint()));
    let gone = put(&gateway, "a/gone", 1);
    let back = put(&gateway, "a/back", 1);
    // What stands there again, at the same revision, is told as nothing at all.
    let same = put(&gateway, "a/same", 1);
    let mut follower = Follower::start(patient([proxy.endpoint()]).stall_bound(ms(6000)));
    follower.settle(&gateway);
    follower.told.clear();
    proxy.refuse();
    etcd.wipe_in_place();
    follower.new_epoch();
    let gateway = etcd.gateway();
    assert_eq!(gateway.cluster_id(), id);
    let first = put(&gateway, "a/new", 1);
    let again = put(&gateway, "a/back", 1);
    assert_eq!(put(&gateway, "a/same", 1), same);
    assert!(again <= back);
    while gateway.revision() < follower.cluster.view_revision() + 5 {
        gateway.put("elsewhere", "", 0);
    }
    proxy.pass();
    // Within half a stall bound of being back.
    until(ms(3000 + 2000), "a listing", || {
        follower.cluster.stats().relists.lost_events == 1
    });
    follower.settle(&gateway);
    for line in [
        format!("ServerDown a/gone@{gone} (missing)"),
        format!("AddMember a/new@{first}"),
    ] {
        let told = follower.told.iter().filter(|told| **told == line).count();
        assert_eq!(told, 1, "{line}: {:?}", follower.told);
    }
}

/// Failure-modes row 7: the same cluster from an older backup.
#[test]
fn g1_g6_a_restored_etcd_whose_revision_went_back() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let kept = put(&gateway, "a/kept", 1);
    let ghost = put(&gateway, "a/deleted-later", 1);
    let backup = etcd.backup();
    let gateway = etcd.gateway();
    let cluster_id = gateway.cluster_id();
    delete(&gateway, "a/deleted-later");
    let lost = put(&gateway, "a/lost", 1);
    put(&gateway, "a/kept", 2);
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(patient([proxy.endpoint()]));
    follower.settle(&gateway);
    follower.told.clear();

    etcd.restore(&backup);
    follower.new_epoch();
    let gateway = etcd.gateway();
    assert_eq!(gateway.cluster_id(), cluster_id);
    follower.settle(&gateway);
    let mut told = follower.told.clone();
    told.retain(|line| !line.starts_with("Store"));
    // The backup's value of a/kept differs, and no token vouches for the process: another life.
    assert_eq!(
        told,
        [
            format!("ServerDown a/kept@{kept} (replaced)"),
            format!("ServerDown a/lost@{lost} (missing)"),
            format!("AddMember a/deleted-later@{ghost}"),
            format!("AddMember a/kept@{kept}"),
        ]
    );
    assert_eq!(follower.cluster.stats().relists.went_back, 1);
}

/// An idle watch is ended and opened anew all the time; nothing may come of it.
#[test]
fn g1_an_idle_watch_that_is_renewed_tells_nothing() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    put(&gateway, "a/1", 1);
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = Follower::start(
        patient([proxy.endpoint()])
            .request_timeout(ms(1800))
            .stall_bound(ms(2000)),
    );
    follower.settle(&gateway);
    follower.told.clear();
    let requests = proxy.requests();
    throughout(ms(3500), "nothing is told", || {
        follower.next(ms(20)).is_none()
    });
    assert!(proxy.requests() >= requests + 3, "it is renewed");
    assert_eq!(follower.cluster.stats().reconnects, 0, "in good order");
    assert_eq!(proxy.connections(), 1, "on one connection");
    follower.never_relisted();
}
