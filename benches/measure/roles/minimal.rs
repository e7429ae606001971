//! What one writes in an afternoon: a line is a message, serde reads it, base64 is undone. No
//! resuming, no members, no listeners.

use std::borrow::Cow;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::client;
use super::shared::{self, Args, Watched, cpu, done, memory, now, ready};
use crate::data;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    result: Response<'a>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    kv: Kv<'a>,
}

#[derive(Deserialize)]
struct Kv<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Cow<'a, str>,
    #[serde(borrow)]
    mod_revision: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Listing<'a> {
    #[serde(borrow)]
    kvs: Vec<Kv<'a>>,
}

impl Kv<'_> {
    fn decode(&self) -> (Vec<u8>, Vec<u8>, i64) {
        let bytes = |text: &str| STANDARD.decode(text).expect("base64");
        let revision = self.mod_revision.parse().expect("a number");
        (bytes(&self.key), bytes(&self.value), revision)
    }
}

pub fn watch(args: &Args) {
    let timed = args.number("timed") != 0;
    let mut watched = Watched::begin(timed);
    let body = client::watch(args).into_body().into_reader();
    let mut reader = std::io::BufReader::with_capacity(64 * 1024, body);
    let last = data::key(data::LAST);
    let mut line = Vec::new();
    let mut revisions = 0;
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line).expect("bytes");
        assert!(count > 0, "the stream ended early");
        let message: Line = serde_json::from_slice(&line).expect("a message");
        for event in &message.result.events {
            let (key, value, revision) = event.kv.decode();
            revisions += revision;
            watched.event(|| shared::stamp(&value));
            if key == last.as_bytes() {
                std::hint::black_box(revisions);
                return watched.end(serde_json::Value::Null);
            }
        }
    }
}

pub fn list(args: &Args) {
    ready();
    let (began, spent, before) = (now(), cpu(), memory("VmRSS:"));
    let body = client::list(args)
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .read_to_vec()
        .expect("bytes");
    let listing: Listing = serde_json::from_slice(&body).expect("a listing");
    let all: Vec<_> = listing.kvs.iter().map(Kv::decode).collect();
    let (wall, cpu) = ((now() - began) as f64 * 1e-9, cpu() - spent);
    let peak = memory("VmHWM:") - before;
    drop(listing);
    drop(body);
    shared::trim();
    done(serde_json::json!({
        "wall": wall, "cpu": cpu, "members": all.len(), "peak": peak,
        "held": memory("VmRSS:") - before,
    }));
}
