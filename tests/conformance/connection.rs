//! HTTP itself: connections that are kept, that break, and bodies that keep one waiting.

mod line;

use std::time::Duration;

use serde_json::{Value, json};

use self::line::Line;
use super::differences::OLD_STREAM;
use super::talk::{Talk, parse};
use crate::conform;
use crate::support::gateway::{Raw, b64};

/// What hasn't come after this doesn't come.
const A_WHILE: Duration = Duration::from_millis(300);
/// For what comes, only not at once.
const SOON: Duration = Duration::from_secs(3);

const A: &str = r#"{"key":"YQ==","value":"MQ=="}"#;
const WATCH: &str = r#"{"create_request":{"key":"YQ=="}}"#;

fn post(path: &str, body: &str) -> String {
    post_with(path, "", body)
}

fn post_with(path: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {length}\r\n\r\n{body}")
}

/// Says something and writes down the answer.
fn ask(t: &mut Talk, line: &mut Line, what: &str, words: impl AsRef<[u8]>) {
    line.say(words);
    let Some((head, body)) = line.answer() else {
        return remark(t, what, json!("<no answer>"));
    };
    let reply = t.normal(&parse(&body));
    let raw = Raw {
        status: head.status,
        content_type: head.get("content-type").unwrap_or_default().to_owned(),
        body: format!("{:?} {body}", head.headers),
    };
    t.note(what.to_owned(), raw, reply);
    remark(
        t,
        &format!("{what}: Connection"),
        json!(head.get("connection")),
    );
}

/// The same for a watch: its head and its first message.
fn ask_watch(t: &mut Talk, line: &mut Line, what: &str, words: impl AsRef<[u8]>) {
    line.say(words);
    let Some(head) = line.head() else {
        return remark(t, what, json!("<no answer>"));
    };
    let encoding = head.get("transfer-encoding");
    let mut text = match encoding {
        Some(_) => line.chunk().unwrap_or_default(),
        None => line.line().unwrap_or_default() + "\n",
    };
    // 3.4 sends the end of the line by itself.
    if !text.ends_with('\n') {
        text += &line.chunk().unwrap_or_default();
    }
    let reply = json!({
        "encoding": encoding, "message": t.normal(&parse(&text)), "newline": text.ends_with('\n'),
    });
    let raw = Raw {
        status: head.status,
        content_type: head.get("content-type").unwrap_or_default().to_owned(),
        body: format!("{:?} {text}", head.headers),
    };
    t.note(what.to_owned(), raw, reply);
}

/// Writes down what still comes of a watch.
fn rest(t: &mut Talk, line: &mut Line, what: &str) {
    let (text, whole) = line.chunks();
    let messages = t.normal(&parse(&text));
    remark(
        t,
        what,
        json!({ "messages": messages, "ended as HTTP wants": whole }),
    );
}

fn state(t: &mut Talk, line: &mut Line, what: &str, bound: Duration) {
    let state = line.state(bound);
    remark(t, &format!("{what}: afterwards"), json!(state));
}

fn remark(t: &mut Talk, what: &str, reply: Value) {
    let raw = Raw {
        status: 0,
        content_type: String::new(),
        body: reply.to_string(),
    };
    t.note(what.to_owned(), raw, reply);
}

#[test]
fn connection_that_is_kept() {
    conform("connection_that_is_kept", |t| {
        let mut line = Line::open(&t.address);
        for (path, body) in [
            ("/v3/kv/put", A),
            ("/v3/kv/range", A),
            ("/v3/kv/range", "{}"),
            ("/v3/kv/range", "{"),
            ("/nothing", "{}"),
            ("/v3/lease/keepalive", r#"{"ID":1}"#),
            ("/v3/kv/put", A),
            ("/v3/kv/range", A),
        ] {
            let what = format!("kept: {path} {body}");
            ask(t, &mut line, &what, post(path, body));
        }
        let version = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
        ask(t, &mut line, "kept: /version", version);
        state(t, &mut line, "kept", A_WHILE);
    });
}

#[test]
fn connection_on_which_one_runs_ahead() {
    conform("connection_on_which_one_runs_ahead", |t| {
        let mut line = Line::open(&t.address);
        let all = [
            post("/v3/kv/put", A),
            post("/v3/kv/range", A),
            post("/v3/kv/put", A),
        ];
        ask(t, &mut line, "the first of three", all.concat());
        ask(t, &mut line, "the second", "");
        ask(t, &mut line, "the third", "");
    });
}

#[test]
fn connection_that_is_not_kept() {
    conform("connection_that_is_not_kept", |t| {
        let old = |request: &str| request.replacen("HTTP/1.1", "HTTP/1.0", 1);
        for (what, request) in [
            ("close", post_with("/v3/kv/put", "Connection: close\r\n", A)),
            ("HTTP/1.0", old(&post("/v3/kv/put", A))),
            ("HTTP/1.0 /version", "GET /version HTTP/1.0\r\n\r\n".into()),
            ("HTTP/1.0 nowhere", "GET /x HTTP/1.0\r\n\r\n".into()),
        ] {
            let mut line = Line::open(&t.address);
            ask(t, &mut line, what, request);
            state(t, &mut line, what, SOON);
        }
        // Its client knows no chunks.
        let mut line = Line::open(&t.address);
        let watch = old(&post("/v3/watch", WATCH));
        t.allow(&OLD_STREAM);
        ask_watch(t, &mut line, "a watch in HTTP/1.0", watch);
    });
}

#[test]
fn connection_that_speaks_no_http() {
    conform("connection_that_speaks_no_http", |t| {
        let get = |rest: &str| format!("GET /version HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
        let range = |header: &str| post_with("/v3/kv/range", header, "{}");
        let long = format!("A: {}\r\n", "x".repeat(2_000_000));
        for (what, request) in [
            ("no HTTP", "hello\r\n\r\n".into()),
            (
                "TLS",
                "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{7f}\r\n\r\n".into(),
            ),
            ("no version", "GET /version\r\n\r\n".into()),
            ("no header", get("no header\r\n")),
            ("a space in a header's name", get("A : b\r\n")),
            ("no number", range("Content-Length: x\r\n")),
            ("less than nothing", range("Content-Length: -1\r\n")),
            ("two lengths", range("Content-Length: 1\r\n")),
            ("an unknown encoding", range("Transfer-Encoding: x\r\n")),
            ("a header without end", get(&long)),
        ] {
            let mut line = Line::open(&t.address);
            line.say(&request);
            // Refused or hung up on: only that counts.
            let refused = line.answer().is_none_or(|(head, _)| head.status >= 400);
            remark(t, what, json!({ "refused": refused }));
            state(t, &mut line, what, SOON);
        }
        t.post("kv/range", json!({ "key": b64("a") }));
    });
}

#[test]
fn connection_whose_body_comes_late() {
    conform("connection_whose_body_comes_late", |t| {
        let mut line = Line::open(&t.address);
        let expect = post_with("/v3/kv/put", "Expect: 100-continue\r\n", A);
        let (head, body) = expect.split_at(expect.len() - A.len());
        ask(t, &mut line, "Expect: 100-continue", head);
        ask(t, &mut line, "the body that was waited for", body);
        ask(t, &mut line, "the next request", post("/v3/kv/range", A));
        let mut chunks =
            "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for piece in A.as_bytes().chunks(5) {
            let piece = String::from_utf8_lossy(piece);
            chunks += &format!("{:x}\r\n{piece}\r\n", piece.len());
        }
        ask(t, &mut line, "in chunks", chunks + "0\r\n\r\n");
        let request = post("/v3/kv/range", A);
        for byte in request.bytes() {
            line.say([byte]);
        }
        ask(t, &mut line, "byte by byte", "");
        // A body that is never finished keeps one waiting, without an answer.
        let mut line = Line::open(&t.address);
        line.say("POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        line.say(format!("{:x}\r\n{WATCH}\r\n", WATCH.len()));
        state(t, &mut line, "an unfinished body", A_WHILE);
        ask_watch(t, &mut line, "finished after all", "0\r\n\r\n");
    });
}

#[test]
fn connection_that_breaks_off() {
    conform("connection_that_breaks_off", |t| {
        let request = post("/v3/kv/put", A);
        let head = request.len() - A.len();
        for (what, length) in [
            ("body", request.len() - 3),
            ("its start", head),
            ("head", 20),
        ] {
            let mut line = Line::open(&t.address);
            line.say(&request[..length]);
            line.close_one_way();
            let refused = line.answer().is_none_or(|(head, _)| head.status >= 400);
            remark(t, what, json!({ "refused": refused }));
            state(t, &mut line, what, SOON);
        }
        t.post("kv/range", json!({ "key": b64("a") }));
    });
}

#[test]
fn connection_of_a_watch() {
    conform("connection_of_a_watch", |t| {
        let mut line = Line::open(&t.address);
        ask_watch(t, &mut line, "a watch", post("/v3/watch", WATCH));
        state(t, &mut line, "a watch", A_WHILE);
        // Bytes that are no request do no harm.
        let mut line = Line::open(&t.address);
        ask_watch(
            t,
            &mut line,
            "a watch, then noise",
            post("/v3/watch", WATCH),
        );
        line.say("noise");
        t.quietly("kv/put", json!({ "key": b64("a"), "value": b64("1") }));
        let event = t.normal(&parse(&line.chunk().unwrap_or_default()));
        remark(t, "an event all the same", event);
    });
}

#[test]
fn connection_after_a_watch() {
    conform("connection_after_a_watch", |t| {
        let mut line = Line::open(&t.address);
        let watch = post_with("/v3/watch", "Grpc-Timeout: 1S\r\n", WATCH);
        ask_watch(t, &mut line, "a watch of a second", watch);
        // It waits for its turn.
        line.say(post("/v3/kv/range", A));
        rest(t, &mut line, "the end of its time");
        ask(t, &mut line, "the request behind it", "");
        ask(t, &mut line, "one more", post("/v3/kv/range", A));
        ask_watch(t, &mut line, "one more watch", post("/v3/watch", WATCH));
    });
}

#[test]
fn connection_of_a_watch_that_is_closed_one_way() {
    conform("connection_of_a_watch_that_is_closed_one_way", |t| {
        let mut line = Line::open(&t.address);
        ask_watch(t, &mut line, "a watch", post("/v3/watch", WATCH));
        line.close_one_way();
        rest(t, &mut line, "what comes then");
        state(t, &mut line, "a watch", SOON);
    });
}
