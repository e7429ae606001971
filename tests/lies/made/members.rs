//! What happens to a member: in etcd, and so to all listeners.

use serde_json::json;

use super::{Maker, Member};
use crate::history::told::content;
use crate::history::{Act, Deed, Previous, Seen, Told};

impl Maker {
    pub(super) fn write(&mut self, name: &str, value: String, lease: i64, incarnation: i64) {
        let act = Act::Put {
            value,
            lease,
            create_revision: incarnation,
            version: 1,
        };
        self.change(format!("pitaya/servers/{name}"), act);
    }

    /// In the present revision.
    pub(super) fn put(&mut self, name: &str, lease: i64) {
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

    pub(super) fn join(&mut self, name: &str) {
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

    pub(super) fn delete(&mut self, name: &str) -> Seen {
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

    pub(super) fn left(&mut self, name: &str, reason: &str) {
        let (member, reason) = (self.delete(name), reason.to_owned());
        self.tell(Told::Removed { member, reason });
    }

    pub(super) fn down(&mut self, name: &str, cause: &str) {
        let (member, cause) = (self.delete(name), cause.to_owned());
        self.tell(Told::Down { member, cause });
    }

    pub(super) fn note(&mut self, name: &str, reason: &'static str) {
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
}
