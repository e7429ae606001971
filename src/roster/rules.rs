//! What counts as a member: the place, the type, the size, the shape.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::skipped::{Notice, Skipped};
use crate::kv::Kv;
use crate::member::{ByName, Document, Keyspace, Member};
use crate::note::Note;

#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub keys: Keyspace,
    pub filter: TypeFilter,
    pub max_value_bytes: usize,
    pub max_members: usize,
}

impl Rules {
    /// The member that `kv` holds; or counts why it holds none.
    pub fn read(
        &self,
        name: &str,
        kv: &Kv,
        skipped: &mut Skipped,
        notices: &mut Vec<Notice>,
    ) -> Option<Arc<Member>> {
        if kv.value.len() > self.max_value_bytes {
            skipped.too_large(&kv.key, kv.mod_revision, notices);
            return None;
        }
        let Ok((document, mismatch)) = Document::parse(name, &kv.value) else {
            skipped.unparsable(&kv.key, kv.mod_revision, notices);
            return None;
        };
        skipped.forget(&kv.key);
        if mismatch {
            skipped.mismatch(name, kv.create_revision, notices);
        }
        let (life, revision) = (kv.create_revision, kv.mod_revision);
        Some(Arc::new(Member::new(
            name, document, life, revision, kv.lease,
        )))
    }

    /// The gone note that `kv` holds; a giant proves nothing, and is not kept.
    pub fn note(&self, kv: &Kv) -> Note {
        match kv.value.len() <= self.max_value_bytes {
            true => Note::parse(&kv.value),
            false => Note::Other,
        }
    }

    /// Whether a newcomer finds room beside these. Oneself always does, and takes none.
    pub fn has_room(&self, name: &str, members: &BTreeSet<ByName>) -> bool {
        self.excess(members).is_none() || self.filter.is_own(name)
    }

    /// Whether this newcomer, who is among these, had no room beside the others.
    pub fn is_one_too_many(&self, name: &str, members: &BTreeSet<ByName>) -> bool {
        self.excess(members).is_some_and(|over| over > 0) && !self.filter.is_own(name)
    }

    /// By how many they are over the limit; `None` where there is room for another.
    pub fn excess(&self, members: &BTreeSet<ByName>) -> Option<usize> {
        let own = self.filter.own.as_deref();
        let own = own.is_some_and(|own| members.contains(own));
        (members.len() - usize::from(own)).checked_sub(self.max_members)
    }
}

/// Which server types are in the view.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeFilter {
    /// Empty: all.
    pub only: Vec<Box<str>>,
    pub except: Vec<Box<str>>,
    /// Oneself is never hidden.
    pub own: Option<Box<str>>,
}

impl TypeFilter {
    pub fn is_own(&self, name: &str) -> bool {
        self.own.as_deref() == Some(name)
    }

    pub fn admits(&self, name: &str) -> bool {
        if self.only.is_empty() && self.except.is_empty() {
            return true;
        }
        let server_type = name.split('/').next().unwrap_or(name);
        let listed = |types: &[Box<str>]| types.iter().any(|t| **t == *server_type);
        self.is_own(name) || (self.only.is_empty() || listed(&self.only)) && !listed(&self.except)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitaya_blacklist_nil_one_two_and_self() {
        let filter = |only: &[&str], except: &[&str], own: Option<&str>| TypeFilter {
            only: only.iter().map(|t| (*t).into()).collect(),
            except: except.iter().map(|t| (*t).into()).collect(),
            own: own.map(Into::into),
        };
        let names = ["type1/a", "type2/b", "type3/c", "type4/d"];
        let seen = |f: TypeFilter| {
            names
                .into_iter()
                .filter(|n| f.admits(n))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(filter(&[], &[], None)), names);
        assert_eq!(
            seen(filter(&[], &["type2"], None)),
            ["type1/a", "type3/c", "type4/d"]
        );
        assert_eq!(
            seen(filter(&[], &["type1", "type4"], None)),
            ["type2/b", "type3/c"]
        );
        assert_eq!(
            seen(filter(&[], &["type1", "type4"], Some("type1/a"))),
            ["type1/a", "type2/b", "type3/c"]
        );
        assert_eq!(
            seen(filter(&["type3"], &[], Some("type1/a"))),
            ["type1/a", "type3/c"]
        );
    }
}
