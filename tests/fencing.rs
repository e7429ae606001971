//! G10: a member cut off from etcd knows before its peers that it may be gone.

mod support;
mod told;

use std::time::{Duration, Instant};

use headcount::Cluster;

use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply};
use support::proxy::Proxy;
use support::wait::until;
use told::{Entry, SOON, Told, key, member, observer};

/// Members behind a proxy, and a peer that is told of them on the direct way.
struct Scene {
    etcd: Etcd,
    proxy: Proxy,
    _watcher: Cluster,
    peer: Told,
}

impl Scene {
    #[track_caller]
    fn start() -> Scene {
        let etcd = Etcd::start();
        let proxy = Proxy::start(&etcd.address());
        let watcher = observer(etcd.endpoint()).start().expect("a peer");
        let peer = Told::by(&watcher);
        Scene {
            etcd,
            proxy,
            _watcher: watcher,
            peer,
        }
    }

    #[track_caller]
    fn departure(&mut self, name: &str) -> Entry {
        self.peer.next(SOON, &format!("ServerDown {name}@"))
    }
}

/// When `is_registered` turns false, seen from a thread of its own.
fn turns_false(cluster: &Cluster) -> Instant {
    let started = Instant::now();
    while cluster.is_registered() {
        assert!(started.elapsed() < SOON, "still registered");
        std::thread::sleep(Duration::from_millis(1));
    }
    Instant::now()
}

/// The whole way: cut, fenced, declared dead, healed, back as another incarnation.
fn cut_off_and_healed(ttl: u64) {
    let mut scene = Scene::start();
    let start = member(scene.proxy.endpoint(), "gate/1", ttl).start();
    let cluster = start.expect("a member");
    let mut own = Told::by(&cluster);
    let first = own.next(SOON, "Registered");
    scene.proxy.black_hole();

    let fenced = std::thread::scope(|s| s.spawn(|| turns_false(&cluster)).join());
    let fenced = fenced.expect("no panic");
    assert!(cluster.is_registered() || cluster.incarnation().is_none());
    let lost = own.next(SOON, "Lost");
    let down = scene.departure("gate/1");
    println!(
        "TTL {ttl} s: `Lost` {:?} before the peer's ServerDown",
        down.at.saturating_duration_since(lost.at)
    );
    assert!(fenced < down.at, "is_registered() was true for too long");
    assert!(lost.at < down.at, "`Lost` came too late");
    assert_eq!(down.incarnation(), first.incarnation());
    assert!(!cluster.is_registered());
    assert_eq!(own.all("Registered").len(), 1);

    scene.proxy.pass();
    let back = own.next(SOON, "Registered");
    assert!(back.incarnation() > first.incarnation());
    assert!(cluster.is_registered());
    let seen = scene.peer.next(SOON, "AddMember gate/1@");
    assert_eq!(seen.incarnation(), back.incarnation());
}

#[test]
fn g10_lost_comes_before_peers_are_told_ttl_2() {
    cut_off_and_healed(2);
}

#[test]
fn g10_lost_comes_before_peers_are_told_ttl_4() {
    cut_off_and_healed(4);
}

/// Another request of the same thread hangs for longer than the lease lasts.
#[test]
fn g10_lost_is_not_held_up_by_a_request_that_hangs() {
    let mut scene = Scene::start();
    let cluster = member(scene.proxy.endpoint(), "gate/1", 2)
        .stall_bound(Duration::from_secs(8))
        .request_timeout(Duration::from_secs(5))
        .start()
        .expect("a member");
    let mut own = Told::by(&cluster);
    scene.proxy.black_hole();
    std::thread::scope(|s| {
        let update = s.spawn(|| cluster.update_metadata([("k", "v")]));
        let lost = own.next(SOON, "Lost");
        let down = scene.departure("gate/1");
        assert!(lost.at < down.at, "`Lost` came too late");
        update.join().expect("no panic").expect_err("cut off");
    });
}

/// Another endpoint hangs up, as one does that speaks another scheme, and lets whoever comes to find
/// out wait.
#[test]
fn g10_lost_is_not_held_up_by_a_port_that_says_nothing() {
    let mut scene = Scene::start();
    let hangs_up = FakeGateway::start(|_| Reply::Reset);
    let cluster = member(scene.proxy.endpoint(), "gate/1", 3)
        .endpoints([scene.proxy.endpoint(), hangs_up.endpoint()])
        .connect_timeout(Duration::from_secs(4))
        .request_timeout(Duration::from_secs(5))
        .stall_bound(Duration::from_secs(8))
        .start()
        .expect("a member");
    let mut own = Told::by(&cluster);
    own.next(SOON, "Registered");
    let asked = hangs_up.requests().len();
    scene.proxy.black_hole();
    let lost = own.next(SOON, "Lost");
    let down = scene.departure("gate/1");
    assert!(lost.at < down.at, "`Lost` came too late");
    assert!(hangs_up.requests().len() > asked, "it was not asked");
}

/// Between the fence and the expiry there is a margin; whoever is healed in it is still itself.
#[test]
fn g10_healed_before_expiry_is_the_same_incarnation() {
    let mut scene = Scene::start();
    // The margin is a tenth of this TTL, and etcd takes its time on top of it.
    let start = member(scene.proxy.endpoint(), "gate/1", 6).start();
    let cluster = start.expect("a member");
    let mut own = Told::by(&cluster);
    let first = own.next(SOON, "Registered");
    scene.peer.next(SOON, "AddMember gate/1@");
    // Tries fail at once, so that none is under way for long when the way is free again.
    scene.proxy.refuse();
    scene.proxy.cut();
    own.next(SOON, "Lost");
    assert!(!cluster.is_registered());
    scene.proxy.pass();
    let back = own.next(SOON, "Registered");
    assert_eq!(back.incarnation(), first.incarnation());
    assert_eq!(back.lease(), first.lease());
    assert!(cluster.is_registered());
    let kv = scene.etcd.gateway().get(&key("gate/1"));
    assert_eq!(kv.expect("never gone").version, 1);
    assert_eq!(scene.peer.all("ServerDown").len(), 0);
}

/// A refused connection proves nothing about the lease: no `Lost` before its time.
#[test]
fn g10_refused_connections_are_no_loss_before_the_fence() {
    let mut scene = Scene::start();
    let start = member(scene.proxy.endpoint(), "gate/1", 6).start();
    let cluster = start.expect("a member");
    let mut own = Told::by(&cluster);
    until(SOON, "a keepalive just now", || {
        let age = cluster.stats().keepalive_age;
        age.is_some_and(|age| age < Duration::from_millis(100))
    });
    let cut = Instant::now();
    scene.proxy.refuse();
    scene.proxy.cut();
    let lost = own.next(SOON, "Lost");
    let after = lost.at - cut;
    // 9/10 of the TTL, less what the keepalive was old by.
    assert!(
        after > Duration::from_millis(5200),
        "`Lost` after {after:?}"
    );
    assert!(lost.at < scene.departure("gate/1").at);
}
