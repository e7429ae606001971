//! One random step: somebody joins, changes, leaves, dies, is thrown out, is replaced.

use super::{MS, Maker, TTL};
use crate::history::{Deed, Previous, Told, Whom};

impl Maker {
    pub(super) fn step(&mut self) {
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
            _ if self
                .ears
                .iter()
                .any(|ear| ear.deaf || !ear.waiting.is_empty()) => {}
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
}
