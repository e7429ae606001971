//! A listing on its way in, page by page.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::rules::Rules;
use super::skipped::{Notice, Skipped};
use crate::kv::Kv;
use crate::member::{ByName, Place};
use crate::note::Note;

/// All that etcd holds in the range at one revision, read as members, notes and what is neither.
pub(crate) struct Listing {
    rules: Arc<Rules>,
    /// Who was there before.
    known: BTreeSet<ByName>,
    pub(super) members: BTreeSet<ByName>,
    /// Why members that were known went, by name.
    pub(super) notes: HashMap<Box<str>, Note>,
    /// Names that were known and whose value is bad, with the incarnation and the lease of their key.
    pub(super) spoilt: HashMap<Box<str>, (i64, i64)>,
    pub(super) skipped: Skipped,
    pub(super) notices: Vec<Notice>,
}

impl Listing {
    /// `known` are never over the limit; `skipped` is what was known to be bad before: it is not
    /// told again.
    pub fn new(rules: Arc<Rules>, known: BTreeSet<ByName>, skipped: Skipped) -> Self {
        Listing {
            rules,
            known,
            members: BTreeSet::new(),
            notes: HashMap::new(),
            spoilt: HashMap::new(),
            skipped,
            notices: Vec::new(),
        }
    }

    pub fn page(&mut self, kvs: Vec<Kv>) {
        let rules = Arc::clone(&self.rules);
        for kv in kvs {
            match rules.keys.place(&kv.key) {
                Place::Member(name) if rules.filter.admits(name) => self.member(name, &kv),
                // Only of whom we knew could it explain the end.
                Place::Note(name, life) if self.knows(name, life) => {
                    self.notes.insert(name.into(), rules.note(&kv));
                }
                Place::BadMember => {
                    self.skipped
                        .bad_key(&kv.key, kv.mod_revision, &mut self.notices);
                }
                _ => {}
            }
        }
    }

    fn knows(&self, name: &str, life: i64) -> bool {
        let known = self.known.get(name);
        known.is_some_and(|m| m.0.incarnation() == life)
    }

    fn member(&mut self, name: &str, kv: &Kv) {
        let read = self
            .rules
            .read(name, kv, &mut self.skipped, &mut self.notices);
        match read {
            Some(_) if !self.rules.has_room(name, &self.members) && !self.known.contains(name) => {
                self.skipped
                    .over_limit(&kv.key, kv.mod_revision, &mut self.notices);
            }
            Some(member) => {
                self.members.insert(ByName(member));
            }
            None if self.known.contains(name) => {
                self.spoilt
                    .insert(name.into(), (kv.create_revision, kv.lease));
            }
            None => {}
        }
    }

    /// No further pages: what was bad before and is gone now is forgotten.
    pub fn complete(mut self) -> Self {
        self.skipped.retain_seen();
        self
    }
}
