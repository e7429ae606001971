//! A range read in pages, all of one revision. Pure: whoever holds it asks etcd.

use crate::error::Error;
use crate::etcd::{Failure, Page};
use crate::member::Keyspace;

/// Members a page of a listing; halved again and again where their values are huge.
const MOST: i64 = 1000;

pub(crate) struct Pages {
    /// The next page begins here.
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    /// 0: the newest, which the first page then tells.
    pub revision: i64,
    pub limit: i64,
    cluster: Option<u64>,
}

impl Pages {
    pub fn new(keys: &Keyspace, revision: i64) -> Self {
        Pages {
            from: keys.range_start(),
            to: keys.range_end(),
            revision,
            limit: MOST,
            cluster: None,
        }
    }

    /// The page was too large; whether fewer may do.
    pub fn shrink(&mut self) -> bool {
        let shrinks = self.limit > 1;
        self.limit = (self.limit / 4).max(1);
        shrinks
    }

    /// A page has come; whether there are more.
    ///
    /// G1: all of one revision, that of the first page, and of one cluster; what would make the
    /// reader skip keys, or run in circles, is refused.
    pub fn came(&mut self, page: &Page) -> Result<bool, Failure> {
        self.limit = (self.limit * 2).min(MOST);
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

    /// The cluster that the pages came from.
    pub fn cluster(&self) -> u64 {
        self.cluster.unwrap_or_default()
    }
}
