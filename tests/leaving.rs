//! G12: an end that is clean, bounded, and seen at once; failure-modes row 21, Pitaya row 12.
//!
//! These count the threads of their process, so one runs at a time.

mod support;
mod told;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use headcount::{Cluster, Error, Event};
use parking_lot::{Mutex, MutexGuard};

use support::etcd::Etcd;
use support::proxy::Proxy;
use support::wait::until;
use told::{SOON, Told, key, member, observer};

const NAME: &str = "gate/1";
/// The bound that the examples, and so everybody's shutdown, are promised.
const HUNG: Duration = Duration::from_secs(2);

/// Alone in the process, from here on.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock()
}

/// Headcount's threads have names that say so, and threads without a name inherit their parent's.
fn ours() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a /proc, that is, Linux");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names = names.map(|name| name.trim().to_owned());
    names
        .filter(|name| name.starts_with("headcount-"))
        .collect()
}

/// A thread that was joined takes the kernel a moment more to clear away.
#[track_caller]
fn no_threads() {
    until(Duration::from_secs(1), "no thread is left", || {
        ours().is_empty()
    });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = work();
    (started.elapsed(), result)
}

#[test]
fn g12_leave_twice_then_drop() {
    let _alone = alone();
    let etcd = Etcd::start();
    let cluster = member(etcd.endpoint(), NAME, 2).start().expect("a member");
    let events = cluster.subscribe();
    let told = Told::by(&cluster);
    until(SOON, "watch, lease, beats, flush, listener", || {
        ours().len() == 5
    });
    cluster.leave().expect("told");
    no_threads();
    assert!(!cluster.is_registered() && cluster.incarnation().is_none());
    let (took, again) = timed(|| cluster.leave());
    again.expect("nothing left to do");
    assert!(took < Duration::from_millis(5), "{took:?}");
    assert!(matches!(
        cluster.add_listener(|_: &Event| ()),
        Err(Error::Closed)
    ));

    // What was in the channel is still there; then it ends.
    let all: Vec<String> = events.iter().map(|e| e.name().to_owned()).collect();
    assert!(all.contains(&"Synced".into()), "{all:?}");
    assert!(told.lines().len() >= all.len() - 1);
    assert_eq!(
        cluster.subscribe().iter().count(),
        0,
        "nothing comes any more"
    );
    drop(cluster);
    no_threads();
}

/// And 20 of them, timed. The peer's 100 ms are counted from when `leave` was called.
#[test]
fn g12_a_leave_is_announced_at_once() {
    let _alone = alone();
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let watcher = observer(etcd.endpoint()).start().expect("an observer");
    let mut peer = Told::by(&watcher);
    let (mut took, mut seen) = (vec![], vec![]);
    for _ in 0..20 {
        let cluster = member(etcd.endpoint(), NAME, 2).start().expect("a member");
        let incarnation = cluster.incarnation().expect("registered");
        peer.next(SOON, &format!("AddMember gate/1@{incarnation}"));
        let lease = gateway.get(&key(NAME)).expect("registered").lease;
        let asked = Instant::now();
        cluster.leave().expect("told");
        took.push(asked.elapsed());
        let gone = peer.next(SOON, "RemoveMember gate/1@");
        assert_eq!(
            gone.text,
            format!("RemoveMember gate/1@{incarnation} (announced)")
        );
        seen.push(gone.at - asked);

        // Nothing is left but the note, on the member's own lease.
        let left = gateway.list_prefix("pitaya/");
        let note = left
            .iter()
            .find(|kv| kv.key.ends_with(&format!("/{incarnation}")));
        let note = note.expect("says why");
        assert_eq!(
            note.key,
            format!("pitaya/servers-gone/{NAME}/{incarnation}")
        );
        assert_eq!(
            (note.text(), note.lease),
            (r#"{"reason":"leave"}"#.into(), lease)
        );
        assert_eq!(gateway.get(&key(NAME)), None);
    }
    let (worst, took, seen) = (
        seen.iter().max().copied(),
        median(took),
        median(seen.clone()),
    );
    println!("leave: median {took:?}; seen by a peer: median {seen:?}, at most {worst:?}");
    assert!(took < Duration::from_millis(50), "leave: median {took:?}");
    assert!(seen < Duration::from_millis(100), "seen: median {seen:?}");
    // The notes die with the leases.
    until(SOON, "nothing of ours is left", || {
        gateway.list_prefix("pitaya/").is_empty() && gateway.leases().is_empty()
    });
}

/// The same when etcd says nothing any more, 20 at the same time.
#[test]
fn g12_leave_is_bounded_when_etcd_hangs() {
    let _alone = alone();
    let etcd = Etcd::start();
    let clusters: Vec<Cluster> = (0..20)
        .map(|n| {
            let name = format!("gate/{n}");
            member(etcd.endpoint(), &name, 10)
                .start()
                .expect("a member")
        })
        .collect();
    etcd.pause();
    let times: Vec<Duration> = std::thread::scope(|s| {
        let leaves = clusters.iter().map(|cluster| {
            s.spawn(|| {
                let (took, result) = timed(|| cluster.leave());
                assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
                took
            })
        });
        let leaves: Vec<_> = leaves.collect();
        leaves
            .into_iter()
            .map(|leave| leave.join().expect("no panic"))
            .collect()
    });
    no_threads();
    let worst = times.iter().max().copied().unwrap_or_default();
    println!(
        "leave with etcd hung: median {:?}, at most {worst:?}",
        median(times)
    );
    assert!(worst < HUNG, "{worst:?}");
}

/// Whatever else may be wrong with etcd, and whatever the threads are waiting for just then.
#[test]
fn g12_leave_is_bounded_whatever_is_wrong() {
    let _alone = alone();
    let etcd = Etcd::start();
    let proxy = Proxy::start(&etcd.address());
    type Break<'a> = Box<dyn Fn() + 'a>;
    // `lost`: not at once, but when all threads are busy trying again.
    let faults: [(&str, bool, Break, Break); 5] = [
        (
            "black-holed",
            false,
            Box::new(|| proxy.black_hole()),
            Box::new(|| proxy.pass()),
        ),
        (
            "black-holed",
            true,
            Box::new(|| proxy.black_hole()),
            Box::new(|| proxy.pass()),
        ),
        (
            "refused",
            false,
            Box::new(|| {
                proxy.refuse();
                proxy.cut();
            }),
            Box::new(|| proxy.pass()),
        ),
        (
            "paused",
            false,
            Box::new(|| etcd.pause()),
            Box::new(|| etcd.resume()),
        ),
        (
            "killed",
            false,
            Box::new(|| etcd.kill()),
            Box::new(|| etcd.restart()),
        ),
    ];
    for (fault, lost, breaks, mends) in &faults {
        let start = member(proxy.endpoint(), NAME, 2).start();
        let cluster = start.expect("a member");
        let mut told = Told::by(&cluster);
        breaks();
        if *lost {
            told.next(SOON, "Lost");
        }
        let (took, result) = timed(|| cluster.leave());
        assert!(result.is_err(), "{fault}: nobody can have been told");
        assert!(took < HUNG, "{fault}, {lost}: {took:?}");
        no_threads();
        mends();
        etcd.gateway().delete_prefix("pitaya/");
    }
}

#[test]
fn g12_drop_leaves() {
    let _alone = alone();
    let etcd = Etcd::start();
    let watcher = observer(etcd.endpoint()).start().expect("an observer");
    let mut peer = Told::by(&watcher);
    let cluster = member(etcd.endpoint(), NAME, 5).start().expect("a member");
    peer.next(SOON, "AddMember gate/1@");
    drop(cluster);
    let gone = peer.next(SOON, "RemoveMember gate/1@");
    assert!(gone.text.ends_with("(announced)"), "{}", gone.text);
    drop(watcher);
    no_threads();
}

/// A handler may end what it is called by: by leaving, or by dropping the last handle.
#[test]
fn g12_leave_and_last_drop_in_a_handler() {
    let _alone = alone();
    let etcd = Etcd::start();
    for drops in [false, true] {
        let cluster = Arc::new(member(etcd.endpoint(), NAME, 5).start().expect("a member"));
        let (go, going) = bounded::<()>(0);
        let (tell, done) = bounded(1);
        let mut held = Some(Arc::clone(&cluster));
        let listener = move |event: &Event| {
            if !matches!(event, Event::Synced) {
                return;
            }
            let _ = going.recv();
            let (took, result) = timed(|| match (drops, &held) {
                (false, Some(cluster)) => cluster.leave(),
                // The last one, once the test's own is gone.
                _ => {
                    held = None;
                    Ok(())
                }
            });
            tell.send((took, result)).expect("the test waits");
            held = None;
        };
        cluster.add_listener(listener).expect("a thread").keep();
        let events = cluster.subscribe();
        if drops {
            drop(cluster);
        }
        drop(go);
        let (took, result) = done.recv_timeout(SOON).expect("it came to an end");
        result.expect("told");
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(events.iter().count() > 0, "and the channel ends");
        until(SOON, "its thread ends with the call", || ours().is_empty());
        assert_eq!(etcd.gateway().get(&key(NAME)), None, "left");
    }
}

/// A handler that never returns costs its own thread and the drain time-out, and nothing else.
#[test]
fn g12_leave_does_not_wait_for_a_stuck_handler() {
    let _alone = alone();
    let etcd = Etcd::start();
    let start = member(etcd.endpoint(), NAME, 5)
        .drain_timeout(Duration::from_millis(200))
        .start();
    let cluster = start.expect("a member");
    let (free, stuck) = bounded::<()>(0);
    let (tell, entered) = bounded(100);
    let listener = move |_: &Event| {
        let _ = tell.send(());
        let _ = stuck.recv();
    };
    cluster.add_listener(listener).expect("a thread").keep();
    entered.recv_timeout(SOON).expect("it is in the handler");
    let (took, result) = timed(|| cluster.leave());
    result.expect("told");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(ours().len(), 1, "{:?}", ours());
    drop(free);
    until(SOON, "its thread ends by itself", || ours().is_empty());
}

/// A start that fails leaves nothing running, and takes no longer than it was given.
#[test]
fn g12_a_start_that_fails_is_bounded_and_leaves_nothing() {
    let _alone = alone();
    let limit = Duration::from_millis(300);
    // Accepts, by its kernel, and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mute = format!("http://{}", mute.local_addr().expect("an address"));
    let etcd = Etcd::start();
    etcd.kill();
    for endpoint in [mute, etcd.endpoint()] {
        for settings in [observer(&*endpoint), member(&*endpoint, NAME, 2)] {
            let (took, result) = timed(|| settings.start_timeout(limit).start());
            match result {
                Err(Error::StartTimeout { after, last }) => {
                    assert_eq!(after, limit);
                    let text = last.map(|error| error.to_string()).unwrap_or_default();
                    assert!(text.is_empty() || text.contains(&endpoint), "{text}");
                }
                other => panic!("{other:?}"),
            }
            assert!(took < limit + Duration::from_millis(500), "{took:?}");
            no_threads();
        }
    }
}
