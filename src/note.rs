//! The gone note: what a departing member, or who ends it, leaves behind.
//!
//! Key `<prefix>servers-gone/<type>/<id>/<incarnation>`, written in the very transaction that
//! deletes the member's key, on the member's own lease, with which it dies.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{DownCause, Event, RemoveReason};
use crate::member::{Member, is_name};

/// Witnesses taken from a note: more than anybody has neighbours to watch it.
const MAX_WITNESSES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "lowercase")]
pub(crate) enum Note {
    /// It leaves on purpose.
    Leave,
    /// Another instance takes its (type, id).
    Replaced,
    /// Its peers found it dead.
    Evicted {
        #[serde(default)]
        by: Vec<Box<str>>,
    },
    /// Written by a version that knows more than this one: proves nothing to us.
    #[serde(other)]
    Other,
}

impl Note {
    /// G13: of the witnesses only names are taken, for they are told and logged.
    pub fn parse(value: &[u8]) -> Note {
        let mut note = serde_json::from_slice(value).unwrap_or(Note::Other);
        if let Note::Evicted { by } = &mut note {
            by.retain(|witness| is_name(witness));
            by.truncate(MAX_WITNESSES);
        }
        note
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain strings always serialize")
    }

    /// The departure that this note proves. G6: a note that proves nothing gives `unknown`.
    pub fn departure(&self, member: Arc<Member>, revision: i64) -> Event {
        let cause = match self {
            Note::Leave => {
                let reason = RemoveReason::Announced;
                return Event::RemoveMember {
                    member,
                    reason,
                    revision,
                };
            }
            Note::Replaced => DownCause::Replaced,
            Note::Evicted { by } => DownCause::Evicted {
                by: by.clone().into(),
            },
            Note::Other => DownCause::Unknown,
        };
        Event::ServerDown {
            member,
            cause,
            revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_notes_round_trip_and_unknown_ones_prove_nothing() {
        for (note, json) in [
            (Note::Leave, r#"{"reason":"leave"}"#),
            (Note::Replaced, r#"{"reason":"replaced"}"#),
            (
                Note::Evicted {
                    by: vec!["a/1".into()],
                },
                r#"{"reason":"evicted","by":["a/1"]}"#,
            ),
        ] {
            assert_eq!(String::from_utf8(note.to_json()).unwrap(), json);
            assert_eq!(Note::parse(json.as_bytes()), note);
        }
        for json in [
            r#"{"reason":"bored","x":1}"#,
            "",
            "null",
            "{}",
            r#"{"reason":7}"#,
        ] {
            assert_eq!(Note::parse(json.as_bytes()), Note::Other, "{json}");
        }
    }

    #[test]
    fn g13_a_note_writes_no_lines_of_its_own() {
        let parsed = |by: &[String]| {
            let json = serde_json::json!({ "reason": "evicted", "by": by });
            match Note::parse(json.to_string().as_bytes()) {
                Note::Evicted { by } => by,
                other => panic!("{other:?}"),
            }
        };
        let forged = ["x/1\nERROR", "x/\u{1b}[2J", "", "x"].map(String::from);
        assert!(parsed(&forged).is_empty());
        assert!(parsed(&[format!("x/{}", "1".repeat(2000))]).is_empty());
        let many: Vec<String> = (0..5000).map(|n| format!("x/{n}")).collect();
        let taken = parsed(&[&forged[..], &many].concat());
        assert_eq!(taken.iter().map(|by| &**by).collect::<Vec<_>>(), many[..16]);
    }
}
