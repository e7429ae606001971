//! What comes down the watch stream, read: bytes in, messages out. No I/O, no clock.

use std::borrow::Cow;

use serde::Deserialize;

use super::failure::{Failure, WireError, classify, line};
use super::frames::Frames;
use super::wire::{self, Header, WireKv, number};
use crate::error::Error;
use crate::kv::KvEvent;

/// One message of the stream.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    /// The watch stands.
    Created { revision: i64, cluster: u64 },
    /// Changes, whole revisions only.
    Events(Vec<KvEvent>),
    /// The start revision is compacted away; nothing more will come.
    Compacted,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireFrame<'a> {
    #[serde(borrow)]
    result: Option<WireResult<'a>>,
    #[serde(borrow)]
    error: Option<WireError<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireResult<'a> {
    header: Header,
    created: bool,
    canceled: bool,
    fragment: bool,
    #[serde(deserialize_with = "number")]
    compact_revision: i64,
    #[serde(borrow)]
    cancel_reason: Cow<'a, str>,
    #[serde(borrow)]
    events: Vec<WireEvent<'a>>,
}

/// G13: of what, and so more than a byte or two of the wire, or a few megabytes of it would become
/// gigabytes here.
#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(default, rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    kv: WireKv<'a>,
}

impl WireEvent<'_> {
    fn decode(&self) -> Result<KvEvent, Error> {
        match &*self.kind {
            // A put is the zero value, and so left out.
            "" | "PUT" => Ok(KvEvent::Put(self.kv.decode()?)),
            "DELETE" => Ok(KvEvent::Delete {
                key: wire::bytes(&self.kv.key)?,
                mod_revision: self.kv.mod_revision,
            }),
            other => Err(Error::Protocol {
                reason: format!("an event of type {}", line(other)),
            }),
        }
    }
}

/// Reads a watch stream.
pub(crate) struct Messages {
    frames: Frames,
    /// Parts of a response whose end has not come yet, and their size on the wire.
    parts: Vec<KvEvent>,
    parts_bytes: usize,
    /// Bound on one frame, and on the parts of one response together, in bytes.
    limit: usize,
}

/// What a frame is worth.
#[derive(Debug)]
pub(crate) enum Part {
    Whole(Frame),
    /// A part of a response; the rest follows.
    More,
    /// A message that tells nothing.
    Nothing,
    BadToken,
    /// The period that we asked for is over.
    Ended,
}

impl Messages {
    pub fn new(limit: usize) -> Self {
        Messages {
            frames: Frames::new(limit),
            parts: Vec::new(),
            parts_bytes: 0,
            limit,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// What the next frame is worth; `None` until more bytes come.
    pub fn next(&mut self) -> Result<Option<Part>, Failure> {
        let Some(bytes) = self.frames.next()? else {
            return Ok(None);
        };
        let size = bytes.len();
        let frame: WireFrame = wire::parse(bytes).map_err(|e| Error::Protocol {
            reason: format!("a frame of the watch stream: {}", line(&e.to_string())),
        })?;
        let part = read(frame, &mut self.parts)?;
        // G13: whatever comes between parts, they count as long as they are held.
        match part {
            _ if self.parts.is_empty() => self.parts_bytes = 0,
            Part::More => self.parts_bytes += size,
            _ => {}
        }
        if self.parts_bytes > self.limit {
            return Err(Error::TooLarge { limit: self.limit }.into());
        }
        Ok(Some(part))
    }

    /// Whether the stream may end here without anything being cut off.
    pub fn is_between(&self) -> bool {
        self.frames.is_between() && self.parts.is_empty()
    }

    /// What it holds back, in bytes of the stream, and in events.
    #[cfg(any(test, fuzzing))]
    pub fn held(&self) -> (usize, usize) {
        (self.frames.held(), self.parts.len())
    }
}

fn read(frame: WireFrame, parts: &mut Vec<KvEvent>) -> Result<Part, Failure> {
    if let Some(error) = frame.error {
        return match error.failure("watch") {
            Failure::Unauthenticated => Ok(Part::BadToken),
            Failure::Elsewhere(Error::Etcd { code: 4, .. }) => Ok(Part::Ended),
            // 3.4 gives it now and then as an unknown error.
            Failure::Elsewhere(Error::Etcd { code: 2, message })
                if message == "context deadline exceeded" =>
            {
                Ok(Part::Ended)
            }
            failure => Err(failure),
        };
    }
    let Some(result) = frame.result else {
        return Ok(Part::Nothing);
    };
    // Before `created`: a refused watch carries both.
    if result.canceled {
        if result.compact_revision > 0 {
            return Ok(Part::Whole(Frame::Compacted));
        }
        return canceled(&result.cancel_reason);
    }
    if result.created {
        let Header {
            revision,
            cluster_id: cluster,
            ..
        } = result.header;
        return Ok(Part::Whole(Frame::Created { revision, cluster }));
    }
    parts.reserve(result.events.len());
    for event in &result.events {
        parts.push(event.decode()?);
    }
    match (result.fragment, parts.is_empty()) {
        (true, _) => Ok(Part::More),
        (false, true) => Ok(Part::Nothing),
        (false, false) => Ok(Part::Whole(Frame::Events(std::mem::take(parts)))),
    }
}

/// `rpc error: code = Unauthenticated desc = etcdserver: invalid auth token`, and the like.
fn canceled(reason: &str) -> Result<Part, Failure> {
    let code = match reason {
        r if r.contains("Unauthenticated") || r.contains("invalid auth token") => 16,
        r if r.contains("auth store is old") || r.contains("user name is empty") => 3,
        r if r.contains("PermissionDenied") || r.contains("permission denied") => 7,
        _ => 14,
    };
    match classify(code, reason, "watch") {
        Failure::Unauthenticated => Ok(Part::BadToken),
        failure => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str, parts: &mut Vec<KvEvent>) -> Result<Part, Failure> {
        read(serde_json::from_str(json).unwrap(), parts)
    }

    #[test]
    fn canceled_counts_before_created() {
        let mut parts = Vec::new();
        let compacted = r#"{"result":{"created":true,"canceled":true,"compact_revision":"5"}}"#;
        assert!(matches!(
            one(compacted, &mut parts),
            Ok(Part::Whole(Frame::Compacted))
        ));
        let refused = r#"{"result":{"watch_id":"-1","created":true,"canceled":true,
            "cancel_reason":"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"}}"#;
        assert!(matches!(one(refused, &mut parts), Ok(Part::BadToken)));
        let denied = r#"{"result":{"created":true,"canceled":true,
            "cancel_reason":"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}"#;
        let error = one(denied, &mut parts).err().unwrap().into_error();
        assert!(matches!(
            error,
            Error::PermissionDenied { request: "watch" }
        ));
    }

    #[test]
    fn the_end_of_the_period_in_every_wording() {
        for code in [r#""grpc_code":4"#, r#""grpc_code":2"#, r#""code":4"#] {
            let json = format!(r#"{{"error":{{{code},"message":"context deadline exceeded"}}}}"#);
            assert!(
                matches!(one(&json, &mut Vec::new()), Ok(Part::Ended)),
                "{json}"
            );
        }
        let other = r#"{"error":{"grpc_code":2,"message":"etcdserver: stopped"}}"#;
        assert!(one(other, &mut Vec::new()).is_err());
    }

    #[test]
    fn parts_are_joined() {
        let mut parts = Vec::new();
        let put = |key: &str, fragment| {
            let fragment = if fragment { r#""fragment":true,"# } else { "" };
            format!(
                r#"{{"result":{{{fragment}"events":[{{"kv":{{"key":"{key}","mod_revision":"9"}}}}]}}}}"#
            )
        };
        assert!(matches!(
            one(&put("YQ==", true), &mut parts),
            Ok(Part::More)
        ));
        match one(&put("Yg==", false), &mut parts) {
            Ok(Part::Whole(Frame::Events(events))) => {
                assert_eq!(events.len(), 2);
                assert!(events.iter().all(|e| e.revision() == 9));
            }
            _ => panic!("the last part completes it"),
        }
        assert!(parts.is_empty());
    }

    #[test]
    fn g13_parts_count_as_long_as_they_are_held() {
        let part = r#"{"result":{"fragment":true,"events":[{"kv":{"key":"YQ=="}}]}}"#;
        for between in [r#"{"result":{"created":true}}"#, "{}"] {
            let mut messages = Messages::new(3 * part.len());
            let mut held = 0;
            let error = loop {
                messages.push(part.as_bytes());
                messages.push(between.as_bytes());
                match (messages.next(), messages.next()) {
                    (Ok(_), Ok(_)) => held += 1,
                    (Err(failure), _) => break failure.into_error(),
                    (_, Err(failure)) => panic!("{failure:?}"),
                }
                assert!(held <= 3);
            };
            assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        }
    }

    #[test]
    fn g13_an_event_is_about_a_key() {
        for events in ["{}", r#"{"kv":{}}"#, r#"{"type":"DELETE"}"#] {
            let json = format!(r#"{{"result":{{"events":[{events}]}}}}"#);
            let mut messages = Messages::new(100);
            messages.push(json.as_bytes());
            assert!(messages.next().is_err(), "{json}");
        }
    }

    #[test]
    fn g13_unknown_types_are_errors() {
        let odd = r#"{"result":{"events":[{"type":"MERGE","kv":{"key":"YQ=="}}]}}"#;
        assert!(one(odd, &mut Vec::new()).is_err());
        let bad = r#"{"result":{"events":[{"kv":{"key":"%%%"}}]}}"#;
        assert!(one(bad, &mut Vec::new()).is_err());
    }
}
