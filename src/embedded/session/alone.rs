//! A session of its own store and clock, for tests and for the fuzz target.

use std::time::Instant;

use super::Session;
use crate::embedded::reply::Header;
use crate::embedded::store::{Limits, Store};

/// What a client is sent that sends these pieces, reads at once, and then hangs up.
pub(in crate::embedded) fn serve<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let limits = Limits {
        revisions: 100,
        ..Limits::DEFAULT
    };
    let (mut store, mut session, mut out) = (Store::new(limits, 7), Session::new(), Vec::new());
    let now = Instant::now();
    for mut piece in pieces {
        while !piece.is_empty() {
            let room = session.connection.room().min(piece.len());
            if room == 0 {
                break;
            }
            let (taken, rest) = piece.split_at(room);
            piece = rest;
            session.connection.received(taken);
            session.answer(&mut store, Header::default(), now);
            drain(&mut session, &store, now, &mut out);
        }
    }
    session.hung_up();
    drain(&mut session, &store, now, &mut out);
    assert!(session.connection.is_over(), "it would never be closed");
    out
}

fn drain(session: &mut Session, store: &Store, now: Instant, out: &mut Vec<u8>) {
    loop {
        session.feed(store, now);
        let waits = session.connection.output();
        if waits.is_empty() {
            return;
        }
        out.extend_from_slice(waits);
        let count = waits.len();
        session.connection.sent(count);
    }
}
