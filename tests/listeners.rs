//! Channels of events: what a subscriber is told, when, and what its options do. "Pitaya row" and
//! "row" name the field report that a test answers.

mod history;
mod ledger;
mod support;
mod told;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded, select};
use headcount::{Cluster, Error, Event, ListenerStats, Options};

use ledger::{Ledger, Random, add, adds, commit, delete, put, view_in, view_of};
use support::etcd::Etcd;
use support::proxy::{Mode, Proxy};
use support::wait::until;
use told::{SOON, member, observer};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("load/{n}")).collect()
}

#[track_caller]
fn listener(cluster: &Cluster, name: &str) -> ListenerStats {
    let all = cluster.stats().listeners;
    let found = all.iter().find(|listener| listener.name == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {all:?}"))
        .clone()
}

/// All events that are there, without waiting.
fn drain(events: &Receiver<Event>) -> Vec<Event> {
    events.try_iter().collect()
}

fn lines(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::to_string).collect()
}

/// Rows 5 and 15; Pitaya row 15: who comes late is told of everybody.
#[test]
fn g1_g3_late_subscribers_amid_churn_are_told_everybody_then_every_change() {
    let etcd = Etcd::start();
    let names = names(30);
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let (stop, stopped) = bounded::<()>(0);
    let gateway = etcd.gateway();
    let churn = std::thread::spawn(move || {
        let mut random = Random(1);
        let mut batches = 0;
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            commit(&gateway, random.changes(&names));
            batches += 1;
        }
        add(&gateway, "end/1");
        batches
    });
    // One after another, each as soon as the one before has been told of some changes.
    let readers: Vec<_> = (0..20)
        .map(|number| {
            // A roomy one, and one that has to fold.
            let capacity = if number % 2 == 0 { 1024 } else { 2 };
            let events = cluster.subscribe_with(Options::new().capacity(capacity));
            let mut ledger = Ledger::default();
            ledger.read_until_synced(&events, SOON);
            let initial = ledger.changes;
            ledger.read_until(&events, SOON, |_| true);
            let rest = std::thread::spawn(move || {
                ledger.read_until(&events, 2 * SOON, |event| adds(event, "end/1"));
                ledger
            });
            (initial, rest)
        })
        .collect();
    drop(stop);
    let batches = churn.join().expect("it writes");
    let truth = view_in(&etcd.gateway());
    let mut told = Vec::new();
    for (initial, reader) in readers {
        let ledger = reader.join().expect("nothing wrong was told");
        assert_eq!(ledger.view, truth);
        told.push((initial, ledger.changes));
    }
    println!("{batches} batches; (initial, all) told: {told:?}");
    let late = told.iter().filter(|(initial, _)| *initial > 0).count();
    assert!(late > 10, "only {late} of 20 came to a cluster in motion");
    assert_eq!(view_of(&cluster), truth);
}

#[test]
fn g3_a_restart_under_the_same_id_is_a_departure_and_an_addition() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let events = cluster.subscribe();
    let mut ledger = Ledger::default();
    for _ in 0..50 {
        add(&gateway, "gate/1");
        commit(&gateway, vec![delete("gate/1")]);
    }
    add(&gateway, "end/1");
    ledger.read_until(&events, SOON, |event| adds(event, "end/1"));
    assert_eq!(ledger.changes, 101, "each of them is told");
    assert_eq!(ledger.view, view_in(&gateway));
}

#[test]
fn g4_g5_one_that_does_not_read_delays_nobody_and_ends_at_the_view() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let slow = cluster.subscribe_with(Options::new().name("slow").capacity(1));
    let fast = cluster.subscribe_with(Options::new().name("fast").capacity(10_000));
    let (names, mut random) = (names(50), Random(2));
    let (mut followed, mut ledger) = (Ledger::default(), Ledger::default());
    // What it has been told of must be taken back, if only in the end.
    commit(&gateway, names.iter().map(|name| put(name, 0)).collect());
    ledger.read_until(&slow, SOON, |event| adds(event, &names[49]));
    let known = ledger.changes;
    for _ in 0..100 {
        commit(&gateway, random.changes(&names));
    }
    add(&gateway, "end/1");
    // Nobody has read from `slow`; this one is told to the end all the same.
    followed.read_until(&fast, SOON, |event| adds(event, "end/1"));
    let stats = listener(&cluster, "slow");
    println!(
        "slow: {stats:?}; fast was told {} changes",
        followed.changes
    );
    assert_eq!(stats.capacity, 1);
    assert_eq!(stats.delivered, 1 + known + 1, "its channel is full");
    assert!(stats.depth <= 1 + 2 * 51, "more waits than members exist");
    let sum = known + stats.depth + stats.folded;
    assert_eq!(
        sum, followed.changes,
        "each change waits or has been folded"
    );

    ledger.read_until(&slow, SOON, |event| adds(event, "end/1"));
    assert_eq!(ledger.view, view_in(&gateway));
    assert_eq!(ledger.folded, stats.folded, "`Lagged` says how much");
    assert_eq!(ledger.changes, known + stats.depth);
    let stats = listener(&cluster, "slow");
    assert_eq!((stats.depth, stats.folded), (0, ledger.folded));

    // It keeps up now, and nothing more is folded.
    commit(&gateway, vec![delete("end/1")]);
    let event = ledger.read_until(&slow, SOON, |_| true);
    assert!(event.is_departure(), "{event}");
    assert_eq!(listener(&cluster, "slow").folded, ledger.folded);
}

/// Pitaya row 15: there is a way out.
#[test]
fn g4_a_dropped_receiver_is_forgotten_at_the_next_event() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let idle = cluster.subscribe_with(Options::new().name("idle"));
    // This one goes while something waits for it.
    let lagging = cluster.subscribe_with(Options::new().name("lagging").capacity(1));
    let stays = cluster.subscribe();
    let mut ledger = Ledger::default();
    commit(&gateway, vec![put("a/1", 0), put("a/2", 0)]);
    ledger.read_until(&stays, SOON, |event| adds(event, "a/2"));
    assert_eq!(listener(&cluster, "lagging").depth, 3);
    assert_eq!(cluster.stats().listeners.len(), 3);
    drop(lagging);
    until(SOON, "the one that lagged is forgotten at once", || {
        cluster.stats().listeners.len() == 2
    });
    drop(idle);
    add(&gateway, "a/3");
    ledger.read_until(&stays, SOON, |event| adds(event, "a/3"));
    until(SOON, "the idle one is forgotten", || {
        cluster.stats().listeners.len() == 1
    });
}

/// Who subscribes after `start` is told its own standing before the members, never later.
#[test]
fn g1_ready_means_that_registered_was_told() {
    let etcd = Etcd::start();
    for id in 0..20 {
        let cluster = member(etcd.endpoint(), &format!("own/{id}"), 10).start();
        let cluster = cluster.expect("a member");
        let events = cluster.subscribe();
        let first = events.recv_timeout(SOON).expect("it is told");
        assert!(matches!(first, Event::Registered { .. }), "{first}");
    }
}

#[test]
fn g1_options_choose_what_is_told() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    commit(&gateway, vec![put("a/1", 0), put("b/1", 0)]);
    let cluster = member(etcd.endpoint(), "own/1", 10).start();
    let cluster = cluster.expect("a member");
    let only = |t: &str| Options::new().only_type(t);
    let options = [
        ("all", Options::new()),
        ("a and c", only("a").only_type("c")),
        ("changes", Options::new().initial(false)),
        ("others", Options::new().others_only()),
    ];
    let events = options.map(|(name, options)| cluster.subscribe_with(options.name(name)));
    commit(&gateway, vec![put("a/1", 1), put("b/1", 1), put("c/1", 1)]);
    cluster.update_metadata([("k", "v")]).expect("etcd is up");
    commit(&gateway, vec![delete("a/1"), delete("b/1")]);
    assert!(cluster.wait_for(|all| all.len() == 2, SOON));
    cluster.leave().expect("etcd is up");

    // One's own departure may or may not come in before the end.
    let told = events.map(|events| {
        let mut told = drain(&events);
        told.retain(|e| !(e.is_departure() && e.to_string().contains("own/1")));
        let lines = lines(&told).into_iter();
        let short = lines.map(|line| line.split('@').next().unwrap_or_default().to_owned());
        let short = short.map(|line| line.split(" (").next().unwrap_or_default().to_owned());
        short.collect::<Vec<_>>()
    });
    let initial = "Registered,AddMember a/1,AddMember b/1,AddMember own/1,Synced";
    let changes = "UpdateMember a/1,UpdateMember b/1,AddMember c/1,UpdateMember own/1,\
                   RemoveMember a/1,RemoveMember b/1";
    assert_eq!(told[0].join(","), format!("{initial},{changes}"));
    assert_eq!(
        told[1].join(","),
        "Registered,AddMember a/1,Synced,UpdateMember a/1,AddMember c/1,RemoveMember a/1"
    );
    assert_eq!(told[2].join(","), format!("Registered,Synced,{changes}"));
    let others = |all: &str| {
        let all = all.split(',').filter(|line| !line.ends_with("own/1"));
        all.collect::<Vec<_>>().join(",")
    };
    assert_eq!(told[3].join(","), others(&format!("{initial},{changes}")));
}

/// Rows 15 and 17: a listener may be there before etcd is.
#[test]
fn g1_g7_subscribers_of_before_the_first_listing() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    commit(&gateway, vec![put("a/1", 0), put("a/2", 0)]);
    let proxy = Proxy::start(&etcd.address());
    proxy.set_mode(Mode::Refuse);
    let cluster = observer(proxy.endpoint()).start_without_store().start();
    let cluster = cluster.expect("it does not need etcd to start");
    let all = cluster.subscribe();
    let changes = cluster.subscribe_with(Options::new().initial(false));
    assert!(!cluster.is_synced() && !cluster.store_reachable());
    let first = all.recv_timeout(SOON).expect("it is told");
    assert!(matches!(first, Event::StoreLost), "{first}");
    proxy.set_mode(Mode::Pass);
    let then = all.recv_timeout(SOON).expect("it is told");
    assert!(matches!(then, Event::StoreRestored), "{then}");
    let mut ledger = Ledger::default();
    ledger.read_until_synced(&all, SOON);
    assert_eq!(ledger.view, view_in(&gateway));
    assert!(cluster.is_synced() && cluster.store_reachable());
    assert_eq!(lines(&drain(&all)), [""; 0]);
    // Who wants changes only is told neither of those who were there nor twice.
    add(&gateway, "a/3");
    ledger.read_until(&all, SOON, |event| adds(event, "a/3"));
    until(SOON, "four events for it", || changes.len() == 4);
    let told = lines(&drain(&changes));
    assert_eq!(told[..3], ["StoreLost", "StoreRestored", "Synced"]);
    assert!(told[3].starts_with("AddMember a/3@"), "{told:?}");
}

#[test]
fn g12_after_leaving_channels_are_closed_and_the_view_stays() {
    let etcd = Etcd::start();
    add(&etcd.gateway(), "a/1");
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let before = cluster.subscribe();
    cluster.leave().expect("nobody to tell");
    assert_eq!(lines(&before.iter().collect::<Vec<_>>()).len(), 2);
    let after = cluster.subscribe();
    assert_eq!(after.recv().map(|e| e.to_string()).ok(), None);
    let refused = cluster.add_listener(|_: &Event| {}).map(drop);
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert!(cluster.wait_for(|all| all.len() == 1, Duration::ZERO));
    let asked = Instant::now();
    assert!(!cluster.wait_for(|all| all.is_empty(), SOON));
    assert!(
        asked.elapsed() < SOON / 2,
        "nothing will change: no use waiting"
    );
    assert_eq!(cluster.stats().listeners, []);
}

#[test]
fn g4_waiting_for_members_ends_at_the_change_the_time_or_the_end() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    assert!(cluster.wait_for(|all| all.is_empty(), Duration::ZERO));
    let asked = Instant::now();
    assert!(!cluster.wait_for(|all| !all.is_empty(), Duration::from_millis(50)));
    assert!(asked.elapsed() >= Duration::from_millis(50));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut seen = vec![];
            // The longest time there is means "for ever".
            let came = cluster.wait_for(
                |all| {
                    seen.push(all.len());
                    all.len() == 3
                },
                Duration::MAX,
            );
            (came, seen)
        });
        for name in ["a/1", "a/2", "b/1"] {
            add(&gateway, name);
        }
        let (came, seen) = waiting.join().expect("no panic");
        assert!(came && seen.len() <= 5, "asked without need: {seen:?}");

        let waiting = scope.spawn(|| cluster.wait_for(|all| all.len() == 9, Duration::MAX));
        cluster.leave().expect("nobody to tell");
        assert!(!waiting.join().expect("no panic"));
    });
}

#[test]
fn g4_a_receiver_can_be_selected_on() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let events = cluster.subscribe();
    let (work, todo) = bounded(0);
    let worker = std::thread::spawn(move || {
        for n in 0..3 {
            add(&gateway, &format!("a/{n}"));
            work.send(n).expect("somebody works");
        }
    });
    let (mut done, mut members) = (vec![], 0);
    while done.len() < 3 || members < 3 {
        select! {
            recv(events) -> event => match event.expect("it goes on") {
                Event::AddMember(_) => members += 1,
                other => assert!(matches!(other, Event::Synced), "{other}"),
            },
            recv(todo) -> n => done.extend(n),
            default(SOON) => panic!("{done:?}, {members} members"),
        }
    }
    worker.join().expect("it worked");
    assert_eq!(done, [0, 1, 2]);
}

#[test]
fn g5_g13_statistics_say_what_happened() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    gateway.put("pitaya/servers/a/null", "null", 0);
    gateway.put("pitaya/servers/a/b/c", "{}", 0);
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let events = cluster.subscribe_with(Options::new().name("some").capacity(7));
    gateway.put("pitaya/servers/a/huge", vec![b'x'; 65 * 1024], 0);
    add(&gateway, "a/1");
    commit(&gateway, vec![put("a/1", 1)]);
    commit(&gateway, vec![delete("a/1")]);
    let mut ledger = Ledger::default();
    ledger.read_until(&events, SOON, Event::is_departure);

    let stats = cluster.stats();
    assert_eq!((stats.members, stats.events), (0, 3));
    assert_eq!(stats.revision, gateway.revision());
    assert_eq!(
        (stats.skipped.unparsable, stats.skipped.bad_key),
        (1, 1),
        "{stats:?}"
    );
    assert_eq!(stats.skipped.too_large, 1, "{stats:?}");
    assert_eq!(stats.relists.first, 1, "{stats:?}");
    assert_eq!(stats.relists.compacted + stats.relists.went_back, 0);
    assert!(stats.store_reachable && stats.view_age.is_some_and(|age| age < SOON));
    let some = listener(&cluster, "some");
    assert_eq!(
        (some.capacity, some.depth, some.delivered, some.folded),
        (7, 0, 4, 0)
    );
    etcd.wipe();
    until(SOON, "the wiped etcd is listed", || {
        let relists = cluster.stats().relists;
        relists.went_back + relists.cluster_changed == 1
    });
    assert!(cluster.stats().reconnects <= 1);
}
