//! One client served, without its socket: what it sends goes in, what it is told comes out.

use std::time::Instant;

use super::api::{self, Answer};
use super::connection::Connection;
use super::refusal::Refusal;
use super::reply::{Header, error_line};
use super::store::Store;
use super::watches::Watches;

pub(super) struct Session {
    pub connection: Connection,
    stream: Option<Stream>,
}

struct Stream {
    watches: Watches,
    /// When it is to end.
    until: Option<Instant>,
}

impl Session {
    pub fn new() -> Self {
        Session {
            connection: Connection::new(),
            stream: None,
        }
    }

    /// Answers the requests that are whole.
    pub fn answer(&mut self, store: &mut Store, header: Header, now: Instant) {
        while let Some(request) = self.connection.request() {
            match api::answer(&request, store, header, now) {
                Answer::Whole {
                    status,
                    content_type,
                    body,
                } => self.connection.answer(status, content_type, &body),
                Answer::Watch { watches, period } => {
                    self.connection.stream();
                    let until = period.map(|period| now + period);
                    self.stream = Some(Stream { watches, until });
                }
            }
        }
    }

    /// Gives the stream what is new. Whether it has ended: what was sent behind the request for it
    /// has its turn then.
    pub fn feed(&mut self, store: &Store, now: Instant) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        while self.connection.takes_more() {
            match stream.watches.next(store, now) {
                Some(message) => self.connection.send(&message),
                None => break,
            }
        }
        let over = stream.until.is_some_and(|until| until <= now);
        if over {
            self.end(&Refusal::PERIOD_OVER);
        }
        over
    }

    /// The client sends nothing more. A stream ends with that; an answer is still sent.
    pub fn hung_up(&mut self) {
        if self.stream.is_some() {
            self.end(&Refusal::CANCELED);
        }
        self.connection.ended();
    }

    fn end(&mut self, why: &Refusal) {
        self.connection.send(&error_line(why));
        self.connection.end();
        self.stream = None;
    }

    pub fn is_streaming(&self) -> bool {
        self.stream.is_some()
    }

    /// When there is something to say by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stream = self.stream.as_ref()?;
        let progress = stream.watches.next_progress();
        [stream.until, progress].into_iter().flatten().min()
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod alone;
#[cfg(test)]
mod tests;
