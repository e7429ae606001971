//! The members: servers of Headcount, servers in Go, and what an operator puts by hand. They join,
//! update, leave, crash, stand still and go on, restart under their name, and come back when their
//! registration is lost.

use std::rc::Rc;

use super::dice::Dice;
use super::store::{How, Meaning, Ms, Op, Store, member_key, note_json, note_key};
use crate::kv::Kv;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Headcount,
    /// Says nothing when it leaves: it revokes its lease.
    Go,
    /// A key without a lease.
    Hand,
}

pub struct Process {
    pub name: String,
    kind: Kind,
    ttl: Ms,
    token: u64,
    /// Its lease, if it runs; an operator's key has 0.
    lease: Option<i64>,
    renew_at: Ms,
    /// It stands still until then.
    pub frozen: Ms,
    /// It has to register (again), at that moment.
    register: Option<Ms>,
    /// A lease to be revoked then: whose owner was thrown out.
    leftover: Option<(Ms, i64)>,
}

pub struct Processes {
    pub all: Vec<Process>,
    /// Actions in a thousand ticks.
    pub pace: u64,
    /// Who rests changes nothing, but goes on living.
    pub resting: bool,
    versions: u64,
}

impl Processes {
    pub fn new(dice: &mut Dice) -> Self {
        let count = dice.between(3, 13);
        let all = (0..count).map(|n| {
            let kind = match dice.below(10) {
                0..=5 => Kind::Headcount,
                6..=8 => Kind::Go,
                _ => Kind::Hand,
            };
            Process {
                name: format!("t{}/{n}", n % 3),
                kind,
                ttl: dice.of(&[2000, 3000, 5000, 10_000]),
                token: 0,
                lease: None,
                renew_at: 0,
                frozen: 0,
                register: None,
                leftover: None,
            }
        });
        let all = all.collect();
        Processes {
            all,
            pace: dice.of(&[15, 40, 100, 250]),
            resting: false,
            versions: 0,
        }
    }

    pub fn step(
        &mut self,
        store: &mut Store,
        now: Ms,
        dice: &mut Dice,
        trace: &mut dyn FnMut(&dyn Fn() -> String),
    ) {
        if !store.leads() {
            return;
        }
        for n in 0..self.all.len() {
            self.live(n, store, now, dice);
        }
        if !self.resting && dice.permille(self.pace) {
            let n = dice.below(self.all.len());
            let what = self.act(n, store, now, dice);
            if let Some(what) = what {
                trace(&|| format!("{} {what}", self.all[n].name));
            }
        }
    }

    /// What it does by itself.
    fn live(&mut self, n: usize, store: &mut Store, now: Ms, dice: &mut Dice) {
        let process = &mut self.all[n];
        if let Some((at, lease)) = process.leftover.filter(|(at, _)| now >= *at) {
            let _ = at;
            store.end_lease(lease, How::Revoked);
            process.leftover = None;
        }
        if now < process.frozen {
            return;
        }
        let Some(lease) = process.lease else { return };
        if process.register.is_some_and(|at| now >= at) {
            process.register = None;
            return self.register(n, store, now, dice);
        }
        if process.kind == Kind::Hand || process.register.is_some() {
            return;
        }
        if now >= process.renew_at {
            process.renew_at = now + process.ttl / 3 - dice.between(0, process.ttl / 30);
            if !store.renew(lease) {
                process.register = Some(now + dice.between(0, 400));
            }
        } else if process.kind == Kind::Headcount {
            // It watches its own key.
            let kv = store.get(&member_key(&process.name));
            if kv.is_none_or(|kv| kv.lease != lease) {
                process.register = Some(now + dice.between(20, 600));
            }
        }
    }

    fn value(&mut self, n: usize, store: &mut Store, new: bool) -> Vec<u8> {
        let process = &self.all[n];
        // Now and then the same value once more.
        self.versions += u64::from(new);
        let (server_type, id) = process.name.split_once('/').expect("type/id");
        let metadata = (self.versions % 5).to_string();
        let token = (process.kind == Kind::Headcount)
            .then(|| format!("{}-{}", process.name, process.token));
        let mut pairs = String::new();
        if let Some(token) = &token {
            pairs = format!(r#""headcount.instance":"{token}","#);
        }
        let value = format!(
            r#"{{"id":"{id}","type":"{server_type}","metadata":{{{pairs}"m":"{metadata}"}},"frontend":false,"hostname":"vm"}}"#
        )
        .into_bytes();
        store
            .meanings
            .insert(value.clone(), Meaning { token, metadata });
        value
    }

    fn token_of(store: &Store, kv: &Kv) -> Option<String> {
        store.meanings.get(&kv.value).and_then(|m| m.token.clone())
    }

    /// As Headcount and Pitaya do it.
    fn register(&mut self, n: usize, store: &mut Store, now: Ms, dice: &mut Dice) {
        let value = self.value(n, store, true);
        let process = &mut self.all[n];
        let key = member_key(&process.name);
        let found: Option<Rc<Kv>> = store.get(&key).cloned();
        let ours = format!("{}-{}", process.name, process.token);
        match (process.kind, found) {
            (Kind::Headcount, Some(kv)) if Self::token_of(store, &kv).as_deref() != Some(&ours) => {
                // Another's: its registration ends first.
                let note = note_key(&process.name, kv.create_revision);
                store.commit(&[
                    Op::Put(note, note_json("replaced"), kv.lease),
                    Op::Delete(key),
                ]);
                process.register = Some(now + dice.between(0, 200));
                process.lease.get_or_insert(-1);
            }
            (Kind::Hand, _) => {
                process.lease = Some(0);
                store.commit(&[Op::Put(key, value, 0)]);
            }
            _ => {
                let ttl = process.ttl;
                let lease = match process.lease {
                    // It may still have it.
                    Some(lease) if store.leases.contains_key(&lease) => lease,
                    _ => store.grant(ttl),
                };
                process.lease = Some(lease);
                process.renew_at = now + ttl / 3;
                store.commit(&[Op::Put(key, value, lease)]);
            }
        }
    }

    fn act(
        &mut self,
        n: usize,
        store: &mut Store,
        now: Ms,
        dice: &mut Dice,
    ) -> Option<&'static str> {
        let process = &mut self.all[n];
        let key = member_key(&process.name);
        let Some(lease) = process.lease else {
            process.token += 1;
            process.frozen = 0;
            process.lease = Some(-1);
            self.register(n, store, now, dice);
            return Some("joins");
        };
        let there = store.get(&key).cloned();
        let what = dice.below(100);
        if now < process.frozen {
            // Of one that stands still its peers, or an operator, may think that it is dead.
            return match (what, there) {
                (0..30, Some(kv)) => {
                    self.evict(n, &kv, store, now, dice);
                    Some("is evicted, frozen")
                }
                (30..60, _) => {
                    store.end_lease(lease, How::Revoked);
                    Some("is revoked, frozen")
                }
                _ => None,
            };
        }
        match what {
            0..38 => {
                let there = there?;
                // Headcount updates only what is its own.
                if process.kind == Kind::Headcount {
                    let ours = format!("{}-{}", process.name, process.token);
                    if Self::token_of(store, &there)? != ours {
                        return None;
                    }
                }
                let value = self.value(n, store, dice.permille(800));
                store.commit(&[Op::Put(key, value, lease.max(0))]);
                Some("updates")
            }
            38..50 => {
                let kind = process.kind;
                process.lease = None;
                process.register = None;
                match (kind, there) {
                    (Kind::Headcount, Some(kv)) => {
                        let note = note_key(&process.name, kv.create_revision);
                        store.commit(&[
                            Op::Put(note, note_json("announced"), kv.lease),
                            Op::Delete(key),
                        ]);
                    }
                    (Kind::Go, _) => store.end_lease(lease, How::Revoked),
                    _ => store.commit(&[Op::Delete(key)]),
                }
                Some("leaves")
            }
            50..62 => {
                (process.lease, process.register) = (None, None);
                if process.kind == Kind::Hand {
                    store.commit(&[Op::Delete(key)]);
                }
                Some("crashes")
            }
            62..72 => {
                process.frozen = now + dice.between(300, 2 * process.ttl);
                Some("stands still")
            }
            72..84 => {
                // Another process under its name, while the old registration stands.
                process.token += 1;
                if process.kind != Kind::Hand {
                    process.lease = Some(-1);
                }
                self.register(n, store, now, dice);
                Some("restarts")
            }
            84..88 => {
                let kv = there?;
                self.evict(n, &kv, store, now, dice);
                Some("is evicted")
            }
            88..92 => {
                store.commit(&[Op::Delete(key)]);
                Some("is deleted by hand")
            }
            92..95 => {
                store.end_lease(lease, How::Revoked);
                Some("is revoked")
            }
            _ => {
                let kv = there?;
                let bad = dice.of(&["null", "{\"id\":7}", "["]);
                store.commit(&[Op::Put(key, bad.into(), dice.of(&[0, kv.lease]))]);
                process.register = Some(now + dice.between(100, 3000));
                Some("is spoilt")
            }
        }
    }

    fn evict(&mut self, n: usize, kv: &Kv, store: &mut Store, now: Ms, dice: &mut Dice) {
        let process = &mut self.all[n];
        let reason = dice.of(&["evicted", "evicted", "evicted", "bored"]);
        let note = note_key(&process.name, kv.create_revision);
        store.commit(&[
            Op::Put(note, note_json(reason), kv.lease),
            Op::Delete(member_key(&process.name)),
        ]);
        process.leftover = Some((now + dice.between(0, 300), kv.lease));
    }

    /// etcd loses the leases of many, whose owners live.
    pub fn mass_loss(&mut self, store: &mut Store, dice: &mut Dice) {
        for process in &self.all {
            if let Some(lease) = process.lease.filter(|_| dice.permille(850)) {
                store.end_lease(lease, How::Revoked);
            }
        }
    }

    /// Who stands still goes on; who lives has its registration.
    pub fn heal(&mut self) {
        for process in &mut self.all {
            process.frozen = 0;
        }
        self.resting = true;
    }
}
