//! G12: as many threads afterwards as before. Alone in its process, since it counts all of them.

mod support;
mod told;

use std::time::Duration;

use headcount::Event;

use support::etcd::Etcd;
use support::load::threads;
use support::wait::until;
use told::{SOON, Told, member, observer};

/// A thread that was joined takes the kernel a moment more to clear away.
#[track_caller]
fn settle(wanted: usize) {
    until(SOON, "the right number of threads", || threads() == wanted);
}

#[test]
fn g12_no_thread_is_left_behind() {
    let etcd = Etcd::start();
    let before = threads();

    let watcher = observer(etcd.endpoint()).start().expect("an observer");
    let mut told = Told::by(&watcher);
    let cluster = member(etcd.endpoint(), "gate/1", 5).start();
    let cluster = cluster.expect("a member");
    let guard = cluster.add_listener(|_: &Event| ()).expect("a thread");
    let events = cluster.subscribe();
    told.next(SOON, "AddMember gate/1@");
    // Watch, beats, flush and listener of the one; those, and lease, of the other.
    settle(before + 4 + 5);
    drop(guard);
    // An unsubscribed listener's thread ends by itself.
    settle(before + 4 + 4);
    cluster.leave().expect("told");
    settle(before + 4);
    drop(watcher);
    settle(before);
    assert!(events.iter().count() > 0);

    // A handle that is not left but dropped, with etcd hung, and lagging listeners.
    let cluster = member(etcd.endpoint(), "gate/1", 5).start();
    let cluster = cluster.expect("a member");
    let never_read = cluster.subscribe_with(headcount::Options::new().capacity(1));
    etcd.pause();
    drop(cluster);
    settle(before);
    drop(never_read);

    // And a start that fails.
    let start = member(etcd.endpoint(), "gate/1", 5).start_timeout(Duration::from_millis(100));
    start.start().expect_err("etcd hangs");
    settle(before);

    let registry = headcount::embedded::Registry::start().expect("a registry");
    let cluster = member(registry.endpoint(), "gate/1", 5).start();
    let cluster = cluster.expect("a member");
    settle(before + 1 + 4);
    registry.silence();
    drop(registry);
    settle(before + 4);
    drop(cluster);
    settle(before);
}
