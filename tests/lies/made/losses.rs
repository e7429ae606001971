//! Etcd is out of reach, and back; or it loses everything.

use super::{FAST, LAG, MS, Maker, TTL};
use crate::history::{Deed, Epoch, Seen, Told};

impl Maker {
    pub(super) fn lose(&mut self, which: usize) {
        self.ears[which].tell(self.at, Told::StoreLost);
        self.ears[which].deaf = true;
    }

    /// Etcd is back, and everything is listed.
    pub(super) fn find(&mut self, which: usize) {
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
    pub(super) fn wipe(&mut self) {
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
        let mut names: Vec<String> = std::mem::take(&mut self.members).into_keys().collect();
        // One of those whose departure waits comes back, too.
        let waiting = self.ears[FAST].waiting.keys().next();
        names.extend(waiting.filter(|name| !names.contains(name)).cloned());
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
            for (name, mut known) in ear.knows.clone() {
                match ear.waiting.get(&name).map(Vec::len) {
                    None => {}
                    Some(1) => continue,
                    // The life behind it went with the epoch.
                    Some(_) => {
                        ear.release(at, &name);
                        known = ear.knows[&name].clone();
                    }
                }
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

    /// Three go without a word, and nothing is told yet: the first may come back in another epoch,
    /// the last is back at once.
    pub(super) fn leave_unjudged(&mut self) {
        let names: Vec<String> = self.members.keys().take(3).cloned().collect();
        for (n, name) in names.iter().enumerate() {
            self.next();
            let (named, lease) = (name.clone(), self.members[name].lease);
            self.done(match n {
                0 => Deed::Killed { name: named },
                1 => Deed::LeaseRevoked { name: named, lease },
                _ => Deed::KeyDeleted { name: named },
            });
            if n == 0 {
                self.at += TTL;
            }
            let member = self.delete(name);
            let removed = |member, reason: &str| {
                let reason = reason.into();
                Told::Removed { member, reason }
            };
            let told = match n {
                0 => {
                    let cause = "lease-expired".into();
                    Told::Down { member, cause }
                }
                1 => removed(member, "revoked"),
                _ => removed(member, "deregistered"),
            };
            for ear in &mut self.ears {
                ear.wait(name, told.clone());
            }
            if n == 2 {
                self.join(name);
            }
        }
    }

    pub(super) fn release_all(&mut self) {
        let at = self.at + LAG;
        for ear in &mut self.ears {
            ear.release_all(at);
        }
    }
}
