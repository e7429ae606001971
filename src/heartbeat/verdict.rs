//! Why a key went without a word. Pure.
//!
//! Enforced here: **G6 Truthful**. Only what was proven is told; the rest is `unknown`.

use std::sync::Arc;

use super::window::Ended;
use crate::event::{DownCause, Event, RemoveReason};
use crate::member::Member;

/// What is known of a member's lease at the moment its key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nobody watches over it.
    Unwatched,
    /// It went before it was looked at.
    Unseen,
    Seen(Ended),
}

/// What etcd says of the lease, asked when the key was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It goes on without the key.
    Alive,
    Gone,
    /// It does not know yet that the key is gone.
    Behind,
    /// None came in time.
    None,
}

impl Finding {
    /// Whether etcd's answer could change the verdict.
    pub fn is_open(self) -> bool {
        !matches!(self, Finding::Unwatched | Finding::Seen(Ended::RanOut))
    }
}

/// Who is silent when it leaves: a member of Headcount says so.
pub(crate) fn is_silent(member: &Member) -> bool {
    member.instance().is_none()
}

/// The departure of a member whose key, on a lease, was deleted without a note.
pub(crate) fn verdict(
    member: Arc<Member>,
    revision: i64,
    finding: Finding,
    answer: Answer,
) -> Event {
    let left = |member, reason| Event::RemoveMember {
        member,
        reason,
        revision,
    };
    let down = |member, cause| Event::ServerDown {
        member,
        cause,
        revision,
    };
    match (finding, answer) {
        (Finding::Seen(Ended::RanOut), _) => down(member, DownCause::LeaseExpired),
        // Nothing but a deletion ends a key whose lease goes on.
        (_, Answer::Alive) => left(member, RemoveReason::Deregistered),
        // Who says when it leaves, and did not, has not left.
        (Finding::Seen(Ended::Early), _) if !is_silent(&member) => down(member, DownCause::Unknown),
        (Finding::Seen(Ended::Early), Answer::Gone) => left(member, RemoveReason::Revoked),
        // Before the lease could run out: somebody's doing, with the lease or without.
        (Finding::Seen(Ended::Early), Answer::None | Answer::Behind) => {
            left(member, RemoveReason::Deregistered)
        }
        _ => down(member, DownCause::Unknown),
    }
}
