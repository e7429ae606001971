//! What stands under the prefix without being a member: counted, remembered, told once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// Keys remembered, so that each is told once and a reconcile knows it. Beyond this many, bad keys
/// are still counted, whenever met, and still harmless, but no longer told.
const REMEMBERED: usize = 10_000;

/// How often something that is not a member was passed over, since the start.
///
/// A bad value is counted when it is first seen and after each change of it; a re-listing does not
/// count again what it has seen before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedCounts {
    /// Keys below `servers/` that are not `type/id`, or longer than 1 KiB there.
    pub bad_key: u64,
    /// Values that are not a server's JSON object, such as `null`.
    pub unparsable: u64,
    /// Values beyond `max_value_bytes`.
    pub too_large: u64,
    /// Members beyond `max_members`, each time that one is met.
    pub over_limit: u64,
    /// Values that name another (type, id) than their key. Not skipped: the key counts.
    pub mismatched: u64,
}

/// Something that an operator should read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub key: String,
    pub revision: i64,
    pub what: &'static str,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at revision {}: {}",
            self.key, self.revision, self.what
        )
    }
}

/// What was passed over. Of keys only hashes are kept: a key may be as long as etcd lets it be. The
/// hashes are seeded at random, so nobody can choose keys that share one.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    hashes: RandomState,
    known: HashMap<u64, Bad>,
    /// Members that were beyond the limit, by the revision of their value.
    waiting: HashMap<u64, i64>,
    /// The incarnations that were told to be mismatched.
    mismatched: HashMap<u64, i64>,
    counts: SkippedCounts,
}

/// A bad key.
#[derive(Debug, Clone, Copy)]
struct Bad {
    /// Of its value.
    revision: i64,
    /// Met since [`seed`](Skipped::seed).
    seen: bool,
}

impl Skipped {
    pub fn counts(&self) -> SkippedCounts {
        self.counts
    }

    pub fn bad_key(&mut self, key: &[u8], revision: i64, notices: &mut Vec<Notice>) {
        let what = "the key is not servers/<type>/<id>, or too long; skipped";
        if self.remember(key, revision, what, notices) {
            self.counts.bad_key += 1;
        }
    }

    pub fn unparsable(&mut self, key: &[u8], revision: i64, notices: &mut Vec<Notice>) {
        let what = "the value is not a server's JSON; skipped";
        if self.remember(key, revision, what, notices) {
            self.counts.unparsable += 1;
        }
    }

    pub fn too_large(&mut self, key: &[u8], revision: i64, notices: &mut Vec<Notice>) {
        let what = "the value is beyond max_value_bytes; skipped";
        if self.remember(key, revision, what, notices) {
            self.counts.too_large += 1;
        }
    }

    /// As soon as there is room, a reconcile takes it in.
    pub fn over_limit(&mut self, key: &[u8], revision: i64, notices: &mut Vec<Notice>) {
        if self.counts.over_limit == 0 {
            let what = "more members than max_members; this and further ones are skipped";
            notices.push(notice(key, revision, what));
        }
        if self.waiting.len() < REMEMBERED {
            self.waiting.insert(self.hashes.hash_one(key), revision);
        }
        self.counts.over_limit += 1;
    }

    /// Whether this value of `key` was over the limit (or may have been, as in
    /// [`excuses`](Self::excuses)).
    pub fn waits(&self, key: &[u8], revision: i64) -> bool {
        let waiting = || self.waiting.get(&self.hashes.hash_one(key));
        self.waiting.len() >= REMEMBERED || waiting() == Some(&revision)
    }

    pub fn mismatch(&mut self, name: &str, incarnation: i64, notices: &mut Vec<Notice>) {
        let hash = self.hashes.hash_one(name);
        if self.mismatched.get(&hash) == Some(&incarnation) {
            return;
        }
        if self.mismatched.len() < REMEMBERED {
            self.mismatched.insert(hash, incarnation);
            let what = "the value names another type or id than its key; the key counts";
            notices.push(notice(name.as_bytes(), incarnation, what));
        }
        self.counts.mismatched += 1;
    }

    pub fn forget(&mut self, key: &[u8]) {
        if !self.known.is_empty() || !self.waiting.is_empty() {
            let hash = self.hashes.hash_one(key);
            self.known.remove(&hash);
            self.waiting.remove(&hash);
        }
    }

    /// Whether this value of `key` was passed over before (or may have been: the memory is
    /// bounded).
    pub fn excuses(&self, key: &[u8], revision: i64) -> bool {
        self.known.len() >= REMEMBERED || !self.known.is_empty() && self.knows(key, revision)
    }

    fn knows(&self, key: &[u8], revision: i64) -> bool {
        let bad = self.known.get(&self.hashes.hash_one(key));
        bad.is_some_and(|bad| bad.revision == revision)
    }

    /// A listing has found what is bad now. What was known before is neither counted nor told
    /// again; see [`Listing`](super::Listing), which starts from a copy of it.
    pub fn relisted(&mut self, found: Skipped) {
        *self = found;
    }

    /// For a listing: what was known, so that only news count.
    pub fn seed(&self) -> Skipped {
        let unseen = |(hash, bad): (&u64, &Bad)| {
            (
                *hash,
                Bad {
                    seen: false,
                    ..*bad
                },
            )
        };
        Skipped {
            hashes: self.hashes.clone(),
            known: self.known.iter().map(unseen).collect(),
            waiting: HashMap::new(),
            mismatched: self.mismatched.clone(),
            counts: self.counts,
        }
    }

    /// Drops what a complete listing did not show.
    pub fn retain_seen(&mut self) {
        self.known.retain(|_, bad| bad.seen);
    }

    /// True for news, and for what could not be remembered: that is not told, or each listing
    /// would tell it again.
    fn remember(
        &mut self,
        key: &[u8],
        revision: i64,
        what: &'static str,
        notices: &mut Vec<Notice>,
    ) -> bool {
        let room = self.known.len() < REMEMBERED;
        let now = Bad {
            revision,
            seen: true,
        };
        let before = match self.known.entry(self.hashes.hash_one(key)) {
            Entry::Occupied(mut known) => Some(known.insert(now).revision),
            Entry::Vacant(free) if room => {
                free.insert(now);
                None
            }
            Entry::Vacant(_) => return true,
        };
        let news = before != Some(revision);
        if news {
            notices.push(notice(key, revision, what));
        }
        news
    }
}

fn notice(key: &[u8], revision: i64, what: &'static str) -> Notice {
    // Hostile keys may be long and may hold control characters.
    let text = String::from_utf8_lossy(&key[..key.len().min(200)]);
    Notice {
        key: text.escape_debug().to_string(),
        revision,
        what,
    }
}
