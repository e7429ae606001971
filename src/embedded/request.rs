//! What is asked: etcd's request messages.

use serde::Deserialize;

use super::wire::{Names, bytes, flag, int, known_names, list, named};

pub(super) type Bytes = Box<[u8]>;

/// A key, or a range of keys, as etcd's messages say it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    pub key: &'a [u8],
    /// Empty: only `key`. A zero byte: all from `key` on.
    pub range_end: &'a [u8],
}

impl Keys<'_> {
    pub fn contain(&self, key: &[u8]) -> bool {
        match self.range_end {
            [] => key == self.key,
            [0] => key >= self.key,
            end => key >= self.key && key < end,
        }
    }
}

/// The messages that name keys.
macro_rules! names_keys {
    ($($message:ty),*) => {$(
        impl $message {
            pub fn keys(&self) -> Keys<'_> {
                Keys { key: &self.key, range_end: &self.range_end }
            }
        }
    )*};
}

names_keys!(Range, DeleteRange, Compare);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    #[serde(deserialize_with = "bytes")]
    pub key: Bytes,
    #[serde(deserialize_with = "bytes", alias = "rangeEnd")]
    pub range_end: Bytes,
    #[serde(deserialize_with = "int")]
    pub limit: i64,
    #[serde(deserialize_with = "int")]
    pub revision: i64,
    #[serde(deserialize_with = "named", alias = "sortOrder")]
    pub sort_order: SortOrder,
    #[serde(deserialize_with = "named", alias = "sortTarget")]
    pub sort_target: Target,
    #[serde(deserialize_with = "flag", alias = "keysOnly")]
    pub keys_only: bool,
    #[serde(deserialize_with = "flag", alias = "countOnly")]
    pub count_only: bool,
    #[serde(deserialize_with = "int", alias = "minModRevision")]
    pub min_mod_revision: i64,
    #[serde(deserialize_with = "int", alias = "maxModRevision")]
    pub max_mod_revision: i64,
    #[serde(deserialize_with = "int", alias = "minCreateRevision")]
    pub min_create_revision: i64,
    #[serde(deserialize_with = "int", alias = "maxCreateRevision")]
    pub max_create_revision: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SortOrder {
    #[default]
    None,
    Ascend,
    Descend,
}

impl Names for SortOrder {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("NONE", SortOrder::None),
        ("ASCEND", SortOrder::Ascend),
        ("DESCEND", SortOrder::Descend),
    ];
}

/// What is sorted by, and, but for the key, compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Target {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
    Lease,
}

impl Names for Target {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("KEY", Target::Key),
        ("VERSION", Target::Version),
        ("CREATE", Target::Create),
        ("MOD", Target::Mod),
        ("VALUE", Target::Value),
    ];
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Put {
    #[serde(deserialize_with = "bytes")]
    pub key: Bytes,
    #[serde(deserialize_with = "bytes")]
    pub value: Bytes,
    #[serde(deserialize_with = "int")]
    pub lease: i64,
    #[serde(deserialize_with = "flag", alias = "prevKv")]
    pub prev_kv: bool,
    #[serde(deserialize_with = "flag", alias = "ignoreValue")]
    pub ignore_value: bool,
    #[serde(deserialize_with = "flag", alias = "ignoreLease")]
    pub ignore_lease: bool,
}

impl Put {
    /// How long etcd's binary message is, about.
    pub fn message_bytes(&self) -> usize {
        let field = |bytes: &[u8]| match bytes.len() {
            0 => 0,
            // The field's number, the length in groups of seven bits, and the bytes.
            length => 1 + (length.ilog2() / 7 + 1) as usize + length,
        };
        field(&self.key) + field(&self.value)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeleteRange {
    #[serde(deserialize_with = "bytes")]
    pub key: Bytes,
    #[serde(deserialize_with = "bytes", alias = "rangeEnd")]
    pub range_end: Bytes,
    #[serde(deserialize_with = "flag", alias = "prevKv")]
    pub prev_kv: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    #[serde(deserialize_with = "list")]
    pub compare: Vec<Compare>,
    #[serde(deserialize_with = "list")]
    pub success: Vec<Op>,
    #[serde(deserialize_with = "list")]
    pub failure: Vec<Op>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Compare {
    #[serde(deserialize_with = "named")]
    pub result: Relation,
    #[serde(deserialize_with = "named")]
    pub target: CompareTarget,
    #[serde(deserialize_with = "bytes")]
    pub key: Bytes,
    #[serde(deserialize_with = "bytes", alias = "rangeEnd")]
    pub range_end: Bytes,
    #[serde(deserialize_with = "int")]
    pub version: i64,
    #[serde(deserialize_with = "int", alias = "createRevision")]
    pub create_revision: i64,
    #[serde(deserialize_with = "int", alias = "modRevision")]
    pub mod_revision: i64,
    #[serde(deserialize_with = "bytes")]
    pub value: Bytes,
    #[serde(deserialize_with = "int")]
    pub lease: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Relation {
    #[default]
    Equal,
    Greater,
    Less,
    NotEqual,
}

impl Names for Relation {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("EQUAL", Relation::Equal),
        ("GREATER", Relation::Greater),
        ("LESS", Relation::Less),
        ("NOT_EQUAL", Relation::NotEqual),
    ];
}

/// What is compared, in the numbering of comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompareTarget(pub Target);

impl Default for CompareTarget {
    fn default() -> Self {
        CompareTarget(Target::Version)
    }
}

impl Names for CompareTarget {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("VERSION", CompareTarget(Target::Version)),
        ("CREATE", CompareTarget(Target::Create)),
        ("MOD", CompareTarget(Target::Mod)),
        ("VALUE", CompareTarget(Target::Value)),
        ("LEASE", CompareTarget(Target::Lease)),
    ];
}

/// One step of a transaction; with nothing in it, it does nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Op {
    #[serde(alias = "requestRange")]
    pub request_range: Option<Range>,
    #[serde(alias = "requestPut")]
    pub request_put: Option<Put>,
    #[serde(alias = "requestDeleteRange")]
    pub request_delete_range: Option<DeleteRange>,
    #[serde(alias = "requestTxn")]
    pub request_txn: Option<Txn>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Compaction {
    #[serde(deserialize_with = "int")]
    pub revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Grant {
    #[serde(deserialize_with = "int", rename = "TTL")]
    pub ttl: i64,
    #[serde(deserialize_with = "int", rename = "ID")]
    pub id: i64,
}

/// Keepalive and revoke.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LeaseId {
    #[serde(deserialize_with = "int", rename = "ID")]
    pub id: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TimeToLive {
    #[serde(deserialize_with = "int", rename = "ID")]
    pub id: i64,
    #[serde(deserialize_with = "flag")]
    pub keys: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticate {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "password")]
    _password: String,
}

/// A request without fields that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Empty {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watch {
    #[serde(alias = "createRequest")]
    pub create_request: Option<WatchCreate>,
    #[serde(alias = "cancelRequest")]
    pub cancel_request: Option<WatchCancel>,
    #[serde(alias = "progressRequest")]
    pub progress_request: Option<Empty>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchCreate {
    #[serde(deserialize_with = "bytes")]
    pub key: Bytes,
    #[serde(deserialize_with = "bytes", alias = "rangeEnd")]
    pub range_end: Bytes,
    #[serde(deserialize_with = "int", alias = "startRevision")]
    pub start_revision: i64,
    #[serde(deserialize_with = "flag", alias = "progressNotify")]
    pub progress_notify: bool,
    #[serde(deserialize_with = "known_names")]
    pub filters: Vec<Filter>,
    #[serde(deserialize_with = "flag", alias = "prevKv")]
    pub prev_kv: bool,
    #[serde(deserialize_with = "int", alias = "watchId")]
    pub watch_id: i64,
    #[serde(deserialize_with = "flag")]
    pub fragment: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    NoPut,
    NoDelete,
}

impl Names for Filter {
    const NAMES: &'static [(&'static str, Self)] =
        &[("NOPUT", Filter::NoPut), ("NODELETE", Filter::NoDelete)];
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchCancel {
    #[serde(deserialize_with = "int", alias = "watchId")]
    pub watch_id: i64,
}
