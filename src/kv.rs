//! Keys and values as etcd keeps them, decoded.

/// A key, its value, and when it came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kv {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub lease: i64,
}

/// One change in a watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvEvent {
    Put(Kv),
    Delete { key: Vec<u8>, mod_revision: i64 },
}

impl KvEvent {
    pub fn revision(&self) -> i64 {
        match self {
            KvEvent::Put(kv) => kv.mod_revision,
            KvEvent::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}
