//! Answers that are errors, or not etcd's, or nothing that can be understood.

mod follow;
mod history;
mod support;

use follow::script::*;
use follow::{Follower, SOON, observer, patient};
use headcount::Error;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, StreamStep};
use support::load::rss_kib;
use support::wait::{eventually, until};

/// What can't be understood is a typed error, and a listing brings what the stream could not.
#[test]
fn g13_garbage_in_the_stream_is_an_error_and_a_listing() {
    let odd = json!([{ "type": "MERGE", "kv": { "key": "YQ==" } }]);
    let bad_base64 = json!([{ "kv": { "key": "%%%", "mod_revision": "11" } }]);
    let bad_number = json!([{ "kv": { "key": "YQ==", "mod_revision": "eleven" } }]);
    let absurd = json!([{ "kv": { "key": "YQ==", "mod_revision": i64::MAX.to_string() } }]);
    let of = |list: Value| format!("{}\n", message(11, json!({ "events": list })));
    for (what, garbage) in [
        ("an event of type", of(odd)),
        ("base64", of(bad_base64)),
        ("integer", of(bad_number)),
        ("begins with byte", "nonsense\n".into()),
        ("begins with byte", "]]]]".into()),
        ("watch stream", "{\"result\":7}\n".into()),
        (
            "watch stream",
            "{\"result\":{\"events\":{\"a\":1}}}\n".into(),
        ),
        ("watch stream", "{\"result\":\u{1}}\n".into()),
        ("", of(absurd)),
    ] {
        let text = garbage.clone();
        let fake = scripted(move |n, from| match n {
            0 => {
                let steps = lines(&[created(10)]).into_iter();
                let garbage = StreamStep::Send(text.clone().into_bytes());
                Reply::Stream(
                    steps
                        .chain([garbage, StreamStep::WaitUntilClosed])
                        .collect(),
                )
            }
            // Nothing unusual when it goes on from an absurd revision: the store is behind it.
            1 if from != 11 => open(&[created(10)]),
            _ => open(&[created(10), events(11, &[put_event("b/1", 11, 11)])]),
        });
        let mut follower = Follower::start(patient([fake.endpoint()]));
        follower.wait(SOON, "AddMember b/1@11");
        let (stats, error) = (follower.cluster.stats(), follower.cluster.last_error());
        if what.is_empty() {
            assert_eq!(stats.relists.went_back, 1);
        } else {
            assert_eq!(stats.relists.unreadable, 1, "{garbage}");
            match error {
                Some(Error::Protocol { reason }) => assert!(reason.contains(what), "{reason}"),
                other => panic!("{garbage}: {other:?}"),
            }
        }
        assert_eq!(told(&follower), ["AddMember a/1@2", "AddMember b/1@11"]);
    }
}

/// Nothing follows it, and nothing breaks on the way there.
#[test]
fn g13_the_last_revision_there_is() {
    // What is to be logged is put together only where somebody would read it.
    log::set_max_level(log::LevelFilter::Info);
    let last = i64::MAX;
    let fake = scripted(move |n, _| {
        // Each stream ends at once, so each further one is a reconnect.
        Reply::Stream(match n {
            0 => lines(&[created(10), events(last, &[put_event("b/1", 11, last)])]),
            _ => lines(&[created(last)]),
        })
    });
    let follower = Follower::start(patient([fake.endpoint()]));
    until(SOON, "it goes on watching", || fake.count("/v3/watch") > 3);
    assert_eq!(follower.cluster.view_revision(), last);
    assert_eq!(fake.count("/v3/kv/range"), 1, "nothing is listed anew");
}

/// A line, or a response in parts, that never ends: bounded memory, a typed error, and on it goes.
#[test]
fn g13_endless_lines_and_endless_parts() {
    let before = rss_kib();
    for endless_line in [true, false] {
        let fake = scripted(move |n, _| {
            if n > 0 {
                return open(&[created(10), events(11, &[put_event("b/1", 11, 11)])]);
            }
            let mut steps = lines(&[created(10)]);
            let (feed, live) = crossbeam_channel::bounded(4);
            // Ends when nobody reads it any more.
            std::thread::spawn(move || {
                let line = match endless_line {
                    true => vec![b'x'; 64 * 1024],
                    false => {
                        let one = put_event("b/1", 11, 11);
                        let many = json!({ "events": vec![one; 300], "fragment": true });
                        format!("{}\n", message(11, many)).into_bytes()
                    }
                };
                if endless_line {
                    let _ = feed.send(StreamStep::Send(b"{\"result\":{\"x\":\"".to_vec()));
                }
                while feed.send(StreamStep::Send(line.clone())).is_ok() {}
            });
            steps.push(StreamStep::Live(live));
            Reply::Stream(steps)
        });
        let builder = patient([fake.endpoint()]).max_frame_bytes(1024 * 1024);
        let mut follower = Follower::start(builder);
        follower.wait(SOON, "AddMember b/1@11");
        assert_eq!(follower.cluster.stats().relists.oversized, 1);
        let error = follower.cluster.last_error();
        assert!(
            matches!(error, Some(Error::TooLarge { limit }) if limit == 1024 * 1024),
            "{error:?}"
        );
    }
    let grown = rss_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
}

/// What an observer says of it.
fn first_error(fake: &FakeGateway) -> String {
    let builder = observer([fake.endpoint()]).start_without_store();
    let cluster = builder.start().expect("whatever is there");
    let error = eventually(SOON, "an error", || cluster.last_error());
    assert!(!cluster.is_synced() && !cluster.store_reachable());
    error.to_string()
}

/// Failure-modes row 12: what the versions of etcd say differently means the same.
#[test]
fn g13_both_error_shapes() {
    let answers =
        |body: Value, status: u16| FakeGateway::start(move |_| Reply::Json(status, body.clone()));
    for (code, message, wanted) in [
        (7, "etcdserver: permission denied", "permission for range"),
        (14, "etcdserver: no leader", "no leader (gRPC code 14)"),
        (
            8,
            "etcdserver: mvcc: database space exceeded",
            "space exceeded (gRPC code 8)",
        ),
        (
            3,
            "etcdserver: user name is empty",
            "no user is set (credentials)",
        ),
    ] {
        for status in [400, 503] {
            let v1 = json!({ "error": message, "message": message, "code": code });
            let v2 = json!({ "code": code, "message": message });
            let [v1, v2] = [v1, v2].map(|body| first_error(&answers(body, status)));
            assert_eq!(v1, v2);
            assert!(v1.contains(wanted), "{v1}");
        }
    }
}

/// The same in a stream, where an error is a frame, with the newline or without.
#[test]
fn g13_both_error_shapes_in_a_stream() {
    let v1 = json!({ "error": { "grpc_code": 7, "http_code": 403, "http_status": "Forbidden",
        "message": "etcdserver: permission denied" }});
    let v2 = json!({ "error": { "code": 7, "message": "etcdserver: permission denied" }});
    let canceled = message(
        10,
        json!({ "created": true, "canceled": true, "watch_id": "-1",
        "cancel_reason": "rpc error: code = PermissionDenied desc = etcdserver: permission denied" }),
    );
    for shape in [v1, v2, canceled] {
        for newline in ["", "\n"] {
            let text = format!("{shape}{newline}");
            let fake = scripted(move |_, _| {
                let step = StreamStep::Send(text.clone().into_bytes());
                Reply::Stream(vec![step])
            });
            let refused = |error: &Error| {
                let watch = matches!(error, Error::PermissionDenied { request: "watch" });
                assert!(watch, "{error}");
            };
            let mut follower = match patient([fake.endpoint()]).start() {
                Ok(cluster) => Follower::of(cluster),
                // The listing was there, but the refusal came before this thread had seen it.
                Err(error) => {
                    refused(&error);
                    continue;
                }
            };
            follower.wait(SOON, "StoreLost");
            refused(&follower.cluster.last_error().expect("a reason"));
            assert_eq!(follower.cluster.members().len(), 1, "the view is kept");
        }
    }
}

#[test]
fn a_gateway_that_is_switched_off_is_named() {
    let etcd = Etcd::options().arg("--enable-grpc-gateway=false").start();
    let error = patient([etcd.endpoint()])
        .start()
        .expect_err("there is no gateway");
    assert!(matches!(error, Error::NotAGateway { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("--enable-grpc-gateway=false"), "{text}");
    assert!(
        text.contains(&etcd.endpoint()) && text.contains("(endpoints)"),
        "{text}"
    );
}

/// Whatever answers there: no panic, bounded, and a sentence that helps.
#[test]
fn g13_whoever_is_not_etcd() {
    type Answer = fn() -> Reply;
    let answers: [(Answer, &str); 10] = [
        (|| Reply::Text(200, "hello".into()), "not understood"),
        (
            || Reply::Text(404, "404 page not found".into()),
            "--enable-grpc-gateway",
        ),
        (
            || Reply::Text(502, "<html>\u{1b}[2J bad gateway".into()),
            "HTTP status 502",
        ),
        (|| Reply::Text(302, String::new()), "HTTP status 302"),
        (|| Reply::Text(200, String::new()), "not understood"),
        (|| Reply::Json(200, json!([1, 2])), "not understood"),
        (
            || Reply::Json(200, json!({ "kvs": [{ "key": "%" }] })),
            "base64",
        ),
        (
            || Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            "not understood",
        ),
        (|| Reply::Raw(Vec::new()), "no connection to"),
        (|| Reply::Reset, "no connection to"),
    ];
    for (n, (answer, wanted)) in answers.into_iter().enumerate() {
        let fake = FakeGateway::start(move |_| answer());
        let error = first_error(&fake);
        assert!(error.contains(wanted), "{n}: {error}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
    let silent = FakeGateway::start(|_| Reply::Silence);
    let error = first_error(&silent);
    assert!(error.contains("(request_timeout)"), "{error}");
}
