//! Leases: who holds which keys, and until when. Pure: the caller has the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusal::Refusal;

/// The least that etcd grants with its default timings, in seconds.
const LEAST_TTL: i64 = 2;
/// The most.
const MOST_TTL: i64 = 9_000_000_000;

pub(super) struct Lease {
    /// As granted, in seconds.
    pub ttl: i64,
    until: Instant,
    pub keys: BTreeSet<Arc<[u8]>>,
}

impl Lease {
    /// Whole seconds left, as etcd rounds them: down. Never all of them, for etcd takes a moment:
    /// what is left of no less than was granted is an election's doing.
    pub fn remaining(&self, now: Instant) -> i64 {
        let left = self.until.saturating_duration_since(now);
        left.saturating_sub(Duration::from_nanos(1)).as_secs() as i64
    }
}

pub(super) struct Leases {
    next_id: i64,
    by_id: BTreeMap<i64, Lease>,
    by_time: BTreeSet<(Instant, i64)>,
}

impl Leases {
    pub fn new(next_id: i64) -> Self {
        Leases {
            next_id,
            by_id: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// What is granted; `id` must not be in use.
    pub fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<i64, Refusal> {
        if ttl > MOST_TTL {
            return Err(Refusal::TTL_TOO_LARGE);
        }
        if self.by_id.contains_key(&id) {
            return Err(Refusal::LEASE_EXISTS);
        }
        let ttl = ttl.max(LEAST_TTL);
        let until = now + Duration::from_secs(ttl as u64);
        let keys = BTreeSet::new();
        self.by_id.insert(id, Lease { ttl, until, keys });
        self.by_time.insert((until, id));
        Ok(ttl)
    }

    /// Its full time again, which is returned; `None` if there is no such lease.
    pub fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.by_id.get_mut(&id)?;
        self.by_time.remove(&(lease.until, id));
        lease.until = now + Duration::from_secs(lease.ttl as u64);
        self.by_time.insert((lease.until, id));
        Some(lease.ttl)
    }

    /// All of them, as a restarted etcd does.
    pub fn renew_all(&mut self, now: Instant) {
        for id in self.ids() {
            self.renew(id, now);
        }
    }

    /// An id that is not in use.
    pub fn free_id(&mut self) -> i64 {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(1);
            if id != 0 && !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// All, the one that runs out first first.
    pub fn ids(&self) -> Vec<i64> {
        self.by_time.iter().map(|(_, id)| *id).collect()
    }

    pub fn remove(&mut self, id: i64) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.by_time.remove(&(lease.until, id));
        Some(lease)
    }

    /// Which has run out, the first first.
    pub fn overdue(&self, now: Instant) -> Option<i64> {
        let (until, id) = self.by_time.first()?;
        (*until <= now).then_some(*id)
    }

    pub fn next_end(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// The key hangs on lease `to` instead of `from`; 0 is none.
    pub fn move_key(&mut self, key: &Arc<[u8]>, from: i64, to: i64) {
        if let Some(lease) = self.by_id.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.by_id.get_mut(&to) {
            lease.keys.insert(Arc::clone(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_no_renewal_leaves_the_whole_time() {
        let now = Instant::now();
        let mut leases = Leases::new(1);
        leases.grant(7, 5, now).expect("granted");
        for moment in [now, now + Duration::from_secs(2)] {
            assert_eq!(leases.renew(7, moment), Some(5));
            assert_eq!(leases.by_id[&7].remaining(moment), 4);
        }
        let over = now + Duration::from_secs(9);
        assert_eq!(leases.by_id[&7].remaining(over), 0);
    }
}
