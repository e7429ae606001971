//! The limit: bytes read and thrown away.

use std::io::Read;

use memchr::memmem;

use super::client;
use super::shared::{Args, Watched, cpu, done, memory, now, ready};
use crate::data;
use crate::support::gateway::b64;

pub fn watch(args: &Args) {
    let watched = Watched::begin(false);
    let mut body = client::watch(args).into_body().into_reader();
    let mut buffer = vec![0; 64 * 1024];
    // The last change is known by its key; only the end of what came is looked at.
    let needle = b64(data::key(data::LAST));
    let mut tail = Vec::new();
    loop {
        let count = body.read(&mut buffer).expect("bytes");
        assert!(count > 0, "the stream ended early");
        let end = &buffer[count.saturating_sub(1024)..count];
        tail.extend_from_slice(end);
        if memmem::find(&tail, needle.as_bytes()).is_some() {
            break;
        }
        tail.clear();
        tail.extend_from_slice(&end[end.len().saturating_sub(1023)..]);
    }
    watched.end(serde_json::Value::Null);
}

pub fn list(args: &Args) {
    ready();
    let (began, spent, before) = (now(), cpu(), memory("VmRSS:"));
    let mut body = client::list(args).into_body().into_reader();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        match body.read(&mut buffer).expect("bytes") {
            0 => break,
            count => bytes += count,
        }
    }
    done(serde_json::json!({
        "wall": (now() - began) as f64 * 1e-9, "cpu": cpu() - spent, "bytes": bytes,
        "peak": memory("VmHWM:") - before, "held": 0,
    }));
}
