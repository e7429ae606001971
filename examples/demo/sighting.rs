//! What comes to the demo's eyes: an event at its listener, or what a member says about itself.

use std::time::Instant;

use headcount::{DownCause, Event, Member, Metadata, RemoveReason};

use crate::member::Report;

pub struct Sighting {
    pub at: Instant,
    pub side: Side,
    /// Whom it is about; nobody in particular: empty.
    pub id: String,
    /// Its name: `AddMember`, `Lost`, …
    pub event: String,
    /// The reason or cause, in the library's own word.
    pub word: &'static str,
    /// What there is to say about it.
    pub why: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The listener, which is told of everybody.
    Listener,
    /// The member with this process id, which knows only of itself.
    Member(u32),
}

impl Sighting {
    pub fn told(at: Instant, event: &Event) -> Sighting {
        let (word, why) = match event {
            Event::AddMember(member) => ("", newcomer(member)),
            Event::UpdateMember {
                member, previous, ..
            } => ("", changes(previous.metadata(), member.metadata())),
            Event::RemoveMember { reason, .. } => (reason.as_str(), farewell(*reason)),
            Event::ServerDown { cause, .. } => (cause.as_str(), death(cause)),
            Event::Suspect { evidence, .. } => {
                let left = evidence.remaining.as_secs_f64();
                ("", format!("its heartbeat is late: {left:.1} s left"))
            }
            Event::Cleared { .. } => ("", "its heart beats again".into()),
            Event::Synced => ("", "that is everybody; changes follow".into()),
            _ => ("", String::new()),
        };
        Sighting {
            at,
            side: Side::Listener,
            id: event.member().map_or("", |member| member.id()).into(),
            event: event.name().into(),
            word,
            why,
        }
    }

    pub fn reported(at: Instant, pid: u32, id: &str, line: &str) -> Sighting {
        let report = serde_json::from_str(line).unwrap_or_else(|_| Report {
            event: format!("{line:?}"),
            incarnation: None,
        });
        let (word, why) = match (&*report.event, report.incarnation) {
            ("Here", Some(life)) => ("registered", format!("still incarnation {life}")),
            ("Here", None) => ("unregistered", "it is not registered".into()),
            ("Registered", Some(life)) => ("", format!("back, now as incarnation {life}")),
            ("Lost", _) => ("", "its registration may be gone".into()),
            ("Displaced", _) => ("", format!("pid {pid} has lost its name")),
            _ => ("", "what is that?".into()),
        };
        Sighting {
            at,
            side: Side::Member(pid),
            id: id.into(),
            event: report.event,
            word,
            why: format!("itself: {why}"),
        }
    }
}

fn newcomer(member: &Member) -> String {
    let pid = member.metadata().get("pid").unwrap_or("?");
    let (server_type, life) = (member.server_type(), member.incarnation());
    format!("a {server_type}, pid {pid}, incarnation {life}")
}

fn changes(old: &Metadata, new: &Metadata) -> String {
    let mut changes = Vec::new();
    for (key, value) in new.iter() {
        let old = old.get(key).unwrap_or("nothing");
        if old != value {
            changes.push(format!("{key}: {old} → {value}"));
        }
    }
    changes.join(", ")
}

fn farewell(reason: RemoveReason) -> String {
    let meaning = match reason {
        RemoveReason::Announced => ": it said that it leaves",
        RemoveReason::Deregistered => ": its key was deleted",
        _ => "",
    };
    format!("{}{meaning}", reason.as_str())
}

fn death(cause: &DownCause) -> String {
    let meaning = match cause {
        DownCause::Replaced => ": another has its name",
        DownCause::LeaseExpired => ": gone without a word",
        _ => "",
    };
    format!("{}{meaning}", cause.as_str())
}
