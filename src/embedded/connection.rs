//! One client's connection: bytes to requests, answers to bytes. No I/O.

use std::time::Duration;

use ureq::http::{Method, Request as Head, Response};
use ureq_proto::server::state::{ProvideResponse, RecvBody, RecvRequest, SendBody};
use ureq_proto::server::{RecvRequestResult, Reply, SendResponseResult};

/// The most bytes of a request's line and headers.
const MOST_HEAD: usize = 64 << 10;
/// The most bytes of its body. etcd takes 1.5 MiB, and base64 makes it longer.
const MOST_BODY: usize = 4 << 20;
/// A stream is given no more while so many bytes wait to be sent.
const MOST_WAITING: usize = 256 << 10;

/// A request as it was received.
#[derive(Debug)]
pub(super) struct Request {
    pub path: Box<str>,
    pub is_get: bool,
    pub is_post: bool,
    pub body: Vec<u8>,
    /// The body was longer than what is kept.
    pub too_large: bool,
    /// From `Grpc-Timeout`: none where it is zero, or what can't be read.
    pub timeout: Result<Option<Duration>, Box<str>>,
}

pub(super) struct Connection {
    state: State,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output has been sent.
    sent: usize,
    /// The client wants the connection closed after the answer.
    last: bool,
}

enum State {
    Head,
    Body(Reply<RecvBody>, Request),
    /// A request was handed out: its answer is awaited.
    Asked(Reply<ProvideResponse>),
    Streaming(Reply<SendBody>),
    /// Nothing more is read; what waits is still sent.
    Closing,
}

/// Where reading has got to.
enum Step {
    Next(State),
    /// More bytes are needed.
    Wait(State),
    Whole(Reply<ProvideResponse>, Request),
    /// What came is no HTTP, or too much of it.
    Bad(&'static str),
}

impl Connection {
    pub fn new() -> Self {
        Connection {
            state: State::Head,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            last: false,
        }
    }

    // ---- from the client

    /// How many bytes more are taken now.
    pub fn room(&self) -> usize {
        match self.state {
            State::Closing => 0,
            _ => (2 * MOST_HEAD).saturating_sub(self.input.len()),
        }
    }

    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The client has closed its side. What it has asked for is still sent.
    pub fn ended(&mut self) {
        self.state = State::Closing;
    }

    /// Nothing can be sent any more.
    pub fn broken(&mut self) {
        self.state = State::Closing;
        self.output.clear();
        self.sent = 0;
    }

    /// The next request, once it is whole. It is to be answered before the next comes.
    pub fn request(&mut self) -> Option<Request> {
        loop {
            let step = match std::mem::replace(&mut self.state, State::Closing) {
                State::Head => self.read_head(),
                State::Body(reply, request) => self.read_body(reply, request),
                other => Step::Wait(other),
            };
            match step {
                Step::Next(state) => self.state = state,
                Step::Wait(state) => {
                    self.state = state;
                    return None;
                }
                Step::Whole(reply, request) => {
                    self.state = State::Asked(reply);
                    return Some(request);
                }
                Step::Bad(status) => {
                    let line = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
                         Connection: close\r\nContent-Length: {}\r\n\r\n{status}",
                        status.len()
                    );
                    self.output.extend_from_slice(line.as_bytes());
                    return None;
                }
            }
        }
    }

    fn read_head(&mut self) -> Step {
        if self.input.is_empty() {
            return Step::Wait(State::Head);
        }
        let Ok(mut reply) = Reply::<RecvRequest>::new() else {
            return Step::Bad("500 Internal Server Error");
        };
        let head = match reply.try_request(&self.input) {
            Ok((used, Some(head))) => {
                self.input.drain(..used);
                head
            }
            Ok((_, None)) if self.input.len() > MOST_HEAD => {
                return Step::Bad("431 Request Header Fields Too Large");
            }
            Ok((_, None)) => return Step::Wait(State::Head),
            Err(_) => return Step::Bad("400 Bad Request"),
        };
        let request = Request {
            path: head.uri().path().into(),
            is_get: head.method() == Method::GET,
            is_post: head.method() == Method::POST,
            body: Vec::new(),
            too_large: false,
            timeout: timeout(&head),
        };
        let headers = head.headers();
        self.last = headers
            .get("connection")
            .is_some_and(|value| value == "close");
        let encoding = headers.get("transfer-encoding");
        if encoding.is_some_and(|encoding| encoding != "chunked") {
            return Step::Bad("501 Not Implemented");
        }
        match reply.proceed() {
            Some(RecvRequestResult::RecvBody(reply)) => Step::Next(State::Body(reply, request)),
            Some(RecvRequestResult::ProvideResponse(reply)) => Step::Whole(reply, request),
            Some(RecvRequestResult::Send100(reply)) => {
                let mut line = [0; 64];
                match reply.accept(&mut line) {
                    Ok((count, reply)) => {
                        self.output.extend_from_slice(&line[..count]);
                        Step::Next(State::Body(reply, request))
                    }
                    Err(_) => Step::Bad("417 Expectation Failed"),
                }
            }
            None => Step::Bad("400 Bad Request"),
        }
    }

    fn read_body(&mut self, mut reply: Reply<RecvBody>, mut request: Request) -> Step {
        while !reply.is_ended() {
            let start = request.body.len();
            request.body.resize(start + self.input.len().max(1), 0);
            let read = reply.read(&self.input, &mut request.body[start..]);
            let Ok((used, written)) = read else {
                return Step::Bad("400 Bad Request");
            };
            self.input.drain(..used);
            request.body.truncate(start + written);
            if request.body.len() > MOST_BODY {
                // Read to its end all the same, or the client might never see the answer.
                request.too_large = true;
            }
            if request.too_large {
                request.body = Vec::new();
            }
            if used == 0 && written == 0 && !reply.is_ended() {
                return Step::Wait(State::Body(reply, request));
            }
        }
        match reply.proceed() {
            Ok(reply) => Step::Whole(reply, request),
            Err(_) => Step::Bad("400 Bad Request"),
        }
    }

    // ---- to the client

    /// Answers the request at hand.
    pub fn answer(&mut self, status: u16, content_type: &str, body: &[u8]) {
        match self.begin(status, content_type, Some(body.len())) {
            Some(SendResponseResult::SendBody(mut reply)) => {
                self.write(&mut reply, body);
                self.finish(reply);
            }
            // To a HEAD.
            Some(SendResponseResult::Cleanup(reply)) => self.done(reply.must_close_connection()),
            None => {}
        }
    }

    /// Answers the request at hand with a stream.
    pub fn stream(&mut self) {
        if let Some(SendResponseResult::SendBody(reply)) = self.begin(200, "application/json", None)
        {
            self.state = State::Streaming(reply);
        }
    }

    /// One more message of the stream.
    pub fn send(&mut self, message: &[u8]) {
        match std::mem::replace(&mut self.state, State::Closing) {
            State::Streaming(mut reply) => {
                self.write(&mut reply, message);
                self.state = State::Streaming(reply);
            }
            other => self.state = other,
        }
    }

    /// Ends the stream in good order.
    pub fn end(&mut self) {
        match std::mem::replace(&mut self.state, State::Closing) {
            State::Streaming(reply) => self.finish(reply),
            other => self.state = other,
        }
    }

    fn begin(
        &mut self,
        status: u16,
        content_type: &str,
        length: Option<usize>,
    ) -> Option<SendResponseResult> {
        let State::Asked(reply) = std::mem::replace(&mut self.state, State::Closing) else {
            return None;
        };
        let response = Response::builder().status(status);
        let mut response = response.header("content-type", content_type);
        if self.last {
            response = response.header("connection", "close");
        }
        if let Some(length) = length {
            response = response.header("content-length", length);
        }
        let mut reply = reply.provide(response.body(()).ok()?).ok()?;
        let start = self.output.len();
        self.output.resize(start + 1024, 0);
        let written = reply.write(&mut self.output[start..]).unwrap_or(0);
        self.output.truncate(start + written);
        Some(reply.proceed())
    }

    fn write(&mut self, reply: &mut Reply<SendBody>, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let start = self.output.len();
            // A chunk's length and line ends come on top.
            self.output.resize(start + bytes.len() + 64, 0);
            let written = reply.write(bytes, &mut self.output[start..]);
            let (used, written) = written.unwrap_or((bytes.len(), 0));
            self.output.truncate(start + written);
            bytes = &bytes[used..];
        }
    }

    fn finish(&mut self, mut reply: Reply<SendBody>) {
        let mut last = [0; 16];
        let (_, written) = reply.write(&[], &mut last).unwrap_or((0, 0));
        self.output.extend_from_slice(&last[..written]);
        let close = !reply.is_finished() || reply.proceed().must_close_connection();
        self.done(close);
    }

    fn done(&mut self, close: bool) {
        self.state = match close {
            true => State::Closing,
            false => State::Head,
        };
    }

    /// Bytes to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            // What one large answer needed is not kept.
            self.output.shrink_to(MOST_WAITING);
        }
    }

    /// Whether the stream takes another message now.
    pub fn takes_more(&self) -> bool {
        matches!(self.state, State::Streaming(_)) && self.output().len() < MOST_WAITING
    }

    /// The client has to send or to take something before this can go on.
    pub fn is_waiting(&self) -> bool {
        match self.state {
            State::Body(..) => true,
            State::Head if !self.input.is_empty() => true,
            _ => !self.output().is_empty(),
        }
    }

    /// All is said: the connection can be closed.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closing) && self.output().is_empty()
    }
}

/// `60S`, and in hours, minutes, milli-, micro- and nanoseconds.
fn timeout(head: &Head<()>) -> Result<Option<Duration>, Box<str>> {
    let Some(value) = head.headers().get("grpc-timeout") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let read = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let one = match unit {
            "H" => Duration::from_secs(3600),
            "M" => Duration::from_secs(60),
            "S" => Duration::from_secs(1),
            "m" => Duration::from_millis(1),
            "u" => Duration::from_micros(1),
            "n" => Duration::from_nanos(1),
            _ => return None,
        };
        one.checked_mul(number.parse().ok()?)
    };
    match (text.is_empty(), read()) {
        (true, _) | (_, Some(Duration::ZERO)) => Ok(None),
        (_, Some(time)) => Ok(Some(time)),
        (_, None) => Err(text.as_ref().into()),
    }
}
