//! What listeners are told.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Member;

/// One thing that happened in the cluster, or to the connection with it.
///
/// Cloning one is a pointer copy: members are shared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A member joined, or was there when you subscribed.
    AddMember(Arc<Member>),
    /// The same incarnation of a member has a new value.
    ///
    /// Or, the one case in which it is another incarnation: the member vanished in a
    /// [mass loss](Event::MassLoss), its departure was held, and the same process is back.
    #[non_exhaustive]
    UpdateMember {
        /// As it is now.
        member: Arc<Member>,
        /// As you were told last.
        previous: Arc<Member>,
    },
    /// A member left on purpose.
    #[non_exhaustive]
    RemoveMember {
        /// As it was last.
        member: Arc<Member>,
        /// How that is known.
        reason: RemoveReason,
        /// etcd's revision at which it was gone.
        revision: i64,
    },
    /// A member is gone without having left.
    #[non_exhaustive]
    ServerDown {
        /// As it was last.
        member: Arc<Member>,
        /// What is known of the cause.
        cause: DownCause,
        /// etcd's revision at which it was gone.
        revision: i64,
    },
    /// A member's heartbeat is late: its lease has less left than an owner that renews it in time
    /// would ever let it have. It is not down; it still has until the lease runs out. Ends with
    /// [`Cleared`](Event::Cleared), or with the member's departure.
    #[non_exhaustive]
    Suspect {
        /// Whom.
        member: Arc<Member>,
        /// What was seen.
        evidence: Evidence,
    },
    /// A suspected member has renewed its lease, or is back after a mass loss.
    #[non_exhaustive]
    Cleared {
        /// Who is well again.
        member: Arc<Member>,
    },
    /// You have now been told of everybody; what follows are changes.
    Synced,
    /// etcd is out of reach. The view is kept; nobody is called down for it.
    StoreLost,
    /// etcd is back. What changed meanwhile follows.
    StoreRestored,
    /// A large share of the members vanished at once, or is about to, for their leases are not
    /// renewed. That happens when etcd loses leases whose owners live, or is cut off from them. The
    /// departures are held back for a moment: for whoever comes back as the same process you get
    /// [`UpdateMember`](Event::UpdateMember), and at `until` the departures of the rest. The view
    /// keeps them meanwhile.
    #[non_exhaustive]
    MassLoss {
        /// How many departures are held so far; what follows of that kind is held as well.
        held: usize,
        /// When the rest is told.
        until: Instant,
    },
    /// This listener was too slow for its channel, and events that cancel each other out, or that
    /// a later one replaces, were folded together. What it is told still adds up to the view, but a
    /// member keeps its place in the queue: what happened to it last can be told before what
    /// happened earlier to others, or before [`StoreRestored`](Event::StoreRestored).
    #[non_exhaustive]
    Lagged {
        /// How many events were spared since the last `Lagged`.
        folded: u64,
    },
    /// This process is registered: its peers can see it.
    #[non_exhaustive]
    Registered {
        /// Its incarnation.
        incarnation: i64,
        /// Its lease in etcd.
        lease: i64,
    },
    /// This process' registration is lost, or may be by the time you read this. Headcount is at
    /// work to get it back; stop doing what only a registered server may do. `Registered` follows,
    /// with the same incarnation if the lease still stood, else with a new one.
    Lost,
    /// Another instance has taken this process' (type, id). It stays out: two processes with one
    /// name would take it from each other for ever.
    Displaced,
}

/// How it is known that a member left on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemoveReason {
    /// It said so: a gone note went with its key.
    Announced,
    /// Its key was deleted while it hung on no lease that could have run out.
    Deregistered,
    /// Its lease was gone before it could have run out: it was revoked. That is how a Pitaya server
    /// in Go leaves.
    Revoked,
}

/// What a suspicion rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// At most so long the member's lease had left when it was looked at.
    pub remaining: Duration,
    /// The lease's whole time to live. Renewed each third of it, it never falls below two.
    pub granted: Duration,
    /// When that was seen.
    pub seen: Instant,
}

impl RemoveReason {
    /// Its name in logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            RemoveReason::Announced => "announced",
            RemoveReason::Deregistered => "deregistered",
            RemoveReason::Revoked => "revoked",
        }
    }
}

/// What is known of why a member went without leaving.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownCause {
    /// Its peers threw it out, having seen it dead.
    #[non_exhaustive]
    Evicted {
        /// Who saw it.
        by: Arc<[Box<str>]>,
    },
    /// Its lease ran out: it was seen not to be renewed, and the key went when it had to. (Whoever is
    /// late with a renewal, and then goes in the last second of its lease, can't be told from that.)
    LeaseExpired,
    /// A new incarnation has its (type, id).
    Replaced,
    /// It was gone when we came back, and nothing told why.
    Missing,
    /// Its key vanished, and whether it left, was removed or died can't be known.
    Unknown,
}

impl DownCause {
    /// Its name in logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            DownCause::Evicted { .. } => "evicted",
            DownCause::LeaseExpired => "lease-expired",
            DownCause::Replaced => "replaced",
            DownCause::Missing => "missing",
            DownCause::Unknown => "unknown",
        }
    }
}

impl Event {
    /// The variant's name, as written in logs and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Event::AddMember(_) => "AddMember",
            Event::UpdateMember { .. } => "UpdateMember",
            Event::RemoveMember { .. } => "RemoveMember",
            Event::ServerDown { .. } => "ServerDown",
            Event::Suspect { .. } => "Suspect",
            Event::Cleared { .. } => "Cleared",
            Event::Synced => "Synced",
            Event::StoreLost => "StoreLost",
            Event::StoreRestored => "StoreRestored",
            Event::MassLoss { .. } => "MassLoss",
            Event::Lagged { .. } => "Lagged",
            Event::Registered { .. } => "Registered",
            Event::Lost => "Lost",
            Event::Displaced => "Displaced",
        }
    }

    /// The member it is about, if it is about one.
    pub fn member(&self) -> Option<&Arc<Member>> {
        match self {
            Event::AddMember(member)
            | Event::UpdateMember { member, .. }
            | Event::RemoveMember { member, .. }
            | Event::ServerDown { member, .. }
            | Event::Suspect { member, .. }
            | Event::Cleared { member } => Some(member),
            _ => None,
        }
    }

    /// Whether a member is gone with it.
    pub fn is_departure(&self) -> bool {
        matches!(self, Event::RemoveMember { .. } | Event::ServerDown { .. })
    }

    /// Whether the members, or what is known of one, are other than before.
    pub(crate) fn changes_view(&self) -> bool {
        let doubt = matches!(self, Event::Suspect { .. } | Event::Cleared { .. });
        self.member().is_some() && !doubt
    }

    /// etcd's revision at which it happened, where it is about a member.
    pub fn revision(&self) -> Option<i64> {
        match self {
            Event::RemoveMember { revision, .. } | Event::ServerDown { revision, .. } => {
                Some(*revision)
            }
            _ => self.member().map(|m| m.revision()),
        }
    }
}

/// One line for people: `AddMember gate/1@42`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(member) = self.member() {
            write!(f, " {member}")?;
        }
        match self {
            Event::RemoveMember { reason, .. } => write!(f, " ({})", reason.as_str()),
            Event::ServerDown {
                cause: DownCause::Evicted { by },
                ..
            } if !by.is_empty() => {
                write!(f, " (evicted by {})", by.join(", "))
            }
            Event::ServerDown { cause, .. } => write!(f, " ({})", cause.as_str()),
            Event::Suspect { evidence, .. } => {
                let Evidence {
                    remaining, granted, ..
                } = evidence;
                write!(f, " ({remaining:.1?} left of {granted:?})")
            }
            Event::MassLoss { held, .. } => write!(f, " ({held} held)"),
            Event::Lagged { folded } => write!(f, " ({folded} folded)"),
            Event::Registered { incarnation, lease } => {
                write!(f, " (incarnation {incarnation}, lease {lease:x})")
            }
            _ => Ok(()),
        }
    }
}
