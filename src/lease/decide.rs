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

/// How to register.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing there: put our key.
    Create,
    /// Ours, from a put whose answer never came: put over it.
    Adopt(Standing),
    /// Another's: end its registration first, with a note on its lease.
    TakeOver(Standing),
    /// Another's: wait for it to go.
    Wait,
    /// Another's: give up.
    Conflict,
    /// Another's, and we were registered before: it has taken over from us.
    Displaced,
}

/// `held`: we were registered before, so whoever is there now came after us. Fighting back would
/// go on for ever, whatever the policy.
pub(super) fn decide(
    found: Option<&Kv>,
    instance: Option<&str>,
    held: bool,
    policy: OnConflict,
) -> Decision {
    match found {
        None => Decision::Create,
        Some(kv) if is_ours(kv, instance) => Decision::Adopt(kv.standing()),
        Some(_) if held => Decision::Displaced,
        Some(kv) => match policy {
            OnConflict::TakeOver => Decision::TakeOver(kv.standing()),
            OnConflict::Wait => Decision::Wait,
            OnConflict::Fail => Decision::Conflict,
        },
    }
}

/// How our registration fares.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ours,
    /// Ours, but not as it should be: put over it as it stands.
    Rewrite(Standing),
    Gone,
    Displaced,
}

pub(super) fn verdict(
    seen: &Seen,
    instance: Option<&str>,
    known: Standing,
    value: &[u8],
) -> Verdict {
    match (&seen.member, &seen.note) {
        (Some(kv), _) if kv.standing() == known && kv.value == value => Verdict::Ours,
        (Some(kv), _) if is_ours(kv, instance) => Verdict::Rewrite(kv.standing()),
        // Nobody's: some hand has spoilt our value.
        (Some(kv), _) if kv.create_revision == known.incarnation && !is_server(kv) => {
            Verdict::Rewrite(kv.standing())
        }
        (Some(_), _) => Verdict::Displaced,
        // Between the two transactions of a take-over.
        (None, Some(Note::Replaced)) => Verdict::Displaced,
        (None, _) => Verdict::Gone,
    }
}

fn is_server(kv: &Kv) -> bool {
    Document::parse("?/?", &kv.value).is_ok()
}

fn is_ours(kv: &Kv, instance: Option<&str>) -> bool {
    // The name does not matter for the token; any well-formed one will do.
    let document = Document::parse("?/?", &kv.value);
    instance.is_some() && document.is_ok_and(|(d, _)| d.instance.as_deref() == instance)
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

    #[test]
    fn who_may_register() {
        let all = [OnConflict::TakeOver, OnConflict::Wait, OnConflict::Fail];
        let (ours, theirs, gos) = (kv(Some("me"), 5, 1), kv(Some("you"), 6, 2), kv(None, 7, 3));
        for policy in all {
            for held in [false, true] {
                let decide = |found| decide(found, Some("me"), held, policy);
                assert_eq!(decide(None), Decision::Create);
                assert_eq!(decide(Some(&ours)), Decision::Adopt(standing(5, 1)));
            }
            // Whoever was taken over does not fight back.
            assert_eq!(
                decide(Some(&theirs), Some("me"), true, policy),
                Decision::Displaced
            );
        }
        let fresh = |found, policy| decide(Some(found), Some("me"), false, policy);
        let over = |incarnation, lease| Decision::TakeOver(standing(incarnation, lease));
        assert_eq!(fresh(&theirs, OnConflict::TakeOver), over(6, 2));
        assert_eq!(fresh(&gos, OnConflict::TakeOver), over(7, 3));
        assert_eq!(fresh(&theirs, OnConflict::Wait), Decision::Wait);
        assert_eq!(fresh(&theirs, OnConflict::Fail), Decision::Conflict);
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
        assert_eq!(see(Some(kv(None, 5, 2)), None), Verdict::Displaced);
        assert_eq!(see(None, None), Verdict::Gone);
        assert_eq!(see(None, Some(Note::Evicted { by: vec![] })), Verdict::Gone);
        assert_eq!(see(None, Some(Note::Replaced)), Verdict::Displaced);
        let spoilt = Kv {
            value: b"null".to_vec(),
            ..kv(Some("me"), 5, 1)
        };
        assert_eq!(
            see(Some(spoilt), None),
            Verdict::Rewrite(standing(5, 1)),
            "by some hand, not by another instance"
        );
    }
}
