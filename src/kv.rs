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

/// A registration as it stands, for guarding changes of it: its incarnation, and its lease, since
/// whoever puts over another's key (as Go servers do) leaves the incarnation as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub incarnation: i64,
    pub lease: i64,
}

impl Standing {
    /// Nothing stands there: etcd compares what is absent as zero.
    pub const ABSENT: Standing = Standing {
        incarnation: 0,
        lease: 0,
    };
}

impl Kv {
    pub fn standing(&self) -> Standing {
        Standing {
            incarnation: self.create_revision,
            lease: self.lease,
        }
    }
}

/// One change in a watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvEvent {
    Put(Kv),
    Delete { key: Vec<u8>, mod_revision: i64 },
}

impl KvEvent {
    pub fn is_delete(&self) -> bool {
        matches!(self, KvEvent::Delete { .. })
    }

    pub fn revision(&self) -> i64 {
        match self {
            KvEvent::Put(kv) => kv.mod_revision,
            KvEvent::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}
