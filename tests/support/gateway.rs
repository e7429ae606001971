mod auth;
mod raw;
mod stream;

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use serde_json::{Value, json};
use ureq::Agent;

pub use self::raw::Raw;
pub(super) use self::stream::read_lines;
pub use self::stream::{Lines, Next};

/// A raw client of one etcd's JSON gateway: what the crate under test does is checked with it.
///
/// Every call is bounded. Unless a method says otherwise it panics when etcd answers with an error;
/// `post` and `try_post` leave that to the caller.
pub struct Gateway {
    agent: Agent,
    endpoint: String,
    token: Mutex<Option<String>>,
}

/// One key as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    pub key: String,
    pub value: Vec<u8>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

impl Kv {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

impl Gateway {
    pub fn new(endpoint: impl Into<String>) -> Gateway {
        // An election takes etcd up to 7 s; a test that wants to know sooner says so.
        Gateway::with_timeout(endpoint, Duration::from_secs(10))
    }

    pub fn with_timeout(endpoint: impl Into<String>, timeout: Duration) -> Gateway {
        let agent = agent_config()
            .timeout_global(Some(timeout))
            .build()
            .new_agent();
        Gateway {
            agent,
            endpoint: endpoint.into(),
            token: Mutex::new(None),
        }
    }

    /// From now on every call carries this token; `None` calls without one.
    pub fn set_token(&self, token: Option<String>) {
        *self.token.lock() = token;
    }

    /// Status and body, whatever etcd says; a body that isn't JSON comes as `Value::String`.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<(u16, Value), String> {
        let mut request = self.agent.post(format!("{}{path}", self.endpoint));
        if let Some(token) = &*self.token.lock() {
            request = request.header("Authorization", token);
        }
        answer(
            request
                .header("Content-Type", "application/json")
                .send(body.to_string()),
        )
    }

    pub fn try_get(&self, path: &str) -> Result<(u16, Value), String> {
        answer(self.agent.get(format!("{}{path}", self.endpoint)).call())
    }

    /// As `try_post`, but panics when there is no answer at all.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        match self.try_post(path, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{}{path}: {error}", self.endpoint),
        }
    }

    #[track_caller]
    fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{}{path} {body}: {answer}", self.endpoint);
        answer
    }

    /// Code 13 is no answer to the question: 3.4 cuts a large reply off, once in a great while, on
    /// the way from etcd to its own gateway ("unexpected EOF"). A read can be asked again.
    #[track_caller]
    fn range(&self, body: &Value) -> Value {
        match self.post("/v3/kv/range", body) {
            (500, answer) if answer["code"] == 13 => self.ok("/v3/kv/range", body),
            (200, answer) => answer,
            (status, answer) => panic!("{}/v3/kv/range {body}: {status} {answer}", self.endpoint),
        }
    }

    /// The revision of the put. `lease` 0 is none.
    #[track_caller]
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>, lease: i64) -> i64 {
        let body = json!({
            "key": b64(key), "value": BASE64.encode(value), "lease": lease.to_string(),
        });
        revision_of(&self.ok("/v3/kv/put", &body))
    }

    /// How many keys that deleted.
    #[track_caller]
    pub fn delete(&self, key: &str) -> i64 {
        int(&self.ok("/v3/kv/deleterange", &json!({ "key": b64(key) }))["deleted"])
    }

    #[track_caller]
    pub fn delete_prefix(&self, prefix: &str) -> i64 {
        let body = json!({ "key": b64(prefix), "range_end": b64(after_prefix(prefix)) });
        int(&self.ok("/v3/kv/deleterange", &body)["deleted"])
    }

    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Kv> {
        kvs(&self.range(&json!({ "key": b64(key) }))).pop()
    }

    #[track_caller]
    pub fn list_prefix(&self, prefix: &str) -> Vec<Kv> {
        let body = json!({ "key": b64(prefix), "range_end": b64(after_prefix(prefix)) });
        kvs(&self.range(&body))
    }

    /// The store's current revision.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        let body = json!({ "key": b64("\0"), "count_only": true });
        revision_of(&self.range(&body))
    }

    #[track_caller]
    pub fn compact(&self, revision: i64) {
        let body = json!({ "revision": revision.to_string(), "physical": true });
        self.ok("/v3/kv/compaction", &body);
    }

    #[track_caller]
    pub fn txn(&self, txn: &Value) -> Value {
        self.ok("/v3/kv/txn", txn)
    }

    #[track_caller]
    pub fn grant(&self, ttl: i64) -> i64 {
        let answer = self.ok("/v3/lease/grant", &json!({ "TTL": ttl.to_string() }));
        int(&answer["ID"])
    }

    /// The lease's time to live after the renewal; `None` when etcd doesn't know the lease.
    #[track_caller]
    pub fn keepalive(&self, lease: i64) -> Option<i64> {
        let answer = self.ok("/v3/lease/keepalive", &json!({ "ID": lease.to_string() }));
        assert!(
            answer.get("error").is_none(),
            "keepalive of {lease}: {answer}"
        );
        answer["result"].get("TTL").map(int)
    }

    #[track_caller]
    pub fn revoke(&self, lease: i64) {
        self.ok("/v3/lease/revoke", &json!({ "ID": lease.to_string() }));
    }

    /// The seconds left; -1 when etcd doesn't know the lease.
    #[track_caller]
    pub fn time_to_live(&self, lease: i64) -> i64 {
        int(&self.ok("/v3/lease/timetolive", &json!({ "ID": lease.to_string() }))["TTL"])
    }

    #[track_caller]
    pub fn leases(&self) -> Vec<i64> {
        let answer = self.ok("/v3/lease/leases", &json!({}));
        list(&answer["leases"])
            .iter()
            .map(|lease| int(&lease["ID"]))
            .collect()
    }

    #[track_caller]
    pub fn cluster_id(&self) -> u64 {
        let answer = self.ok("/v3/maintenance/status", &json!({}));
        answer["header"]["cluster_id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .unwrap_or_default()
    }
}

/// What every client of the tests agrees on: straight to etcd, and no answer is hidden.
pub(super) fn agent_config() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(Duration::from_secs(2)))
}

fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<(u16, Value), String> {
    let response = response.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let mut body = response.into_body().into_reader();
    body.read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    Ok((
        status,
        serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned())),
    ))
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

/// The text behind a base64 field of etcd's; empty where the field is absent.
pub fn unb64(field: &Value) -> String {
    String::from_utf8_lossy(&bytes(field)).into_owned()
}

/// The first key that no longer has the prefix.
pub fn after_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's word for "to the very end".
    vec![0]
}

/// An int64 of etcd's: a string, a number, or absent when zero.
pub fn int(field: &Value) -> i64 {
    match field {
        Value::String(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {text:?}")),
        other => other.as_i64().unwrap_or_default(),
    }
}

fn bytes(field: &Value) -> Vec<u8> {
    BASE64
        .decode(field.as_str().unwrap_or_default())
        .expect("etcd sends valid base64")
}

fn list(field: &Value) -> &[Value] {
    field.as_array().map_or(&[], Vec::as_slice)
}

fn revision_of(answer: &Value) -> i64 {
    int(&answer["header"]["revision"])
}

fn kvs(answer: &Value) -> Vec<Kv> {
    list(&answer["kvs"])
        .iter()
        .map(|kv| Kv {
            key: unb64(&kv["key"]),
            value: bytes(&kv["value"]),
            create_revision: int(&kv["create_revision"]),
            mod_revision: int(&kv["mod_revision"]),
            version: int(&kv["version"]),
            lease: int(&kv["lease"]),
        })
        .collect()
}
