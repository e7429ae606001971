//! A model of etcd: revisions, transactions, leases, and what watches and listings would bring.

use std::collections::BTreeMap;

use crate::kv::{Kv, KvEvent};
use crate::member::{Document, Keyspace};

pub const PREFIX: &str = "p/";
/// Values beyond this are too large.
pub const MAX_VALUE: usize = 300;

/// What stands under the prefix after one revision.
pub type Snapshot = BTreeMap<Vec<u8>, Kv>;

/// One write; several make a transaction.
#[derive(Debug, Clone)]
pub enum Write {
    /// Of few values, so that an identical one is put again now and then.
    Good {
        member: u8,
        meta: u8,
        process: u8,
        leased: bool,
    },
    /// A good value that names another member.
    Mismatched {
        member: u8,
    },
    Bad {
        member: u8,
        kind: u8,
        leased: bool,
    },
    Delete {
        member: u8,
    },
    /// A departure with its note; `note` past the known ones is one of the future.
    Gone {
        member: u8,
        note: u8,
    },
    /// A note without a departure.
    Note {
        member: u8,
        note: u8,
    },
    /// The notes of a member expire.
    Forget {
        member: u8,
    },
    BadKey(u8),
    NoBadKey(u8),
    Foreign(u8),
}

pub struct Store {
    pub cluster: u64,
    /// `history[n]` is revision n+1: its events, and what stood after it.
    history: Vec<(Vec<KvEvent>, Snapshot)>,
    pub compacted: i64,
    leases: i64,
}

pub fn keys() -> Keyspace {
    Keyspace::new(PREFIX)
}

/// The last ones are of a type that the rules leave out.
pub fn name(member: u8) -> String {
    let names = ["a/1", "a/2", "b/1", "b/2", "ba/1", "hidden/1", "hidden/2"];
    names[usize::from(member) % names.len()].into()
}

fn bad_key(n: u8) -> Vec<u8> {
    let rest: &[u8] = match n % 4 {
        0 => b"a",
        1 => b"a/1/2",
        2 => b"a/\xff",
        _ => b"//",
    };
    [PREFIX.as_bytes(), b"servers/", rest].concat()
}

fn foreign(n: u8) -> Vec<u8> {
    let rest = ["servers.bak", "servers-gone/a/1/x", "servers-other/a/1"];
    [PREFIX, rest[usize::from(n) % rest.len()]]
        .concat()
        .into_bytes()
}

impl Store {
    pub fn new() -> Self {
        Store {
            cluster: 1,
            history: vec![Default::default()],
            compacted: 0,
            leases: 100,
        }
    }

    pub fn revision(&self) -> i64 {
        self.history.len() as i64
    }

    pub fn at(&self, revision: i64) -> &Snapshot {
        &self.history[revision as usize - 1].1
    }

    /// What a watch from `from` brings up to and with revision `to`, by revision.
    pub fn events(&self, from: i64, to: i64) -> Vec<Vec<KvEvent>> {
        // Revision 1 is the empty store.
        (from.max(2)..=to.min(self.revision()))
            .map(|revision| self.history[revision as usize - 1].0.clone())
            .collect()
    }

    pub fn listing(&self, revision: i64) -> Vec<Kv> {
        self.at(revision).values().cloned().collect()
    }

    /// Empty, and another cluster.
    pub fn wipe(&mut self) {
        self.history = vec![Default::default()];
        self.compacted = 0;
        self.cluster += 1;
    }

    /// Back by so many revisions, from a backup.
    pub fn restore(&mut self, back: usize, same_cluster: bool) {
        let kept = self.history.len().saturating_sub(back).max(1);
        self.history.truncate(kept);
        self.compacted = self.compacted.min(self.revision());
        if !same_cluster {
            self.cluster += 1;
        }
    }

    fn lease(&mut self, leased: bool) -> i64 {
        self.leases += 1;
        if leased { self.leases } else { 0 }
    }

    /// One transaction; one that changes nothing makes no revision.
    pub fn commit(&mut self, writes: &[Write]) {
        let mut txn = Txn {
            revision: self.revision() + 1,
            next: self.at(self.revision()).clone(),
            events: Vec::new(),
        };
        for write in writes {
            self.write(write, &mut txn);
        }
        if !txn.events.is_empty() {
            self.history.push((txn.events, txn.next));
        }
    }

    fn write(&mut self, write: &Write, txn: &mut Txn) {
        match write {
            Write::Good {
                member,
                meta,
                process,
                leased,
            } => {
                let name = name(*member);
                let document = Document {
                    metadata: [("m", (meta % 3).to_string())].into_iter().collect(),
                    // Every other one is of a server that knows no tokens.
                    instance: (member % 2 == 0).then(|| format!("t{}", process % 2).into()),
                    ..Document::default()
                };
                let lease = self.lease(*leased);
                txn.put(keys().member(&name), document.to_json(&name), lease);
            }
            Write::Mismatched { member } => {
                let lease = self.lease(true);
                let value = Document::default().to_json("other/9");
                txn.put(keys().member(&name(*member)), value, lease);
            }
            Write::Bad {
                member,
                kind,
                leased,
            } => {
                let lease = self.lease(*leased);
                let value = match kind % 3 {
                    0 => b"null".to_vec(),
                    1 => b"{\"id\":7}".to_vec(),
                    _ => vec![b' '; MAX_VALUE + 1],
                };
                txn.put(keys().member(&name(*member)), value, lease);
            }
            Write::Delete { member } => {
                txn.delete(keys().member(&name(*member)));
            }
            Write::Gone { member, note } => {
                let key = keys().member(&name(*member));
                let Some(kv) = txn.next.get(&key) else { return };
                let note_key = keys().note(&name(*member), kv.create_revision);
                let lease = kv.lease;
                txn.put(note_key, note_json(*note).into(), lease);
                txn.delete(key);
            }
            Write::Note { member, note } => {
                let name = name(*member);
                let life = txn.next.get(&keys().member(&name));
                let life = life.map_or(1, |kv| kv.create_revision);
                txn.put(keys().note(&name, life), note_json(*note).into(), 0);
            }
            Write::Forget { member } => {
                let all = format!("{PREFIX}servers-gone/{}/", name(*member));
                let gone = txn.next.keys().filter(|k| k.starts_with(all.as_bytes()));
                for key in gone.cloned().collect::<Vec<_>>() {
                    txn.delete(key);
                }
            }
            Write::BadKey(n) => txn.put(bad_key(*n), b"x".to_vec(), 0),
            Write::NoBadKey(n) => txn.delete(bad_key(*n)),
            Write::Foreign(n) => txn.put(foreign(*n), b"x".to_vec(), 0),
        }
    }
}

struct Txn {
    revision: i64,
    next: Snapshot,
    events: Vec<KvEvent>,
}

impl Txn {
    /// etcd allows each key once in a transaction.
    fn has(&self, key: &[u8]) -> bool {
        self.events.iter().any(|event| match event {
            KvEvent::Put(kv) => kv.key == key,
            KvEvent::Delete { key: other, .. } => other == key,
        })
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: i64) {
        if self.has(&key) {
            return;
        }
        let old = self.next.get(&key);
        let kv = Kv {
            create_revision: old.map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            key: key.clone(),
            value,
            lease,
        };
        self.next.insert(key, kv.clone());
        self.events.push(KvEvent::Put(kv));
    }

    fn delete(&mut self, key: Vec<u8>) {
        if !self.has(&key) && self.next.remove(&key).is_some() {
            let mod_revision = self.revision;
            self.events.push(KvEvent::Delete { key, mod_revision });
        }
    }
}

fn note_json(note: u8) -> &'static str {
    match note % 4 {
        0 => r#"{"reason":"leave"}"#,
        1 => r#"{"reason":"replaced"}"#,
        2 => r#"{"reason":"evicted","by":["b/1"]}"#,
        _ => r#"{"reason":"bored"}"#,
    }
}

/// What a note of that JSON proves.
pub fn proves(note: &[u8]) -> &'static str {
    match note {
        br#"{"reason":"leave"}"# => "announced",
        br#"{"reason":"replaced"}"# => "replaced",
        br#"{"reason":"evicted","by":["b/1"]}"# => "evicted",
        _ => "unknown",
    }
}
