//! The watch stream: opened at a revision, read frame by frame.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use ureq::BodyReader;

use super::client::{Client, Limits};
use super::failure::{Failure, WireError, classify, transport};
use super::frames::Frames;
use super::wire::{self, Header, WireKv, number};
use crate::error::Error;
use crate::kv::KvEvent;

const PATH: &str = "/v3/watch";

/// What to watch, and how long nothing may come.
pub(crate) struct WatchRequest<'a> {
    pub from: &'a [u8],
    pub to: &'a [u8],
    pub start_revision: i64,
    /// etcd ends the stream after this long; it is then opened anew on the same connection. So a
    /// stream that stays silent for longer is dead, and a revoked permission stops delivering.
    pub period: Duration,
    /// Bound on connecting.
    pub connect: Duration,
    /// Bound on the wait for an answer then.
    pub answer: Duration,
    /// Bound on silence, and on what is no whole message; above `period`.
    pub silence: Duration,
}

#[derive(Serialize)]
struct Request<'a> {
    create_request: Create<'a>,
}

#[derive(Serialize)]
struct Create<'a> {
    #[serde(serialize_with = "wire::as_base64")]
    key: &'a [u8],
    #[serde(serialize_with = "wire::as_base64")]
    range_end: &'a [u8],
    start_revision: i64,
    /// Big responses come in parts; [`WatchStream`] joins them.
    fragment: bool,
}

/// One message of the stream.
#[derive(Debug)]
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

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireEvent<'a> {
    #[serde(rename = "type", borrow)]
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
                reason: format!("an event of type {other:?}"),
            }),
        }
    }
}

/// An open watch. Dropping it closes its connection, unless it was read to its end.
pub(crate) struct WatchStream<'a> {
    client: &'a Client,
    endpoint: Arc<str>,
    body: BodyReader<'static>,
    frames: Frames,
    chunk: Box<[u8]>,
    silence: Duration,
    /// When the last message that tells something was whole.
    told: Instant,
    /// Parts of a response whose end has not come yet, and their size on the wire.
    parts: Vec<KvEvent>,
    parts_bytes: usize,
}

impl Client {
    /// Opens a watch at the current endpoint.
    pub fn watch(&self, request: &WatchRequest) -> Result<WatchStream<'_>, Failure> {
        let body = serde_json::to_vec(&Request {
            create_request: Create {
                key: request.from,
                range_end: request.to,
                start_revision: request.start_revision,
                fragment: true,
            },
        })
        .expect("requests are plain data");
        let limits = Limits {
            connect: request.connect,
            answer: request.answer,
            total: None,
            read: Some(request.silence),
            setting: "stall_bound",
            period: Some(request.period),
        };
        let answer = self.ask(PATH, &body, limits)?;
        Ok(WatchStream {
            client: self,
            endpoint: answer.endpoint,
            body: answer.response.into_body().into_reader(),
            frames: Frames::new(self.shared.max_frame_bytes),
            chunk: vec![0; 64 * 1024].into(),
            silence: request.silence,
            told: Instant::now(),
            parts: Vec::new(),
            parts_bytes: 0,
        })
    }
}

impl WatchStream<'_> {
    /// The next message; `None` when the server has ended the stream in good order. Blocks for
    /// `silence` at most.
    pub fn next(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            if let Some(bytes) = self.frames.next()? {
                let size = bytes.len();
                let frame: WireFrame =
                    serde_json::from_slice(bytes).map_err(|e| Error::Protocol {
                        reason: format!("a frame of the watch stream: {e}"),
                    })?;
                match read(frame, &mut self.parts)? {
                    Part::Whole(frame) => {
                        self.parts_bytes = 0;
                        self.told = Instant::now();
                        return Ok(Some(frame));
                    }
                    Part::Nothing => continue,
                    Part::More => {
                        self.told = Instant::now();
                        self.parts_bytes += size;
                        let limit = self.client.shared.max_frame_bytes;
                        if self.parts_bytes > limit {
                            return Err(Error::TooLarge { limit }.into());
                        }
                        continue;
                    }
                    Part::BadToken => return Err(self.client.token_refused()),
                    Part::Ended => {
                        // Read to its end the connection can be used again.
                        let _ = self.fill()?;
                        return Ok(None);
                    }
                }
            }
            // Bytes that never come to anything are no sign of life.
            if self.told.elapsed() > self.silence {
                return Err(Failure::Elsewhere(Error::Timeout {
                    endpoint: Arc::clone(&self.endpoint),
                    limit: "stall_bound",
                    after: self.silence,
                }));
            }
            let count = self.fill()?;
            if count == 0 {
                return match self.frames.is_between() && self.parts.is_empty() {
                    true => Ok(None),
                    false => {
                        let reason = "the watch stream ends in the middle of a frame".into();
                        Err(Failure::Elsewhere(Error::Protocol { reason }))
                    }
                };
            }
        }
    }

    /// Reads what has come; 0 at the end of the stream.
    fn fill(&mut self) -> Result<usize, Failure> {
        let count = self.body.read(&mut self.chunk).map_err(|e| {
            let silence = ("stall_bound", self.silence);
            transport(&self.endpoint, e.into(), silence, self.silence)
        })?;
        self.frames.push(&self.chunk[..count]);
        Ok(count)
    }
}

enum Part {
    Whole(Frame),
    /// A part of a response; the rest follows.
    More,
    /// A message that tells nothing.
    Nothing,
    BadToken,
    /// The period that we asked for is over.
    Ended,
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
    fn g13_unknown_types_are_errors() {
        let odd = r#"{"result":{"events":[{"type":"MERGE","kv":{"key":"YQ=="}}]}}"#;
        assert!(one(odd, &mut Vec::new()).is_err());
        let bad = r#"{"result":{"events":[{"kv":{"key":"%%%"}}]}}"#;
        assert!(one(bad, &mut Vec::new()).is_err());
    }
}
