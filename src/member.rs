//! A member of the cluster: its key, its JSON (the layout that Pitaya uses), its metadata.

mod json;
mod key;
mod metadata;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

pub(crate) use json::{Document, RESERVED};
pub(crate) use key::{Keyspace, MAX_NAME_BYTES, Place, is_name};
pub use metadata::Metadata;

/// A server in the cluster, as last confirmed by etcd.
///
/// Its identity is (type, id); one life of it is an *incarnation*. Two values with the same
/// identity and incarnation may differ in metadata: compare [`revision`](Self::revision).
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    /// `type/id`: neither part holds a slash, so one string is both name and sort key.
    name: Box<str>,
    slash: usize,
    document: Document,
    incarnation: i64,
    revision: i64,
    lease: i64,
}

impl Member {
    pub(crate) fn new(
        name: &str,
        document: Document,
        incarnation: i64,
        revision: i64,
        lease: i64,
    ) -> Self {
        let slash = name.find('/').expect("a member's name is type/id");
        Member {
            name: name.into(),
            slash,
            document,
            incarnation,
            revision,
            lease,
        }
    }

    /// The server's type, such as `gate`.
    pub fn server_type(&self) -> &str {
        &self.name[..self.slash]
    }

    /// The server's id, unique within its type (and, for Pitaya, within the cluster).
    pub fn id(&self) -> &str {
        &self.name[self.slash + 1..]
    }

    /// `type/id`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the server says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.document.metadata
    }

    /// Whether clients connect to it.
    pub fn is_frontend(&self) -> bool {
        self.document.frontend
    }

    /// The machine it runs on, in its own words.
    pub fn hostname(&self) -> &str {
        &self.document.hostname
    }

    /// One life of this member: the `create_revision` of its key.
    ///
    /// It grows with every new life, needs no clock, and serves as a fencing token: a request
    /// that carries a smaller incarnation than the one you know comes from the past.
    pub fn incarnation(&self) -> i64 {
        self.incarnation
    }

    /// etcd's revision of this value (`mod_revision`).
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The lease that the registration hangs on; 0 where somebody wrote it without one.
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// The random token of the process that registered, where it is one of Headcount's: it tells
    /// a process that came back from another one under its name.
    pub fn instance(&self) -> Option<&str> {
        self.document.instance.as_deref()
    }

    /// The same, its key moved to another lease.
    pub(crate) fn on_lease(&self, lease: i64) -> Self {
        Member {
            lease,
            ..self.clone()
        }
    }

    pub(crate) fn document(&self) -> &Document {
        &self.document
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("name", &self.name)
            .field("incarnation", &self.incarnation)
            .field("revision", &self.revision)
            .field("lease", &self.lease)
            .field("frontend", &self.document.frontend)
            .field("hostname", &self.document.hostname)
            .field("metadata", &self.document.metadata)
            .finish()
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.incarnation)
    }
}

/// A member in a set ordered by name, found by `type/id` without a key of its own.
#[derive(Clone, Debug)]
pub(crate) struct ByName(pub Arc<Member>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}
impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}
impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}
impl Eq for ByName {}
