//! G12: as many threads afterwards as before. Alone in its process, since it counts all of them.

mod support;
mod told;

use std::time::Duration;

use headcount::Event;

use support::etcd::Etcd;
use support::load::threads;
use support::wait::until;
use told::{SOON, Told, member, observer};

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
    assert_eq!(threads(), before + 4 + 5);
    drop(guard);
    until(SOON, "an unsubscribed listener's thread ends", || {
        threads() == before + 4 + 4
    });
    cluster.leave().expect("told");
    assert_eq!(threads(), before + 4);
    drop(watcher);
    assert_eq!(threads(), before);
    assert!(events.iter().count() > 0);

    // A handle that is not left but dropped, with etcd hung, and lagging listeners.
    let cluster = member(etcd.endpoint(), "gate/1", 5).start();
    let cluster = cluster.expect("a member");
    let never_read = cluster.subscribe_with(headcount::Options::new().capacity(1));
    etcd.pause();
    drop(cluster);
    assert_eq!(threads(), before);
    drop(never_read);

    // And a start that fails.
    let start = member(etcd.endpoint(), "gate/1", 5).start_timeout(Duration::from_millis(100));
    start.start().expect_err("etcd hangs");
    assert_eq!(threads(), before);
}
