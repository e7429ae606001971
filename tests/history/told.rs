//! What listeners were told, and what queries answered.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

use headcount::{DownCause, Event, Member};

use super::{At, Nanos};

/// A member as it was told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// `type/id`.
    pub name: String,
    pub incarnation: i64,
    /// Of the event: a departure's is later than that of the member's last value.
    pub revision: i64,
    /// What it says about itself; see [`content`].
    pub content: String,
}

/// What an update says that was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Previous {
    pub incarnation: i64,
    pub revision: i64,
    /// Where it is known.
    pub content: Option<String>,
}

/// An event, as plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    Added(Seen),
    Updated { now: Seen, previous: Previous },
    Removed { member: Seen, reason: String },
    Down { member: Seen, cause: String },
    Suspect(Seen),
    Cleared(Seen),
    Synced,
    StoreLost,
    StoreRestored,
    MassLoss { held: u64 },
    Lagged { folded: u64 },
    Registered { incarnation: i64, lease: i64 },
    Lost,
    Displaced,
}

/// Everything that one listener was told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Log {
    pub listener: String,
    /// Whose listener it is: a process, or a handle of this one.
    pub handle: String,
    /// The member that the handle registers.
    pub own: Option<String>,
    /// Its channel's size, where it is known.
    pub capacity: Option<usize>,
    /// Whether it wanted to be told first of everybody who is there.
    pub initial: bool,
    /// Only members of these types, if there are any.
    pub types: Vec<String>,
    pub others_only: bool,
    /// It keeps up, so its deliveries can be held against the clock.
    pub fast: bool,
    /// It was listening, and had read all there was, when the truth was read to its end.
    pub settled: bool,
    /// Full listings that its handle made after the first, all told; `None`: nobody counted.
    pub relists: Option<u64>,
    pub entries: Vec<At<Told>>,
    pub closed: bool,
}

/// One query's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub at_before: Nanos,
    pub at_after: Nanos,
    pub handle: String,
    pub members: Vec<Seen>,
    pub view_age: Option<Nanos>,
    pub store_reachable: bool,
    pub revision: i64,
    /// Of a member's handle: whether it is sure to be registered.
    pub registered: Option<bool>,
}

impl Told {
    /// The member it is about.
    pub fn member(&self) -> Option<&Seen> {
        match self {
            Told::Added(member) | Told::Suspect(member) | Told::Cleared(member) => Some(member),
            Told::Updated { now, .. } => Some(now),
            Told::Removed { member, .. } | Told::Down { member, .. } => Some(member),
            _ => None,
        }
    }

    /// The member, if the event says that it is there, not there, or other than before.
    pub fn change(&self) -> Option<&Seen> {
        match self {
            Told::Suspect(_) | Told::Cleared(_) => None,
            other => other.member(),
        }
    }

    pub fn departure(&self) -> Option<(&Seen, &str)> {
        match self {
            Told::Removed { member, reason } => Some((member, reason)),
            Told::Down { member, cause } => Some((member, cause)),
            _ => None,
        }
    }
}

/// One line, as the library's own events have it, with the revision.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Told::Added(_) => "AddMember",
            Told::Updated { .. } => "UpdateMember",
            Told::Removed { .. } => "RemoveMember",
            Told::Down { .. } => "ServerDown",
            Told::Suspect(_) => "Suspect",
            Told::Cleared(_) => "Cleared",
            Told::MassLoss { held } => return write!(f, "MassLoss ({held} held)"),
            Told::Lagged { folded } => return write!(f, "Lagged ({folded} folded)"),
            Told::Registered { incarnation, lease } => {
                return write!(f, "Registered (incarnation {incarnation}, lease {lease:x})");
            }
            other => return write!(f, "{other:?}"),
        };
        let seen = self.member().expect("the others are done");
        write!(f, "{name} {}@{}", seen.name, seen.incarnation)?;
        match self {
            Told::Updated { previous, .. } => {
                let (life, revision) = (previous.incarnation, previous.revision);
                write!(f, " (was @{life} at {revision})")?;
            }
            Told::Removed { reason, .. } => write!(f, " ({reason})")?,
            Told::Down { cause, .. } => write!(f, " ({cause})")?,
            _ => {}
        }
        write!(f, " at {} {}", seen.revision, seen.content)
    }
}

/// What a member says about itself, comparable between what is told and etcd's values: metadata
/// (sorted, as all who give it have it) without what is Headcount's own, whether it is a frontend,
/// where it runs. By hand, for some tests hear a million events.
pub fn content<'a>(
    metadata: impl IntoIterator<Item = (&'a str, &'a str)>,
    frontend: bool,
    hostname: &str,
) -> String {
    let mut text = String::from("[{");
    for (key, value) in metadata {
        if key != INSTANCE {
            let comma = if text.len() > 2 { "," } else { "" };
            write!(text, "{comma}{key:?}:{value:?}").expect("a string takes all");
        }
    }
    write!(text, "}},{frontend},{hostname:?}]").expect("a string takes all");
    text
}

/// The metadata key of a process' token, which is not shown to users.
pub const INSTANCE: &str = "headcount.instance";

impl Seen {
    pub fn of(member: &Member, revision: i64) -> Seen {
        Seen {
            name: member.name().into(),
            incarnation: member.incarnation(),
            revision,
            content: content(
                member.metadata().iter(),
                member.is_frontend(),
                member.hostname(),
            ),
        }
    }
}

impl From<&Event> for Told {
    fn from(event: &Event) -> Told {
        let seen = |member: &Member| Seen::of(member, event.revision().unwrap_or(0));
        match event {
            Event::AddMember(member) => Told::Added(seen(member)),
            Event::UpdateMember {
                member, previous, ..
            } => {
                let was = Seen::of(previous, previous.revision());
                let previous = Previous {
                    incarnation: was.incarnation,
                    revision: was.revision,
                    content: Some(was.content),
                };
                let now = seen(member);
                Told::Updated { now, previous }
            }
            Event::RemoveMember { member, reason, .. } => Told::Removed {
                member: seen(member),
                reason: reason.as_str().into(),
            },
            Event::ServerDown { member, cause, .. } => Told::Down {
                member: seen(member),
                cause: DownCause::as_str(cause).into(),
            },
            Event::Suspect { member, .. } => Told::Suspect(seen(member)),
            Event::Cleared { member, .. } => Told::Cleared(seen(member)),
            Event::Synced => Told::Synced,
            Event::StoreLost => Told::StoreLost,
            Event::StoreRestored => Told::StoreRestored,
            Event::MassLoss { held, .. } => Told::MassLoss { held: *held as u64 },
            Event::Lagged { folded, .. } => Told::Lagged { folded: *folded },
            Event::Registered {
                incarnation, lease, ..
            } => Told::Registered {
                incarnation: *incarnation,
                lease: *lease,
            },
            Event::Lost => Told::Lost,
            Event::Displaced => Told::Displaced,
            other => panic!("{other}: teach the history what that is"),
        }
    }
}
