//! What the store remembers, and how it forgets.

use super::{Change, Store};
use crate::embedded::refusal::Refusal;

impl Store {
    /// Forgets what was before `revision`.
    pub fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::COMPACTED);
        }
        if revision > self.revision {
            return Err(Refusal::FUTURE);
        }
        self.forget(revision);
        Ok(())
    }

    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The changes of one revision; none if it is compacted or in the future.
    pub fn changes(&self, revision: i64) -> &[Change] {
        let at = usize::try_from(revision - self.oldest());
        at.ok()
            .and_then(|at| self.log.get(at))
            .map_or(&[], |all| all)
    }

    /// The first revision in the log.
    fn oldest(&self) -> i64 {
        self.revision + 1 - self.log.len() as i64
    }

    pub(super) fn keep_within_bounds(&mut self) {
        while self.log.len() > self.limits.revisions
            || (self.log_bytes > self.limits.history_bytes && self.log.len() > 1)
        {
            self.forget(self.oldest() + 1);
        }
    }

    /// What `revision` itself changed stays known: a watch may start there.
    fn forget(&mut self, revision: i64) {
        self.compacted = revision;
        while self.oldest() < revision {
            let Some(changes) = self.log.pop_front() else {
                break;
            };
            for change in changes {
                self.log_bytes -= change.kv.size();
                self.trim(&change.kv.key, revision);
            }
        }
        let keys: Vec<_> = self
            .changes(revision)
            .iter()
            .map(|c| c.kv.key.clone())
            .collect();
        for key in keys {
            self.trim(&key, revision);
        }
    }

    /// Drops the versions of a key that nobody can see at `revision` or later.
    fn trim(&mut self, key: &[u8], revision: i64) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let until = versions.partition_point(|kv| kv.mod_revision <= revision);
        let dead = |kv: &super::Kv| kv.is_tombstone();
        let keep = until.checked_sub(1).filter(|&at| !dead(&versions[at]));
        versions.drain(..keep.unwrap_or(until));
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }
}
