//! The watch stream: opened at a revision, read message by message.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use ureq::BodyReader;

use super::client::{Client, Limits};
use super::failure::{Failure, transport};
use super::messages::{Frame, Messages, Part};
use super::wire;
use crate::error::Error;

const PATH: &str = "/v3/watch";
/// Messages that have come together are passed on together, up to so many events: waking
/// listeners for each would cost more than all the rest.
const TOGETHER: usize = 1000;

/// A read waits for a part of the silence that is allowed, so that what came in vain does not begin
/// it anew.
const READS: u32 = 10;

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

/// Does not ask for `fragment`: etcd measures all of a part again for each event that it adds, so
/// that a long catch-up costs it several times the CPU. What comes in parts is joined all the same,
/// by [`Messages`].
#[derive(Serialize)]
struct Create<'a> {
    #[serde(serialize_with = "wire::as_base64")]
    key: &'a [u8],
    #[serde(serialize_with = "wire::as_base64")]
    range_end: &'a [u8],
    start_revision: i64,
}

/// An open watch. Dropping it closes its connection, unless it was read to its end.
pub(crate) struct WatchStream<'a> {
    client: &'a Client,
    endpoint: Arc<str>,
    body: BodyReader<'static>,
    messages: Messages,
    /// Read already, but not to be passed on with what came before it.
    next: Option<Result<Option<Part>, Failure>>,
    chunk: Box<[u8]>,
    silence: Duration,
    /// When the last message that tells something was whole.
    told: Instant,
}

impl Client {
    /// Opens a watch at the current endpoint.
    pub fn watch(&self, request: &WatchRequest) -> Result<WatchStream<'_>, Failure> {
        let body = serde_json::to_vec(&Request {
            create_request: Create {
                key: request.from,
                range_end: request.to,
                start_revision: request.start_revision,
            },
        })
        .expect("requests are plain data");
        let limits = Limits {
            connect: request.connect,
            answer: request.answer,
            total: None,
            read: Some(request.silence / READS),
            setting: "stall_bound",
            period: Some(request.period),
        };
        let answer = self.ask(PATH, &body, limits)?;
        Ok(WatchStream {
            client: self,
            endpoint: answer.endpoint,
            body: answer.response.into_body().into_reader(),
            messages: Messages::new(self.shared.max_frame_bytes),
            next: None,
            chunk: vec![0; 64 * 1024].into(),
            silence: request.silence,
            told: Instant::now(),
        })
    }
}

impl WatchStream<'_> {
    /// The next message; `None` when the server has ended the stream in good order. Blocks for
    /// `silence` at most.
    pub fn next(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            let part = self.next.take().unwrap_or_else(|| self.messages.next());
            match part? {
                Some(Part::Whole(frame)) => {
                    self.told = Instant::now();
                    return Ok(Some(self.together(frame)));
                }
                Some(Part::More) => {
                    self.told = Instant::now();
                    continue;
                }
                Some(Part::Nothing) => continue,
                Some(Part::BadToken) => return Err(self.client.token_refused()),
                Some(Part::Ended) => {
                    // Read to its end the connection can be used again.
                    let _ = self.fill()?;
                    return Ok(None);
                }
                None => {}
            }
            // Bytes that never come to anything are no sign of life.
            if self.told.elapsed() >= self.silence {
                return Err(self.late());
            }
            let count = match self.fill() {
                Err(Failure::Elsewhere(Error::Timeout { .. })) => continue,
                other => other?,
            };
            if count == 0 {
                return match self.messages.is_between() {
                    true => Ok(None),
                    false => {
                        let reason = "the watch stream ends in the middle of a frame".into();
                        Err(Failure::Elsewhere(Error::Protocol { reason }))
                    }
                };
            }
        }
    }

    /// Nothing came in time, or not the whole of something.
    fn late(&self) -> Failure {
        let error = Error::Timeout {
            endpoint: Arc::clone(&self.endpoint),
            limit: "stall_bound",
            after: self.silence,
        };
        match self.messages.is_between() {
            true => Failure::Elsewhere(error),
            false => Failure::Unfinished(error),
        }
    }

    /// Adds the events of what has come already.
    fn together(&mut self, frame: Frame) -> Frame {
        let Frame::Events(mut events) = frame else {
            return frame;
        };
        while events.len() < TOGETHER && self.next.is_none() {
            match self.messages.next() {
                Ok(Some(Part::Whole(Frame::Events(more)))) => events.extend(more),
                Ok(None) => break,
                other => self.next = Some(other),
            }
        }
        Frame::Events(events)
    }

    /// Reads what has come; 0 at the end of the stream.
    fn fill(&mut self) -> Result<usize, Failure> {
        let count = self.body.read(&mut self.chunk).map_err(|e| {
            let silence = ("stall_bound", self.silence);
            transport(&self.endpoint, e.into(), silence, self.silence)
        })?;
        self.messages.push(&self.chunk[..count]);
        Ok(count)
    }
}
