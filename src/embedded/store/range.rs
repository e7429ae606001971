//! Reading: now, or as it was at a revision.

use std::ops::Bound;
use std::sync::Arc;

use super::{Kv, Store, check};
use crate::embedded::refusal::Refusal;
use crate::embedded::request::{Keys, Range, SortOrder, Target};

/// What a range holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::embedded) struct Found {
    pub kvs: Vec<Arc<Kv>>,
    /// There is more than the limit let through.
    pub more: bool,
    /// How many keys the range holds, whatever the limit and the filters.
    pub count: i64,
}

impl Store {
    pub fn range(&self, request: &Range) -> Result<Found, Refusal> {
        check::range(request)?;
        self.may_range(request)?;
        Ok(self.apply_range(request))
    }

    pub(super) fn may_range(&self, request: &Range) -> Result<(), Refusal> {
        match request.revision {
            future if future > self.revision => Err(Refusal::FUTURE),
            past if past > 0 && past < self.compacted => Err(Refusal::COMPACTED),
            _ => Ok(()),
        }
    }

    pub(super) fn apply_range(&self, request: &Range) -> Found {
        // Within a transaction "now" includes what it has changed so far.
        let at = match request.revision > 0 {
            true => request.revision,
            false => i64::MAX,
        };
        if request.count_only {
            let count = self.at(request.keys(), at).count() as i64;
            return Found {
                count,
                ..Found::default()
            };
        }
        let mut kvs: Vec<&Arc<Kv>> = self.at(request.keys(), at).collect();
        let count = kvs.len() as i64;
        let limit = usize::try_from(request.limit)
            .ok()
            .filter(|&limit| limit > 0);
        if let Some(limit) = limit.filter(|_| request.takes_the_first()) {
            // One more, to know whether there is more.
            kvs.truncate(limit.saturating_add(1));
        }
        kvs.retain(|kv| passes(request, kv));
        sort(request, &mut kvs);
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        Found {
            kvs: kvs.into_iter().cloned().collect(),
            more,
            count,
        }
    }

    /// The living keys in order, now.
    pub(super) fn living<'a>(&'a self, keys: Keys<'a>) -> impl Iterator<Item = &'a Arc<Kv>> {
        self.at(keys, i64::MAX)
    }

    fn at<'a>(&'a self, keys: Keys<'a>, revision: i64) -> impl Iterator<Item = &'a Arc<Kv>> {
        let from = Bound::Included(keys.key);
        let to = match keys.range_end {
            [] => Bound::Included(keys.key),
            [0] => Bound::Unbounded,
            // An end before the start holds nothing.
            end => Bound::Excluded(end.max(keys.key)),
        };
        // A range from a key up to the same key, excluded, is one that `BTreeMap` panics on.
        let empty = matches!(to, Bound::Excluded(end) if end == keys.key);
        let versions = (!empty).then(|| self.keys.range::<[u8], _>((from, to)));
        versions
            .into_iter()
            .flatten()
            .filter_map(move |(_, versions)| {
                let newer = match revision {
                    i64::MAX => versions.len(),
                    _ => versions.partition_point(|kv| kv.mod_revision <= revision),
                };
                let kv = &versions[newer.checked_sub(1)?];
                (!kv.is_tombstone()).then_some(kv)
            })
    }
}

fn passes(request: &Range, kv: &Kv) -> bool {
    let within = |value: i64, least: i64, most: i64| {
        (least == 0 || value >= least) && (most == 0 || value <= most)
    };
    within(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

impl Range {
    /// Whether the limit counts before the order does, as in etcd where no order was asked for.
    fn takes_the_first(&self) -> bool {
        let filters = [
            self.min_mod_revision,
            self.max_mod_revision,
            self.min_create_revision,
            self.max_create_revision,
        ];
        self.sort_order == SortOrder::None && filters == [0; 4]
    }
}

/// By key they come anyway; those that are alike stay in that order.
fn sort(request: &Range, kvs: &mut [&Arc<Kv>]) {
    let ascending = |a: &Kv, b: &Kv| match request.sort_target {
        Target::Key => a.key.cmp(&b.key),
        Target::Version => a.version.cmp(&b.version),
        Target::Create => a.create_revision.cmp(&b.create_revision),
        Target::Mod => a.mod_revision.cmp(&b.mod_revision),
        Target::Lease => a.lease.cmp(&b.lease),
        Target::Value => a.value.cmp(&b.value),
    };
    match (request.sort_order, request.sort_target) {
        (SortOrder::None | SortOrder::Ascend, Target::Key) => {}
        (SortOrder::Descend, _) => kvs.sort_by(|a, b| ascending(b, a)),
        _ => kvs.sort_by(|a, b| ascending(a, b)),
    }
}
