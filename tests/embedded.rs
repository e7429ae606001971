//! The embedded registry: what a test of a listener can make it do, and what it can bear.

mod support;
mod told;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use headcount::embedded::Registry;
use serde_json::json;

use support::gateway::{Gateway, b64};
use support::wait::until;
use told::{SOON, Told, member, observer};

/// With the registry broken, the stall bound of `told::observer` and a little more.
const NOTICED: Duration = Duration::from_secs(8);

fn start() -> Registry {
    Registry::start().expect("a registry")
}

#[test]
fn two_hundred_watches() {
    const WATCHES: usize = 200;
    let registry = start();
    let gateway = Gateway::new(registry.endpoint());
    let files = || fs::read_dir("/proc/self/fd").expect("a /proc").count();
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| gateway.watch_prefix("w/", 0))
        .collect();
    for watch in &watches {
        watch.find(SOON, |line| line["result"]["created"] == true);
    }
    let with = files();
    for n in 0..20 {
        gateway.put(&format!("w/{n}"), "v", 0);
    }
    for watch in &watches {
        for n in 0..20 {
            let (_, line) = watch.next(SOON).expect("each change");
            let key = &line["result"]["events"][0]["kv"]["key"];
            assert_eq!(key, &json!(b64(format!("w/{n}"))), "{line}");
        }
    }
    drop(watches);
    until(
        SOON,
        "the registry closes what its clients have closed",
        || files() + WATCHES <= with,
    );
}

/// What the documentation promises of each fault, seen through a listener.
#[test]
fn g6_g7_g8_faults_on_demand() {
    let registry = start();
    let watcher = observer(registry.endpoint()).start().expect("an observer");
    let mut seen = Told::by(&watcher);
    let cluster = member(registry.endpoint(), "gate/1", 5)
        .start()
        .expect("a member");
    let mut own = Told::by(&cluster);
    let first = seen.next(SOON, "AddMember gate/1@").incarnation();

    let lease = watcher.member("gate", "1").expect("it is there").lease();
    assert!(registry.expire(lease));
    assert!(!registry.expire(lease), "it is gone");
    seen.next(SOON, &format!("ServerDown gate/1@{first}"));
    own.next(SOON, "Lost");
    let second = seen.next(SOON, "AddMember gate/1@").incarnation();
    assert!(second > first);

    assert!(registry.delete("pitaya/servers/gate/1"));
    assert!(!registry.delete("pitaya/servers/gate/none"));
    seen.departure(SOON, "gate/1");
    let third = seen.next(SOON, "AddMember gate/1@").incarnation();

    // Nobody is called down because the registry is away, silent or refusing.
    let down = Instant::now();
    registry.silence();
    seen.next(NOTICED, "StoreLost");
    registry.come_back().expect("it was listening all the time");
    seen.next(NOTICED, "StoreRestored");
    registry.refuse();
    seen.next(NOTICED, "StoreLost");
    until(NOTICED, "longer than the lease", || {
        down.elapsed() > Duration::from_secs(7)
    });
    assert!(watcher.member("gate", "1").is_some());
    registry.come_back().expect("its port is free");
    seen.next(NOTICED, "StoreRestored");
    assert_eq!(
        watcher.member("gate", "1").map(|m| m.incarnation()),
        Some(third)
    );

    registry.refuse();
    seen.next(NOTICED, "StoreLost");
    registry.come_back().expect("its port is free");
    let gateway = Gateway::new(registry.endpoint());
    let newest = (0..3)
        .map(|n| gateway.put("elsewhere", n.to_string(), 0))
        .max();
    assert_eq!(Some(registry.compact()), newest);
    let relists = || watcher.stats().relists;
    until(NOTICED, "a new listing", || relists().compacted == 1);

    registry.wipe();
    seen.next(NOTICED, &format!("ServerDown gate/1@{third}"));
    seen.next(NOTICED, "AddMember gate/1@");
    assert_eq!(relists().went_back + relists().cluster_changed, 1);
}

/// Whatever bytes come: an answer in etcd's shape or in HTTP's, or the connection's end; the
/// others are served all the same.
#[test]
fn g13_bad_requests_hurt_nobody() {
    let registry = start();
    let gateway = Gateway::new(registry.endpoint());
    let put = |body: &str| format!("POST /v3/kv/put HTTP/1.1\r\nHost: x\r\n{body}");
    let cases: [(String, &str); 11] = [
        ("GET\r\n\r\n".into(), "HTTP/1.1 400"),
        ("GET / HTTP/9.9\r\n\r\n".into(), "HTTP/1.1 400"),
        (
            format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)),
            "HTTP/1.1 431",
        ),
        (put("Content-Length: x\r\n\r\n"), "HTTP/1.1 400"),
        (put("Content-Length: -1\r\n\r\n"), "HTTP/1.1 400"),
        (
            put("Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
            "HTTP/1.1 400",
        ),
        (put("Content-Length: 3\r\n\r\n{\"}"), "HTTP/1.1 400"),
        (
            put("Content-Length: 13\r\n\r\n{\"key\":\"###\"}"),
            "HTTP/1.1 400",
        ),
        (
            put(&format!(
                "Content-Length: 5000000\r\n\r\n{}",
                " ".repeat(5_000_000)
            )),
            "HTTP/1.1 400",
        ),
        (
            put(&format!(
                "Content-Length: 200000\r\n\r\n{}",
                "[".repeat(200_000)
            )),
            "HTTP/1.1 400",
        ),
        (
            "POST /v3/kv/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 404",
        ),
    ];
    for (request, wanted) in cases {
        let what = &request[..request.len().min(80)];
        let mut socket = TcpStream::connect(registry.address()).expect("it listens");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut answer = vec![0; wanted.len()];
        socket
            .read_exact(&mut answer)
            .unwrap_or_else(|e| panic!("{what:?}: {e}"));
        assert_eq!(String::from_utf8_lossy(&answer), wanted, "{what:?}");
    }
    // Half a request, and away.
    for request in [
        "P",
        "POST /v3/kv/put HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut socket = TcpStream::connect(registry.address()).expect("it listens");
        socket.write_all(request.as_bytes()).expect("it reads");
    }
    gateway.put("a", "b", 0);
    assert_eq!(gateway.get("a").map(|kv| kv.text()), Some("b".into()));
}
