//! The harness itself under test: a fault that isn't made proves nothing.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;

use support::cluster::EtcdCluster;
use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, StreamStep};
use support::gateway::{Gateway, b64, int};
use support::process::Example;
use support::proxy::{Mode, Proxy};
use support::wait::{eventually, until};
use support::{load, sys};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn etcd_starts_and_the_gateway_client_speaks_to_it() {
    let etcd = Etcd::start();
    assert!(etcd.version() >= (3, 4, 0));
    let gateway = etcd.gateway();
    let lease = gateway.grant(30);
    let revision = gateway.put("a/1", "one", lease);
    gateway.put("a/2", [0, 255], 0);
    gateway.put("b", "", 0);
    let kv = gateway.get("a/1").expect("just put");
    assert_eq!(
        (kv.text().as_str(), kv.lease, kv.create_revision),
        ("one", lease, revision)
    );
    assert_eq!(gateway.list_prefix("a/").len(), 2);
    assert_eq!(gateway.list_prefix("a/")[1].value, [0, 255]);
    assert_eq!(gateway.revision(), revision + 2);
    assert_eq!(gateway.keepalive(lease), Some(30));
    assert_eq!(gateway.leases(), [lease]);
    assert!((1..=30).contains(&gateway.time_to_live(lease)));
    gateway.revoke(lease);
    assert_eq!(gateway.get("a/1"), None);
    assert_eq!(gateway.keepalive(lease), None);
    assert_eq!(gateway.time_to_live(lease), -1);
    gateway.compact(gateway.revision());
    assert_eq!(gateway.delete("b"), 1);
    assert_eq!(gateway.delete_prefix("a/"), 1);
}

#[test]
fn etcd_can_be_stopped_killed_paused_wiped_and_restarted() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    gateway.put("k", "v", 0);
    let before = gateway.cluster_id();
    let endpoint = etcd.endpoint();

    for _ in 0..5 {
        etcd.pause();
        let hasty = Gateway::with_timeout(etcd.endpoint(), Duration::from_millis(50));
        assert!(
            hasty.try_get("/version").is_err(),
            "it stands still at once"
        );
        etcd.resume();
    }
    until(SOON, "an answer after the pause", || {
        gateway.try_get("/version").is_ok()
    });

    etcd.stop();
    assert!(gateway.try_get("/version").is_err());
    etcd.restart();
    assert_eq!(etcd.endpoint(), endpoint);
    assert_eq!(gateway.get("k").expect("survives a restart").text(), "v");

    etcd.kill();
    etcd.restart();
    assert_eq!(gateway.get("k").expect("survives a crash").text(), "v");
    assert_eq!(gateway.cluster_id(), before);

    etcd.wipe();
    assert_eq!(gateway.get("k"), None);
    assert_eq!(gateway.revision(), 1);
    assert_ne!(gateway.cluster_id(), before);
}

#[test]
fn a_cluster_survives_the_death_of_its_leader() {
    let cluster = EtcdCluster::start(3);
    let leader = cluster.leader();
    let follower = cluster.follower();
    assert_ne!(leader, follower);
    cluster.node(follower).gateway().put("k", "v", 0);

    cluster.node(leader).kill();
    let next = eventually(SOON, "another leader", || {
        cluster.leader_now().filter(|&now| now != leader)
    });
    until(SOON, "the new leader answers", || {
        cluster.node(next).healthy()
    });
    assert_eq!(
        cluster.node(next).gateway().get("k").expect("kept").text(),
        "v"
    );

    cluster.node(leader).restart();
    cluster.wait_healthy(SOON);
    assert_eq!(
        cluster
            .node(leader)
            .gateway()
            .get("k")
            .expect("caught up")
            .text(),
        "v"
    );
}

/// A server that sends back what it gets, until the client closes.
struct Echo {
    address: String,
}

impl Echo {
    fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &client, &mut &client));
            }
        });
        Echo { address }
    }
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn echoes(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, text.as_bytes());
    Ok(())
}

/// Asserts that not one byte comes and nothing is closed.
fn silent(mut stream: &TcpStream, span: Duration) {
    stream.set_read_timeout(Some(span)).expect("a time-out");
    let error = stream
        .read(&mut [0])
        .expect_err("neither a byte nor an end");
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
}

const A_WHILE: Duration = Duration::from_millis(150);

#[test]
fn the_proxy_passes_stalls_and_swallows() {
    let proxy = Proxy::start(&Echo::start().address);
    let old = connect(&proxy);
    echoes(&old, "hello").expect("passes");

    proxy.stall();
    (&old).write_all(b"late").expect("accepted");
    silent(&old, A_WHILE);
    proxy.pass();
    let mut back = [0; 4];
    (&old).read_exact(&mut back).expect("forwarded after all");
    assert_eq!(&back, b"late");

    proxy.black_hole();
    (&old).write_all(b"lost").expect("accepted");
    let new = connect(&proxy);
    (&new).write_all(b"lost").expect("accepted");
    silent(&old, A_WHILE);
    silent(&new, A_WHILE);
    proxy.pass();
    (&old).write_all(b"dead").expect("accepted");
    silent(&old, A_WHILE);
    silent(&new, A_WHILE);
    echoes(&connect(&proxy), "alive").expect("a new connection works");
    assert_eq!(proxy.connections(), 3);
}

#[test]
fn the_proxy_refuses_and_resets() {
    let proxy = Proxy::start(&Echo::start().address);
    let old = connect(&proxy);
    echoes(&old, "hello").expect("passes");

    proxy.refuse();
    let error = TcpStream::connect(proxy.address()).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    echoes(&old, "still here").expect("what exists goes on");

    proxy.set_mode(Mode::Reset);
    let error = (&connect(&proxy)).read(&mut [0]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    proxy.pass();
    proxy.cut();
    let error = (&old).read(&mut [0]).expect_err("cut");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.open(), 0);
    echoes(&connect(&proxy), "again").expect("works again");

    proxy.set_target(&Echo::start().address);
    echoes(&connect(&proxy), "elsewhere").expect("another target");
    // A port that was free a moment ago.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port");
    proxy.set_target(&nobody.to_string());
    let error = (&connect(&proxy))
        .read(&mut [0])
        .expect_err("nobody behind it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_proxy_delays_splits_and_cuts_after_n_bytes() {
    let proxy = Proxy::start(&Echo::start().address);
    let stream = connect(&proxy);
    proxy.delay(A_WHILE);
    let started = Instant::now();
    echoes(&stream, "slow").expect("passes");
    assert!(
        started.elapsed() >= 2 * A_WHILE,
        "there and back: {:?}",
        started.elapsed()
    );

    // Once on the way there, and on the way back for each of the three pieces.
    let delay = Duration::from_millis(40);
    proxy.delay(delay);
    proxy.chunk(1);
    let started = Instant::now();
    echoes(&stream, "abc").expect("in order");
    assert!(
        started.elapsed() >= 4 * delay,
        "a trickle: {:?}",
        started.elapsed()
    );

    proxy.pass();
    proxy.chunk(7);
    echoes(&stream, &"many bytes ".repeat(20_000)).expect("all of them, in order");

    proxy.pass();
    proxy.cut_after(5);
    let stream = connect(&proxy);
    (&stream).write_all(b"hello world").expect("accepted");
    let mut back = Vec::new();
    let error = (&stream)
        .read_to_end(&mut back)
        .expect_err("a reset, not an end");
    assert_eq!(
        (back.as_slice(), error.kind()),
        (&b"hello"[..], ErrorKind::ConnectionReset)
    );
}

#[test]
fn the_proxy_counts_and_ends() {
    let etcd = Etcd::start();
    let threads = load::threads();
    let proxy = Proxy::start(&etcd.endpoint());
    let gateway = Gateway::new(proxy.endpoint());
    for n in 0..5 {
        gateway.put("k", n.to_string(), 0);
    }
    assert_eq!((proxy.requests(), proxy.connections()), (5, 1));
    assert!(proxy.bytes_up() > 0 && proxy.bytes_down() > 0);
    let watch = gateway.watch_prefix("k", 0);
    watch.find(SOON, |line| line["result"]["created"] == true);
    proxy.cut();
    assert!(watch.ended(SOON), "the cut reaches a watch");

    proxy.black_hole();
    let _stuck = TcpStream::connect(proxy.address()).expect("accepted");
    let started = Instant::now();
    drop(proxy);
    assert!(started.elapsed() < Duration::from_secs(1));
    drop(watch);
    assert!(load::rss_kib() > 0 && threads > 0);
}

#[test]
fn the_fake_answers_and_remembers() {
    let fake = FakeGateway::start(|request| match request.path.as_str() {
        "/json" => Reply::Json(429, json!({ "code": 8, "asked": request.body["n"] })),
        "/text" => Reply::Text(404, "404 page not found\n".into()),
        "/reset" => Reply::Reset,
        "/raw" => Reply::Raw(b"not HTTP at all".to_vec()),
        _ => Reply::Silence,
    });
    let client = Gateway::with_timeout(fake.endpoint(), Duration::from_secs(1));
    client.set_token(Some("secret".into()));
    for n in 0..2 {
        let (status, body) = client.post("/json", &json!({ "n": n }));
        assert_eq!((status, body), (429, json!({ "code": 8, "asked": n })));
    }
    assert_eq!(fake.connections(), 1, "kept alive");
    let (status, body) = client.post("/text", &json!({}));
    assert_eq!((status, body), (404, json!("404 page not found\n")));
    for path in ["/reset", "/raw", "/silence"] {
        assert!(client.try_post(path, &json!({})).is_err(), "{path}");
    }
    assert_eq!(fake.count("/json"), 2);
    let silence = fake.wait_request(SOON, |request| request.path == "/silence");
    assert_eq!(silence.header("Authorization"), Some("secret"));
    let started = Instant::now();
    drop(fake);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_fake_streams() {
    let (go, wait) = crossbeam_channel::bounded(1);
    let (send, live) = crossbeam_channel::unbounded();
    let fake = FakeGateway::start(move |request| {
        Reply::Stream(match request.path.as_str() {
            "/split" => StreamStep::split(b"{\"a\":1}\n{\"b\":2}\n{\"error\":3}", 1),
            "/wait" => vec![
                StreamStep::line(&json!(1)),
                StreamStep::Wait(A_WHILE),
                StreamStep::line(&json!(2)),
                StreamStep::WaitFor(wait.clone()),
                StreamStep::line(&json!(3)),
                StreamStep::WaitUntilClosed,
            ],
            "/live" => vec![StreamStep::Live(live.clone())],
            _ => vec![StreamStep::line(&json!(1)), StreamStep::Abort],
        })
    });
    let client = Gateway::new(fake.endpoint());
    let all = |lines: &support::gateway::Lines| {
        let next = || lines.next(SOON).map(|(_, line)| line);
        std::iter::from_fn(next).collect::<Vec<_>>()
    };

    let split = client.stream("/split", &json!({}));
    assert_eq!(
        all(&split),
        [json!({"a": 1}), json!({"b": 2}), json!({"error": 3})]
    );

    let started = Instant::now();
    let waits = client.stream("/wait", &json!({}));
    assert_eq!(waits.next(SOON).expect("the first").1, 1);
    let (at, two) = waits.next(SOON).expect("the second");
    assert_eq!(two, 2);
    assert!(at - started >= A_WHILE);
    assert!(waits.next(A_WHILE).is_none(), "not before it is told");
    go.send(()).expect("somebody waits");
    assert_eq!(waits.next(SOON).expect("the third").1, 3);
    assert!(!waits.ended(A_WHILE));
    fake.cut();
    assert!(waits.ended(SOON));

    let lines = client.stream("/live", &json!({}));
    send.send(StreamStep::line(&json!("now")))
        .expect("somebody listens");
    assert_eq!(lines.next(SOON).expect("live").1, "now");
    send.send(StreamStep::End).expect("somebody listens");
    assert!(lines.ended(SOON));

    assert_eq!(all(&client.stream("/abort", &json!({}))), [json!(1)]);
}

#[test]
fn the_relay_can_hide_a_delete() {
    let etcd = Etcd::start();
    let hidden = Arc::new(AtomicUsize::new(0));
    let counter = hidden.clone();
    let relay = FakeGateway::relay_unless(
        etcd.endpoint(),
        |request| (request.path == "/v3/lease/grant").then(|| Reply::Text(500, "no".into())),
        move |_, line| {
            let hide = line.contains("DELETE");
            counter.fetch_add(usize::from(hide), Relaxed);
            (!hide).then_some(line)
        },
    );
    let (direct, relayed) = (etcd.gateway(), Gateway::new(relay.endpoint()));
    relayed.put("a", "1", 0);
    assert_eq!(direct.get("a").expect("forwarded").text(), "1");
    assert_eq!(relayed.post("/v3/lease/grant", &json!({})).0, 500);

    let watch = relayed.watch_prefix("a", 0);
    watch.find(SOON, |line| line["result"]["created"] == true);
    direct.delete("a");
    let revision = direct.put("a", "2", 0);
    let (_, seen) = watch.next(SOON).expect("the put");
    let event = &seen["result"]["events"][0];
    assert_eq!(int(&event["kv"]["mod_revision"]), revision, "{seen}");
    assert_eq!(hidden.load(Relaxed), 1);

    etcd.kill();
    assert!(watch.ended(SOON), "the end of etcd gets through");
    assert!(
        relayed
            .try_post("/v3/kv/range", &json!({ "key": b64("a") }))
            .is_err()
    );
}

#[test]
fn the_gateway_client_logs_in() {
    let etcd = Etcd::options().args(["--auth-token-ttl", "30"]).start();
    let gateway = etcd.gateway();
    gateway.user_add("u", "pw");
    gateway.role_add("r");
    gateway.role_grant_prefix("r", "mine/", "READWRITE");
    gateway.user_grant_role("u", "r");
    gateway.auth_enable("root-pw");
    let range = |key: &str| gateway.post("/v3/kv/range", &json!({ "key": b64(key) })).0;
    assert_ne!(range("mine/1"), 200, "no token");
    gateway.login("u", "pw");
    assert_eq!((range("mine/1"), range("theirs")), (200, 403));
    etcd.restart();
    gateway.login("root", "root-pw");
    gateway.auth_disable();
    gateway.set_token(None);
    assert_eq!(range("theirs"), 200);
}

#[test]
fn a_gateway_that_is_switched_off_says_so() {
    let etcd = Etcd::options().arg("--enable-grpc-gateway=false").start();
    let (status, body) = etcd
        .gateway()
        .post("/v3/kv/range", &json!({ "key": b64("a") }));
    assert_eq!((status, body), (404, json!("404 page not found\n")));
}

#[test]
fn a_program_is_heard_and_spoken_to() {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        r#"echo noise; echo '{"n":1}'; echo trouble >&2; while read line; do echo "$line"; done"#,
    ]);
    let program = Example::run("sh", shell);
    let line = program.wait_line(SOON, |line| line["n"] == 1);
    assert_eq!(program.lines().len(), 2);
    program.write_line(r#"{"n":2}"#);
    assert!(program.wait_line(SOON, |line| line["n"] == 2).at >= line.at);

    program.signal(libc::SIGSTOP);
    program.write_line(r#"{"n":3}"#);
    assert!(program.next_line(A_WHILE).is_none());
    program.signal(libc::SIGCONT);
    program.wait_line(SOON, |line| line["n"] == 3);
    assert!(program.running());
    program.close_stdin();
    assert!(program.wait_exit(SOON).success());
    assert_eq!(program.errors(), "trouble\n");
}

const VICTIM: &str = "HEADCOUNT_SELFTEST_VICTIM";

/// Only for the test below, which runs it as a process of its own in order to kill that.
#[test]
fn an_etcd_and_a_long_wait() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let etcd = Etcd::start();
    println!("etcd is {}", etcd.pid().expect("it runs"));
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn no_etcd_survives_a_killed_test() {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "--nocapture", "an_etcd_and_a_long_wait"]);
    // It can't clear up behind itself.
    let litter = tempfile::tempdir().expect("a temporary folder");
    command
        .env(VICTIM, "1")
        .env("TMPDIR", litter.path())
        .stdout(Stdio::piped());
    let mut child = sys::spawn(command).expect("start");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("etcd is ")
                .map(|(_, pid)| pid.trim().to_owned())
        })
        .expect("it says the pid");
    let alive = || {
        // The field behind the name; a zombie has ended.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    assert!(alive());
    child.kill().expect("kill");
    child.wait().expect("its end");
    until(SOON, "etcd is gone too", || !alive());
}
