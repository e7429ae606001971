use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

use super::{Gateway, after_prefix, agent_config, b64};

impl Gateway {
    /// A watch of everything below `prefix`, from a revision on (0: from now), with `prev_kv`.
    #[track_caller]
    pub fn watch_prefix(&self, prefix: &str, from: i64) -> Lines {
        let create = json!({ "create_request": {
            "key": b64(prefix), "range_end": b64(after_prefix(prefix)),
            "start_revision": from.to_string(), "prev_kv": true,
        }});
        self.stream("/v3/watch", &create)
    }

    /// Starts a streaming call; its lines arrive as they come. Panics if there is no answer.
    #[track_caller]
    pub fn stream(&self, path: &str, body: &Value) -> Lines {
        let bound = Duration::from_secs(10);
        match self.try_stream(path, &[], &body.to_string(), bound) {
            Ok(lines) => lines,
            Err(error) => panic!("{}{path}: {error}", self.endpoint),
        }
    }

    /// The same with any body and headers, waiting for the answer no longer than `bound`.
    pub fn try_stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        bound: Duration,
    ) -> Result<Lines, String> {
        // An agent of its own: shutting it down is what ends a blocked read.
        let agent = agent_config()
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(bound))
            .build()
            .new_agent();
        let mut request = agent.post(format!("{}{path}", self.endpoint));
        if let Some(token) = &*self.token.lock() {
            request = request.header("Authorization", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send(body).map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("Content-Type");
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut body = response.into_body().into_reader();
            let take = |line: &str| sender.send((Instant::now(), line.to_owned())).is_ok();
            read_lines(&mut body, take)
        });
        Ok(Lines {
            status,
            content_type,
            receiver,
            agent: Some(agent),
            reader: Some(reader),
        })
    }
}

/// The lines of a stream; dropping it closes the connection.
pub struct Lines {
    pub status: u16,
    pub content_type: String,
    receiver: mpsc::Receiver<(Instant, String)>,
    agent: Option<Agent>,
    reader: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

/// What a stream does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Line(String),
    /// Nothing came within the bound.
    Silence,
    /// The body is over, as HTTP wants it.
    End,
    /// The connection broke in the middle of the body.
    Broken,
}

impl Lines {
    /// The next line and when it came; `None` when the stream has ended or `bound` has passed.
    pub fn next(&self, bound: Duration) -> Option<(Instant, Value)> {
        let (at, line) = self.receiver.recv_timeout(bound).ok()?;
        Some((
            at,
            serde_json::from_str(&line).unwrap_or(Value::String(line)),
        ))
    }

    /// `next`, told apart: the line as it came, or how the stream ended.
    pub fn next_raw(&mut self, bound: Duration) -> Next {
        match self.receiver.recv_timeout(bound) {
            Ok((_, line)) => Next::Line(line),
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Silence,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                match self.reader.take().map(std::thread::JoinHandle::join) {
                    Some(Ok(Err(_))) => Next::Broken,
                    _ => Next::End,
                }
            }
        }
    }

    /// Skips lines until one fits.
    #[track_caller]
    pub fn find(&self, bound: Duration, mut fits: impl FnMut(&Value) -> bool) -> (Instant, Value) {
        let started = Instant::now();
        let mut seen = Vec::new();
        while let Some((at, line)) = self.next(bound.saturating_sub(started.elapsed())) {
            if fits(&line) {
                return (at, line);
            }
            seen.push(line.to_string());
        }
        panic!("no such line within {bound:?}; there were {seen:#?}");
    }

    /// Whether the server has ended the stream, waiting for that no longer than `bound`.
    pub fn ended(&self, bound: Duration) -> bool {
        let started = Instant::now();
        loop {
            match self
                .receiver
                .recv_timeout(bound.saturating_sub(started.elapsed()))
            {
                Ok(_) => {}
                Err(error) => return error == mpsc::RecvTimeoutError::Disconnected,
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Hands on line after line until the stream ends or `take` says no. What stands behind the last
/// newline is a line too: etcd sends errors without one.
pub fn read_lines(body: &mut dyn Read, mut take: impl FnMut(&str) -> bool) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut hand_on = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim().to_owned();
        line.clear();
        text.is_empty() || take(&text)
    };
    let outcome = loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) => count,
            Err(error) => break Err(error),
        };
        for piece in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") && !hand_on(&mut line) {
                return Ok(());
            }
        }
    };
    hand_on(&mut line);
    outcome
}
