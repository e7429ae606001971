//! What is wrong with a request, whatever the store holds.

use std::collections::BTreeSet;

use crate::embedded::refusal::Refusal;
use crate::embedded::request::{DeleteRange, Keys, Op, Put, Range, Txn};

/// etcd's default limit on each list of a transaction.
const MOST_OPS: usize = 128;
/// How deep transactions may be nested: deeper ones would be a way to exhaust the stack.
const MOST_NESTED: usize = 16;

type Check = Result<(), Refusal>;

fn key(key: &[u8]) -> Check {
    match key.is_empty() {
        true => Err(Refusal::NO_KEY),
        false => Ok(()),
    }
}

pub(super) fn range(request: &Range) -> Check {
    key(&request.key)
}

pub(super) fn put(request: &Put) -> Check {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LEASE_PROVIDED);
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRange) -> Check {
    key(&request.key)
}

pub(super) fn txn(request: &Txn) -> Check {
    well_formed(request, 0)?;
    for ops in [&request.success, &request.failure] {
        touched(ops)?;
    }
    Ok(())
}

fn well_formed(request: &Txn, depth: usize) -> Check {
    let Txn {
        compare,
        success,
        failure,
    } = request;
    let longest = compare.len().max(success.len()).max(failure.len());
    if longest > MOST_OPS || depth > MOST_NESTED {
        return Err(Refusal::TOO_MANY_OPS);
    }
    for compare in compare {
        key(&compare.key)?;
    }
    for op in success.iter().chain(failure) {
        match op {
            Op {
                request_range: Some(it),
                ..
            } => range(it)?,
            Op {
                request_put: Some(it),
                ..
            } => put(it)?,
            Op {
                request_delete_range: Some(it),
                ..
            } => delete_range(it)?,
            Op {
                request_txn: Some(it),
                ..
            } => well_formed(it, depth + 1)?,
            _ => return Err(Refusal::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What a list of steps puts and deletes.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<Keys<'a>>,
}

impl<'a> Touched<'a> {
    fn put(&mut self, key: &'a [u8]) -> Check {
        let deleted = self.deletes.iter().any(|keys| keys.contain(key));
        match deleted || !self.puts.insert(key) {
            true => Err(Refusal::DUPLICATE_KEY),
            false => Ok(()),
        }
    }
}

/// A key may be put once in a transaction, and then not be deleted in it.
fn touched(ops: &[Op]) -> Result<Touched<'_>, Refusal> {
    let mut all = Touched::default();
    let deletes = ops.iter().filter_map(|op| op.request_delete_range.as_ref());
    // etcd overlooks those without an end, and so does this.
    let ended = |keys: &Keys| keys.range_end != [0];
    all.deletes
        .extend(deletes.map(DeleteRange::keys).filter(ended));
    for nested in ops.iter().filter_map(|op| op.request_txn.as_ref()) {
        let (then, otherwise) = (touched(&nested.success)?, touched(&nested.failure)?);
        // Only one of the branches is taken: a key may stand in both.
        for key in then.puts.union(&otherwise.puts) {
            all.put(key)?;
        }
        all.deletes.extend(then.deletes);
        all.deletes.extend(otherwise.deletes);
    }
    for put in ops.iter().filter_map(|op| op.request_put.as_ref()) {
        all.put(&put.key)?;
    }
    Ok(all)
}
