//! etcd with authentication on: failure-modes rows 11 and 25.

mod support;
mod told;

use std::fs;
use std::time::{Duration, Instant};

use headcount::{Builder, Error};
use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use serde_json::json;

use support::etcd::{Etcd, Options};
use support::fake::{FakeGateway, Reply};
use support::gateway::{Gateway, b64};
use support::wait::{throughout, until};
use told::{SOON, Told, key, member, observer};

const USER: &str = "app";
const PASSWORD: &str = "s3cret-of-app";
const OTHER: &str = "s3cret-changed";
const ROOT: &str = "s3cret-of-root";
const LOGIN: &str = "/v3/auth/authenticate";
const NAME: &str = "gate/1";

/// Keeps every record but the raw bytes that the HTTP library prints at `trace`, as documented.
struct Records(Mutex<Vec<String>>);

impl Log for Records {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }
    fn log(&self, record: &Record) {
        let ours = record.target().starts_with("headcount");
        if ours || record.level() < log::Level::Trace {
            let line = format!("{} {}: {}", record.level(), record.target(), record.args());
            self.0.lock().push(line);
        }
    }
    fn flush(&self) {}
}

static RECORDS: Records = Records(Mutex::new(Vec::new()));

/// An etcd in which `app` may do what the documentation says it must, and root's gateway to it.
#[track_caller]
fn etcd(options: Options) -> (Etcd, Gateway) {
    let _ = log::set_logger(&RECORDS);
    log::set_max_level(LevelFilter::Trace);
    // Hashing a password is meant to take time, which a busy machine has not got.
    let etcd = options.args(["--bcrypt-cost", "4"]).start();
    let gateway = etcd.gateway();
    gateway.user_add(USER, PASSWORD);
    gateway.role_add("members");
    grant(&gateway, "READWRITE");
    gateway.user_grant_role(USER, "members");
    (etcd, gateway)
}

/// Just the range that the documentation names.
#[track_caller]
fn grant(gateway: &Gateway, permission: &str) {
    let range = json!({ "permType": permission,
        "key": b64("pitaya/servers-"), "range_end": b64("pitaya/servers0") });
    let request = json!({ "name": "members", "perm": range });
    assert_eq!(gateway.post("/v3/auth/role/grant", &request).0, 200);
}

#[track_caller]
fn switch_on(gateway: &Gateway) {
    gateway.auth_enable(ROOT);
    gateway.login("root", ROOT);
}

#[track_caller]
fn guarded(options: Options) -> (Etcd, Gateway) {
    let (etcd, gateway) = etcd(options);
    switch_on(&gateway);
    (etcd, gateway)
}

fn relay(etcd: &Etcd) -> FakeGateway {
    FakeGateway::relay(etcd.endpoint(), |_, line| Some(line))
}

fn as_app(builder: Builder) -> Builder {
    let stall_bound = Duration::from_secs(3);
    builder.credentials(USER, PASSWORD).stall_bound(stall_bound)
}

/// Row 25. Tests run side by side here, so this looks at what all of them have logged.
#[track_caller]
fn no_secrets(tokens: &[String], others: &[String]) {
    let records = RECORDS.0.lock();
    for line in records.iter().chain(others) {
        let passwords = [PASSWORD, OTHER, ROOT].into_iter();
        for secret in passwords.chain(tokens.iter().map(String::as_str)) {
            assert!(!line.contains(secret), "{line}");
            assert!(!line.contains(&b64(secret)), "{line}");
        }
    }
}

/// What was sent as a token through the relay.
fn tokens(relay: &FakeGateway) -> Vec<String> {
    let requests = relay.requests();
    let tokens = requests.iter().filter_map(|r| r.header("authorization"));
    let mut tokens: Vec<String> = tokens.map(str::to_owned).collect();
    tokens.sort();
    tokens.dedup();
    tokens
}

/// Everything that a member does, with no more permission than documented. Row 25 as well.
#[test]
fn row25_one_login_serves_all_and_no_secret_is_printed() {
    let (etcd, gateway) = guarded(Etcd::options());
    let relay = relay(&etcd);
    let builder = as_app(member(relay.endpoint(), NAME, 3));
    let printed = format!("{builder:?}");
    let cluster = builder.clone().start().expect("a member");
    let watcher = as_app(observer(etcd.endpoint())).start().expect("a peer");
    let mut peer = Told::by(&watcher);
    peer.next(SOON, "AddMember gate/1@");
    cluster.update_metadata([("k", "v")]).expect("put");
    peer.next(SOON, "UpdateMember gate/1@");
    until(SOON, "a keepalive and another watch", || {
        relay.count("/v3/lease/keepalive") >= 1 && relay.count("/v3/watch") >= 2
    });
    // Its threads share the token, and it is sent with every call.
    assert_eq!(relay.count(LOGIN), 1);
    let sent = tokens(&relay);
    assert_eq!(sent.len(), 1);
    let without = relay.requests().into_iter();
    let without = without.filter(|r| r.header("authorization").is_none());
    assert!(without.map(|r| r.path).eq([LOGIN]));

    let old = cluster.incarnation().expect("registered");
    let heir = builder.start().expect("taken over");
    let gone = peer.next(SOON, "ServerDown gate/1@");
    assert_eq!(gone.text, format!("ServerDown gate/1@{old} (replaced)"));
    heir.leave().expect("told");
    peer.next(SOON, "RemoveMember gate/1@");
    assert_eq!(gateway.get(&key(NAME)), None);

    let prints = [
        printed,
        format!("{cluster:?} {watcher:?} {:?}", cluster.stats()),
    ];
    no_secrets(&tokens(&relay), &prints);
    let records = RECORDS.0.lock();
    assert!(
        records
            .iter()
            .any(|line| line.contains("logged in to etcd as \"app\""))
    );
}

/// Simple tokens expire when they are not used for a while: between two watches, two verifications.
#[test]
fn row11_expired_tokens_are_renewed_and_nobody_notices() {
    let (etcd, gateway) = guarded(Etcd::options().args(["--auth-token-ttl", "1"]));
    let ways = [relay(&etcd), relay(&etcd)];
    let slow = |builder: Builder| as_app(builder).stall_bound(Duration::from_secs(7));
    let cluster = slow(member(ways[0].endpoint(), NAME, 4))
        .start()
        .expect("a member");
    let watcher = slow(observer(ways[1].endpoint()))
        .start()
        .expect("an observer");
    let (own, mut peer) = (Told::by(&cluster), Told::by(&watcher));
    for way in &ways {
        // The first one, and twice anew.
        let started = Instant::now();
        while way.count(LOGIN) < 3 {
            let asked = way.requests().into_iter();
            let asked: Vec<_> = asked.map(|r| (r.at.elapsed(), r.path)).collect();
            assert!(started.elapsed() < Duration::from_secs(20), "{asked:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    gateway.login("root", ROOT);
    gateway.put(&key("gate/2"), r#"{"id":"2","type":"gate"}"#, 0);
    peer.next(SOON, "AddMember gate/2@");
    assert!(cluster.is_registered());
    assert_eq!(own.all("Lost").len() + own.all("StoreLost").len(), 0);
    assert_eq!(peer.all("StoreLost").len(), 0, "{:?}", peer.lines());
    // Never more logins than requests that could have needed one.
    for way in &ways {
        let needing = way.count("/v3/watch") + way.count("/v3/kv/txn") + way.count("/v3/kv/range");
        assert!(way.count(LOGIN) <= needing, "{} logins", way.count(LOGIN));
    }
    no_secrets(&[tokens(&ways[0]), tokens(&ways[1])].concat(), &[]);
}

/// From 3.5.28 on etcd wants the token with a keepalive, too, and refuses it in the stream's way.
#[test]
fn row11_a_keepalive_refused_for_its_token_logs_in_again() {
    let (etcd, _gateway) = guarded(Etcd::options());
    let shapes = [
        (
            401,
            json!({"error": {"grpc_code": 16, "http_code": 401, "message": "etcdserver: invalid auth token"}}),
        ),
        (
            200,
            json!({"error": {"code": 16, "message": "etcdserver: invalid auth token"}}),
        ),
    ];
    let left = Mutex::new(shapes.to_vec());
    let answer = move |request: &support::fake::Request| {
        let keepalive = request.path == "/v3/lease/keepalive";
        let (status, body) = keepalive.then(|| left.lock().pop())??;
        Some(Reply::Json(status, body))
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let cluster = as_app(member(relay.endpoint(), NAME, 3))
        .start()
        .expect("a member");
    let own = Told::by(&cluster);
    until(SOON, "two refused, two granted", || {
        relay.count("/v3/lease/keepalive") >= 4
    });
    assert_eq!(relay.count(LOGIN), 3);
    assert_eq!(own.all("Lost").len(), 0);
}

/// Any change of a user makes older JWTs invalid.
#[test]
fn row11_jwt_survives_a_change_of_users() {
    let dir = tempfile::tempdir().expect("a folder");
    let secret = dir.path().join("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    let token = format!(
        "jwt,sign-method=HS256,ttl=10m,priv-key={}",
        secret.display()
    );
    let (etcd, gateway) = guarded(Etcd::options().args(["--auth-token", &token]));
    let relay = relay(&etcd);
    let cluster = as_app(member(relay.endpoint(), NAME, 3))
        .start()
        .expect("a member");
    let own = Told::by(&cluster);
    assert_eq!(relay.count(LOGIN), 1);
    gateway.user_add("somebody", OTHER);
    cluster
        .update_metadata([("k", "v")])
        .expect("put, after another login");
    assert_eq!(relay.count(LOGIN), 2);
    let (watches, kept) = (relay.count("/v3/watch"), relay.count("/v3/lease/keepalive"));
    until(SOON, "the watch and the keepalive go on", || {
        relay.count("/v3/watch") > watches + 1 && relay.count("/v3/lease/keepalive") > kept
    });
    assert_eq!(own.all("Lost").len() + own.all("StoreLost").len(), 0);
    assert!(relay.count(LOGIN) <= 3, "{}", relay.count(LOGIN));
    no_secrets(&tokens(&relay), &[]);
}

#[test]
fn row11_authentication_switched_on_live() {
    let (etcd, gateway) = etcd(Etcd::options());
    let relay = relay(&etcd);
    // Off: credentials do no harm, and etcd is asked once whether it knows them.
    let cluster = as_app(member(relay.endpoint(), NAME, 3))
        .start()
        .expect("a member");
    assert_eq!((relay.count(LOGIN), tokens(&relay).len()), (1, 0));
    let stranger = observer(etcd.endpoint()).start().expect("an observer");
    let mut own = Told::by(&cluster);
    let mut strange = Told::by(&stranger);
    strange.next(SOON, "Synced");

    switch_on(&gateway);
    cluster
        .update_metadata([("k", "v")])
        .expect("put, after a login");
    own.next(SOON, "UpdateMember gate/1@");
    let watches = relay.count("/v3/watch");
    until(SOON, "another watch", || {
        relay.count("/v3/watch") > watches + 1
    });
    assert_eq!(own.all("Lost").len() + own.all("StoreLost").len(), 0);
    assert!(relay.count(LOGIN) <= 3, "{}", relay.count(LOGIN));
    // Whoever has no credentials is told what is missing, and keeps its view.
    strange.next(SOON, "StoreLost");
    assert!(matches!(
        stranger.last_error(),
        Some(Error::CredentialsNeeded)
    ));
    assert_eq!(stranger.members().len(), 1);

    gateway.auth_disable();
    strange.next(SOON, "StoreRestored");
    gateway.set_token(None);
    cluster.update_metadata([("k", "w")]).expect("put");
    assert_eq!(own.all("Lost").len(), 0);
}

/// Final, said at once, and no account gets locked by trying.
#[test]
fn row11_a_wrong_password_is_final() {
    let (etcd, gateway) = guarded(Etcd::options());
    let way = relay(&etcd);
    for builder in [observer(way.endpoint()), member(way.endpoint(), NAME, 3)] {
        let before = way.count(LOGIN);
        let started = Instant::now();
        let refused = builder.credentials(USER, OTHER).start();
        let took = started.elapsed();
        match &refused {
            Err(Error::WrongPassword { user }) => assert_eq!(user, USER),
            other => panic!("{other:?}"),
        }
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(way.count(LOGIN) - before <= 2, "one a thread at most");
        let error = refused.expect_err("refused");
        no_secrets(&[], &[format!("{error} {error:?}")]);
    }
    for (user, password) in [("nobody", OTHER), (USER, "")] {
        let refused = observer(etcd.endpoint())
            .credentials(user, password)
            .start();
        assert!(
            matches!(refused, Err(Error::WrongPassword { .. })),
            "{refused:?}"
        );
    }
    let none = observer(etcd.endpoint()).start();
    assert!(matches!(none, Err(Error::CredentialsNeeded)), "{none:?}");

    // In the background it is tried at the slowest pace, and mends itself when the password is set.
    let way = relay(&etcd);
    let cluster = member(way.endpoint(), NAME, 3)
        .credentials(USER, OTHER)
        .backoff(Duration::from_millis(10), Duration::from_secs(2))
        .start_without_store()
        .start()
        .expect("no etcd needed");
    let mut own = Told::by(&cluster);
    throughout(Duration::from_millis(3500), "not registered", || {
        !cluster.is_registered()
    });
    // Two threads, each at the start and after each 1.8 to 2 s.
    let tries = way.count(LOGIN);
    assert!((2..=4).contains(&tries), "{tries} logins in 3.5 s");
    gateway.user_change_password(USER, OTHER);
    own.next(SOON, "Registered");
    no_secrets(&tokens(&way), &[]);
}

/// It changes under a running member: the view stays, no storm, and all is well with the next login.
#[test]
fn row11_password_changed_live() {
    let (etcd, gateway) = guarded(Etcd::options());
    let relay = relay(&etcd);
    let cluster = as_app(member(relay.endpoint(), NAME, 3))
        .backoff(Duration::from_millis(10), Duration::from_secs(1))
        .start()
        .expect("a member");
    let mut own = Told::by(&cluster);
    own.next(SOON, "Registered");
    let before = relay.count(LOGIN);
    let changed = Instant::now();
    gateway.user_change_password(USER, OTHER);
    let refused = cluster.update_metadata([("k", "v")]);
    assert!(
        matches!(refused, Err(Error::WrongPassword { .. })),
        "{refused:?}"
    );
    own.next(SOON, "StoreLost");
    until(SOON, "the reason", || {
        matches!(cluster.last_error(), Some(Error::WrongPassword { .. }))
    });
    throughout(Duration::from_secs(2), "the view stays", || {
        cluster.members().len() == 1
    });
    let (tries, took) = (relay.count(LOGIN) - before, changed.elapsed());
    // Two threads, each 0.9 to 1 s apart, the update and the first refusals.
    let most = 4 + 2 * (took.as_millis() / 900 + 1);
    assert!((tries as u128) <= most, "{tries} logins in {took:?}");

    gateway.user_change_password(USER, PASSWORD);
    own.next(SOON, "StoreRestored");
    until(SOON, "registered, with what was set meanwhile", || {
        let me = cluster.member("gate", "1");
        cluster.is_registered() && me.is_some_and(|m| m.metadata().get("k") == Some("v"))
    });
    no_secrets(&tokens(&relay), &[]);
}

#[test]
fn row11_missing_permissions_name_the_request() {
    let (etcd, gateway) = etcd(Etcd::options());
    gateway.user_add("guest", PASSWORD);
    gateway.role_add("readers");
    let perm = json!({ "permType": "READ", "key": b64("pitaya/servers-"),
        "range_end": b64("pitaya/servers0") });
    let request = json!({ "name": "readers", "perm": perm });
    assert_eq!(gateway.post("/v3/auth/role/grant", &request).0, 200);
    gateway.user_add("reader", PASSWORD);
    gateway.user_grant_role("reader", "readers");
    switch_on(&gateway);

    let started = Instant::now();
    let guest = observer(etcd.endpoint())
        .credentials("guest", PASSWORD)
        .start();
    assert!(
        matches!(guest, Err(Error::PermissionDenied { request: "range" })),
        "{guest:?}"
    );
    let text = guest.expect_err("refused").to_string();
    assert!(
        text.contains("read and write on [<prefix>servers-, <prefix>servers0)"),
        "{text}"
    );
    // Reading is enough to observe, and not to register.
    let reader = observer(etcd.endpoint())
        .credentials("reader", PASSWORD)
        .start();
    let reader = reader.expect("an observer");
    let member = member(etcd.endpoint(), NAME, 3)
        .credentials("reader", PASSWORD)
        .start();
    assert!(
        matches!(member, Err(Error::PermissionDenied { request: "txn" })),
        "{member:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "at once, not after a time-out"
    );

    // Taken away live, it stops delivering within the stall bound; given back, it goes on.
    let mut told = Told::by(&reader);
    gateway.user_revoke_role("reader", "readers");
    told.next(SOON, "StoreLost");
    let error = reader.last_error();
    assert!(
        matches!(error, Some(Error::PermissionDenied { .. })),
        "{error:?}"
    );
    gateway.put(&key("gate/2"), r#"{"id":"2","type":"gate"}"#, 0);
    gateway.user_grant_role("reader", "readers");
    told.next(SOON, "StoreRestored");
    told.next(SOON, "AddMember gate/2@");
}
