use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Instant;

use crossbeam_channel::Sender;
use serde_json::Value;

/// What a client has sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub text: String,
    /// The first JSON value of the body; `Null` where there is none.
    pub body: Value,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Until the client closes, or sends what no client of etcd's gateway should: a body without a
/// length is never answered by etcd either.
pub fn read_requests(client: &TcpStream, requests: &Sender<Request>) {
    let mut input = BufReader::new(client);
    while let Some(request) = read_request(&mut input) {
        if requests.send(request).is_err() {
            return;
        }
    }
}

fn read_request(input: &mut impl BufRead) -> Option<Request> {
    let first = read_line(input)?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let line = read_line(input)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        match name.as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => return None,
            _ => {}
        }
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let mut values = serde_json::Deserializer::from_str(&text).into_iter();
    let body = values.next().and_then(Result::ok).unwrap_or_default();
    Some(Request {
        at: Instant::now(),
        method,
        path,
        headers,
        text,
        body,
    })
}

fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    // No header comes near this; a client gone mad must not fill the memory.
    let count = input.by_ref().take(64 * 1024).read_line(&mut line).ok()?;
    if count == 0 || !line.ends_with('\n') {
        return None;
    }
    Some(line.trim_end().to_owned())
}
