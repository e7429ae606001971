//! What really was: etcd's own history.

use super::Nanos;
use serde::{Deserialize, Serialize};

/// Everything that etcd ever held, in its order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// What all keys of the cluster under test begin with.
    pub prefix: String,
    pub epochs: Vec<Epoch>,
}

/// A span in which revisions only grow: it ends when etcd is wiped or restored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub cluster_id: u64,
    pub changes: Vec<Change>,
    /// All changes up to this revision were read.
    pub read_to: i64,
}

/// What one revision did to one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub revision: i64,
    /// When it was read; it may have happened a little before.
    pub at: Nanos,
    pub key: String,
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    Put {
        value: String,
        lease: i64,
        create_revision: i64,
        version: i64,
    },
    /// With what was there before.
    Delete { create_revision: i64, lease: i64 },
}
