//! What a registration does, and does not, to what stands at its key; and what it costs etcd.

mod support;
mod told;

use std::net::TcpListener;
use std::time::Duration;

use headcount::Event;

use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, Request};
use support::wait::{eventually, until};
use told::{SOON, Told, key, member, observer};

const NAME: &str = "gate/1";

/// The leave's, and only its, transaction deletes a key.
fn deletes(request: &Request) -> bool {
    request.path == "/v3/kv/txn" && request.text.contains("request_delete_range")
}

#[test]
fn leaving_does_not_end_a_go_server_that_has_put_over_our_key() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let gos = r#"{"id":"1","type":"gate","metadata":{},"frontend":false,"hostname":"go"}"#;
    let lease = gateway.grant(60);
    let other = etcd.gateway();
    // It puts the moment before our leave arrives: a plain PUT keeps the incarnation.
    let relay = FakeGateway::relay_unless(
        etcd.endpoint(),
        move |request| {
            if deletes(request) {
                other.put(&key(NAME), gos, lease);
            }
            None::<Reply>
        },
        |_, line| Some(line),
    );
    let cluster = member(relay.endpoint(), NAME, 5).start().expect("a member");
    cluster.leave().expect("nothing of ours is left");
    let found = gateway.get(&key(NAME)).expect("the Go server's key");
    assert_eq!((found.text().as_str(), found.lease), (gos, lease));
}

#[test]
fn g8_a_spoilt_value_is_put_right() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = member(etcd.endpoint(), NAME, 3).start().expect("a member");
    let mut told = Told::by(&cluster);
    let incarnation = told.next(SOON, "Registered").incarnation();
    let before = gateway.get(&key(NAME)).expect("our key");
    gateway.put(&key(NAME), "null", 0);
    let after = eventually(SOON, "our value back on our lease", || {
        let now = gateway.get(&key(NAME))?;
        (now.value == before.value).then_some(now)
    });
    assert_eq!(after.lease, before.lease);
    assert_eq!(cluster.incarnation(), Some(incarnation));
    assert_eq!(told.departures(), 0, "{:?}", told.lines());
}

#[test]
fn g12_a_hanging_endpoint_does_not_eat_the_time_for_leaving() {
    let etcd = Etcd::start();
    let hanging: Vec<TcpListener> = (0..2)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let mut endpoints: Vec<String> = hanging
        .iter()
        .map(|l| format!("http://{}", l.local_addr().expect("bound")))
        .collect();
    endpoints.push(etcd.endpoint());
    for _ in 0..5 {
        let cluster = member(etcd.endpoint(), NAME, 5)
            .endpoints(&endpoints)
            .stall_bound(Duration::from_secs(10))
            .request_timeout(Duration::from_secs(3))
            .connect_timeout(Duration::from_secs(1))
            .start()
            .expect("a member");
        cluster.leave().expect("told within leave_timeout");
        assert!(etcd.gateway().get(&key(NAME)).is_none());
    }
}

#[test]
fn a_quiet_prefix_catches_up_with_a_busy_store() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint())
        .reconcile_interval(Duration::from_millis(100))
        .start()
        .expect("an observer");
    let events = cluster.subscribe();
    let stood = cluster.view_revision();
    for i in 0..10_100 {
        gateway.put("other/busy", format!("{i}"), 0);
    }
    until(SOON, "a listing that catches up", || {
        cluster.stats().relists.behind > 0
    });
    assert!(cluster.view_revision() > stood + 10_000);
    gateway.put(&key(NAME), r#"{"id":"1","type":"gate"}"#, 0);
    until(SOON, "the stream going on from there", || {
        events
            .try_iter()
            .any(|event| matches!(event, Event::AddMember(_)))
    });
}

#[test]
fn g13_names_are_fit_for_a_log() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for id in ["a\nb", "\u{1b}[2J", "nul\0"] {
        gateway.put(
            &key(&format!("gate/{id}")),
            r#"{"id":"1","type":"gate"}"#,
            0,
        );
    }
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    assert!(cluster.members().is_empty());
    assert_eq!(cluster.stats().skipped.bad_key, 3);
}

#[test]
fn a_late_listener_is_told_of_a_displacement() {
    let etcd = Etcd::start();
    let old = member(etcd.endpoint(), NAME, 3).start().expect("a member");
    let mut told = Told::by(&old);
    let _new = member(etcd.endpoint(), NAME, 3).start().expect("a member");
    told.next(SOON, "Displaced");
    Told::by(&old).next(SOON, "Displaced");
}

#[test]
fn one_wrong_endpoint_does_not_fail_a_start() {
    let etcd = Etcd::start();
    let wrong = FakeGateway::start(|_| Reply::Text(404, "404 page not found\n".into()));
    let both = [wrong.endpoint(), etcd.endpoint()];
    // Which one comes first is drawn by lot.
    for _ in 0..20 {
        let cluster = member(etcd.endpoint(), NAME, 3).endpoints(&both).start();
        let cluster = cluster.expect("the other one works");
        let events = cluster.subscribe();
        etcd.gateway()
            .put(&key("gate/2"), r#"{"id":"2","type":"gate"}"#, 0);
        until(SOON, "a change, by the stream", || {
            let about = |event: &Event| event.member().is_some_and(|m| m.id() == "2");
            events.try_iter().any(|event| about(&event))
        });
        etcd.gateway().delete(&key("gate/2"));
    }
}

#[test]
fn a_member_beyond_max_members_sees_itself() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for id in ["a", "b", "z"] {
        gateway.put(
            &key(&format!("gate/{id}")),
            r#"{"id":"1","type":"gate"}"#,
            0,
        );
    }
    let cluster = member(etcd.endpoint(), "gate/m", 3).max_members(2).start();
    let cluster = cluster.expect("in its own view");
    assert!(cluster.member("gate", "m").is_some());
    assert_eq!(cluster.members().len(), 3, "two, and oneself");
}
