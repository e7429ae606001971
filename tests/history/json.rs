//! The lines that `examples/watch --json` and `examples/member --json` print.

use serde_json::Value;

use super::told::content;
use super::{Answer, At, Log, Nanos, Previous, Seen, Told};

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Told(At<Told>),
    /// The last word: the view at the end.
    View {
        answer: Answer,
        relists: u64,
    },
}

/// Reads a line; an error says what is wrong with it.
pub fn parse(line: &str) -> Result<Line, String> {
    let line: Value = serde_json::from_str(line).map_err(|e| format!("{line:?}: {e}"))?;
    read(&line).ok_or_else(|| format!("not understood: {line}"))
}

/// Adds what a program printed to its log; the answer, where it printed its view.
pub fn fill<'a>(
    log: &mut Log,
    lines: impl IntoIterator<Item = &'a str>,
) -> Result<Option<Answer>, String> {
    let mut last = None;
    for line in lines {
        match parse(line)? {
            Line::Told(told) => log.entries.push(told),
            Line::View {
                mut answer,
                relists,
            } => {
                answer.handle.clone_from(&log.handle);
                log.relists = Some(relists);
                log.closed = true;
                last = Some(answer);
            }
        }
    }
    Ok(last)
}

fn read(line: &Value) -> Option<Line> {
    let at = line["ts_us"].as_u64()? * 1000;
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let number = |key: &str| line[key].as_i64();
    let what = match line["event"].as_str()? {
        "AddMember" => Told::Added(seen(line)?),
        "UpdateMember" => Told::Updated {
            now: seen(line)?,
            previous: Previous {
                incarnation: number("previous_incarnation")?,
                revision: number("previous_revision")?,
                content: None,
            },
        },
        "RemoveMember" => Told::Removed {
            member: seen(line)?,
            reason: text("reason")?,
        },
        "ServerDown" => Told::Down {
            member: seen(line)?,
            cause: text("cause")?,
        },
        "Suspect" => Told::Suspect(seen(line)?),
        "Cleared" => Told::Cleared(seen(line)?),
        "Synced" => Told::Synced,
        "StoreLost" => Told::StoreLost,
        "StoreRestored" => Told::StoreRestored,
        "MassLoss" => Told::MassLoss {
            held: line["held"].as_u64()?,
        },
        "Lagged" => Told::Lagged {
            folded: line["folded"].as_u64()?,
        },
        "Registered" => Told::Registered {
            incarnation: number("incarnation")?,
            lease: number("lease")?,
        },
        "Lost" => Told::Lost,
        "Displaced" => Told::Displaced,
        "View" => return view(line, at),
        _ => return None,
    };
    Some(Line::Told(At { at, what }))
}

fn seen(member: &Value) -> Option<Seen> {
    let (server_type, id) = (member["type"].as_str()?, member["id"].as_str()?);
    let metadata = member["metadata"].as_object()?;
    let pairs: Option<Vec<_>> = metadata
        .iter()
        .map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    Some(Seen {
        name: format!("{server_type}/{id}"),
        incarnation: member["incarnation"].as_i64()?,
        revision: member["revision"].as_i64()?,
        content: content(
            pairs?,
            member["frontend"].as_bool()?,
            member["hostname"].as_str()?,
        ),
    })
}

fn view(line: &Value, at: Nanos) -> Option<Line> {
    let members: Option<Vec<_>> = line["members"].as_array()?.iter().map(seen).collect();
    let stats = &line["stats"];
    let age = stats["view_age_s"].as_f64();
    let relists = stats["relists"].as_object()?;
    let after_first = relists.iter().filter(|(why, _)| *why != "first");
    let relists: Option<u64> = after_first.map(|(_, count)| count.as_u64()).sum();
    let answer = Answer {
        at_before: at,
        at_after: at,
        members: members?,
        view_age: age.map(|s| (s * 1e9) as Nanos),
        store_reachable: stats["store_reachable"].as_bool()?,
        revision: stats["revision"].as_i64()?,
        ..Answer::default()
    };
    let relists = relists?;
    Some(Line::View { answer, relists })
}
