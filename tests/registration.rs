//! The own registration comes back, whatever took it. Each test names its row of what goes wrong in
//! the field ("row") or in Pitaya ("Pitaya row").

mod support;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use headcount::{Cluster, Error, Event};
use serde_json::json;

use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply};
use support::gateway::{Gateway, b64};
use support::proxy::Proxy;
use support::wait::{eventually, throughout, until};
use told::{SOON, Told, key, member, observer};

const NAME: &str = "gate/1";

/// A member, what it is told of itself, and a peer that sees it.
struct Scene {
    cluster: Cluster,
    own: Told,
    _peer: Cluster,
    peer: Told,
    /// The first registration.
    incarnation: i64,
    lease: i64,
}

/// `way` is the member's way to etcd; its peer takes the direct one.
#[track_caller]
fn scene(etcd: &Etcd, way: &str, ttl: u64) -> Scene {
    let cluster = member(way, NAME, ttl).start().expect("a member");
    let mut own = Told::by(&cluster);
    let registered = own.next(SOON, "Registered");
    let peer = observer(etcd.endpoint()).start().expect("a peer");
    let mut told = Told::by(&peer);
    told.next(SOON, "AddMember gate/1@");
    told.next(SOON, "Synced");
    let (incarnation, lease) = (registered.incarnation(), registered.lease());
    Scene {
        cluster,
        own,
        _peer: peer,
        peer: told,
        incarnation,
        lease,
    }
}

impl Scene {
    /// The member tells of the loss and the return; the peer of the departure, then the return.
    #[track_caller]
    fn comes_back_anew(&mut self, gateway: &Gateway) -> (Instant, i64) {
        self.own.next(SOON, "Lost");
        let back = self.own.next(SOON, "Registered");
        let gone = self.peer.departure(SOON, NAME);
        assert_eq!(gone.incarnation(), self.incarnation);
        let new = self.peer.next(SOON, "AddMember gate/1@");
        assert_eq!(new.incarnation(), back.incarnation());
        assert_ne!(new.incarnation(), self.incarnation);
        let kv = gateway.get(&key(NAME)).expect("its key is back");
        assert_eq!(kv.lease, back.lease());
        assert_eq!(kv.create_revision, back.incarnation());
        assert!(self.cluster.is_registered());
        assert_eq!(self.cluster.incarnation(), Some(back.incarnation()));
        (back.at, back.incarnation())
    }
}

/// Row 2, Pitaya row 11.
#[test]
fn g8_comes_back_after_lease_revoke() {
    let etcd = Etcd::start();
    // A keepalive only every 10 s: it is the watch that sees it.
    let mut scene = scene(&etcd, &etcd.endpoint(), 30);
    let gateway = etcd.gateway();
    let revoked = Instant::now();
    gateway.revoke(scene.lease);
    let (at, incarnation) = scene.comes_back_anew(&gateway);
    assert!(incarnation > scene.incarnation);
    let took = at - revoked;
    assert!(took < Duration::from_secs(1), "back after {took:?}");
}

/// Row 2, Pitaya row 5.
#[test]
fn g8_puts_back_its_deleted_key() {
    let etcd = Etcd::start();
    let mut scene = scene(&etcd, &etcd.endpoint(), 30);
    let gateway = etcd.gateway();
    let deleted = Instant::now();
    assert_eq!(gateway.delete(&key(NAME)), 1);
    let (at, incarnation) = scene.comes_back_anew(&gateway);
    assert!(incarnation > scene.incarnation);
    let took = at - deleted;
    assert!(took < Duration::from_secs(1), "back after {took:?}");
}

/// Rows 2 and 7.
#[test]
fn g8_comes_back_after_a_wipe() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    // So that the revisions of the two stores can't be equal by chance.
    for n in 0..50 {
        gateway.put(&format!("filler/{n}"), "", 0);
    }
    let mut scene = scene(&etcd, &etcd.endpoint(), 2);
    etcd.wipe();
    let (_, incarnation) = scene.comes_back_anew(&gateway);
    assert!(incarnation < scene.incarnation, "a new store counts anew");
}

/// Row 2, Pitaya row 10: etcd goes down with the lease's clock, so the lease outlives its owner's
/// trust in it, and nobody is called down.
#[test]
fn g8_keeps_its_incarnation_over_an_etcd_restart() {
    let etcd = Etcd::start();
    let mut scene = scene(&etcd, &etcd.endpoint(), 3);
    etcd.kill();
    scene.own.next(SOON, "Lost");
    assert!(!scene.cluster.is_registered());
    scene.peer.next(SOON, "StoreLost");
    etcd.restart();
    let back = scene.own.next(SOON, "Registered");
    assert_eq!(back.incarnation(), scene.incarnation);
    assert_eq!(back.lease(), scene.lease);
    scene.peer.next(SOON, "StoreRestored");
    assert_eq!(scene.peer.departures(), 0);
    assert!(scene.cluster.is_registered());
}

/// Row 2, Pitaya rows 8 and 10: a hung etcd.
#[test]
fn g8_comes_back_after_etcd_was_paused_longer_than_the_ttl() {
    let etcd = Etcd::start();
    let mut scene = scene(&etcd, &etcd.endpoint(), 2);
    let paused = Instant::now();
    etcd.pause();
    scene.own.next(SOON, "Lost");
    let left = Duration::from_secs(3).saturating_sub(paused.elapsed());
    throughout(left, "not registered", || !scene.cluster.is_registered());
    etcd.resume();
    // Whether etcd's expiry or our keepalive comes first is etcd's choice.
    scene.own.next(SOON, "Registered");
    let gateway = etcd.gateway();
    until(SOON, "registered, in etcd and in the peer's view", || {
        let kv = gateway.get(&key(NAME)).map(|kv| kv.create_revision);
        let mut adds = scene.peer.all("AddMember gate/1@");
        let seen = adds.pop().map(|add| add.incarnation());
        scene.cluster.incarnation().is_some() && kv == scene.cluster.incarnation() && seen == kv
    });
    let downs = scene.peer.departures();
    assert_eq!(scene.peer.all("AddMember gate/1@").len(), 1 + downs);
    assert!(scene.cluster.incarnation() >= Some(scene.incarnation));
}

/// Row 2, Pitaya row 9.
#[test]
fn g8_comes_back_after_a_cut_longer_than_the_ttl() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(&etcd.address());
    let mut scene = scene(&etcd, &proxy.endpoint(), 2);
    proxy.black_hole();
    let gateway = etcd.gateway();
    until(SOON, "the lease has run out", || {
        gateway.get(&key(NAME)).is_none()
    });
    proxy.pass();
    let (_, incarnation) = scene.comes_back_anew(&gateway);
    assert!(incarnation > scene.incarnation);
}

/// Rows 2 and 20: whoever starts first waits for the other.
#[test]
fn g8_starts_without_store_and_converges() {
    let etcd = Etcd::start();
    etcd.kill();
    let started = Instant::now();
    let cluster = member(etcd.endpoint(), NAME, 2)
        .start_without_store()
        .start();
    let cluster = cluster.expect("no etcd needed");
    assert!(started.elapsed() < Duration::from_secs(1));
    let mut own = Told::by(&cluster);
    own.next(SOON, "StoreLost");
    assert!(!cluster.is_registered() && !cluster.is_synced());
    cluster.update_metadata([("since", "then")]).expect("kept");
    etcd.restart();
    let registered = own.next(SOON, "Registered");
    until(SOON, "its own view has it", || {
        let me = cluster.member("gate", "1");
        me.is_some_and(|m| m.incarnation() == registered.incarnation())
    });
    let me = cluster.member("gate", "1").expect("just seen");
    assert_eq!(me.metadata().get("since"), Some("then"));
    assert!(cluster.is_synced() && cluster.store_reachable());
}

/// Row 8: etcd says "lost" with a 200 that has no TTL. Here nothing else tells: the relay swallows
/// the watch's DELETE.
#[test]
fn g8_a_keepalive_without_ttl_is_a_lost_lease() {
    let etcd = Etcd::start();
    let relay = FakeGateway::relay(etcd.endpoint(), |_, line| {
        (!line.contains("DELETE")).then_some(line)
    });
    let cluster = member(relay.endpoint(), NAME, 3).start().expect("a member");
    let mut own = Told::by(&cluster);
    let first = own.next(SOON, "Registered");
    etcd.gateway().revoke(first.lease());
    let lost = own.next(SOON, "Lost");
    let back = own.next(SOON, "Registered");
    assert!(back.incarnation() > first.incarnation());
    let took = back.at - lost.at;
    assert!(took < Duration::from_millis(500), "back after {took:?}");
    // Noticed with a keepalive, a third of the TTL apart, long before the fence.
    let kept = relay.requests().into_iter();
    let kept = kept.filter(|r| r.path.ends_with("keepalive") && r.at < lost.at);
    let last = kept.max_by_key(|r| r.at).expect("a keepalive noticed it");
    assert!(lost.at - last.at < Duration::from_millis(500));
}

/// Row 8: a refusal of one endpoint is no loss, another one is asked.
#[test]
fn g8_not_a_primary_lessor_is_taken_elsewhere() {
    let etcd = Etcd::start();
    let bad = Arc::new(AtomicUsize::new(usize::MAX));
    let refused = Arc::new(AtomicUsize::new(0));
    let relays: Vec<FakeGateway> = (0..2)
        .map(|index| {
            let (bad, refused) = (Arc::clone(&bad), Arc::clone(&refused));
            let answer = move |request: &support::fake::Request| {
                if !request.path.ends_with("keepalive") {
                    return None;
                }
                // Whichever is asked first.
                let _ = bad.compare_exchange(usize::MAX, index, Relaxed, Relaxed);
                (bad.load(Relaxed) == index).then(|| {
                    let nth = refused.fetch_add(1, Relaxed);
                    let message = "etcdserver: not a primary lessor";
                    // As gateway v1 has it, and as v2 has it.
                    match nth % 2 {
                        0 => Reply::Json(
                            500,
                            json!({"error": {"grpc_code": 2, "http_code": 500, "message": message}}),
                        ),
                        _ => Reply::Json(200, json!({"error": {"code": 2, "message": message}})),
                    }
                })
            };
            FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line))
        })
        .collect();
    let cluster = member(relays[0].endpoint(), NAME, 3)
        .endpoints(relays.iter().map(FakeGateway::endpoint))
        .start()
        .expect("a member");
    let own = Told::by(&cluster);
    let incarnation = cluster.incarnation();
    until(SOON, "two renewals by the other endpoint", || {
        let good = 1usize.wrapping_sub(bad.load(Relaxed));
        let asked = relays.get(good).map(|r| r.count("/v3/lease/keepalive"));
        asked >= Some(2)
    });
    assert!(refused.load(Relaxed) > 0);
    assert_eq!(cluster.incarnation(), incarnation);
    assert_eq!(own.all("Lost").len(), 0);
}

/// Row 8: the answer to a keepalive is lost; the lease is not.
#[test]
fn g8_a_keepalive_timeout_is_no_loss() {
    let etcd = Etcd::start();
    let first = AtomicBool::new(true);
    let answer = move |request: &support::fake::Request| {
        let mute = request.path.ends_with("keepalive") && first.swap(false, Relaxed);
        mute.then_some(Reply::Silence)
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let cluster = member(relay.endpoint(), NAME, 4).start().expect("a member");
    let own = Told::by(&cluster);
    let incarnation = cluster.incarnation();
    until(SOON, "two more renewals", || {
        relay.count("/v3/lease/keepalive") >= 3
    });
    assert_eq!(cluster.incarnation(), incarnation);
    assert_eq!(own.all("Lost").len(), 0);
    assert_eq!(cluster.stats().registration_losses, 0);
}

/// Row 8: a slow way is no loss.
#[test]
fn g8_delays_below_the_ttl_are_no_loss() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(&etcd.address());
    let scene = scene(&etcd, &proxy.endpoint(), 4);
    proxy.delay(Duration::from_millis(200));
    throughout(Duration::from_secs(4), "registered", || {
        scene.cluster.is_registered()
    });
    assert_eq!(scene.own.all("Lost").len(), 0);
    assert_eq!(scene.cluster.incarnation(), Some(scene.incarnation));
    assert_eq!(scene.peer.departures(), 0);
}

/// Row 2: somebody writes our own value over our key, without a lease (it would be immortal), or
/// on one that will run out.
#[test]
fn g8_a_key_put_over_by_hand_returns_to_its_lease() {
    let etcd = Etcd::start();
    let scene = scene(&etcd, &etcd.endpoint(), 2);
    let gateway = etcd.gateway();
    let other = gateway.grant(60);
    for lease in [0, other] {
        let kv = gateway.get(&key(NAME)).expect("registered");
        gateway.put(&key(NAME), &kv.value, lease);
        until(SOON, "on our own lease again", || {
            gateway.get(&key(NAME)).expect("still there").lease == scene.lease
        });
    }
    gateway.revoke(other);
    assert!(
        gateway.get(&key(NAME)).is_some(),
        "the other lease is let go"
    );
    assert_eq!(scene.cluster.incarnation(), Some(scene.incarnation));
    assert_eq!(scene.peer.departures(), 0);
}

/// Pitaya row 2.
#[test]
fn update_metadata_keeps_the_incarnation() {
    let etcd = Etcd::start();
    let mut scene = scene(&etcd, &etcd.endpoint(), 5);
    scene.cluster.update_metadata([("k", "1")]).expect("put");
    let kv = etcd.gateway().get(&key(NAME)).expect("registered");
    assert_eq!(kv.create_revision, scene.incarnation);
    assert_eq!(kv.lease, scene.lease);
    assert!(kv.text().contains(r#""k":"1""#), "{}", kv.text());
    scene.cluster.update_metadata([("k", "2")]).expect("put");
    for (old, new) in [(None, Some("1")), (Some("1"), Some("2"))] {
        match scene.peer.next(SOON, "UpdateMember gate/1@").event {
            Event::UpdateMember {
                member, previous, ..
            } => {
                assert_eq!(member.metadata().get("k"), new);
                assert_eq!(previous.metadata().get("k"), old);
                assert_eq!(member.incarnation(), scene.incarnation);
            }
            other => panic!("{other}"),
        }
    }
    // The same again is no news.
    scene.cluster.update_metadata([("k", "2")]).expect("no put");
    let again = etcd.gateway().get(&key(NAME)).expect("registered");
    assert_eq!(again.version, kv.version + 1);

    let reserved = scene.cluster.update_metadata([("headcount.x", "1")]);
    assert!(
        matches!(
            reserved,
            Err(Error::Setting {
                setting: "metadata",
                ..
            })
        ),
        "{reserved:?}"
    );
    let observer = observer(etcd.endpoint()).start().expect("an observer");
    let refused = observer.update_metadata([("k", "1")]);
    assert!(matches!(refused, Err(Error::NotAMember)), "{refused:?}");
    scene.cluster.leave().expect("told");
    let late = scene.cluster.update_metadata([("k", "3")]);
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
}

/// G9 and rows 2, 17: metadata changed while etcd is away are not forgotten.
#[test]
fn g8_metadata_changed_in_an_outage_are_published_after_it() {
    let etcd = Etcd::start();
    let mut scene = scene(&etcd, &etcd.endpoint(), 5);
    etcd.pause();
    let asked = Instant::now();
    let failed = scene.cluster.update_metadata([("k", "held")]);
    let took = asked.elapsed();
    assert!(failed.is_err(), "nobody can have taken it");
    assert!(took < Duration::from_millis(3 * 1500 + 500), "{took:?}");
    etcd.resume();
    match scene.peer.next(SOON, "UpdateMember gate/1@").event {
        Event::UpdateMember { member, .. } => {
            assert_eq!(member.metadata().get("k"), Some("held"));
        }
        other => panic!("{other}"),
    }
}

/// etcd out of space refuses puts and grants, but not keepalives: a lease that is held is not
/// dropped, and a leave gets through.
#[test]
fn g8_a_full_etcd_costs_no_registration() {
    let etcd = Etcd::options()
        .args(["--quota-backend-bytes", "400000"])
        .start();
    let gateway = etcd.gateway();
    let mut scene = scene(&etcd, &etcd.endpoint(), 2);
    let big = b64(vec![b'x'; 60_000]);
    eventually(SOON, "etcd is full", || {
        let body = json!({ "key": b64("filler"), "value": big });
        let (status, answer) = gateway.post("/v3/kv/put", &body);
        (status != 200).then_some(answer)
    });
    throughout(Duration::from_secs(3), "registered", || {
        scene.cluster.is_registered()
    });
    assert_eq!(scene.own.all("Lost").len(), 0);
    assert_eq!(scene.cluster.incarnation(), Some(scene.incarnation));
    let refused = scene.cluster.update_metadata([("k", "1")]);
    assert!(
        matches!(refused, Err(Error::Etcd { code: 8, .. })),
        "{refused:?}"
    );
    scene.cluster.leave().expect("deleting needs no space");
    assert_eq!(gateway.get(&key(NAME)), None);
    scene.peer.departure(SOON, NAME);
}
