use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::super::sys::{self, PollFd};
use super::{Mode, Plan, Shared};

/// No more than this waits in memory per direction; then the sender feels it, as on a real network.
const QUEUE: usize = 256 * 1024;

/// One connection: the client's half, and the half to the target.
pub struct Pair {
    client: TcpStream,
    /// Absent where it was accepted into a black hole.
    server: Option<TcpStream>,
    connecting: bool,
    dark: bool,
    up: Lane,
    down: Lane,
    /// Bytes to the client until the reset.
    left: Option<u64>,
    header: HeaderEnd,
}

/// One direction of a connection.
#[derive(Default)]
struct Lane {
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued: usize,
    /// The sender has closed; and: the receiver has been told.
    ended: bool,
    told: bool,
}

/// The connection is to be reset.
pub struct Broken;

impl Pair {
    pub fn new(client: TcpStream, server: Option<TcpStream>, cut_after: Option<u64>) -> Pair {
        Pair {
            client,
            connecting: server.is_some(),
            dark: server.is_none(),
            server,
            up: Lane::default(),
            down: Lane::default(),
            left: cut_after,
            header: HeaderEnd::default(),
        }
    }

    /// What to wait for, on the client's half and on the target's. A descriptor of which nothing is
    /// wanted is left out: poll would go on reporting that it was closed.
    pub fn interests(&self, plan: &Plan, now: Instant) -> [PollFd; 2] {
        let mut wanted = [0; 2];
        if self.connecting {
            wanted[1] = libc::POLLOUT;
        } else if self.dark || plan.mode != Mode::Stall {
            for (lane, from, to) in [(&self.up, 0, 1), (&self.down, 1, 0)] {
                if lane.wants_input() {
                    wanted[from] |= libc::POLLIN;
                }
                // Into the dark nothing goes, not even the end.
                if !self.dark && lane.has_output(now) {
                    wanted[to] |= libc::POLLOUT;
                }
            }
        }
        let fds = [
            self.client.as_raw_fd(),
            self.server.as_ref().map_or(-1, |s| s.as_raw_fd()),
        ];
        [0, 1].map(|at| sys::poll_fd(if wanted[at] == 0 { -1 } else { fds[at] }, wanted[at]))
    }

    /// When delayed bytes become due, if any wait.
    pub fn next_due(&self, plan: &Plan, now: Instant) -> Option<Instant> {
        if plan.mode == Mode::Stall {
            return None;
        }
        let fronts = [&self.up, &self.down].map(|lane| lane.queue.front().map(|(due, _)| *due));
        fronts.into_iter().flatten().filter(|due| *due > now).min()
    }

    pub fn step(
        &mut self,
        plan: &Plan,
        shared: &Shared,
        client_ready: i16,
        server_ready: i16,
    ) -> Result<(), Broken> {
        if self.connecting {
            if server_ready != 0 {
                let server = self.server.as_ref().ok_or(Broken)?;
                if server.take_error().map_or(true, |error| error.is_some()) {
                    return Err(Broken);
                }
                let _ = server.set_nodelay(true);
                self.connecting = false;
            }
            return Ok(());
        }
        if client_ready != 0 {
            let header = &mut self.header;
            self.up.fill(&self.client, plan.delay, self.dark, |bytes| {
                let ends = header.count(bytes);
                shared.requests.fetch_add(ends, Relaxed);
                if let Some(arrivals) = &mut *shared.arrivals.lock() {
                    arrivals.resize(arrivals.len() + ends, Instant::now());
                }
            })?;
        }
        let Some(server) = &self.server else {
            return Ok(());
        };
        if server_ready != 0 {
            self.down.fill(server, plan.delay, self.dark, |_| ())?;
        }
        if self.dark || plan.mode == Mode::Stall {
            return Ok(());
        }
        let sent = self.up.drain(server, plan, None, None)?;
        shared.bytes_up.fetch_add(sent, Relaxed);
        let sent = self.down.drain(&self.client, plan, plan.chunk, self.left)?;
        shared.bytes_down.fetch_add(sent, Relaxed);
        if let Some(left) = &mut self.left {
            *left -= sent;
            if *left == 0 {
                return Err(Broken);
            }
        }
        Ok(())
    }

    pub fn darken(&mut self) {
        self.dark = true;
        for lane in [&mut self.up, &mut self.down] {
            lane.queue.clear();
            lane.queued = 0;
        }
    }

    /// Whether nobody is interested any more. In a black hole each side has to find out for itself.
    pub fn over(&self) -> bool {
        let server_done = self.server.is_none() || self.down.ended;
        if self.dark {
            self.up.ended && server_done
        } else {
            self.up.told && self.down.told
        }
    }

    pub fn reset(&self) {
        sys::reset_on_close(&self.client);
        if let Some(server) = &self.server {
            sys::reset_on_close(server);
        }
    }
}

impl Lane {
    fn wants_input(&self) -> bool {
        !self.ended && self.queued < QUEUE
    }

    fn has_output(&self, now: Instant) -> bool {
        match self.queue.front() {
            Some((due, _)) => *due <= now,
            None => self.ended && !self.told,
        }
    }

    /// Reads once.
    fn fill(
        &mut self,
        mut from: &TcpStream,
        delay: Duration,
        swallow: bool,
        saw: impl FnOnce(&[u8]),
    ) -> Result<(), Broken> {
        if !self.wants_input() {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        match from.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                saw(&buffer[..count]);
                if !swallow {
                    self.queue
                        .push_back((Instant::now() + delay, buffer[..count].to_vec()));
                    self.queued += count;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) if swallow => self.ended = true,
            Err(_) => return Err(Broken),
        }
        Ok(())
    }

    /// Writes once, what is due, and not more than `limit` bytes; says how many.
    fn drain(
        &mut self,
        mut to: &TcpStream,
        plan: &Plan,
        piece: Option<usize>,
        limit: Option<u64>,
    ) -> Result<u64, Broken> {
        if !self.has_output(Instant::now()) {
            return Ok(0);
        }
        let Some((due, bytes)) = self.queue.front_mut() else {
            self.told = true;
            let _ = to.shutdown(Shutdown::Write);
            return Ok(0);
        };
        let most = bytes.len().min(piece.unwrap_or(usize::MAX));
        let most = limit.map_or(most, |limit| most.min(limit as usize));
        match to.write(&bytes[..most]) {
            Ok(count) => {
                self.queued -= count;
                if count == bytes.len() {
                    self.queue.pop_front();
                } else {
                    bytes.drain(..count);
                    if piece.is_some() {
                        *due = Instant::now() + plan.delay;
                    }
                }
                Ok(count as u64)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(Broken),
        }
    }
}

/// Finds the empty line behind an HTTP header, wherever the reads happen to split it.
#[derive(Default)]
struct HeaderEnd {
    matched: usize,
}

impl HeaderEnd {
    fn count(&mut self, bytes: &[u8]) -> usize {
        let mut ends = 0;
        for &byte in bytes {
            self.matched = match byte {
                _ if byte == b"\r\n\r\n"[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == 4 {
                self.matched = 0;
                ends += 1;
            }
        }
        ends
    }
}
