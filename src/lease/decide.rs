//! What to do about what stands at our key. Pure.

use crate::kv::{Kv, Standing};
use crate::member::Document;
use crate::note::Note;
use crate::settings::OnConflict;

/// What etcd holds about us.
pub(super) struct Seen {
    /// At our key.
    pub member: Option<Kv>,
    /// At the note that would tell why our incarnation went.
    pub note: Option<Note>,
}

/// Who has our key.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    /// This very process.
    Us,
    /// What stands there is no server: some hand has spoilt it.
    Spoilt,
    /// Another instance, which was there before we were: also one that a restored store brought
    /// back from before our time.
    Earlier,
    /// Another instance, which came after us. Fighting back would go on for ever, whatever the
    /// policy.
    Later,
}

/// `last`: the newest incarnation that we had.
fn who(found: Option<&Kv>, instance: Option<&str>, last: Option<i64>) -> Who {
    let Some(kv) = found else {
        return Who::Nobody;
    };
    // The name does not matter for the token; any well-formed one will do.
    match Document::parse("?/?", &kv.value) {
        Err(_) => Who::Spoilt,
        Ok((found, _)) if instance.is_some() && found.instance.as_deref() == instance => Who::Us,
        Ok(_) if last.is_none_or(|last| kv.create_revision < last) => Who::Earlier,
        Ok(_) => Who::Later,
    }
}

/// How to register.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing there: put our key.
    Create,
    /// Ours, from a put whose answer never came, or nobody's: put over it.
    Adopt(Standing),
    /// Another's: end its registration first, with a note on its lease.
    TakeOver(Standing),
    /// Another's: wait for it to go.
    Wait,
    /// Another's: give up.
    Conflict,
    /// Another has taken over from us.
    Displaced,
}

pub(super) fn decide(
    found: Option<&Kv>,
    instance: Option<&str>,
    last: Option<i64>,
    policy: OnConflict,
) -> Decision {
    let standing = found.map(Kv::standing).unwrap_or(Standing::ABSENT);
    match who(found, instance, last) {
        Who::Nobody => Decision::Create,
        Who::Us | Who::Spoilt => Decision::Adopt(standing),
        Who::Later => Decision::Displaced,
        Who::Earlier => match policy {
            OnConflict::TakeOver => Decision::TakeOver(standing),
            OnConflict::Fail if last.is_none() => Decision::Conflict,
            // Who was registered gives way to nobody that came before.
            OnConflict::Wait | OnConflict::Fail => Decision::Wait,
        },
    }
}

/// How our registration fares.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ours,
    /// Ours, but not as it should be: put over it as it stands.
    Rewrite(Standing),
    /// Not there, or of before our time: register anew.
    Gone,
    Displaced,
}

pub(super) fn verdict(
    seen: &Seen,
    instance: Option<&str>,
    known: Standing,
    value: &[u8],
) -> Verdict {
    let found = seen.member.as_ref();
    if found.is_some_and(|kv| kv.standing() == known && kv.value == value) {
        return Verdict::Ours;
    }
    let standing = found.map(Kv::standing).unwrap_or(Standing::ABSENT);
    match who(found, instance, Some(known.incarnation)) {
        Who::Us | Who::Spoilt => Verdict::Rewrite(standing),
        Who::Later => Verdict::Displaced,
        // Between the two transactions of a take-over.
        Who::Nobody if seen.note == Some(Note::Replaced) => Verdict::Displaced,
        Who::Nobody | Who::Earlier => Verdict::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(instance: Option<&str>, create_revision: i64, lease: i64) -> Kv {
        let document = Document {
            instance: instance.map(Into::into),
            ..Document::default()
        };
        let value = document.to_json("gate/1");
        Kv {
            key: b"k".to_vec(),
            value,
            create_revision,
            mod_revision: 9,
            lease,
        }
    }

    fn standing(incarnation: i64, lease: i64) -> Standing {
        Standing { incarnation, lease }
    }

    fn spoilt(create_revision: i64, lease: i64) -> Kv {
        Kv {
            value: b"null".to_vec(),
            ..kv(None, create_revision, lease)
        }
    }

    #[test]
    fn who_may_register() {
        let all = [OnConflict::TakeOver, OnConflict::Wait, OnConflict::Fail];
        let (ours, theirs, gos) = (kv(Some("me"), 5, 1), kv(Some("you"), 6, 2), kv(None, 7, 3));
        for policy in all {
            for last in [None, Some(4), Some(9)] {
                let decide = |found| decide(found, Some("me"), last, policy);
                assert_eq!(decide(None), Decision::Create);
                assert_eq!(decide(Some(&ours)), Decision::Adopt(standing(5, 1)));
                // Nobody's.
                let spoilt = spoilt(8, 2);
                assert_eq!(decide(Some(&spoilt)), Decision::Adopt(standing(8, 2)));
            }
            // Whoever was taken over does not fight back.
            for last in [4, 6] {
                let later = decide(Some(&theirs), Some("me"), Some(last), policy);
                assert_eq!(later, Decision::Displaced);
            }
        }
        let over = |incarnation, lease| Decision::TakeOver(standing(incarnation, lease));
        for last in [None, Some(7)] {
            let decide = |found, policy| decide(Some(found), Some("me"), last, policy);
            assert_eq!(decide(&theirs, OnConflict::TakeOver), over(6, 2));
            assert_eq!(decide(&theirs, OnConflict::Wait), Decision::Wait);
        }
        let fresh = |found, policy| decide(Some(found), Some("me"), None, policy);
        assert_eq!(fresh(&gos, OnConflict::TakeOver), over(7, 3));
        assert_eq!(fresh(&theirs, OnConflict::Fail), Decision::Conflict);
        // A restored store shows who was there before us; we don't give up for that.
        let before = decide(Some(&theirs), Some("me"), Some(7), OnConflict::Fail);
        assert_eq!(before, Decision::Wait);
    }

    #[test]
    fn how_we_fare() {
        let ours = kv(Some("me"), 5, 1);
        let value = ours.value.clone();
        let see =
            |member, note| verdict(&Seen { member, note }, Some("me"), standing(5, 1), &value);
        assert_eq!(see(Some(ours), None), Verdict::Ours);
        assert_eq!(
            see(Some(kv(Some("me"), 5, 0)), None),
            Verdict::Rewrite(standing(5, 0))
        );
        assert_eq!(
            see(Some(kv(Some("me"), 8, 1)), None),
            Verdict::Rewrite(standing(8, 1))
        );
        assert_eq!(see(Some(kv(Some("you"), 8, 2)), None), Verdict::Displaced);
        // Of before our time, in a store that was restored.
        assert_eq!(see(Some(kv(Some("you"), 4, 2)), None), Verdict::Gone);
        assert_eq!(see(Some(kv(None, 5, 2)), None), Verdict::Displaced);
        assert_eq!(see(None, None), Verdict::Gone);
        assert_eq!(see(None, Some(Note::Evicted { by: vec![] })), Verdict::Gone);
        assert_eq!(see(None, Some(Note::Replaced)), Verdict::Displaced);
        for (incarnation, lease) in [(5, 1), (8, 0), (2, 7)] {
            assert_eq!(
                see(Some(spoilt(incarnation, lease)), None),
                Verdict::Rewrite(standing(incarnation, lease)),
                "by some hand, not by another instance"
            );
        }
    }
}
