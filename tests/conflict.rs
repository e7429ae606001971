//! Two processes, one (type, id): failure-modes row 23.

mod support;
mod told;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use headcount::{Cluster, Error, OnConflict};
use parking_lot::Mutex;
use serde_json::Value;

use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, Request};
use support::gateway::{Gateway, int, unb64};
use support::proxy::Proxy;
use support::wait::{throughout, until};
use told::{SOON, Told, key, member, observer};

const NAME: &str = "gate/1";
/// What a Go server writes.
const GO: &str = r#"{"id":"1","type":"gate","metadata":null,"frontend":true,"hostname":"go"}"#;

#[track_caller]
fn joined(etcd: &Etcd) -> (Cluster, Told, i64) {
    let cluster = member(etcd.endpoint(), NAME, 5).start().expect("a member");
    let mut own = Told::by(&cluster);
    let incarnation = own.next(SOON, "Registered").incarnation();
    (cluster, own, incarnation)
}

#[track_caller]
fn watching(etcd: &Etcd) -> (Cluster, Told) {
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let told = Told::by(&cluster);
    (cluster, told)
}

/// It stays out: it does nothing to the key that another has now.
#[track_caller]
fn stays_out(cluster: &Cluster, own: &Told, gateway: &Gateway) {
    let theirs = gateway.get(&key(NAME)).expect("another's");
    throughout(Duration::from_secs(2), "out", || !cluster.is_registered());
    let now = gateway.get(&key(NAME)).expect("another's");
    assert_eq!(
        (now.mod_revision, now.value),
        (theirs.mod_revision, theirs.value)
    );
    assert_eq!(own.all("Displaced").len(), 1);
    assert_eq!(own.all("Registered").len(), 1);
    let refused = cluster.update_metadata([("k", "v")]);
    assert!(matches!(refused, Err(Error::NotAMember)), "{refused:?}");
    cluster.leave().expect("nothing to tell");
    assert!(gateway.get(&key(NAME)).is_some(), "another's, still");
}

/// Pitaya's contract, point 5: Go peers ignore a PUT on an id that they know, so the DELETE comes
/// first, in a revision of its own.
#[test]
fn g3_take_over_is_departure_then_addition_in_two_revisions() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let (old, mut old_own, old_life) = joined(&etcd);
    let (_watcher, mut watcher) = watching(&etcd);
    watcher.next(SOON, "AddMember gate/1@");
    let raw = gateway.watch_prefix("pitaya/", 0);

    let new = member(etcd.endpoint(), NAME, 5)
        .start()
        .expect("taken over");
    let new_life = new.incarnation().expect("registered");
    assert!(new_life > old_life);
    old_own.next(SOON, "Displaced");
    let gone = watcher.next(SOON, "ServerDown gate/1@");
    let came = watcher.next(SOON, "AddMember gate/1@");
    assert!(gone.text.ends_with("(replaced)"), "{}", gone.text);
    assert_eq!(
        (gone.incarnation(), came.incarnation()),
        (old_life, new_life)
    );
    assert_eq!(watcher.all("UpdateMember").len(), 0);

    let mut seen: Vec<(i64, &str, String)> = Vec::new();
    raw.find(SOON, |line| {
        for event in line["result"]["events"].as_array().unwrap_or(&vec![]) {
            let kind = if event["type"] == "DELETE" {
                "DELETE"
            } else {
                "PUT"
            };
            let kv = &event["kv"];
            seen.push((int(&kv["mod_revision"]), kind, unb64(&kv["key"])));
        }
        seen.last().is_some_and(|(at, ..)| *at == new_life)
    });
    let note = format!("pitaya/servers-gone/{NAME}/{old_life}");
    seen.sort();
    let (deleted, put) = (seen[0].0, new_life);
    assert!(deleted < put);
    assert_eq!(
        seen,
        [
            (deleted, "DELETE", key(NAME)),
            (deleted, "PUT", note.clone()),
            (put, "PUT", key(NAME))
        ]
    );
    let gone = gateway.get(&note).expect("the victim's lease lives");
    assert_eq!(gone.text(), r#"{"reason":"replaced"}"#);
    assert_ne!(
        gone.lease,
        gateway.get(&key(NAME)).expect("the new one").lease
    );
    stays_out(&old, &old_own, &gateway);
}

#[test]
fn wait_registers_when_the_other_has_left() {
    let etcd = Etcd::start();
    let (first, _own, _) = joined(&etcd);
    let started = Instant::now();
    let second = member(etcd.endpoint(), NAME, 30)
        .on_conflict(OnConflict::Wait)
        .start()
        .expect("start does not wait for that");
    assert!(started.elapsed() < Duration::from_secs(2));
    let mut own = Told::by(&second);
    own.next(SOON, "AddMember gate/1@");
    assert!(!second.is_registered());
    throughout(Duration::from_millis(300), "waiting", || {
        first.is_registered() && !second.is_registered()
    });
    let left = Instant::now();
    first.leave().expect("told");
    // The watch tells it: sooner than it would look by itself, a third of its TTL apart.
    let registered = own.next(SOON, "Registered");
    assert!(registered.at - left < Duration::from_secs(1));
    until(SOON, "in its own view", || {
        let me = second.member("gate", "1").map(|m| m.incarnation());
        me == Some(registered.incarnation())
    });
}

/// For a relay: when a registration looks who is there, the first listing is long done.
fn registers_once_it_watches() -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    let (not_yet, watches) = bounded::<()>(0);
    let not_yet = Mutex::new(Some(not_yet));
    move |request| {
        match &*request.path {
            "/v3/watch" => drop(not_yet.lock().take()),
            "/v3/kv/txn" => drop(watches.recv_timeout(SOON)),
            _ => {}
        }
        None
    }
}

/// Also when the first listing is long done by then.
#[test]
fn wait_does_not_hold_up_start_whatever_comes_first() {
    let etcd = Etcd::start();
    let (_first, _own, _) = joined(&etcd);
    let answer = registers_once_it_watches();
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let started = Instant::now();
    let second = member(relay.endpoint(), NAME, 30)
        .on_conflict(OnConflict::Wait)
        .stall_bound(Duration::from_secs(20))
        .request_timeout(Duration::from_secs(10))
        .start()
        .expect("start does not wait for that");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(!second.is_registered() && second.is_synced());
}

#[test]
fn fail_is_an_error_of_start_and_leaves_nothing() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let (first, own, incarnation) = joined(&etcd);
    let before = (gateway.revision(), gateway.leases());
    let started = Instant::now();
    let refused = member(etcd.endpoint(), NAME, 5)
        .on_conflict(OnConflict::Fail)
        .start();
    match refused {
        Err(Error::Conflict { member }) => assert_eq!(member, NAME),
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(2), "at once");
    assert_eq!((gateway.revision(), gateway.leases()), before);
    assert_eq!(first.incarnation(), Some(incarnation));
    assert!(own.all("Displaced").is_empty() && own.all("Lost").is_empty());
    // And when the name is free, it is no conflict.
    first.leave().expect("told");
    let second = member(etcd.endpoint(), NAME, 5)
        .on_conflict(OnConflict::Fail)
        .start()
        .expect("nobody is there");
    assert!(second.is_registered());
}

/// Whose name is taken before it has seen itself is told so at once, not when it has waited in vain.
#[test]
fn taken_over_while_starting() {
    let etcd = Etcd::start();
    // It is registered, but nobody tells it.
    let deaf = |_: &Request, line: String| (!line.contains("events")).then_some(line);
    let relay = FakeGateway::relay_unless(etcd.endpoint(), registers_once_it_watches(), deaf);
    let started = Instant::now();
    let first = std::thread::spawn({
        let slow = member(relay.endpoint(), NAME, 3).start_timeout(Duration::from_secs(60));
        move || slow.start()
    });
    let gateway = etcd.gateway();
    until(SOON, "it is registered", || {
        gateway.get(&key(NAME)).is_some()
    });
    let (second, ..) = joined(&etcd);
    match first.join().expect("no panic") {
        Err(Error::Conflict { member }) => assert_eq!(member, NAME),
        other => panic!("{other:?}"),
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "long before its time-out"
    );
    assert!(second.is_registered());
}

#[test]
fn a_go_server_is_taken_over() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let lease = gateway.grant(60);
    let theirs = gateway.put(&key(NAME), GO, lease);
    let (_watcher, mut watcher) = watching(&etcd);
    watcher.next(SOON, "AddMember gate/1@");
    let (_cluster, _own, incarnation) = joined(&etcd);
    let gone = watcher.next(SOON, "ServerDown gate/1@");
    assert_eq!(gone.text, format!("ServerDown gate/1@{theirs} (replaced)"));
    assert_eq!(
        watcher.next(SOON, "AddMember gate/1@").incarnation(),
        incarnation
    );
    let kv = gateway.get(&key(NAME)).expect("ours");
    assert!(kv.lease != lease && kv.lease != 0);
    // Their shutdown revokes their lease, which is no longer ours to lose.
    gateway.revoke(lease);
    assert_eq!(
        gateway.get(&key(NAME)).expect("ours").mod_revision,
        kv.mod_revision
    );
}

/// A registration without a lease is nobody's to keep alive; the note goes on our own.
#[test]
fn a_leaseless_leftover_is_taken_over() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let theirs = gateway.put(&key(NAME), GO, 0);
    let (cluster, mut own, incarnation) = joined(&etcd);
    assert!(incarnation > theirs);
    // The one that the key is on, unless that had to be another because the way there was long.
    let note = gateway.get(&format!("pitaya/servers-gone/{NAME}/{theirs}"));
    assert_ne!(note.expect("says why").lease, 0);
    own.next(SOON, "Synced");
    assert!(cluster.is_registered());
}

/// Go's plain PUT goes over our key, of the same incarnation and on its own lease.
#[test]
fn a_go_server_that_overwrites_our_key_displaces_us() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let (cluster, mut own, _) = joined(&etcd);
    let lease = gateway.grant(60);
    gateway.put(&key(NAME), GO, lease);
    own.next(SOON, "Displaced");
    stays_out(&cluster, &own, &gateway);
}

/// A process that was cut off for longer than its lease, and whose name another has taken.
#[test]
fn a_zombie_is_displaced_and_does_not_fight_back() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let proxy = Proxy::start(&etcd.address());
    let zombie = member(proxy.endpoint(), NAME, 2).start().expect("a member");
    let mut own = Told::by(&zombie);
    let first = own.next(SOON, "Registered").incarnation();
    proxy.black_hole();
    until(SOON, "its lease has run out", || {
        gateway.get(&key(NAME)).is_none()
    });
    let (heir, heirs, second) = joined(&etcd);
    assert!(second > first);
    proxy.pass();
    own.next(SOON, "Lost");
    own.next(SOON, "Displaced");
    assert_eq!(zombie.incarnation(), None);
    stays_out(&zombie, &own, &gateway);
    assert_eq!(heir.incarnation(), Some(second));
    assert!(heirs.all("Lost").is_empty() && heirs.all("Displaced").is_empty());
}

/// Etcd has done what was asked, and the answer is lost.
fn loses_the_answer_to(
    etcd: &Etcd,
    fits: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> FakeGateway {
    let target = etcd.endpoint();
    let first = AtomicBool::new(true);
    let answer = move |request: &Request| {
        if !fits(request) || !first.swap(false, Relaxed) {
            return None;
        }
        let (status, _) = Gateway::new(&*target).post(&request.path, &request.body);
        assert_eq!(status, 200);
        Some(Reply::Reset)
    };
    FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line))
}

fn puts(request: &Request) -> bool {
    let ops = request.body["success"].as_array();
    ops.is_some_and(|ops| ops.iter().any(|op| op["request_put"] != Value::Null))
}

#[test]
fn a_put_whose_answer_was_lost_is_recognised_as_ours() {
    let etcd = Etcd::start();
    let relay = loses_the_answer_to(&etcd, puts);
    let cluster = member(relay.endpoint(), NAME, 5)
        .on_conflict(OnConflict::Fail)
        .start()
        .expect("no conflict with oneself");
    let own = Told::by(&cluster);
    let kv = etcd.gateway().get(&key(NAME)).expect("registered");
    assert_eq!(Some(kv.create_revision), cluster.incarnation());
    assert_eq!(kv.version, 2, "the second put went over the first");
    assert!(own.all("Displaced").is_empty() && own.all("ServerDown").is_empty());
}

/// Nor does a leave whose answer was lost fail, or end whoever came next.
#[test]
fn g12_a_leave_whose_answer_was_lost_has_left() {
    let etcd = Etcd::start();
    let note = |request: &Request| {
        let ops = request.body["success"].as_array();
        ops.is_some_and(|ops| {
            ops.iter()
                .any(|op| op["request_delete_range"] != Value::Null)
        })
    };
    let relay = loses_the_answer_to(&etcd, note);
    let (_watcher, mut watcher) = watching(&etcd);
    let cluster = member(relay.endpoint(), NAME, 5).start().expect("a member");
    cluster.leave().expect("it has left");
    let left = watcher.next(SOON, "RemoveMember gate/1@");
    assert!(left.text.ends_with("(announced)"), "{}", left.text);
    assert_eq!(etcd.gateway().get(&key(NAME)), None);
}
