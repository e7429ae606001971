//! Metadata of a member: string to string, sorted, compact.

use std::cmp::Ordering;
use std::fmt;

/// What a member says about itself: a small sorted map from string to string.
///
/// Kept as one text, because a cluster of 100,000 members holds 100,000 of these. It takes up to
/// 4 GiB, a thousand times what etcd takes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The first key, its value, the next key …
    text: Box<str>,
    /// Where each of them ends.
    ends: Box<[u32]>,
}

impl Metadata {
    /// Of pairs with the same key the last one counts.
    pub(super) fn from_pairs<K: AsRef<str>, V: AsRef<str>>(mut pairs: Vec<(K, V)>) -> Self {
        pairs.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        pairs.dedup_by(|later, kept| {
            let same = later.0.as_ref() == kept.0.as_ref();
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let texts = || pairs.iter().flat_map(|(k, v)| [k.as_ref(), v.as_ref()]);
        let mut text = String::with_capacity(texts().map(str::len).sum());
        let ends = texts().map(|part| {
            text.push_str(part);
            u32::try_from(text.len()).expect("less than 4 GiB")
        });
        let ends = ends.collect();
        Metadata {
            text: text.into(),
            ends,
        }
    }

    /// Key or value number `at`.
    fn part(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[at] as usize]
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let mid = from + (to - from) / 2;
            match self.part(2 * mid).cmp(key) {
                Ordering::Less => from = mid + 1,
                Ordering::Equal => return Some(self.part(2 * mid + 1)),
                Ordering::Greater => to = mid,
            }
        }
        None
    }

    /// All pairs, in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        (0..self.len()).map(|at| (self.part(2 * at), self.part(2 * at + 1)))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Of pairs with the same key the last one counts, as in a Go map read from JSON.
///
/// # Panics
/// Beyond 4 GiB of texts.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Metadata::from_pairs(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    #[test]
    fn sorted_and_last_wins() {
        let m: Metadata = [("z", "1"), ("a", "2"), ("z", "3")].into_iter().collect();
        assert_eq!(m.iter().collect::<Vec<_>>(), [("a", "2"), ("z", "3")]);
        assert_eq!(m.get("z"), Some("3"));
        assert_eq!(m.get("b"), None);
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(pairs in prop::collection::vec(("[a-cé]{0,2}", ".{0,3}"), 0..12)) {
            let packed: Metadata = pairs.iter().map(|(k, v)| (k, v)).collect();
            let map: BTreeMap<String, String> = pairs.into_iter().collect();
            prop_assert!(packed.iter().eq(map.iter().map(|(k, v)| (&**k, &**v))));
            prop_assert_eq!((packed.len(), packed.is_empty()), (map.len(), map.is_empty()));
            for key in map.keys().map(String::as_str).chain(["", "b", "d"]) {
                prop_assert_eq!(packed.get(key), map.get(key).map(|v| &**v));
            }
            let other: Metadata = map.into_iter().rev().collect();
            prop_assert_eq!(&packed, &other);
        }
    }
}
