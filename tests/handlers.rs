//! Handlers on threads of their own: whatever they do, they do it to nobody else. "Pitaya row" and
//! "row" name the field report that a test answers.

mod history;
mod ledger;
mod support;
mod told;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use headcount::{
    Cluster, DownCause, Event, Listener, ListenerGuard, Member, Options, RemoveReason,
};
use parking_lot::Mutex;
use serde_json::json;

use ledger::{Ledger, add, adds, commit, delete, put};
use support::etcd::Etcd;
use support::gateway::b64;
use support::load;
use support::wait::{throughout, until};
use told::{SOON, member, observer};

/// Nobody holds the message of a panic that is not one of the test's own.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// Reads until `end/1` is told, for which it is put.
#[track_caller]
fn told_to_the_end(etcd: &Etcd, events: &Receiver<Event>) -> Ledger {
    add(&etcd.gateway(), "end/1");
    let mut ledger = Ledger::default();
    ledger.read_until(events, SOON, |event| adds(event, "end/1"));
    ledger
}

/// The mission's names, each with what it was told.
struct Names(Sender<String>);

impl Names {
    fn say(&self, name: &str, member: &Member, more: &str) {
        let _ = self.0.send(format!("{name} {} {more}", member.name()));
    }
}

impl Listener for Names {
    fn add_member(&mut self, member: &Arc<Member>) {
        self.say("add_member", member, "");
    }
    fn remove_member(&mut self, member: &Arc<Member>, reason: RemoveReason) {
        self.say("remove_member", member, reason.as_str());
    }
    fn server_down(&mut self, member: &Arc<Member>, cause: &DownCause) {
        self.say("server_down", member, cause.as_str());
    }
    fn update_member(&mut self, member: &Arc<Member>, previous: &Arc<Member>) {
        let step = |member: &Member| member.metadata().get("step").unwrap_or("?").to_owned();
        self.say(
            "update_member",
            member,
            &format!("{} {}", step(previous), step(member)),
        );
    }
    fn synced(&mut self) {
        let _ = self.0.send("synced".into());
    }
}

/// Pitaya rows 14 and 15: replay, update, reason, and an end to it.
#[test]
fn g1_g6_a_listener_type_is_called_by_the_missions_names() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    commit(&gateway, vec![put("a/1", 0), put("a/2", 0)]);
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let (calls, called) = unbounded();
    let guard = cluster.add_listener(Names(calls)).expect("a thread");
    let next = || called.recv_timeout(SOON).expect("a call");
    assert_eq!(
        [next(), next(), next()],
        ["add_member a/1 ", "add_member a/2 ", "synced"]
    );
    commit(&gateway, vec![put("a/1", 7)]);
    assert_eq!(next(), "update_member a/1 0 7");
    commit(&gateway, vec![delete("a/1")]);
    assert_eq!(next(), "remove_member a/1 deregistered");
    // What another instance does that takes the name.
    let created = gateway.get("pitaya/servers/a/2").expect("it is there");
    let note = format!("pitaya/servers-gone/a/2/{}", created.create_revision);
    let note = json!({ "key": b64(note), "value": b64(r#"{"reason":"replaced"}"#) });
    commit(
        &gateway,
        vec![json!({ "request_put": note }), delete("a/2")],
    );
    assert_eq!(next(), "server_down a/2 replaced");

    drop(guard);
    until(SOON, "its thread ends", || {
        called.recv_timeout(Duration::ZERO).is_err() && cluster.stats().listeners.is_empty()
    });
    let events = cluster.subscribe();
    told_to_the_end(&etcd, &events);
    assert!(called.recv_timeout(SOON).is_err(), "called after its end");
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic_quietly();
    }
}

/// Pitaya row 7: a handler that panics takes the process with it.
#[test]
fn g11_a_handler_that_always_panics_hurts_nobody_and_is_counted() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let calls = Arc::new(AtomicUsize::new(0));
    let (counter, burden) = (Arc::clone(&calls), PanicsWhenDropped);
    let panicking = move |_: &Event| {
        let _burden = &burden;
        counter.fetch_add(1, SeqCst);
        panic_quietly();
    };
    let guard = cluster.add_listener(panicking).expect("a thread");
    let events = cluster.subscribe();
    for step in 0..100 {
        commit(&gateway, vec![put("a/1", step), put("a/2", step)]);
    }
    let ledger = told_to_the_end(&etcd, &events);
    assert_eq!(ledger.changes, 201, "somebody else was told less");
    // And `Synced`.
    until(SOON, "it is told of everything too", || {
        calls.load(SeqCst) == 202
    });
    until(SOON, "each of its panics is counted", || {
        cluster.stats().handler_panics == 202
    });
    drop(guard);
    until(SOON, "the panic in its end is counted", || {
        cluster.stats().handler_panics == 203
    });
    cluster.leave().expect("nobody to tell");
}

/// Whatever it panics with: that is dropped, which is user code as well.
#[test]
fn g11_what_a_handler_panics_with_may_panic_too() {
    struct Nested;
    impl Drop for Nested {
        fn drop(&mut self) {
            resume_unwind(Box::new(PanicsWhenDropped));
        }
    }
    let etcd = Etcd::start();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let guard = cluster.add_listener(|_: &Event| resume_unwind(Box::new(Nested)));
    let _guard = guard.expect("a thread");
    let events = cluster.subscribe();
    told_to_the_end(&etcd, &events);
    until(SOON, "`Synced` and the end are counted", || {
        cluster.stats().handler_panics == 2
    });
    cluster.leave().expect("nobody to tell");
}

/// Row 15.
#[test]
fn g11_a_handler_may_call_back_whatever_there_is() {
    let etcd = Etcd::start();
    let cluster = member(etcd.endpoint(), "own/1", 10).start();
    let cluster = Arc::new(cluster.expect("a member"));
    let (done, finished) = bounded(1);
    let inner = Arc::clone(&cluster);
    let mut kept = vec![];
    let handler = move |event: &Event| {
        if !adds(event, "a/1") {
            return;
        }
        assert!(
            inner.member("a", "1").is_some(),
            "told before the view had it"
        );
        assert_eq!((inner.members().len(), inner.members_of("a").len()), (2, 1));
        assert!(inner.wait_for(|all| all.len() == 2, SOON));
        assert!(inner.stats().listeners.len() == 1 && inner.is_registered());
        let events = inner.subscribe();
        let added = inner.add_listener(|_: &Event| {}).expect("a thread");
        inner
            .update_metadata([("from", "a handler")])
            .expect("etcd is up");
        let of_own = |event: &Event| matches!(event, Event::UpdateMember { .. });
        Ledger::default().read_until(&events, SOON, of_own);
        kept.push(added);
        let _ = done.send(());
    };
    let _guard = cluster.add_listener(handler).expect("a thread");
    add(&etcd.gateway(), "a/1");
    finished.recv_timeout(SOON).expect("it comes to its end");
    assert_eq!(cluster.stats().handler_panics, 0);
    cluster.leave().expect("etcd is up");
}

#[test]
fn g11_a_handler_may_drop_its_own_guard_and_is_not_called_again() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let slot = Arc::new(Mutex::new(None::<ListenerGuard>));
    let calls = Arc::new(AtomicUsize::new(0));
    let (inner, counter) = (Arc::clone(&slot), Arc::clone(&calls));
    let (kept, gone) = bounded::<()>(0);
    let handler = move |event: &Event| {
        let _kept = &kept;
        if adds(event, "a/1") {
            counter.fetch_add(1, SeqCst);
            drop(inner.lock().take().expect("the first time"));
        }
    };
    let mut filling = slot.lock();
    *filling = Some(cluster.add_listener(handler).expect("a thread"));
    drop(filling);
    let events = cluster.subscribe();
    commit(&gateway, vec![put("a/1", 0), put("a/2", 0)]);
    assert!(gone.recv_timeout(SOON) == Err(crossbeam_channel::RecvTimeoutError::Disconnected));
    told_to_the_end(&etcd, &events);
    assert_eq!(calls.load(SeqCst), 1);
    assert_eq!(cluster.stats().listeners.len(), 1, "only `events` is left");
}

/// Pitaya row 15: what already waits for it is not told after that.
#[test]
fn g11_after_its_guard_is_dropped_a_handler_is_not_called() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    commit(&gateway, vec![put("a/1", 0), put("a/2", 0), put("a/3", 0)]);
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let (called, calls) = unbounded();
    let (go_on, may_go_on) = bounded::<()>(0);
    let handler = move |event: &Event| {
        let _ = called.send(event.to_string());
        let _ = may_go_on.recv();
    };
    // Three wait: one in the channel, two behind it.
    let options = Options::new().name("it").capacity(1);
    let guard = cluster
        .add_listener_with(options, handler)
        .expect("a thread");
    calls.recv_timeout(SOON).expect("a first call");
    drop(guard);
    assert!(cluster.stats().listeners.is_empty());
    drop(go_on);
    assert!(calls.recv_timeout(SOON).is_err(), "a second call");
}

/// Pitaya row 7: a handler that blocks freezes detection, sync and start-up.
#[test]
fn g4_g11_g12_a_handler_that_blocks_for_ever_stops_nobody_not_even_the_end() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = member(etcd.endpoint(), "own/1", 2)
        .drain_timeout(Duration::from_millis(200))
        .start()
        .expect("a member");
    let peer = observer(etcd.endpoint()).start().expect("a peer");
    let seen = peer.subscribe();
    let before = load::threads();
    let (blocking, blocks) = unbounded();
    let (release, released) = bounded::<()>(0);
    let handler = move |_: &Event| {
        let _ = blocking.send(());
        let _ = released.recv();
    };
    let options = Options::new().capacity(1);
    let guard = cluster.add_listener_with(options, handler);
    let _guard = guard.expect("a thread");
    blocks.recv_timeout(SOON).expect("it is called");
    let events = cluster.subscribe();
    for step in 0..50 {
        commit(&gateway, vec![put("a/1", step)]);
    }
    told_to_the_end(&etcd, &events);
    // Nor is the lease delayed.
    throughout(Duration::from_millis(2500), "it stays registered", || {
        cluster.is_registered() && peer.member("own", "1").is_some()
    });
    let leaving = Instant::now();
    cluster.leave().expect("etcd is up");
    let took = leaving.elapsed();
    println!("left in {took:?}");
    // What `leave` says of itself: 1 s to tell, 0.5 s to connect, twice 0.2 s to drain;
    // the rest is for a busy machine.
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let departed = Ledger::default().read_until(&seen, SOON, Event::is_departure);
    assert!(
        departed.to_string().starts_with("RemoveMember own/1"),
        "{departed}"
    );
    assert_eq!(
        blocks.try_iter().count(),
        0,
        "the others were told, not this one"
    );
    drop(release);
    until(SOON, "released, its thread ends as well", || {
        load::threads() < before
    });
}

/// Also as the last owner: then the drop is what leaves.
#[test]
fn g11_g12_a_handler_may_leave() {
    let etcd = Etcd::start();
    for last_owner in [false, true] {
        let builder = observer(etcd.endpoint()).drain_timeout(Duration::from_secs(5));
        let cluster = builder.start().expect("an observer");
        let slot = Arc::new(Mutex::new(Some(Arc::new(cluster))));
        let cluster = slot.lock().clone().expect("just put there");
        let events = cluster.subscribe();
        let inner = Arc::clone(&slot);
        let (done, finished) = bounded(1);
        let handler = move |_: &Event| {
            let Some(cluster) = inner.lock().take() else {
                return;
            };
            let asked = Instant::now();
            match last_owner {
                true => drop(cluster),
                false => cluster.leave().expect("nobody to tell"),
            }
            let _ = done.send(asked.elapsed());
        };
        let taken = slot.lock();
        cluster.add_listener(handler).expect("a thread").keep();
        drop(cluster);
        // From here on the handler holds the only one, if it wants to.
        drop(taken);
        let took = finished.recv_timeout(SOON).expect("it comes to its end");
        assert!(
            took < Duration::from_secs(2),
            "it waited for itself: {took:?}"
        );
        assert_eq!(events.iter().count(), 1, "its channel is closed");
    }
}

/// A handler that is at work when the others leave is waited for; what it then asks for is refused,
/// not held up.
#[test]
fn g11_g12_a_handler_that_adds_listeners_while_leaving_does_not_hold_it_up() {
    let etcd = Etcd::start();
    let cluster = observer(etcd.endpoint())
        .drain_timeout(Duration::from_secs(5))
        .start();
    let cluster = Arc::new(cluster.expect("an observer"));
    let closed = Arc::new(AtomicBool::new(false));
    let (weak, flag) = (Arc::downgrade(&cluster), Arc::clone(&closed));
    let (started, starts) = bounded(1);
    let handler = move |_: &Event| {
        let Some(cluster): Option<Arc<Cluster>> = weak.upgrade() else {
            return;
        };
        let _ = started.send(());
        // When channels close, leaving comes to wait for handlers; it is given the time for that.
        for _ in cluster.subscribe() {}
        std::thread::sleep(Duration::from_millis(200));
        let added = cluster.add_listener(|_: &Event| {});
        flag.store(added.is_err(), SeqCst);
    };
    cluster.add_listener(handler).expect("a thread").keep();
    starts.recv_timeout(SOON).expect("it is called");
    let leaving = Instant::now();
    cluster.leave().expect("nobody to tell");
    let took = leaving.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(closed.load(SeqCst), "waited for, and refused");
}
