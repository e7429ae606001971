//! What does a port speak? etcd hangs up on whoever comes with the wrong scheme, without a word.
//!
//! All of it within `limit`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Whether it answers a message that no server expects with an alert.
pub(super) fn speaks_tls(address: &SocketAddr, limit: Duration) -> io::Result<bool> {
    const HELLO_REQUEST: [u8; 9] = [22, 3, 1, 0, 4, 0, 0, 0, 0];
    const ALERT: u8 = 21;
    Ok(first_byte(address, &HELLO_REQUEST, limit)? == ALERT)
}

pub(super) fn speaks_http(address: &SocketAddr, limit: Duration) -> io::Result<bool> {
    let request = b"GET /version HTTP/1.0\r\n\r\n";
    Ok(first_byte(address, request, limit)? == b'H')
}

fn first_byte(address: &SocketAddr, request: &[u8], limit: Duration) -> io::Result<u8> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(address, limit)?;
    let left = limit.saturating_sub(started.elapsed());
    // Zero is an error, as it should be.
    stream.set_read_timeout(Some(left))?;
    stream.write_all(request)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    Ok(first[0])
}
