//! etcd hangs, vanishes, or loses its leader; or the way to it does: noticed within the stall bound,
//! nobody is removed, and afterwards only true changes are told.

mod follow;
mod history;
mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use follow::{Follower, SOON, delete, ms, observer, put};
use headcount::{Cluster, Error};
use support::cluster::EtcdCluster;
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::proxy::{Mode, Proxy};
use support::wait::{throughout, until};

/// Scheduling on a busy machine; not part of any bound.
const SLACK: Duration = Duration::from_millis(700);

/// Ten members without a lease, so that nothing ends them but us.
fn ten(etcd: &Gateway) {
    for n in 0..10 {
        put(etcd, &format!("a/{n}"), n);
    }
}

/// `StoreLost` comes within `bound`, and nothing else; the view is kept, readable, and ages.
#[track_caller]
fn is_lost_within(follower: &mut Follower, bound: Duration) {
    let since = Instant::now();
    follower.wait(bound + SLACK, "StoreLost");
    let took = since.elapsed();
    assert!(took <= bound + SLACK, "{took:?}");
    let cluster = &follower.cluster;
    assert!(!cluster.store_reachable());
    assert!(cluster.last_error().is_some());
    let age = cluster.view_age().expect("it was confirmed once");
    assert!(
        age >= took.saturating_sub(bound / 2 + SLACK),
        "{age:?} after {took:?}"
    );
    until(SOON, "it ages", || {
        cluster.view_age().is_some_and(|now| now > age + ms(20))
    });
    assert_eq!(cluster.members().len(), 10);
    assert_eq!(follower.told, ["StoreLost"], "nobody is removed");
}

/// A follower of an etcd with ten members that has been told of them.
fn follow(etcd: &Gateway, builder: headcount::Builder) -> Follower {
    ten(etcd);
    let mut follower = Follower::start(builder);
    follower.settle(etcd);
    follower.told.clear();
    follower
}

/// `StoreRestored`, and besides only what has really happened.
#[track_caller]
fn is_restored_with(follower: &mut Follower, etcd: &Gateway, wanted: &[String]) {
    follower.wait(SOON, "StoreRestored");
    assert!(follower.cluster.store_reachable());
    let mut told = follower.news(etcd);
    told.retain(|line| !line.starts_with("Store"));
    assert_eq!(told, wanted);
}

/// Failure-modes row 1, pitaya row 8.
#[test]
fn g6_g7_g9_a_hung_etcd_at_the_defaults() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let mut follower = follow(&gateway, Cluster::builder().endpoints([etcd.endpoint()]));
    etcd.pause();
    is_lost_within(&mut follower, Duration::from_secs(10));
    etcd.resume();
    is_restored_with(&mut follower, &gateway, &[]);
}

/// Failure-modes row 1, pitaya row 9: etcd is well and goes on; only our connection is dead.
#[test]
fn g6_g7_g9_a_black_hole_at_the_defaults() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let proxy = Proxy::start(&etcd.endpoint());
    let mut follower = follow(&gateway, Cluster::builder().endpoints([proxy.endpoint()]));
    let life = gateway
        .get("pitaya/servers/a/3")
        .expect("a member")
        .create_revision;
    proxy.black_hole();
    delete(&gateway, "a/3");
    is_lost_within(&mut follower, Duration::from_secs(10));
    proxy.pass();
    let wanted = format!("RemoveMember a/3@{life} (deregistered)");
    is_restored_with(&mut follower, &gateway, &[wanted]);
}

/// Whatever the watch is doing at that moment.
#[test]
fn g7_g9_hung_again_and_again_at_any_moment() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let mut follower = follow(&gateway, observer([etcd.endpoint()]));
    for phase in [0, 410, 800, 990] {
        throughout(ms(phase), "etcd is there", || {
            follower.cluster.store_reachable()
        });
        etcd.pause();
        is_lost_within(&mut follower, ms(2000));
        etcd.resume();
        is_restored_with(&mut follower, &gateway, &[]);
    }
    assert_eq!(follower.cluster.stats().store_losses, 4);
    assert_eq!(follower.cluster.stats().relists.first, 1);
}

/// The waits between tries must not delay the next alarm, however long they have grown.
#[test]
fn g9_hung_again_the_moment_it_is_back() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let builder = observer([etcd.endpoint()]).backoff(ms(6000), ms(6000));
    let mut follower = follow(&gateway, builder);
    etcd.pause();
    is_lost_within(&mut follower, ms(2000));
    etcd.resume();
    follower.wait(SOON, "StoreRestored");
    etcd.pause();
    follower.told.clear();
    is_lost_within(&mut follower, ms(2000));
}

/// Pitaya row 9: with another way to etcd a dead watch is replaced within the bound, and etcd is
/// never lost.
#[test]
fn g9_a_dead_watch_with_a_second_way() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let ways = [0, 1].map(|_| Proxy::start(&etcd.endpoint()));
    let builder = observer(ways.each_ref().map(Proxy::endpoint));
    let mut follower = follow(
        &gateway,
        builder.stall_bound(ms(6000)).connect_timeout(ms(1500)),
    );
    for n in 0..2 {
        // The watch is where something arrives.
        let before = ways.each_ref().map(Proxy::bytes_down);
        put(&gateway, "a/0", format!("x{n}"));
        follower.next(SOON).expect("an update");
        let used = usize::from(ways[0].bytes_down() == before[0]);
        ways[used].black_hole();
        let since = Instant::now();
        let life = put(&gateway, "b/1", n);
        follower.wait(ms(6000) + SLACK, &format!("AddMember b/1@{life}"));
        assert!(since.elapsed() <= ms(6000) + SLACK, "{:?}", since.elapsed());
        delete(&gateway, "b/1");
        ways[used].pass();
        follower.settle(&gateway);
    }
    assert_eq!(follower.count("Store"), 0, "{:?}", follower.told);
    assert_eq!(follower.cluster.stats().relists.first, 1);
}

/// Failure-modes row 17: gone for longer than everything is patient.
#[test]
fn g7_an_etcd_that_is_away_for_seconds() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let mut follower = follow(&gateway, observer([etcd.endpoint()]));
    etcd.kill();
    is_lost_within(&mut follower, ms(2000));
    throughout(ms(4000), "everybody stays", || {
        follower.cluster.members().len() == 10 && follower.next(Duration::ZERO).is_none()
    });
    assert!(
        follower
            .cluster
            .view_age()
            .is_some_and(|age| age >= ms(4000))
    );
    etcd.restart();
    is_restored_with(&mut follower, &etcd.gateway(), &[]);
    assert_eq!(follower.cluster.stats().relists.first, 1);
    assert_eq!(follower.cluster.stats().store_losses, 1);
}

/// Failure-modes row 1: without a quorum the nodes that are left still answer, and know nothing.
#[test]
fn g6_g7_g9_no_leader() {
    let etcds = EtcdCluster::start(3);
    let leader = etcds.leader();
    let left = (0..3).find(|n| *n != leader).expect("a follower");
    let gateway = etcds.node(left).gateway();
    let builder = Cluster::builder().endpoints(etcds.endpoints());
    let mut follower = follow(&gateway, builder);
    let others = || (0..3).filter(|n| *n != left).map(|n| etcds.node(n));
    others().for_each(Etcd::kill);
    is_lost_within(&mut follower, Duration::from_secs(10));
    throughout(ms(1500), "nobody is removed", || {
        follower.next(ms(10)).is_none()
    });
    others().for_each(Etcd::launch);
    etcds.wait_healthy(Duration::from_secs(30));
    is_restored_with(&mut follower, &gateway, &[]);
}

/// The same seen through the one node that is left: its stream must end, not go silent.
#[test]
fn g9_no_leader_at_the_only_endpoint_is_named() {
    let etcds = EtcdCluster::start(3);
    let left = etcds.follower();
    let gateway = etcds.node(left).gateway();
    let builder = Cluster::builder().endpoints([etcds.node(left).endpoint()]);
    let mut follower = follow(&gateway, builder);
    (0..3)
        .filter(|n| *n != left)
        .for_each(|n| etcds.node(n).kill());
    is_lost_within(&mut follower, Duration::from_secs(10));
    until(SOON, "the error says why", || {
        let error = follower.cluster.last_error();
        error.is_some_and(|e| e.to_string().contains("no leader"))
    });
}

/// Accepts by its kernel, and never says a word.
fn hanging() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// Failure-modes row 20.
#[test]
fn g9_bad_endpoints_cost_no_more_than_connect_timeout_each() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    ten(&gateway);
    let refusing = Proxy::start(&etcd.endpoint());
    refusing.set_mode(Mode::Refuse);
    let (_hanging, silent) = hanging();
    // It begins with a random one: in 12 rounds with each.
    for _ in 0..12 {
        let endpoints = [silent.clone(), refusing.endpoint(), etcd.endpoint()];
        let builder = observer(endpoints).connect_timeout(ms(300));
        let since = Instant::now();
        let mut follower = Follower::start(builder);
        let took = since.elapsed();
        assert!(took < ms(300) + SLACK, "{took:?}");
        // The first watch must not take longer either.
        let since = Instant::now();
        let life = put(&gateway, "b/1", 1);
        follower.wait(ms(900) + SLACK, &format!("AddMember b/1@{life}"));
        assert!(since.elapsed() < ms(900) + SLACK, "{:?}", since.elapsed());
        delete(&gateway, "b/1");
        assert_eq!(follower.count("StoreLost"), 0);
    }
}

/// Failure-modes row 20: nothing works, and `start` says so in time.
#[test]
fn g9_only_bad_endpoints() {
    let (_one, silent) = hanging();
    let (listener, refusing) = hanging();
    drop(listener);
    let since = Instant::now();
    let error = observer([silent, refusing])
        .request_timeout(ms(600))
        .start_timeout(ms(1500))
        .start();
    let took = since.elapsed();
    match error.expect_err("there is no etcd") {
        Error::StartTimeout {
            after,
            last: Some(last),
        } => {
            assert_eq!(after, ms(1500));
            let last = last.to_string();
            assert!(
                last.contains("no connection to") || last.contains("no answer from"),
                "{last}"
            );
        }
        other => panic!("{other}"),
    }
    assert!(took < ms(1500) + ms(500) + SLACK, "{took:?}");
}
