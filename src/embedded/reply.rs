//! What is answered: etcd's response messages, zeros left out as the gateway does.

use serde::Serialize;

use super::refusal::Refusal;
use super::store::{Change, Done, Found, Kv, Outcome};
use super::wire::{Base64, Text};

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Header {
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub cluster_id: Text,
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub member_id: Text,
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub revision: Text,
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub raft_term: Text,
}

impl Header {
    pub fn at(self, revision: i64) -> Header {
        Header {
            revision: Text(revision),
            ..self
        }
    }
}

#[derive(Serialize)]
pub(super) struct KvOut<'a> {
    key: Base64<'a>,
    #[serde(skip_serializing_if = "Text::is_zero")]
    create_revision: Text,
    #[serde(skip_serializing_if = "Text::is_zero")]
    mod_revision: Text,
    #[serde(skip_serializing_if = "Text::is_zero")]
    version: Text,
    #[serde(skip_serializing_if = "Base64::is_empty")]
    value: Base64<'a>,
    #[serde(skip_serializing_if = "Text::is_zero")]
    lease: Text,
}

impl<'a> From<&'a Kv> for KvOut<'a> {
    fn from(kv: &'a Kv) -> Self {
        KvOut {
            key: Base64(&kv.key),
            create_revision: Text(kv.create_revision),
            mod_revision: Text(kv.mod_revision),
            version: Text(kv.version),
            value: Base64(&kv.value),
            lease: Text(kv.lease),
        }
    }
}

#[derive(Serialize)]
pub(super) struct RangeOut<'a> {
    header: Header,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvs: Vec<KvOut<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    more: bool,
    #[serde(skip_serializing_if = "Text::is_zero")]
    count: Text,
}

pub(super) fn range(header: Header, found: &Found, keys_only: bool) -> RangeOut<'_> {
    let kvs = found.kvs.iter().map(|kv| {
        let value = Base64(if keys_only { &[] } else { &kv.value });
        KvOut {
            value,
            ..KvOut::from(&**kv)
        }
    });
    RangeOut {
        header,
        kvs: kvs.collect(),
        more: found.more,
        count: Text(found.count),
    }
}

#[derive(Serialize)]
pub(super) struct PutOut<'a> {
    pub header: Header,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_kv: Option<KvOut<'a>>,
}

#[derive(Serialize)]
pub(super) struct DeletedOut<'a> {
    pub header: Header,
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub deleted: Text,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prev_kvs: Vec<KvOut<'a>>,
}

#[derive(Serialize)]
pub(super) struct TxnOut<'a> {
    header: Header,
    #[serde(skip_serializing_if = "is_false")]
    succeeded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<DoneOut<'a>>,
}

#[derive(Serialize)]
enum DoneOut<'a> {
    #[serde(rename = "response_range")]
    Range(RangeOut<'a>),
    #[serde(rename = "response_put")]
    Put(PutOut<'a>),
    #[serde(rename = "response_delete_range")]
    Deleted(DeletedOut<'a>),
    #[serde(rename = "response_txn")]
    Txn(TxnOut<'a>),
}

/// The headers within hold the revision only, those of nested transactions not even that.
pub(super) fn txn(header: Header, outcome: &Outcome) -> TxnOut<'_> {
    let inner = |revision: &i64| Header::default().at(*revision);
    let responses = outcome.done.iter().map(|(at, done)| match done {
        Done::Range { found, keys_only } => DoneOut::Range(range(inner(at), found, *keys_only)),
        Done::Put { previous } => DoneOut::Put(PutOut {
            header: inner(at),
            prev_kv: previous.as_deref().map(KvOut::from),
        }),
        Done::Deleted { kvs, tell } => DoneOut::Deleted(DeletedOut {
            header: inner(at),
            deleted: Text(kvs.len() as i64),
            prev_kvs: previous(kvs, *tell),
        }),
        Done::Txn(nested) => DoneOut::Txn(txn(Header::default(), nested)),
    });
    TxnOut {
        header,
        succeeded: outcome.succeeded,
        responses: responses.collect(),
    }
}

/// What a deletion tells of what it deleted.
pub(super) fn previous(kvs: &[std::sync::Arc<Kv>], tell: bool) -> Vec<KvOut<'_>> {
    match tell {
        true => kvs.iter().map(|kv| KvOut::from(&**kv)).collect(),
        false => Vec::new(),
    }
}

/// A reply that is all header.
#[derive(Serialize)]
pub(super) struct HeaderOut {
    pub header: Header,
}

/// Of grant, keepalive and timetolive.
#[derive(Serialize, Default)]
pub(super) struct LeaseOut<'a> {
    pub header: Header,
    #[serde(rename = "ID", skip_serializing_if = "Text::is_zero")]
    pub id: Text,
    #[serde(rename = "TTL", skip_serializing_if = "Text::is_zero")]
    pub ttl: Text,
    #[serde(rename = "grantedTTL", skip_serializing_if = "Text::is_zero")]
    pub granted: Text,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Base64<'a>>,
}

#[derive(Serialize)]
pub(super) struct LeasesOut {
    pub header: Header,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<LeaseIdOut>,
}

#[derive(Serialize)]
pub(super) struct LeaseIdOut {
    #[serde(rename = "ID")]
    pub id: Text,
}

#[derive(Serialize)]
pub(super) struct StatusOut {
    pub header: Header,
    pub version: &'static str,
    #[serde(rename = "dbSize", skip_serializing_if = "Text::is_zero")]
    pub db_size: Text,
    pub leader: Text,
    #[serde(rename = "raftIndex")]
    pub raft_index: Text,
    #[serde(rename = "raftTerm")]
    pub raft_term: Text,
}

/// One message of a stream.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Message<'a, T> {
    Result(T),
    Error(ErrorOut<'a>),
}

#[derive(Serialize)]
pub(super) struct ErrorOut<'a> {
    code: u8,
    message: &'a str,
}

impl<'a> From<&'a Refusal> for ErrorOut<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        ErrorOut {
            code: refusal.code,
            message: &refusal.message,
        }
    }
}

#[derive(Serialize, Default)]
pub(super) struct WatchOut<'a> {
    pub header: Header,
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub watch_id: Text,
    #[serde(skip_serializing_if = "is_false")]
    pub created: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub canceled: bool,
    #[serde(skip_serializing_if = "Text::is_zero")]
    pub compact_revision: Text,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cancel_reason: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    pub fragment: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventOut<'a>>,
}

#[derive(Serialize)]
pub(super) struct EventOut<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    kv: KvOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<KvOut<'a>>,
}

impl<'a> EventOut<'a> {
    pub fn new(change: &'a Change, prev_kv: bool) -> Self {
        EventOut {
            kind: change.kv.is_tombstone().then_some("DELETE"),
            kv: KvOut::from(&*change.kv),
            prev_kv: change
                .previous
                .as_deref()
                .filter(|_| prev_kv)
                .map(KvOut::from),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) fn to_json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("replies are plain data")
}

/// A message of a stream.
pub(super) fn to_line(message: &impl Serialize) -> Vec<u8> {
    let mut line = to_json(&Message::Result(message));
    line.push(b'\n');
    line
}

/// A stream's last message, where it does not end well.
pub(super) fn error_line(refusal: &Refusal) -> Vec<u8> {
    let mut line = to_json(&Message::<()>::Error(ErrorOut::from(refusal)));
    line.push(b'\n');
    line
}
