//! One epoch of the truth, by member: what a perfect listener would have been told.

use std::collections::BTreeMap;

use serde_json::Value;

use super::told::{INSTANCE, content};
use super::{Act, Epoch, Nanos, Seen};

#[derive(Debug, Default)]
pub struct Timeline {
    members: BTreeMap<String, Vec<Step>>,
    /// By member and incarnation.
    notes: BTreeMap<(String, i64), Note>,
    pub last: i64,
}

/// A change that is to be told.
#[derive(Clone, Debug)]
pub struct Step {
    pub revision: i64,
    pub at: Nanos,
    pub incarnation: i64,
    pub state: State,
}

#[derive(Clone, Debug)]
pub enum State {
    Is {
        content: String,
        instance: Option<String>,
        /// Where it was written again without saying anything new.
        again: Vec<i64>,
    },
    Gone {
        lease: i64,
        /// When this life began.
        born: Nanos,
    },
}

#[derive(Clone, Debug)]
pub struct Note {
    pub revision: i64,
    pub reason: String,
}

impl Step {
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone { .. })
    }

    /// Whether this is what was told.
    pub fn is(&self, seen: &Seen) -> bool {
        match &self.state {
            State::Is { content, again, .. } => {
                let written = self.revision == seen.revision || again.contains(&seen.revision);
                self.incarnation == seen.incarnation && written && *content == seen.content
            }
            State::Gone { .. } => false,
        }
    }

    pub fn instance(&self) -> Option<&str> {
        match &self.state {
            State::Is { instance, .. } => instance.as_deref(),
            State::Gone { .. } => None,
        }
    }
}

/// A member's value: content and the token of the process.
pub fn value(text: &str) -> Option<(String, Option<String>)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let fields = value.as_object()?;
    let text = |field: Option<&Value>| match field {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut pairs = Vec::new();
    match fields.get("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(all)) => {
            for (key, value) in all {
                pairs.push((key.clone(), text(Some(value))?));
            }
        }
        _ => return None,
    }
    let frontend = match fields.get("frontend") {
        None | Some(Value::Null) => false,
        other => other?.as_bool()?,
    };
    let hostname = text(fields.get("hostname"))?;
    let token = pairs.iter().find(|(key, _)| key == INSTANCE);
    let token = token.map(|(_, value)| value.clone());
    let pairs = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    Some((content(pairs, frontend, &hostname), token))
}

/// `type/id`, and what is behind it, if anything.
fn name(rest: &str) -> Option<(String, Option<&str>)> {
    let mut parts = rest.splitn(3, '/');
    let (server_type, id) = (parts.next()?, parts.next()?);
    let good = !server_type.is_empty() && !id.is_empty();
    good.then(|| (format!("{server_type}/{id}"), parts.next()))
}

impl Timeline {
    pub fn of(prefix: &str, epoch: &Epoch) -> Timeline {
        let mut timeline = Timeline::default();
        let (members, notes) = (
            format!("{prefix}servers/"),
            format!("{prefix}servers-gone/"),
        );
        for change in &epoch.changes {
            timeline.last = timeline.last.max(change.revision);
            if let Some(rest) = change.key.strip_prefix(&notes) {
                if let (Some((name, Some(life))), Act::Put { value, .. }) =
                    (name(rest), &change.act)
                {
                    let reason = serde_json::from_str::<Value>(value).unwrap_or_default();
                    let reason = reason["reason"].as_str().unwrap_or_default().to_owned();
                    let revision = change.revision;
                    if let Ok(life) = life.parse() {
                        timeline
                            .notes
                            .insert((name, life), Note { revision, reason });
                    }
                }
                continue;
            }
            let Some((name, None)) = change.key.strip_prefix(&members).and_then(name) else {
                continue;
            };
            let steps = timeline.members.entry(name).or_default();
            let (revision, at) = (change.revision, change.at);
            match &change.act {
                Act::Put {
                    value: text,
                    create_revision,
                    ..
                } => put(steps, text, *create_revision, revision, at),
                Act::Delete {
                    create_revision,
                    lease,
                } => {
                    let same = |s: &&Step| s.incarnation == *create_revision;
                    let Some(first) = steps.iter().find(same) else {
                        continue;
                    };
                    let (lease, born) = (*lease, first.at);
                    let state = State::Gone { lease, born };
                    let incarnation = *create_revision;
                    steps.push(Step {
                        revision,
                        at,
                        incarnation,
                        state,
                    });
                }
            }
        }
        timeline.last = timeline.last.max(epoch.read_to);
        timeline
    }

    pub fn steps(&self, name: &str) -> &[Step] {
        self.members.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn names(&self) -> impl Iterator<Item = (&str, &[Step])> {
        let all = self.members.iter();
        all.map(|(name, steps)| (name.as_str(), steps.as_slice()))
    }

    /// Which step this is.
    pub fn find(&self, seen: &Seen) -> Option<usize> {
        let steps = self.steps(&seen.name);
        let next = steps.partition_point(|s| s.revision <= seen.revision);
        let step = next.checked_sub(1)?;
        steps[step].is(seen).then_some(step)
    }

    /// The step at which that life ended.
    pub fn end(&self, name: &str, incarnation: i64) -> Option<usize> {
        let ends = |s: &Step| s.is_gone() && s.incarnation == incarnation;
        self.steps(name).iter().position(ends)
    }

    /// Whether that life ended at that very revision.
    pub fn ended(&self, seen: &Seen) -> bool {
        let end = self.end(&seen.name, seen.incarnation);
        end.is_some_and(|step| self.steps(&seen.name)[step].revision == seen.revision)
    }

    pub fn note(&self, name: &str, incarnation: i64) -> Option<&Note> {
        self.notes.get(&(name.to_owned(), incarnation))
    }

    /// Who is there at the end.
    pub fn view(&self) -> BTreeMap<&str, &Step> {
        let last = self
            .names()
            .filter_map(|(n, steps)| Some((n, steps.last()?)));
        last.filter(|(_, step)| !step.is_gone()).collect()
    }
}

fn put(steps: &mut Vec<Step>, text: &str, incarnation: i64, revision: i64, at: Nanos) {
    // What is no member is passed over; of the same life the last good value stays.
    let Some((content, instance)) = value(text) else {
        return;
    };
    if let Some(Step {
        incarnation: life,
        state:
            State::Is {
                content: was,
                instance: by,
                again,
            },
        ..
    }) = steps.last_mut()
    {
        if *life == incarnation && *was == content && *by == instance {
            again.push(revision);
            return;
        }
    }
    let again = Vec::new();
    let state = State::Is {
        content,
        instance,
        again,
    };
    steps.push(Step {
        revision,
        at,
        incarnation,
        state,
    });
}
