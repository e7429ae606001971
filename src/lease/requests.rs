//! The registration's requests to etcd.

use std::time::{Duration, Instant};

use super::Keeper;
use super::decide::Seen;
use crate::error::Error;
use crate::etcd::{Client, Compare, Failure, Op};
use crate::kv::{Kv, Standing};
use crate::member::{Document, Keyspace};
use crate::note::Note;

impl Keeper {
    /// Asks etcd within `request_timeout`, and `most`, but never past the fence, where `Lost` is
    /// due. Where that is what bounds it, an error says so.
    pub(super) fn within<T>(
        &self,
        most: Duration,
        ask: impl FnOnce(Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let left = |fence: Instant| fence.saturating_duration_since(Instant::now());
        let budget = self.own.fence().map_or(most, left).min(most);
        let budget = budget.min(self.request_timeout);
        let ours = budget < self.request_timeout;
        ask(budget).map_err(|mut failure| {
            if let Failure::Elsewhere(Error::Timeout { limit, .. }) = &mut failure {
                if ours && *limit == "request_timeout" {
                    *limit = "ttl";
                }
            }
            failure
        })
    }

    /// What stands at our key and, for an incarnation of ours, the note on its end.
    pub(super) fn look(&self, incarnation: Option<i64>) -> Result<Seen, Failure> {
        let key = self.keys.member(&self.name);
        let note = self.keys.note(&self.name, incarnation.unwrap_or_default());
        let look = |keys_only| {
            let both = [&key, &note].map(|key| Op::Get { key, keys_only });
            self.within(Duration::MAX, |left| self.client.txn(&[], &both, &[], left))
        };
        let found = match look(false) {
            // Beyond the bound, it is no server's.
            Err(Failure::Final(Error::TooLarge { .. })) => look(true),
            other => other,
        };
        let mut found = found?.found.into_iter();
        let member = found.next().flatten();
        let note = found.next().flatten().map(|kv| Note::parse(&kv.value));
        Ok(Seen { member, note })
    }

    /// Puts our value if our key stands as expected: the incarnation it now has, or `None` if it
    /// stood otherwise.
    pub(super) fn put(&self, expected: Standing, lease: i64) -> Result<Option<i64>, Failure> {
        let key = self.keys.member(&self.name);
        let value = self.document.to_json(&self.name);
        let compare = Compare::stands(&key, expected);
        let put = [Op::Put {
            key: &key,
            value: &value,
            lease,
        }];
        self.own.stake();
        let ask = |budget| self.client.txn(&compare, &put, &[], budget);
        let reply = self.within(Duration::MAX, ask)?;
        let incarnation = match expected.incarnation {
            0 => reply.revision,
            kept => kept,
        };
        Ok(reply.succeeded.then_some(incarnation))
    }

    /// Ends another instance's registration: its note and the end of its key in one revision. Our
    /// own key comes in a second one, since Go peers must see a DELETE before the PUT.
    /// The note hangs on the victim's lease or, where it has none that etcd knows, on `ours`.
    pub(super) fn end_other(&self, victim: Standing, ours: i64) -> Result<(), Failure> {
        let end = |on| {
            let note = Some((&Note::Replaced, on));
            let budget = self.request_timeout;
            end(&self.client, &self.keys, &self.name, victim, note, budget).map(drop)
        };
        match victim.lease {
            0 => end(ours),
            theirs => match end(theirs) {
                // Most likely its key went with it, and this does nothing.
                Err(Failure::LeaseGone) => end(ours),
                other => other,
            },
        }
    }
}

/// Deletes a member's key, if it still stands so, and says why in the same transaction, by a note on
/// the given lease. That lease is left to run out, so that whoever comes back within a TTL still
/// finds the reason. The answer is what stands there otherwise.
fn end(
    client: &Client,
    keys: &Keyspace,
    name: &str,
    as_known: Standing,
    why: Option<(&Note, i64)>,
    budget: Duration,
) -> Result<Option<Kv>, Failure> {
    let key = keys.member(name);
    let note = keys.note(name, as_known.incarnation);
    let value = why.map(|(note, lease)| (note.to_json(), lease));
    let compare = Compare::stands(&key, as_known);
    let put = value.as_ref().map(|(value, lease)| Op::Put {
        key: &note,
        value,
        lease: *lease,
    });
    let ops: Vec<Op> = put.into_iter().chain([Op::Delete { key: &key }]).collect();
    let reply = client.txn(&compare, &ops, &[Op::get(&key)], budget)?;
    Ok(reply.found.into_iter().next().flatten())
}

/// Leaves, within `budget`: peers that watch see the reason with the DELETE. `last` is our key as
/// known last; a registration whose answer never came is found by its token.
pub(crate) fn leave(
    client: &Client,
    keys: &Keyspace,
    name: &str,
    instance: &str,
    last: Option<Standing>,
    budget: Duration,
) -> Result<(), Error> {
    let deadline = Instant::now() + budget;
    let mut known = last.unwrap_or(Standing::ABSENT);
    let (mut noted, mut lease_gone) = (true, false);
    let mut failure = Failure::Elsewhere(Error::Protocol {
        reason: "our key is put over faster than it can be deleted".into(),
    });
    // Once is enough, unless our key is not as known, or the note can't be written.
    for _ in 0..5 {
        let left = deadline.saturating_duration_since(Instant::now());
        let found = if known == Standing::ABSENT {
            let key = keys.member(name);
            let reply = client.txn(&[], &[Op::get(&key)], &[], left);
            reply.map(|r| r.found.into_iter().next().flatten())
        } else {
            let why = noted.then_some((&Note::Leave, known.lease));
            end(client, keys, name, known, why, left)
        };
        let kv = match found {
            Ok(Some(kv)) => kv,
            Ok(None) => return Ok(()),
            // Most likely the key went with it. If it has not, it can go without a note.
            Err(Failure::LeaseGone) if noted => {
                noted = !std::mem::replace(&mut lease_gone, true);
                known = Standing::ABSENT;
                failure = Failure::LeaseGone;
                continue;
            }
            // The key can go all the same.
            Err(Failure::NoSpace) if noted => {
                noted = false;
                continue;
            }
            Err(other) => return Err(other.into_error()),
        };
        let ours = Document::parse(name, &kv.value)
            .is_ok_and(|(document, _)| document.instance.as_deref() == Some(instance));
        if !ours {
            return Ok(());
        }
        known = kv.standing();
    }
    Err(failure.into_error())
}
