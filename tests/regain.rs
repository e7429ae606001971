//! A member gets its place back, and gives it up, whatever stands there and whatever etcd says.

mod support;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use headcount::{Error, OnConflict};
use serde_json::{Value, json};

use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, Request};
use support::proxy::Proxy;
use support::wait::{throughout, until};
use told::{SOON, Told, key, member, observer};

const NAME: &str = "gate/1";
const ALL: [OnConflict; 3] = [OnConflict::TakeOver, OnConflict::Wait, OnConflict::Fail];

/// Failure-modes row 7: a restored etcd shows who had our name before us, with a lease that runs
/// on. That one has not taken over from us.
#[test]
fn g8_a_restored_etcd_displaces_nobody() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(&etcd.endpoint());
    let before = member(etcd.endpoint(), NAME, 8)
        .start()
        .expect("yesterday's");
    let backup = etcd.backup();
    before.leave().expect("told");
    let gateway = etcd.gateway();
    for policy in ALL {
        // So that revisions are higher now than what the backup can count up to meanwhile.
        for n in 0..50 {
            gateway.put(&format!("filler/{n}"), "", 0);
        }
        let builder = member(proxy.endpoint(), NAME, 3).on_conflict(policy);
        let cluster = builder.start().expect("today's");
        let mut own = Told::by(&cluster);
        let first = own.next(SOON, "Registered").incarnation();
        // Out of its reach, or it has put things right before we have seen them.
        proxy.black_hole();
        etcd.restore(&backup);
        let restored = gateway.get(&key(NAME)).expect("yesterday's key");
        assert!(restored.create_revision < first);
        proxy.pass();
        // At the latest when yesterday's lease has run out.
        let again = own.next(SOON * 2, "Registered").incarnation();
        let now = gateway.get(&key(NAME)).expect("today's key");
        assert_eq!(now.create_revision, again);
        assert!(again > restored.create_revision, "{policy:?}");
        assert!(cluster.is_registered(), "{policy:?}");
        assert_eq!(own.all("Displaced").len(), 0, "{policy:?}");
        cluster.leave().expect("told");
    }
}

/// Failure-modes row 2: what some hand has put there is no rival, whether we were there before or
/// not, under any policy.
#[test]
fn g8_g13_garbage_at_our_key_is_put_over() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let proxy = Proxy::start(&etcd.endpoint());
    for policy in ALL {
        gateway.put(&key(NAME), "no server's", 0);
        let builder = member(proxy.endpoint(), NAME, 2).on_conflict(policy);
        let cluster = builder.start().expect("garbage keeps nobody out");
        let mut own = Told::by(&cluster);
        own.next(SOON, "Registered");
        // Away for longer than the lease, and a hand was quicker.
        proxy.black_hole();
        until(SOON, "run out", || gateway.get(&key(NAME)).is_none());
        gateway.put(&key(NAME), "", 0);
        proxy.pass();
        own.next(SOON, "Lost");
        own.next(SOON, "Registered");
        // And deleted and put within a moment.
        gateway.delete(&key(NAME));
        gateway.put(&key(NAME), "null", 0);
        own.next(SOON, "Registered");
        until(SOON, "ours again", || {
            let kv = gateway.get(&key(NAME)).expect("it was put");
            kv.lease != 0 && Some(kv.create_revision) == cluster.incarnation()
        });
        assert_eq!(own.all("Displaced").len(), 0, "{policy:?}");
        cluster.leave().expect("told");
        assert_eq!(gateway.get(&key(NAME)), None);
    }
}

/// A value that does not even fit into a reply can't be read, but be put over.
#[test]
fn g8_g13_a_huge_value_at_our_key_is_put_over() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let builder = member(etcd.endpoint(), NAME, 2)
        .max_value_bytes(8 * 1024)
        .max_frame_bytes(64 * 1024);
    let cluster = builder.start().expect("a member");
    let mut own = Told::by(&cluster);
    let lease = own.next(SOON, "Registered").lease();
    gateway.put(&key(NAME), "x".repeat(100_000), 0);
    until(SOON, "ours again", || {
        let kv = gateway.get(&key(NAME)).expect("it was put");
        kv.lease == lease && kv.value.len() < 1000
    });
    assert!(cluster.is_registered());
    assert_eq!(own.all("Lost").len(), 0);
}

fn puts(request: &Request) -> bool {
    let ops = request.body["success"].as_array();
    ops.is_some_and(|ops| ops.iter().any(|op| op["request_put"] != Value::Null))
}

/// Between us and etcd something says of every put, while it is to, that its lease is gone.
fn lease_is_gone(etcd: &Etcd, while_set: &Arc<AtomicBool>) -> FakeGateway {
    let set = Arc::clone(while_set);
    let answer = move |request: &Request| {
        let gone = json!({ "code": 5, "message": "etcdserver: requested lease not found" });
        (set.load(Relaxed) && puts(request)).then(|| Reply::Json(404, gone))
    };
    FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line))
}

/// A gateway that contradicts itself is not stormed, and is told of.
#[test]
fn g8_a_lease_that_is_gone_at_once_is_asked_for_with_patience() {
    let etcd = Etcd::start();
    let set = Arc::new(AtomicBool::new(true));
    let relay = lease_is_gone(&etcd, &set);
    let builder = member(relay.endpoint(), NAME, 5).start_without_store();
    let cluster = builder.start().expect("threads");
    throughout(Duration::from_secs(2), "out", || !cluster.is_registered());
    // The longest wait is 300 ms, 150 ms in the mean.
    let grants = relay.count("/v3/lease/grant");
    assert!((2..60).contains(&grants), "{grants} leases in 2 s");
    let error = cluster.last_error();
    assert!(
        matches!(error, Some(Error::Etcd { code: 5, .. })),
        "{error:?}"
    );
    set.store(false, Relaxed);
    until(SOON, "registered", || cluster.is_registered());
}

/// The note can't be written, but the key can go.
#[test]
fn g12_a_leave_whose_note_is_refused_still_leaves() {
    let etcd = Etcd::start();
    let set = Arc::new(AtomicBool::new(false));
    let relay = lease_is_gone(&etcd, &set);
    let cluster = member(relay.endpoint(), NAME, 60)
        .start()
        .expect("a member");
    set.store(true, Relaxed);
    cluster.leave().expect("without a note");
    assert_eq!(etcd.gateway().get(&key(NAME)), None);
}

/// Who starts without the store learns of a conflict where all set-up errors are.
#[test]
fn a_conflict_after_the_start_can_be_asked_for() {
    let etcd = Etcd::start();
    let first = member(etcd.endpoint(), NAME, 10).start().expect("a member");
    let second = member(etcd.endpoint(), NAME, 10)
        .on_conflict(OnConflict::Fail)
        .start_without_store()
        .start()
        .expect("threads");
    until(SOON, "a conflict", || {
        let error = second.last_error();
        error.is_some_and(|e| e.is_setup() && matches!(e, Error::Conflict { .. }))
    });
    let watcher = observer(etcd.endpoint()).start().expect("an observer");
    let there = watcher.member("gate", "1").expect("the first");
    assert_eq!(Some(there.incarnation()), first.incarnation());
}
