//! G12, G5: whatever one process does again and again, its threads, its sockets and its memory stay
//! where they were. `HEADCOUNT_ROUNDS=10000` does each thing so often; without it some take fewer.
//!
//! These count what their whole process uses, so one runs at a time.

mod history;
mod ledger;
mod support;
mod told;
mod usage;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use headcount::{Builder, Cluster, Event, Options};
use parking_lot::{Mutex, MutexGuard};

use ledger::{value, view_in, view_of};
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::proxy::Proxy;
use support::wait::until;
use told::{SOON, key, member};
use usage::Course;

const NAME: &str = "gate/1";
/// Somebody who changes, so that there is something to tell.
const OTHER: &str = "go/1";

/// Alone in the process, from here on.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock()
}

fn rounds(usual: usize) -> usize {
    let wanted = std::env::var("HEADCOUNT_ROUNDS");
    wanted.map_or(usual, |n| n.parse().expect("HEADCOUNT_ROUNDS is a number"))
}

/// A member to whom a busy machine is no lost etcd, and that loses no time.
fn brisk(endpoint: String) -> Builder {
    let ms = Duration::from_millis;
    member(endpoint, NAME, 30)
        .stall_bound(ms(8000))
        .request_timeout(ms(5000))
        .backoff(ms(1), ms(1))
}

/// Reads until an event fits.
#[track_caller]
fn read_until(events: &Receiver<Event>, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
    let give_up = Instant::now() + SOON;
    loop {
        match events.recv_deadline(give_up) {
            Ok(event) if fits(&event) => return event,
            Ok(_) => {}
            Err(why) => panic!("no {what}: {why}"),
        }
    }
}

/// Changes the other one, and waits until that is told.
#[track_caller]
fn change(gateway: &Gateway, events: &Receiver<Event>, step: usize) {
    let revision = gateway.put(&key(OTHER), value(OTHER, step as u64), 0);
    read_until(events, "change", |event| event.revision() == Some(revision));
}

#[test]
fn g12_reconnects_leave_nothing_behind() {
    let _alone = alone();
    let etcd = Etcd::start();
    let (gateway, proxy) = (etcd.gateway(), Proxy::start(&etcd.endpoint()));
    let cluster = brisk(proxy.endpoint()).start().expect("a member");
    let events = cluster.subscribe();
    let rounds = rounds(5_000);
    let course = Course::of(rounds, |round| {
        let before = cluster.stats().reconnects;
        let give_up = Instant::now() + SOON;
        let mut cut_at = None::<Instant>;
        while cluster.stats().reconnects == before {
            assert!(Instant::now() < give_up, "it never came back");
            // Once is enough, unless that was between two streams.
            if cut_at.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                proxy.cut();
                cut_at = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        // Now and then something is told by it.
        if round % 50 == 49 {
            change(&gateway, &events, round);
        }
    });
    let stats = cluster.stats();
    assert!(stats.reconnects >= rounds as u64, "{stats:?}");
    assert_eq!((stats.relists.first, stats.relists.compacted), (1, 0));
    course.assert_flat("reconnects");
}

#[test]
fn g12_listeners_that_come_and_go_leave_nothing_behind() {
    let _alone = alone();
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = brisk(etcd.endpoint()).start().expect("a member");
    let events = cluster.subscribe();
    let course = Course::of(rounds(10_000), |round| {
        let subscribed = cluster.subscribe();
        read_until(&subscribed, "Synced", |e| matches!(e, Event::Synced));
        drop(subscribed);
        let (told, synced) = bounded(1);
        let listener = move |event: &Event| {
            if matches!(event, Event::Synced) {
                let _ = told.send(());
            }
        };
        let guard = cluster.add_listener(listener).expect("a thread");
        synced.recv_timeout(SOON).expect("Synced");
        drop(guard);
        // A dropped receiver is noticed with the next event.
        if round % 50 == 49 {
            change(&gateway, &events, round);
        }
    });
    change(&gateway, &events, 0);
    assert_eq!(cluster.stats().listeners.len(), 1);
    course.assert_flat("subscriptions and handlers");
}

#[test]
fn g8_g12_registrations_lost_and_regained_leave_nothing_behind() {
    let _alone = alone();
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = brisk(etcd.endpoint()).start().expect("a member");
    let events = cluster.subscribe();
    let registered = |event: &Event| matches!(event, Event::Registered { .. });
    let mut lease = gateway.get(&key(NAME)).expect("registered").lease;
    let rounds = rounds(3_000);
    read_until(&events, "Registered", registered);
    let course = Course::of(rounds, |round| {
        match round % 4 {
            3 => gateway.revoke(lease),
            _ => assert_eq!(gateway.delete(&key(NAME)), 1),
        }
        match read_until(&events, "Registered", registered) {
            Event::Registered { lease: new, .. } => lease = new,
            _ => unreachable!("it was looked for"),
        }
    });
    let stats = cluster.stats();
    assert!(stats.registrations > rounds as u64, "{stats:?}");
    assert!(cluster.is_registered());
    until(SOON, "the view is etcd's", || {
        view_of(&cluster) == view_in(&gateway)
    });
    assert!(gateway.leases().contains(&lease));
    course.assert_flat("registrations");
}

#[test]
fn g12_whole_lives_leave_nothing_behind() {
    let _alone = alone();
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let course = Course::of(rounds(200), |_| {
        let cluster = brisk(etcd.endpoint()).start().expect("a member");
        let events = cluster.subscribe();
        let listener = cluster.add_listener(|_: &Event| ()).expect("a thread");
        listener.keep();
        read_until(&events, "Synced", |e| matches!(e, Event::Synced));
        cluster.leave().expect("told");
        assert_eq!(gateway.get(&key(NAME)), None);
    });
    course.assert_flat("lives");
}

/// One in ten rounds loses something: by the same measure, each is found, and nothing else.
#[test]
fn what_is_lost_is_found() {
    const ROUNDS: usize = 1_000;
    let _alone = alone();
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = brisk(etcd.endpoint()).start().expect("a member");
    let events = cluster.subscribe();
    let find = |lose: &dyn Fn(&Cluster)| {
        let course = Course::of(ROUNDS, |round| {
            let subscribed = cluster.subscribe_with(Options::new().capacity(64));
            read_until(&subscribed, "Synced", |e| matches!(e, Event::Synced));
            drop(subscribed);
            if round % 10 == 9 {
                lose(&cluster);
                change(&gateway, &events, round);
            }
        });
        println!("{course}");
        course.grown()
    };
    assert_eq!(find(&|_| ()), [""; 0]);

    let kept = Mutex::new(vec![]);
    let files = find(&|_| kept.lock().push(File::open("/dev/null").expect("is there")));
    assert_eq!(files, ["files"]);

    // Receivers that are never read, nor dropped.
    let kept = Mutex::new(vec![]);
    let memory = find(&|cluster| kept.lock().push(cluster.subscribe()));
    assert_eq!(memory, ["memory"]);
    drop(kept);

    // Handlers that nobody stops.
    let calls = Arc::new(AtomicUsize::new(0));
    let threads = find(&|cluster| {
        let calls = Arc::clone(&calls);
        let count = move |_: &Event| {
            calls.fetch_add(1, Relaxed);
        };
        let options = Options::new().capacity(8);
        let guard = cluster.add_listener_with(options, count);
        guard.expect("a thread").keep();
    });
    assert!(threads.contains(&"threads"), "{threads:?}");
    assert!(calls.load(Relaxed) > 100);
}
