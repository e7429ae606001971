//! Keys and their past: etcd's multi-version store, in memory. Pure.
//!
//! Every change is kept until it is compacted, by request or because the history has reached its
//! bound, so that a listing can be pinned to a revision and a watch can start in the past.

mod check;
mod history;
mod range;
#[cfg(test)]
mod tests;
mod txn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::leases::Leases;
use super::refusal::Refusal;
use super::request::{DeleteRange, Keys, Put};

pub(super) use range::Found;
pub(super) use txn::{Done, Outcome};

/// A key at one revision. One that was deleted there has version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kv {
    pub key: Arc<[u8]>,
    pub value: Box<[u8]>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

impl Kv {
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    fn size(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// What a version costs beside its bytes, about.
const OVERHEAD: usize = 200;

/// One change, and what it replaced.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub kv: Arc<Kv>,
    pub previous: Option<Arc<Kv>>,
}

/// What the store may grow to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Revisions kept for watches and listings that are behind.
    pub revisions: usize,
    /// The same in bytes.
    pub history_bytes: usize,
    /// Of living keys and values; beyond that puts are refused.
    pub quota_bytes: usize,
}

impl Limits {
    pub const DEFAULT: Limits = Limits {
        revisions: 100_000,
        history_bytes: 64 << 20,
        quota_bytes: 256 << 20,
    };
}

pub(super) struct Store {
    pub leases: Leases,
    limits: Limits,
    /// Of the last transaction that changed something. An empty store is at 1, as etcd's is.
    revision: i64,
    /// What is before it can't be asked for.
    compacted: i64,
    /// Versions by ascending revision; never an empty list.
    keys: BTreeMap<Arc<[u8]>, VecDeque<Arc<Kv>>>,
    /// The changes of each revision, up to the newest, without a gap.
    log: VecDeque<Vec<Change>>,
    log_bytes: usize,
    live_bytes: usize,
    /// Of the transaction under way.
    changes: Vec<Change>,
}

impl Store {
    /// `id` is where the ids of leases begin.
    pub fn new(limits: Limits, id: i64) -> Self {
        Store {
            leases: Leases::new(id),
            limits,
            revision: 1,
            compacted: -1,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            live_bytes: 0,
            changes: Vec::new(),
        }
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// What it replaced.
    pub fn put(&mut self, put: &Put) -> Result<Option<Arc<Kv>>, Refusal> {
        check::put(put)?;
        self.may_put(put)?;
        let previous = self.apply_put(put);
        self.commit();
        Ok(previous)
    }

    /// What was deleted.
    pub fn delete_range(&mut self, request: &DeleteRange) -> Result<Vec<Arc<Kv>>, Refusal> {
        check::delete_range(request)?;
        let deleted = self.apply_delete(request.keys());
        self.commit();
        Ok(deleted)
    }

    /// Ends a lease, and its keys with it, in one revision.
    pub fn revoke(&mut self, id: i64) -> Result<(), Refusal> {
        let lease = self.leases.remove(id).ok_or(Refusal::LEASE_NOT_FOUND)?;
        for key in &lease.keys {
            self.delete_one(key);
        }
        self.commit();
        Ok(())
    }

    /// Ends the leases that have run out, each in a revision of its own.
    pub fn expire(&mut self, now: Instant) {
        while let Some(id) = self.leases.overdue(now) {
            // It is there: it was just found.
            let _ = self.revoke(id);
        }
    }

    fn current(&self, key: &[u8]) -> Option<&Arc<Kv>> {
        let newest = self.keys.get(key)?.back()?;
        (!newest.is_tombstone()).then_some(newest)
    }

    /// What stands in the way of a put that is well-formed.
    fn may_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease != 0 && self.leases.get(put.lease).is_none() {
            return Err(Refusal::LEASE_NOT_FOUND);
        }
        if (put.ignore_value || put.ignore_lease) && self.current(&put.key).is_none() {
            return Err(Refusal::KEY_NOT_FOUND);
        }
        let grown = self.live_bytes + put.key.len() + put.value.len() + OVERHEAD;
        match grown > self.limits.quota_bytes {
            true => Err(Refusal::NO_SPACE),
            false => Ok(()),
        }
    }

    fn apply_put(&mut self, put: &Put) -> Option<Arc<Kv>> {
        let previous = self.current(&put.key).cloned();
        let before = previous.as_deref();
        let revision = self.revision + 1;
        let value = match before.filter(|_| put.ignore_value) {
            Some(before) => before.value.clone(),
            None => put.value.clone(),
        };
        let lease = match before.filter(|_| put.ignore_lease) {
            Some(before) => before.lease,
            None => put.lease,
        };
        let kv = Kv {
            key: before.map_or_else(|| Arc::from(&*put.key), |kv| Arc::clone(&kv.key)),
            value,
            create_revision: before.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.map_or(0, |kv| kv.version) + 1,
            lease,
        };
        self.leases
            .move_key(&kv.key, before.map_or(0, |kv| kv.lease), lease);
        self.live_bytes += kv.size();
        self.record(kv, previous.clone());
        previous
    }

    fn apply_delete(&mut self, keys: Keys) -> Vec<Arc<Kv>> {
        let found = self.living(keys).map(|kv| Arc::clone(&kv.key));
        let found: Vec<_> = found.collect();
        found
            .iter()
            .filter_map(|key| self.delete_one(key))
            .collect()
    }

    fn delete_one(&mut self, key: &Arc<[u8]>) -> Option<Arc<Kv>> {
        let previous = self.current(key).cloned()?;
        self.leases.move_key(key, previous.lease, 0);
        let tombstone = Kv {
            key: Arc::clone(key),
            value: Box::default(),
            create_revision: 0,
            mod_revision: self.revision + 1,
            version: 0,
            lease: 0,
        };
        self.record(tombstone, Some(Arc::clone(&previous)));
        Some(previous)
    }

    /// One more change of the transaction under way.
    fn record(&mut self, kv: Kv, previous: Option<Arc<Kv>>) {
        if let Some(previous) = &previous {
            self.live_bytes -= previous.size();
        }
        let kv = Arc::new(kv);
        self.log_bytes += kv.size();
        let versions = self.keys.entry(Arc::clone(&kv.key)).or_default();
        versions.push_back(Arc::clone(&kv));
        self.changes.push(Change { kv, previous });
    }

    /// Ends the transaction: what it changed is one revision; nothing changed is none.
    fn commit(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        self.revision += 1;
        self.log.push_back(std::mem::take(&mut self.changes));
        self.keep_within_bounds();
    }
}
