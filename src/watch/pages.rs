//! A range read in pages, all of one revision. Pure: whoever holds it asks etcd.

use crate::error::Error;
use crate::etcd::{Failure, Page};
use crate::member::Keyspace;

/// Keys in the first page of a listing.
const FIRST: i64 = 1000;
/// Keys in any page.
const MOST: i64 = 10_000;
/// Of keys and values, decoded. For each page etcd counts all the keys that follow, so few pages
/// cost less; but what a page holds is held twice while it is read.
const BYTES: usize = 1 << 20;

/// How large pages may be, from one listing to the next: what is too much for the way, or for etcd,
/// in the time that a request has, would be so for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    first: i64,
    most: i64,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            first: FIRST,
            most: MOST,
        }
    }
}

pub(crate) struct Pages {
    /// The next page begins here.
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    /// 0: the newest, which the first page then tells.
    pub revision: i64,
    pub limit: i64,
    sizes: Sizes,
    /// The limit of the last page that came.
    good: Option<i64>,
    cluster: Option<u64>,
}

impl Pages {
    pub fn new(keys: &Keyspace, revision: i64, sizes: Sizes) -> Self {
        Pages {
            from: keys.range_start(),
            to: keys.range_end(),
            revision,
            limit: sizes.first.min(sizes.most),
            sizes,
            good: None,
            cluster: None,
        }
    }

    /// All have come: the sizes for the next listing.
    pub fn done(&self) -> Sizes {
        Sizes {
            first: self.limit.min(FIRST),
            most: (self.sizes.most * 2).min(MOST),
        }
    }

    /// The page did not come in time: the sizes for the next try.
    pub fn late(&self) -> Sizes {
        match self.good {
            // etcd is well, and it is the size.
            Some(good) => {
                let most = good.min(self.limit / 2).max(1);
                Sizes { first: most, most }
            }
            // It may be that etcd hangs: when it goes on, pages grow again.
            None => Sizes {
                first: (self.limit / 8).max(1),
                ..self.sizes
            },
        }
    }

    /// The page was too large; whether fewer may do.
    pub fn shrink(&mut self) -> bool {
        let shrinks = self.limit > 1;
        self.limit = (self.limit / 4).max(1);
        shrinks
    }

    /// A page has come; whether there are more. `slow`: smaller ones would be in less danger of
    /// their time-out.
    ///
    /// G1: all of one revision, that of the first page, and of one cluster; what would make the
    /// reader skip keys, or run in circles, is refused.
    pub fn came(&mut self, page: &Page, slow: bool) -> Result<bool, Failure> {
        self.good = Some(self.limit);
        self.limit = self.next_limit(page, slow);
        if self.revision == 0 {
            self.revision = page.revision;
        }
        let refuse = |reason: &str| {
            let reason = reason.into();
            Err(Failure::Elsewhere(Error::Protocol { reason }))
        };
        if *self.cluster.get_or_insert(page.cluster) != page.cluster {
            return refuse("pages of one listing came from different etcd clusters");
        }
        match page.kvs.last() {
            Some(last) if last.key < self.from => {
                return refuse("a page begins before where it was asked to");
            }
            Some(last) => {
                self.from.clone_from(&last.key);
                self.from.push(0);
            }
            None if page.more => return refuse("a page without keys says that there are more"),
            None => {}
        }
        Ok(page.more)
    }

    fn next_limit(&self, page: &Page, slow: bool) -> i64 {
        let sizes = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len());
        let each = sizes.sum::<usize>() / page.kvs.len().max(1);
        let fit = (BYTES / each.max(1)) as i64;
        let next = match slow {
            // Not below what it began with: what takes long may be the way, and not the page.
            true => (self.limit / 2).max(self.limit.min(self.sizes.first)),
            false => self.limit * 2,
        };
        next.min(fit).clamp(1, self.sizes.most)
    }

    /// The cluster that the pages came from.
    pub fn cluster(&self) -> u64 {
        self.cluster.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Kv;

    fn page(keys: usize, value: usize) -> Page {
        let kv = |n| Kv {
            key: format!("p/servers/t/{n:06}").into(),
            value: vec![b'x'; value],
            ..Kv::default()
        };
        Page {
            kvs: (0..keys).map(kv).collect(),
            more: true,
            revision: 5,
            cluster: 1,
        }
    }

    #[test]
    fn pages_grow_until_they_hold_a_megabyte_or_take_too_long() {
        let sizes = |value: usize, slow: [bool; 5]| -> Vec<i64> {
            let mut pages = Pages::new(&Keyspace::new("p/"), 0, Sizes::default());
            let limits = (0..5).zip(slow).map(|(n, slow)| {
                let limit = pages.limit;
                let mut page = page(limit as usize, value);
                page.kvs.iter_mut().for_each(|kv| kv.key[0] += n);
                assert!(pages.came(&page, slow).is_ok());
                limit
            });
            limits.collect()
        };
        let quick = [false; 5];
        assert_eq!(sizes(0, quick), [1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(sizes(132, quick), [1000, 2000, 4000, 6990, 6990]);
        assert_eq!(sizes(100_000, quick), [1000, 10, 10, 10, 10]);
        assert_eq!(sizes(100_000, [true; 5]), [1000, 10, 10, 10, 10]);
        assert_eq!(sizes(0, [true; 5]), [1000; 5]);
        let mixed = [false, false, true, true, true];
        assert_eq!(sizes(0, mixed), [1000, 2000, 4000, 2000, 1000]);
    }

    #[test]
    fn g9_what_does_not_come_in_time_is_asked_for_smaller() {
        // Etcd serves pages of so many keys, and is asked for 300 of them: how many tries it takes.
        let tries = |bearable: i64, hangs: usize| {
            let mut sizes = Sizes::default();
            for n in 0..50 {
                let mut pages = Pages::new(&Keyspace::new("p/"), 0, sizes);
                let mut left = 300;
                while left > 0 && pages.limit <= bearable && n >= hangs {
                    left -= pages.limit;
                    let mut page = page(pages.limit as usize, 0);
                    let rank = format!("p/servers/t/{:04}", 300 - left);
                    let start = "p/servers/t/".len();
                    page.kvs.iter_mut().for_each(|kv| {
                        kv.key.splice(..start, rank.bytes());
                    });
                    assert!(pages.came(&page, false).is_ok());
                }
                if left <= 0 {
                    return (n + 1, pages.done());
                }
                sizes = pages.late();
            }
            panic!("never: {sizes:?}");
        };
        assert_eq!(tries(10_000, 0).0, 1);
        assert_eq!(tries(200, 0).0, 3);
        assert_eq!(tries(20, 0).0, 4);
        assert_eq!(tries(1, 0).0, 5);
        // Having hung for long, it is not asked for key by key.
        let (n, sizes) = tries(10_000, 6);
        assert_eq!(
            (n, sizes),
            (
                7,
                Sizes {
                    first: 512,
                    most: MOST
                }
            )
        );
        // And what once was too much may be tried again.
        let (_, mut sizes) = tries(20, 0);
        for _ in 0..10 {
            sizes = Pages::new(&Keyspace::new("p/"), 0, sizes).done();
        }
        assert_eq!(sizes.most, MOST);
    }
}
