//! Any bytes down the watch stream, cut anywhere.

use serde::de::IgnoredAny;

use super::plain::{Json, Read, Wrong, bytes};
use super::replies::{class, meaning};
use crate::etcd::Frame;
use crate::etcd::reading::{Messages, Part};
use crate::kv::KvEvent;

/// The least that an event takes on the wire, so that memory is bounded by what came.
const EVENT_BYTES: usize = r#"{"kv":{"key":""}}"#.len();

/// What was told, and how it ended.
type Outcome = (Vec<Told>, String);

#[derive(Debug, PartialEq)]
enum Told {
    Frame(Frame),
    More,
    Nothing,
}

const CLEAN: &str = "clean";
const REFUSED: &str = "protocol";
const TOO_LARGE: &str = "too large";
const BAD_TOKEN: &str = "bad token";
const ENDED: &str = "ended";

/// Where the network cuts the stream makes no difference; what is read is what a plain reader of
/// the whole reads; and no more is held than the limit allows.
///
/// The first byte says how to cut, the second how large a frame may be.
pub fn frames(input: &[u8]) {
    let [cut, limit, stream @ ..] = input else {
        return;
    };
    let limit = 32 + usize::from(*limit) * 32;
    let whole = read([stream], limit);
    assert_eq!(read(stream.chunks(1), limit), whole, "byte by byte");
    assert_eq!(read(pieces(stream, *cut), limit), whole, "cut by {cut}");
    compare(&whole, &plain(stream, limit));
}

/// Pieces of changing lengths.
fn pieces(mut stream: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed) + 1;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 24) as usize % (usize::from(seed) + 1) + 1;
        let (piece, rest) = stream.split_at(length.min(stream.len()));
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Outcome {
    let mut messages = Messages::new(limit);
    let mut told = Vec::new();
    for piece in pieces {
        messages.push(piece);
        loop {
            let part = match messages.next() {
                Ok(Some(part)) => part,
                Ok(None) => break,
                Err(failure) => return (told, class(&failure)),
            };
            told.push(match part {
                Part::Whole(frame) => Told::Frame(frame),
                Part::More => Told::More,
                Part::Nothing => Told::Nothing,
                Part::BadToken => return (told, BAD_TOKEN.into()),
                Part::Ended => return (told, ENDED.into()),
            });
        }
        let (bytes, events) = messages.held();
        assert!(bytes <= limit, "{bytes} bytes are held of {limit}");
        assert!(
            events * EVENT_BYTES <= limit,
            "{events} events are held of {limit} bytes"
        );
    }
    let end = match messages.is_between() {
        true => CLEAN,
        false => REFUSED,
    };
    (told, end.into())
}

/// The plain reader is sure of `told`, and of each of these endings; of none where there are none.
struct Plain {
    told: Vec<Told>,
    endings: Vec<String>,
}

fn compare(read: &Outcome, plain: &Plain) {
    if plain.endings.is_empty() {
        assert!(read.0.starts_with(&plain.told), "{read:?}");
    } else {
        assert_eq!(read.0, plain.told);
        assert!(
            plain.endings.contains(&read.1),
            "{} in place of {:?}",
            read.1,
            plain.endings
        );
    }
}

fn plain(mut rest: &[u8], limit: usize) -> Plain {
    let (mut told, mut parts, mut parts_bytes) = (Vec::new(), Vec::new(), 0);
    let end = |told, endings: &[&str]| Plain {
        told,
        endings: endings.iter().map(|&ending| ending.into()).collect(),
    };
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None if parts.is_empty() => return end(told, &[CLEAN]),
            Some(b'{') => {}
            _ => return end(told, &[REFUSED]),
        }
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        let large = rest.len() > limit;
        let size = match values.next() {
            Some(Ok(_)) => values.byte_offset(),
            // The rest of it did not come.
            Some(Err(e)) if e.is_eof() && large => return end(told, &[TOO_LARGE]),
            // Nobody knows where it ends.
            Some(Err(_)) if large => return end(told, &[TOO_LARGE, REFUSED]),
            _ => return end(told, &[REFUSED]),
        };
        if size > limit {
            return end(told, &[TOO_LARGE]);
        }
        let (frame, after) = rest.split_at(size);
        rest = after;
        match Json::parse(frame).and_then(|frame| message(&frame, &mut parts)) {
            Ok(Ok(one)) => {
                match one {
                    _ if parts.is_empty() => parts_bytes = 0,
                    Told::More => parts_bytes += size,
                    _ => {}
                }
                if parts_bytes > limit {
                    return end(told, &[TOO_LARGE]);
                }
                told.push(one);
            }
            Ok(Err(ending)) => return end(told, &[&ending]),
            Err(Wrong::Refused) => return end(told, &[REFUSED]),
            Err(Wrong::Unsure) => return end(told, &[]),
        }
    }
}

/// What one message tells, or how it ends the stream.
fn message(frame: &Json, parts: &mut Vec<KvEvent>) -> Read<Result<Told, String>> {
    let error = match frame.optional("error")? {
        Some(error) => {
            let (code, grpc): (u32, u32) = (error.number("code")?, error.number("grpc_code")?);
            Some((code.max(grpc), error.text("message")?))
        }
        None => None,
    };
    let result = frame.optional("result")?;
    let Some(result) = result.map(answer).transpose()? else {
        return Ok(match error {
            Some((code, message)) => Err(ending(code, message)),
            None => Ok(Told::Nothing),
        });
    };
    if let Some((code, message)) = error {
        return Ok(Err(ending(code, message)));
    }
    if result.canceled {
        return Ok(match result.compacted {
            true => Ok(Told::Frame(Frame::Compacted)),
            false => Err(canceled(result.reason)),
        });
    }
    if let Some((revision, cluster)) = result.created {
        return Ok(Ok(Told::Frame(Frame::Created { revision, cluster })));
    }
    for event in result.events {
        parts.push(event()?);
    }
    Ok(Ok(match (result.fragment, parts.is_empty()) {
        (true, _) => Told::More,
        (false, true) => Told::Nothing,
        (false, false) => Told::Frame(Frame::Events(std::mem::take(parts))),
    }))
}

struct Answer<'a> {
    created: Option<(i64, u64)>,
    canceled: bool,
    compacted: bool,
    fragment: bool,
    reason: &'a str,
    /// Decoded only where they count.
    events: Vec<Box<dyn Fn() -> Read<KvEvent> + 'a>>,
}

fn answer(result: &Json) -> Read<Answer<'_>> {
    let header = result.header()?;
    let mut events: Vec<Box<dyn Fn() -> Read<KvEvent>>> = Vec::new();
    for event in result.list("events")? {
        let kind = event.text("type")?;
        let kv = event.get("kv")?.ok_or(Wrong::Refused)?.kv()?;
        events.push(Box::new(move || match kind {
            "" | "PUT" => Ok(KvEvent::Put(kv.decode()?)),
            "DELETE" => Ok(KvEvent::Delete {
                key: bytes(kv.key)?,
                mod_revision: kv.mod_revision,
            }),
            _ => Err(Wrong::Refused),
        }));
    }
    let created = result.flag("created")?;
    Ok(Answer {
        created: created.then_some((header.revision, header.cluster)),
        canceled: result.flag("canceled")?,
        compacted: result.number::<i64>("compact_revision")? > 0,
        fragment: result.flag("fragment")?,
        reason: result.text("cancel_reason")?,
        events,
    })
}

fn ending(code: u32, message: &str) -> String {
    match meaning(code, message) {
        _ if code == 4 => ENDED.into(),
        _ if code == 2 && message == "context deadline exceeded" => ENDED.into(),
        class if class == "unauthenticated" => BAD_TOKEN.into(),
        class => class,
    }
}

fn canceled(reason: &str) -> String {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&[
        "Unauthenticated",
        "invalid auth token",
        "auth store is old",
        "user name is empty",
    ]) {
        return BAD_TOKEN.into();
    }
    match says(&["PermissionDenied", "permission denied"]) {
        true => meaning(7, reason),
        false => meaning(14, reason),
    }
}
