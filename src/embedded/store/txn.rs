//! Transactions: all comparisons first, then the steps of one branch, as one revision.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Found, Kv, Store, check};
use crate::embedded::refusal::Refusal;
use crate::embedded::request::{Compare, Op, Relation, Target, Txn};

/// What a transaction did.
#[derive(Debug)]
pub(in crate::embedded) struct Outcome {
    /// All comparisons held.
    pub succeeded: bool,
    pub done: Vec<At<Done>>,
}

#[derive(Debug)]
pub(in crate::embedded) enum Done {
    Range { found: Found, keys_only: bool },
    Put { previous: Option<Arc<Kv>> },
    Deleted { kvs: Vec<Arc<Kv>>, tell: bool },
    Txn(Outcome),
}

/// A step, and the revision that the store had reached with it.
pub(in crate::embedded) type At<T> = (i64, T);

/// The branch to take, and those of the transactions nested in it, in order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Store {
    pub fn txn(&mut self, txn: &Txn) -> Result<Outcome, Refusal> {
        check::txn(txn)?;
        let path = self.decide(txn);
        self.may(txn, &path)?;
        let outcome = self.apply(txn, &path);
        self.commit();
        Ok(outcome)
    }

    fn decide(&self, txn: &Txn) -> Path {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let nested = branch(txn, succeeded).iter();
        Path {
            succeeded,
            nested: nested
                .filter_map(|op| op.request_txn.as_ref())
                .map(|txn| self.decide(txn))
                .collect(),
        }
    }

    /// Whether every step of the branch can be done, before any is.
    fn may(&self, txn: &Txn, path: &Path) -> Result<(), Refusal> {
        let mut nested = path.nested.iter();
        for op in branch(txn, path.succeeded) {
            match op {
                Op {
                    request_range: Some(range),
                    ..
                } => self.may_range(range)?,
                Op {
                    request_put: Some(put),
                    ..
                } => self.may_put(put)?,
                Op {
                    request_txn: Some(txn),
                    ..
                } => {
                    self.may(txn, nested.next().expect("a path for each"))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, txn: &Txn, path: &Path) -> Outcome {
        let mut nested = path.nested.iter();
        let mut done = Vec::new();
        for op in branch(txn, path.succeeded) {
            let step = match op {
                Op {
                    request_range: Some(range),
                    ..
                } => Done::Range {
                    found: self.apply_range(range),
                    keys_only: range.keys_only,
                },
                Op {
                    request_put: Some(put),
                    ..
                } => {
                    let previous = self.apply_put(put);
                    let previous = previous.filter(|_| put.prev_kv);
                    Done::Put { previous }
                }
                Op {
                    request_delete_range: Some(delete),
                    ..
                } => Done::Deleted {
                    kvs: self.apply_delete(delete.keys()),
                    tell: delete.prev_kv,
                },
                Op {
                    request_txn: Some(txn),
                    ..
                } => Done::Txn(self.apply(txn, nested.next().expect("a path for each"))),
                _ => continue,
            };
            done.push((self.revision + i64::from(!self.changes.is_empty()), step));
        }
        Outcome {
            succeeded: path.succeeded,
            done,
        }
    }

    /// Of a range it must hold for every key in it; a key that is not there counts as all zeros,
    /// but has no value.
    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs = self.living(compare.keys()).peekable();
        if kvs.peek().is_some() {
            return kvs.all(|kv| fits(compare, kv));
        }
        let nothing = Kv {
            key: Arc::from(&[][..]),
            value: Box::default(),
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            lease: 0,
        };
        compare.target.0 != Target::Value && fits(compare, &nothing)
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    match succeeded {
        true => &txn.success,
        false => &txn.failure,
    }
}

fn fits(compare: &Compare, kv: &Kv) -> bool {
    let order = match compare.target.0 {
        Target::Key => Ordering::Equal,
        Target::Version => kv.version.cmp(&compare.version),
        Target::Create => kv.create_revision.cmp(&compare.create_revision),
        Target::Mod => kv.mod_revision.cmp(&compare.mod_revision),
        Target::Lease => kv.lease.cmp(&compare.lease),
        Target::Value => kv.value.cmp(&compare.value),
    };
    match compare.result {
        Relation::Equal => order.is_eq(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
        Relation::NotEqual => order.is_ne(),
    }
}
