//! A model of etcd: revisions, transactions, leases, compaction, elections, backups. It keeps its
//! whole history, also of the lives that a restore has taken back, and how each registration ended:
//! that is the truth.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::kv::{Kv, KvEvent};
use crate::member::Keyspace;

pub const PREFIX: &str = "p/";
/// Milliseconds since the start.
pub type Ms = u64;

pub fn keys() -> Keyspace {
    Keyspace::new(PREFIX)
}

pub fn member_key(name: &str) -> Vec<u8> {
    format!("{PREFIX}servers/{name}").into_bytes()
}

pub fn note_key(name: &str, life: i64) -> Vec<u8> {
    format!("{PREFIX}servers-gone/{name}/{life}").into_bytes()
}

/// The member that a key is of, read by other means than the code under test.
pub fn name_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix("p/servers/")
}

pub type Snapshot = BTreeMap<Vec<u8>, Rc<Kv>>;

#[derive(Clone)]
pub struct Revision {
    pub at: Ms,
    pub events: Vec<KvEvent>,
    /// What stood then.
    pub after: Rc<Snapshot>,
}

/// A history in which revisions compare.
#[derive(Clone)]
pub struct Epoch {
    pub cluster: u64,
    /// `revisions[n]` is revision n+1.
    pub revisions: Vec<Revision>,
    pub compacted: i64,
}

impl Epoch {
    fn new(cluster: u64, at: Ms) -> Self {
        Epoch {
            cluster,
            revisions: vec![Revision {
                at,
                events: Vec::new(),
                after: Rc::default(),
            }],
            compacted: 0,
        }
    }

    pub fn revision(&self) -> i64 {
        self.revisions.len() as i64
    }

    pub fn at(&self, revision: i64) -> &Snapshot {
        &self.revisions[revision as usize - 1].after
    }

    /// How far a node is that lags so much.
    pub fn revision_at(&self, at: Ms) -> i64 {
        let known = self.revisions.partition_point(|r| r.at <= at);
        (known as i64).max(1)
    }
}

pub struct Lease {
    pub ttl: Ms,
    pub end: Ms,
    /// Ends that renewals have put off, and when.
    put_off: Vec<(Ms, Ms)>,
    pub keys: BTreeSet<Vec<u8>>,
}

/// So long a look at a lease may go on counting.
const LOOKED: Ms = 4000;

impl Lease {
    fn renew(&mut self, now: Ms, end: Ms) {
        self.put_off.retain(|(at, _)| at + LOOKED > now);
        self.put_off.push((now, self.end));
        self.end = end;
    }

    /// When it would have ended without what was done to it of late.
    fn end_seen(&self, now: Ms) -> Ms {
        let recent = self.put_off.iter().filter(|(at, _)| at + LOOKED > now);
        recent
            .map(|(_, end)| *end)
            .min()
            .unwrap_or(self.end)
            .min(self.end)
    }
}

/// How a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With a note that proves this.
    Noted(&'static str),
    /// Its lease was revoked.
    Revoked,
    /// Its lease ran out.
    Expired,
    /// Its key was deleted.
    Deleted,
}

#[derive(Debug, Clone, Copy)]
pub struct End {
    pub how: How,
    pub at: Ms,
    pub revision: i64,
    pub lease: i64,
    /// When its lease would have run out, and when without its last renewals; `None`: it hung on
    /// none.
    pub lease_end: Option<(Ms, Ms)>,
}

/// What a good value says, known by who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    pub token: Option<String>,
    pub metadata: String,
}

pub struct Store {
    /// The last one is now; the others are what a client may still believe.
    pub epochs: Vec<Epoch>,
    pub leases: BTreeMap<i64, Lease>,
    pub term: u64,
    /// Until then nobody leads.
    pub leaderless: Ms,
    /// Since when.
    pub leader_lost: Ms,
    /// What ran out meanwhile by the clock of the old leader, who ends it when it goes on, though
    /// the election has renewed it.
    run_out: Vec<i64>,
    pub meanings: HashMap<Vec<u8>, Meaning>,
    /// By epoch, name and life.
    pub ends: HashMap<(usize, String, i64), End>,
    /// Puts and deletes of members' keys.
    pub changes: u64,
    /// For how long each lease was granted that ever was.
    granted: HashMap<i64, Ms>,
    next_lease: i64,
    now: Ms,
    ending: How,
}

pub enum Op {
    Put(Vec<u8>, Vec<u8>, i64),
    Delete(Vec<u8>),
}

impl Store {
    pub fn new() -> Self {
        Store {
            epochs: vec![Epoch::new(1, 0)],
            leases: BTreeMap::new(),
            term: 1,
            leaderless: 0,
            leader_lost: 0,
            run_out: Vec::new(),
            meanings: HashMap::new(),
            ends: HashMap::new(),
            changes: 0,
            granted: HashMap::new(),
            next_lease: 1000,
            now: 0,
            ending: How::Deleted,
        }
    }

    pub fn epoch(&self) -> &Epoch {
        self.epochs.last().expect("there is always one")
    }

    pub fn current(&self) -> usize {
        self.epochs.len() - 1
    }

    pub fn get(&self, key: &[u8]) -> Option<&Rc<Kv>> {
        let epoch = self.epoch();
        epoch.at(epoch.revision()).get(key)
    }

    pub fn leads(&self) -> bool {
        self.now >= self.leaderless
    }

    /// Time passes; twice a second, leases that have run out are ended.
    pub fn pass(&mut self, now: Ms) {
        self.now = now;
        if self.leads() {
            for id in std::mem::take(&mut self.run_out) {
                self.end_lease(id, How::Expired);
            }
        }
        if now % 500 == 0 && self.leads() {
            let over: Vec<i64> = self
                .leases
                .iter()
                .filter(|(_, l)| l.end <= now)
                .map(|(id, _)| *id)
                .collect();
            for id in over {
                self.end_lease(id, How::Expired);
            }
        }
    }

    // ---- leases

    pub fn grant(&mut self, ttl: Ms) -> i64 {
        self.next_lease += 1;
        self.granted.insert(self.next_lease, ttl);
        let (end, keys) = (self.now + ttl, BTreeSet::new());
        self.leases.insert(
            self.next_lease,
            Lease {
                ttl,
                end,
                put_off: Vec::new(),
                keys,
            },
        );
        self.next_lease
    }

    /// Whether it is there.
    pub fn renew(&mut self, id: i64) -> bool {
        let now = self.now;
        match self.leases.get_mut(&id) {
            Some(lease) => lease.renew(now, now + lease.ttl),
            None => return false,
        }
        true
    }

    pub fn end_lease(&mut self, id: i64, how: How) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let ops: Vec<Op> = lease.keys.iter().cloned().map(Op::Delete).collect();
        self.ending = how;
        self.commit(&ops);
        self.ending = How::Deleted;
        self.leases.remove(&id);
    }

    /// Nobody leads for a while; then all leases have their whole time again. Or the leader has
    /// `stood` still meanwhile, and goes on.
    pub fn elect(&mut self, within: Ms, stood: bool) {
        self.term += 1;
        self.leader_lost = self.now;
        self.leaderless = self.now + within;
        // Whoever stood still for another election goes on as none of this one.
        self.run_out.clear();
        if stood {
            let out = self.leases.iter().filter(|(_, l)| l.end <= self.leaderless);
            self.run_out = out.map(|(id, _)| *id).collect();
        }
        for lease in self.leases.values_mut() {
            lease.renew(self.now, self.now + within + lease.ttl);
        }
    }

    // ---- writes

    /// One transaction; one that changes nothing makes no revision.
    pub fn commit(&mut self, ops: &[Op]) {
        let (current, now) = (self.current(), self.now);
        let (revision, mut next) = {
            let epoch = self.epoch();
            let revision = epoch.revision();
            (revision + 1, epoch.at(revision).clone())
        };
        let mut events = Vec::new();
        // A note that is written for a life in the same transaction explains its end.
        let note = |ops: &[Op], name: &str, life: i64| {
            let key = note_key(name, life);
            ops.iter().find_map(|op| match op {
                Op::Put(k, value, _) if *k == key => Some(proves(value)),
                _ => None,
            })
        };
        for op in ops {
            match op {
                Op::Put(key, value, lease) => {
                    let old = next.get(key);
                    if let Some(old) = old {
                        if let Some(lease) = self.leases.get_mut(&old.lease) {
                            lease.keys.remove(key);
                        }
                    }
                    let kv = Kv {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: old.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        lease: *lease,
                    };
                    if let Some(lease) = self.leases.get_mut(lease) {
                        lease.keys.insert(key.clone());
                    }
                    self.changes += u64::from(name_of(key).is_some());
                    next.insert(key.clone(), Rc::new(kv.clone()));
                    events.push(KvEvent::Put(kv));
                }
                Op::Delete(key) => {
                    let Some(old) = next.remove(key) else {
                        continue;
                    };
                    let lease_end = self.leases.get_mut(&old.lease).map(|lease| {
                        lease.keys.remove(key);
                        (lease.end, lease.end_seen(now))
                    });
                    if let Some(name) = name_of(key) {
                        self.changes += 1;
                        let life = old.create_revision;
                        let noted = note(ops, name, life).map(How::Noted);
                        let end = End {
                            how: noted.unwrap_or(self.ending),
                            at: now,
                            revision,
                            lease: old.lease,
                            lease_end,
                        };
                        self.ends.insert((current, name.to_owned(), life), end);
                    }
                    events.push(KvEvent::Delete {
                        key: key.clone(),
                        mod_revision: revision,
                    });
                }
            }
        }
        if !events.is_empty() {
            let at = self.now;
            let after = Rc::new(next);
            let epoch = self.epochs.last_mut().expect("there is always one");
            epoch.revisions.push(Revision { at, events, after });
        }
    }

    pub fn compact(&mut self, keep: i64) {
        let epoch = self.epochs.last_mut().expect("there is always one");
        epoch.compacted = epoch.compacted.max(epoch.revision() - keep).max(0);
    }

    /// Empty, and another cluster.
    pub fn wipe(&mut self) {
        let cluster = self.epoch().cluster + 1;
        self.epochs.push(Epoch::new(cluster, self.now));
        self.leases.clear();
        self.run_out.clear();
    }

    /// Back by so many revisions, from a backup.
    pub fn restore(&mut self, back: usize, same_cluster: bool) {
        let mut epoch = self.epoch().clone();
        let kept = epoch.revisions.len().saturating_sub(back).max(1);
        epoch.revisions.truncate(kept);
        epoch.compacted = epoch.compacted.min(epoch.revision());
        if !same_cluster {
            epoch.cluster += 1;
        }
        // Whose leases were not yet, or are no more: the backup has those that its keys hang on,
        // with their whole time.
        let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
        for (key, kv) in epoch
            .at(epoch.revision())
            .iter()
            .filter(|(_, kv)| kv.lease != 0)
        {
            let ttl = self.granted[&kv.lease];
            let end = self.now + ttl;
            let lease = leases.entry(kv.lease).or_insert_with(|| Lease {
                ttl,
                end,
                put_off: Vec::new(),
                keys: BTreeSet::new(),
            });
            lease.keys.insert(key.clone());
        }
        self.leases = leases;
        self.run_out.clear();
        self.term += 1;
        // What had happened up to there has happened here as well.
        let (from, to, last) = (self.current(), self.epochs.len(), epoch.revision());
        let kept: Vec<_> = self
            .ends
            .iter()
            .filter(|((e, ..), end)| *e == from && end.revision <= last)
            .map(|((_, name, life), end)| ((to, name.clone(), *life), *end))
            .collect();
        self.ends.extend(kept);
        self.epochs.push(epoch);
    }
}

pub fn note_json(reason: &str) -> Vec<u8> {
    match reason {
        "announced" => br#"{"reason":"leave"}"#.to_vec(),
        "replaced" => br#"{"reason":"replaced"}"#.to_vec(),
        "evicted" => br#"{"reason":"evicted","by":["t/1"]}"#.to_vec(),
        _ => br#"{"reason":"bored"}"#.to_vec(),
    }
}

/// What a note of that JSON proves.
pub fn proves(note: &[u8]) -> &'static str {
    let is = |reason: &str| note == note_json(reason);
    ["announced", "replaced", "evicted"]
        .into_iter()
        .find(|r| is(r))
        .unwrap_or("unknown")
}
