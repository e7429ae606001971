//! Good histories, made by a small generator: what a perfect Headcount would tell.

use std::collections::BTreeMap;

use serde_json::json;

use crate::history::told::content;
use crate::history::{
    Act, Answer, At, Change, Deed, Epoch, History, Log, Nanos, Previous, Seen, Told, Whom,
};

const MS: Nanos = 1_000_000;
/// So late everything is told.
const LAG: Nanos = 2 * MS;
const TTL: Nanos = 3_000 * MS;

/// A small generator (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Clone)]
struct Member {
    seen: Seen,
    value: String,
    lease: i64,
}

/// A listener, and what it knows.
struct Ear {
    log: Log,
    knows: BTreeMap<String, Seen>,
    deaf: bool,
    /// First departures since it went deaf, of what it knows.
    gone: BTreeMap<String, Told>,
    missed: u64,
}

struct Maker {
    dice: Dice,
    at: Nanos,
    revision: i64,
    serial: u64,
    calm_since: Nanos,
    history: History,
    members: BTreeMap<String, Member>,
    notes: BTreeMap<(String, i64), &'static str>,
    ears: Vec<Ear>,
}

/// Which listener is which in [`good`]'s logs.
pub const FAST: usize = 0;
pub const SLOW: usize = 1;
pub const CUT: usize = 2;
pub const LATE: usize = 3;

/// A good history of so many random steps, with a wipe in the end if wanted.
pub fn good(seed: u64, steps: u64, wiped: bool) -> History {
    let mut maker = Maker::new(seed);
    for n in 0..6 {
        maker.join(&format!("t/{n}"));
    }
    maker.listen("fast", "h1", |log| log.fast = true);
    maker.listen("slow", "h1", |_| {});
    maker.listen("cut", "h2", |_| {});
    for step in 0..steps {
        match step * 10 / steps {
            2 | 5 if !maker.ears[SLOW].deaf => maker.ears[SLOW].deaf = true,
            3 | 6 if maker.ears[SLOW].deaf => maker.unfold(SLOW),
            _ => {}
        }
        if step == steps / 2 {
            maker.listen("late", "h1", |_| {});
        }
        if step == steps * 7 / 10 {
            maker.lose(CUT);
        }
        if step == steps * 8 / 10 {
            maker.find(CUT);
        }
        maker.step();
        maker.ask();
    }
    maker.unfold(SLOW);
    if wiped {
        maker.wipe();
        for _ in 0..steps / 4 {
            maker.step();
        }
    }
    maker.at += 200 * MS;
    maker.ask();
    maker.end()
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let mut history = History::default();
        history.truth.prefix = "pitaya/".into();
        history.truth.epochs = vec![Epoch {
            cluster_id: 1,
            ..Epoch::default()
        }];
        history.deeds.complete = true;
        history.bounds.ttl = TTL;
        history.bounds.slack = 20 * MS;
        history.bounds.delivery = 100 * MS;
        Maker {
            dice: Dice(seed),
            at: 1_000_000 * MS,
            revision: 1,
            serial: 0,
            calm_since: 0,
            history,
            members: BTreeMap::new(),
            notes: BTreeMap::new(),
            ears: Vec::new(),
        }
    }

    fn listen(&mut self, listener: &str, handle: &str, more: impl FnOnce(&mut Log)) {
        let mut log = Log {
            listener: listener.into(),
            handle: handle.into(),
            initial: true,
            settled: true,
            relists: Some(0),
            ..Log::default()
        };
        more(&mut log);
        let mut ear = Ear {
            log,
            knows: BTreeMap::new(),
            deaf: false,
            gone: BTreeMap::new(),
            missed: 0,
        };
        for member in self.members.values() {
            ear.tell(self.at, Told::Added(member.seen.clone()));
        }
        ear.tell(self.at, Told::Synced);
        self.ears.push(ear);
    }

    fn tell(&mut self, told: Told) {
        let at = self.at + LAG;
        for ear in &mut self.ears {
            ear.tell(at, told.clone());
        }
    }

    fn own(&mut self, name: &str, told: Told) {
        let log = self.history.logs.iter_mut().find(|l| l.handle == name);
        let log = match log {
            Some(log) => log,
            None => {
                let log = Log {
                    listener: "own".into(),
                    handle: name.into(),
                    own: Some(name.into()),
                    relists: Some(0),
                    ..Log::default()
                };
                self.history.logs.push(log);
                self.history.logs.last_mut().expect("was just pushed")
            }
        };
        let at = self.at;
        log.entries.push(At { at, what: told });
    }

    fn done(&mut self, deed: Deed) {
        let at = self.at;
        self.history.deeds.all.push(At { at, what: deed });
    }

    fn change(&mut self, key: String, act: Act) {
        let (revision, at) = (self.revision, self.at);
        let epoch = self.history.truth.epochs.last_mut().expect("one");
        epoch.read_to = revision;
        epoch.changes.push(Change {
            revision,
            at,
            key,
            act,
        });
    }

    fn next(&mut self) {
        self.revision += 1;
        self.at += (1 + self.dice.below(20)) * MS;
    }

    fn write(&mut self, name: &str, value: String, lease: i64, incarnation: i64) {
        let act = Act::Put {
            value,
            lease,
            create_revision: incarnation,
            version: 1,
        };
        self.change(format!("pitaya/servers/{name}"), act);
    }

    /// In the present revision.
    fn put(&mut self, name: &str, lease: i64) {
        self.serial += 1;
        let serial = self.serial.to_string();
        let (kind, id) = name.split_once('/').expect("type/id");
        let value = json!({
            "id": id, "type": kind, "frontend": false, "hostname": "vm",
            "metadata": { "serial": serial, "headcount.instance": name },
        });
        let old = self.members.get(name).cloned();
        let incarnation = old.as_ref().map_or(self.revision, |m| m.seen.incarnation);
        let seen = Seen {
            name: name.into(),
            incarnation,
            revision: self.revision,
            content: content([("serial", &*serial)], false, "vm"),
        };
        let value = value.to_string();
        self.write(name, value.clone(), lease, incarnation);
        let told = match old {
            None => Told::Added(seen.clone()),
            Some(old) => Told::Updated {
                now: seen.clone(),
                previous: Previous {
                    incarnation,
                    revision: old.seen.revision,
                    content: Some(old.seen.content),
                },
            },
        };
        let member = Member { seen, value, lease };
        self.members.insert(name.into(), member);
        self.tell(told);
    }

    fn join(&mut self, name: &str) {
        self.next();
        let pid = 1;
        let named = name.to_owned();
        self.done(Deed::Started { name: named, pid });
        self.serial += 1;
        let lease = 1000 + self.serial as i64;
        self.put(name, lease);
        let incarnation = self.revision;
        self.own(name, Told::Registered { incarnation, lease });
    }

    fn delete(&mut self, name: &str) -> Seen {
        let member = self.members.remove(name).expect("is there");
        let act = Act::Delete {
            create_revision: member.seen.incarnation,
            lease: member.lease,
        };
        self.change(format!("pitaya/servers/{name}"), act);
        let revision = self.revision;
        Seen {
            revision,
            ..member.seen
        }
    }

    fn left(&mut self, name: &str, reason: &str) {
        let (member, reason) = (self.delete(name), reason.to_owned());
        self.tell(Told::Removed { member, reason });
    }

    fn down(&mut self, name: &str, cause: &str) {
        let (member, cause) = (self.delete(name), cause.to_owned());
        self.tell(Told::Down { member, cause });
    }

    fn note(&mut self, name: &str, reason: &'static str) {
        let life = self.members[name].seen.incarnation;
        let act = Act::Put {
            value: json!({ "reason": reason }).to_string(),
            lease: self.members[name].lease,
            create_revision: self.revision,
            version: 1,
        };
        self.change(format!("pitaya/servers-gone/{name}/{life}"), act);
        self.notes.insert((name.into(), life), reason);
    }

    fn step(&mut self) {
        let name = format!("t/{}", self.dice.below(12));
        let named = name.clone();
        let Some(member) = self.members.get(&name).cloned() else {
            return self.join(&name);
        };
        self.next();
        match self.dice.below(16) {
            0..5 => self.put(&name, member.lease),
            5 => {
                // Two at once.
                self.put(&name, member.lease);
                let other = self.members.iter().find(|(n, _)| **n != name);
                let other = other.map(|(n, m)| (n.clone(), m.lease));
                if let Some((other, lease)) = other {
                    self.put(&other, lease);
                }
            }
            6 => {
                // Nothing new.
                let life = member.seen.incarnation;
                self.write(&name, member.value, member.lease, life);
                let revision = self.revision;
                let known = self.members.get_mut(&name).expect("is there");
                known.seen.revision = revision;
            }
            7..9 => {
                self.note(&name, "leave");
                self.done(Deed::Terminated { name: named });
                self.left(&name, "announced");
            }
            9 => {
                self.done(Deed::KeyDeleted { name: named });
                self.left(&name, "deregistered");
            }
            10 => {
                let lease = member.lease;
                self.done(Deed::LeaseRevoked { name: named, lease });
                self.left(&name, "revoked");
            }
            11 => {
                self.done(Deed::Killed { name: named });
                self.at += TTL;
                self.down(&name, "lease-expired");
            }
            12 => {
                let whom = Whom::These(vec![named]);
                self.done(Deed::Cut { whom: whom.clone() });
                self.at += TTL / 2;
                self.own(&name, Told::Lost);
                self.at += TTL / 2;
                self.down(&name, "lease-expired");
                self.at += MS;
                self.done(Deed::Healed { whom });
                self.join(&name);
            }
            13 => {
                self.note(&name, "replaced");
                self.down(&name, "replaced");
                self.join(&name);
            }
            14 => {
                self.done(Deed::KeyDeleted { name: named });
                self.down(&name, "unknown");
                self.join(&name);
            }
            _ if self.ears.iter().any(|ear| ear.deaf) => {}
            _ => {
                // Lost with many, and back as the same process.
                self.tell(Told::MassLoss { held: 4 });
                let gone = self.delete(&name);
                self.next();
                let before = self.ears.iter().map(|ear| ear.log.entries.len());
                let before: Vec<usize> = before.collect();
                self.put(&name, member.lease);
                let (incarnation, lease) = (self.revision, member.lease);
                self.own(&name, Told::Registered { incarnation, lease });
                let previous = Previous {
                    incarnation: gone.incarnation,
                    revision: member.seen.revision,
                    content: Some(gone.content),
                };
                for (ear, index) in self.ears.iter_mut().zip(before) {
                    let told = &mut ear.log.entries[index].what;
                    if let Told::Added(now) = told.clone() {
                        let previous = previous.clone();
                        *told = Told::Updated { now, previous };
                    }
                }
            }
        }
    }

    /// A slow listener takes what waited for it.
    fn unfold(&mut self, which: usize) {
        let (ear, at) = (&mut self.ears[which], self.at + LAG);
        if !std::mem::take(&mut ear.deaf) {
            return;
        }
        let folded = std::mem::take(&mut ear.missed);
        if folded > 0 {
            ear.tell(at, Told::Lagged { folded });
        }
        let gone = std::mem::take(&mut ear.gone);
        for told in gone.into_values() {
            ear.tell(at, told);
        }
        ear.news(at, &self.members);
    }

    fn lose(&mut self, which: usize) {
        self.ears[which].tell(self.at, Told::StoreLost);
        self.ears[which].deaf = true;
    }

    /// Etcd is back, and everything is listed.
    fn find(&mut self, which: usize) {
        self.at += MS;
        let (at, revision) = (self.at, self.revision);
        let ear = &mut self.ears[which];
        ear.deaf = false;
        ear.gone.clear();
        ear.missed = 0;
        ear.log.relists = ear.log.relists.map(|n| n + 1);
        ear.tell(at, Told::StoreRestored);
        for (name, known) in ear.knows.clone() {
            let now = self.members.get(&name).map(|m| m.seen.incarnation);
            if now == Some(known.incarnation) {
                continue;
            }
            let member = Seen {
                revision: now.unwrap_or(revision),
                ..known.clone()
            };
            let note = self.notes.get(&(name, known.incarnation));
            ear.tell(
                at,
                match (note, now) {
                    (Some(&"leave"), _) => Told::Removed {
                        member,
                        reason: "announced".into(),
                    },
                    (None, None) => Told::Down {
                        member,
                        cause: "missing".into(),
                    },
                    _ => Told::Down {
                        member,
                        cause: "replaced".into(),
                    },
                },
            );
        }
        ear.news(at, &self.members);
    }

    /// Etcd loses everything; its members come back, some of them with other values.
    fn wipe(&mut self) {
        for which in 0..self.ears.len() {
            self.lose(which);
        }
        self.history.bounds.calm.push((0, self.at));
        self.at += 500 * MS;
        self.done(Deed::Wiped);
        self.revision = 1;
        self.history.truth.epochs.push(Epoch {
            cluster_id: 2,
            ..Epoch::default()
        });
        self.notes.clear();
        let names: Vec<String> = std::mem::take(&mut self.members).into_keys().collect();
        for name in names.iter().rev() {
            self.join(name);
        }
        for which in 0..self.ears.len() {
            self.at += MS;
            // None of the old lives goes on, though a number may be the same by chance.
            let revision = self.revision;
            let ear = &mut self.ears[which];
            let at = self.at;
            ear.deaf = false;
            ear.gone.clear();
            ear.missed = 0;
            ear.log.relists = ear.log.relists.map(|n| n + 1);
            ear.tell(at, Told::StoreRestored);
            for (name, known) in ear.knows.clone() {
                let now = self.members.get(&name).map(|m| m.seen.incarnation);
                let (revision, cause) = match now {
                    Some(now) => (now, "replaced"),
                    None => (revision, "missing"),
                };
                let cause = cause.to_owned();
                let member = Seen { revision, ..known };
                ear.tell(at, Told::Down { member, cause });
            }
            ear.news(at, &self.members);
        }
        self.calm_since = self.at;
    }

    fn ask(&mut self) {
        let at = self.at + LAG;
        for (handle, which) in [("h1", FAST), ("h2", CUT)] {
            let ear = &self.ears[which];
            let last = self.history.answers.iter().rev();
            let last = last.clone().find(|a| a.handle == handle).cloned();
            let (members, view_age) = match (ear.deaf, last) {
                (true, Some(last)) => {
                    let age = last.view_age.unwrap_or(0) + (at - last.at_after);
                    let first = !last.store_reachable;
                    let same = ear.knows.values().cloned().collect();
                    (if first { last.members } else { same }, age)
                }
                _ => {
                    let all = self.members.values().map(|m| m.seen.clone());
                    (all.collect(), MS)
                }
            };
            self.history.answers.push(Answer {
                at_before: at,
                at_after: at,
                handle: handle.into(),
                members,
                view_age: Some(view_age),
                store_reachable: !ear.deaf,
                revision: self.revision,
                registered: None,
            });
        }
    }

    fn end(mut self) -> History {
        let calm = (self.calm_since, self.at);
        self.history.bounds.calm.push(calm);
        let own = std::mem::take(&mut self.history.logs);
        let logs = self.ears.into_iter().map(|ear| ear.log);
        self.history.logs = logs.chain(own).collect();
        self.history
    }
}

impl Ear {
    fn tell(&mut self, at: Nanos, told: Told) {
        let name = told.change().map(|seen| seen.name.clone());
        if self.deaf {
            self.missed += 1;
            if let (Some(name), Some((seen, _))) = (name, told.departure()) {
                let life = self.knows.get(&name).map(|known| known.incarnation);
                if life == Some(seen.incarnation) {
                    self.gone.entry(name).or_insert(told);
                }
            }
            return;
        }
        if let (Some(name), Some(seen)) = (name, told.change()) {
            match told.departure() {
                Some(_) => self.knows.remove(&name),
                None => self.knows.insert(name, seen.clone()),
            };
        }
        self.log.entries.push(At { at, what: told });
    }

    /// What is there and not known, or known otherwise.
    fn news(&mut self, at: Nanos, members: &BTreeMap<String, Member>) {
        for (name, member) in members {
            let now = member.seen.clone();
            match self.knows.get(name).cloned() {
                None => self.tell(at, Told::Added(now)),
                Some(known) if known.content != now.content => {
                    let previous = Previous {
                        incarnation: known.incarnation,
                        revision: known.revision,
                        content: Some(known.content),
                    };
                    self.tell(at, Told::Updated { now, previous });
                }
                _ => {}
            }
        }
    }
}
