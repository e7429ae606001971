use std::time::Duration;

use serde_json::{Value, json};

use super::differences::Allowed;
use super::normal::Names;
use crate::support::gateway::{Gateway, Lines, Next, Raw, b64, int};

/// What comes, comes within this; a small machine may run other tests besides.
const BOUND: Duration = Duration::from_secs(10);
/// What hasn't come after this doesn't come: etcd looks at its unsynced watches every 100 ms.
const QUIET: Duration = Duration::from_millis(300);

/// One thing that was said to a store, and what it said.
#[derive(Clone, Debug)]
pub struct Entry {
    pub request: String,
    /// 0 where there is none: a later message of a stream, or no answer at all.
    pub status: u16,
    pub content_type: String,
    /// As it came, for the eye.
    pub raw: String,
    /// What is compared.
    pub reply: Value,
    pub allowed: Vec<&'static Allowed>,
}

/// A watch that was opened by `Talk::watch`.
#[derive(Clone, Copy)]
pub struct Watch(usize);

/// Talks to one store and writes everything down.
pub struct Talk {
    pub gateway: Gateway,
    /// Host and port.
    pub address: String,
    pub entries: Vec<Entry>,
    names: Names,
    watches: Vec<Option<Lines>>,
    allowed: Vec<&'static Allowed>,
}

impl Talk {
    pub fn new(endpoint: &str) -> Talk {
        Talk {
            gateway: Gateway::with_timeout(endpoint, BOUND),
            address: endpoint.trim_start_matches("http://").to_owned(),
            entries: vec![],
            names: Names::default(),
            watches: vec![],
            allowed: vec![],
        }
    }

    /// The stores may differ like this in what is said next.
    pub fn allow(&mut self, allowed: &'static Allowed) -> &mut Talk {
        self.allowed.push(allowed);
        self
    }

    /// Posts to a path below /v3/. The reply as it came is returned.
    pub fn post(&mut self, path: &str, body: Value) -> Value {
        self.send("POST", &format!("/v3/{path}"), &body.to_string())
    }

    /// Posts a body that is not the same for all stores, under a name that is.
    pub fn post_as(&mut self, name: &str, path: &str, body: Value) -> Value {
        let reply = self.post(path, body);
        if let Some(entry) = self.entries.last_mut() {
            entry.request = format!("POST /v3/{path} ({name})");
        }
        reply
    }

    /// Posts what need not be JSON.
    pub fn post_text(&mut self, path: &str, body: &str) -> Value {
        self.send("POST", &format!("/v3/{path}"), body)
    }

    pub fn send(&mut self, method: &str, path: &str, body: &str) -> Value {
        let headers = [("Content-Type", "application/json")];
        self.send_with(method, path, &headers, Some(body.as_bytes()))
    }

    /// Any method, path, headers and body.
    pub fn send_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Value {
        let text = String::from_utf8_lossy(body.unwrap_or_default());
        let mut request = format!("{method} {path} {text}");
        for (name, value) in headers.iter().filter(|(name, _)| *name != "Content-Type") {
            request += &format!(" [{name}: {value}]");
        }
        let raw = match self.gateway.exchange(method, path, headers, body) {
            Ok(raw) => raw,
            Err(why) => no_answer(&why),
        };
        let value = parse(&raw.body);
        if path.ends_with("/lease/grant") {
            self.names.granted(&text, &value);
        }
        let asks_ttl = path.ends_with("/timetolive");
        let mut reply = self.names.normal(&value);
        if asks_ttl {
            self.names.ttl_left(&mut reply);
        }
        self.note(request, raw, reply);
        value
    }

    /// Says something to make a state, which is taken for granted and not written down.
    #[track_caller]
    pub fn quietly(&mut self, path: &str, body: Value) -> Value {
        let (status, reply) = self.gateway.post(&format!("/v3/{path}"), &body);
        assert_eq!(status, 200, "{path} {body}: {reply}");
        reply
    }

    /// Writes down what another way of asking has brought.
    pub fn note(&mut self, request: String, raw: Raw, reply: Value) {
        self.entries.push(Entry {
            request: self.names.in_text(request),
            status: raw.status,
            content_type: raw.content_type,
            raw: raw.body,
            reply,
            allowed: std::mem::take(&mut self.allowed),
        });
    }

    /// A reply with names in place of ids, and one shape for errors.
    pub fn normal(&self, value: &Value) -> Value {
        self.names.normal(value)
    }

    /// All keys, as they are now.
    pub fn all(&mut self) {
        let everything = json!({ "key": b64("\0"), "range_end": b64("\0") });
        self.post("kv/range", everything);
    }

    /// A new lease; its id comes out of the transcript as L1, L2, ….
    #[track_caller]
    pub fn grant(&mut self, ttl: i64) -> i64 {
        let reply = self.post("lease/grant", json!({ "TTL": ttl }));
        int(&reply["ID"])
    }

    /// Opens a watch and writes down its first message.
    pub fn watch(&mut self, body: Value) -> Watch {
        self.watch_text(&body.to_string())
    }

    /// Opens a watch with several requests in one body, and writes down the first `count` messages,
    /// sorted as by `take`.
    pub fn watch_row(&mut self, requests: &[Value], count: usize) -> Watch {
        let body: String = requests.iter().map(Value::to_string).collect();
        let (first, watch) = self.open(&body, &[], BOUND);
        let mut said = vec![first.body.clone()];
        said.extend((1..count).map(|_| self.next(watch, BOUND)));
        self.note_watch(
            &body,
            &[],
            Raw {
                body: String::new(),
                ..first
            },
        );
        self.hear(watch, said);
        watch
    }

    /// The same with any body.
    pub fn watch_text(&mut self, body: &str) -> Watch {
        self.watch_with(body, &[])
    }

    pub fn watch_with(&mut self, body: &str, headers: &[(&str, &str)]) -> Watch {
        let (first, watch) = self.open(body, headers, BOUND);
        self.note_watch(body, headers, first);
        watch
    }

    /// A watch that nothing is likely to be said to.
    pub fn watch_in_vain(&mut self, body: &str) {
        let (first, watch) = self.open(body, &[], QUIET);
        self.note_watch(body, &[], first);
        self.close(watch);
    }

    /// The watch, and the answer up to its first message.
    fn open(&mut self, body: &str, headers: &[(&str, &str)], bound: Duration) -> (Raw, Watch) {
        let opened = self.gateway.try_stream("/v3/watch", headers, body, bound);
        let (raw, lines) = match opened {
            Ok(mut lines) => {
                let raw = match lines.next_raw(bound) {
                    // etcd sends the head with the first message. Without one it says nothing.
                    Next::Silence => no_answer("timeout"),
                    next => Raw {
                        status: lines.status,
                        content_type: lines.content_type.clone(),
                        body: said(next),
                    },
                };
                (raw, Some(lines))
            }
            Err(why) => (no_answer(&why), None),
        };
        self.watches.push(lines);
        (raw, Watch(self.watches.len() - 1))
    }

    fn note_watch(&mut self, body: &str, headers: &[(&str, &str)], raw: Raw) {
        let mut request = format!("POST /v3/watch {body}");
        for (name, value) in headers {
            request += &format!(" [{name}: {value}]");
        }
        let reply = self.names.normal(&parse(&raw.body));
        self.note(request, raw, reply);
    }

    /// Writes down the next `count` messages. Those of several watches on one connection come in an
    /// order of their own: they are sorted by watch.
    pub fn take(&mut self, watch: Watch, count: usize) {
        let said = (0..count).map(|_| self.next(watch, BOUND)).collect();
        self.hear(watch, said);
    }

    /// The same for big messages: of each only how many events it has, the first and the last.
    pub fn take_summaries(&mut self, watch: Watch, count: usize) {
        for _ in 0..count {
            let text = self.next(watch, BOUND);
            let mut reply = self.names.normal(&parse(&text));
            if let Some(events) = reply["result"]["events"].as_array() {
                let at = |event: Option<&Value>| {
                    event.map(|event| json!([event["type"], event["kv"]["mod_revision"]]))
                };
                let (first, last) = (at(events.first()), at(events.last()));
                let summary = json!({ "count": events.len(), "first": first, "last": last });
                reply["result"]["events"] = summary;
            }
            self.heard(watch, format!("({} bytes) {reply}", text.len()), reply);
        }
    }

    /// Writes down that nothing more comes, or what does come.
    pub fn silent(&mut self, watch: Watch) {
        let said = vec![self.next(watch, QUIET)];
        self.hear(watch, said);
    }

    /// Writes down everything up to the stream's end.
    pub fn take_all(&mut self, watch: Watch) {
        loop {
            let text = self.next(watch, BOUND);
            let over = text.starts_with('<');
            self.hear(watch, vec![text]);
            if over {
                break;
            }
        }
    }

    /// Closes the watch's connection.
    pub fn close(&mut self, watch: Watch) {
        self.watches[watch.0] = None;
    }

    fn next(&mut self, watch: Watch, bound: Duration) -> String {
        match &mut self.watches[watch.0] {
            Some(lines) => said(lines.next_raw(bound)),
            None => said(Next::End),
        }
    }

    fn hear(&mut self, watch: Watch, said: Vec<String>) {
        let replies = said.into_iter().map(|text| {
            let reply = self.names.normal(&parse(&text));
            (text, reply)
        });
        let mut replies: Vec<(String, Value)> = replies.collect();
        replies.sort_by_key(|(_, reply)| int(&reply["result"]["watch_id"]));
        for (text, reply) in replies {
            self.heard(watch, text, reply);
        }
    }

    fn heard(&mut self, watch: Watch, text: String, reply: Value) {
        let raw = Raw {
            status: 0,
            content_type: String::new(),
            body: text,
        };
        self.note(format!("watch {}", watch.0 + 1), raw, reply);
    }
}

fn said(next: Next) -> String {
    match next {
        Next::Line(text) => text,
        Next::Silence => "<silence>".into(),
        Next::End => "<end>".into(),
        Next::Broken => "<broken>".into(),
    }
}

/// Nothing came in time, or nothing will come.
fn no_answer(why: &str) -> Raw {
    let body = match why.contains("timeout") {
        true => "<silence>",
        false => "<closed without an answer>",
    };
    Raw {
        status: 0,
        content_type: String::new(),
        body: body.into(),
    }
}

/// One JSON value, or all of them where there are several, or the text where there is none.
pub fn parse(text: &str) -> Value {
    let all: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect();
    match all {
        Ok(mut values) if values.len() == 1 => values.remove(0),
        Ok(values) if values.len() > 1 => json!({ "messages": values }),
        _ => Value::String(text.to_owned()),
    }
}
