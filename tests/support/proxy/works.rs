use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::super::sys::{self, ReservedPort};
use super::pair::{Broken, Pair};
use super::{Mode, Plan, Shared};

/// What the proxy's thread owns.
pub struct Works {
    shared: Arc<Shared>,
    woken: UnixStream,
    reserved: ReservedPort,
    listener: Option<TcpListener>,
    pairs: Vec<Pair>,
    cuts: u64,
}

impl Works {
    pub fn new(shared: Arc<Shared>, woken: UnixStream, reserved: ReservedPort) -> Works {
        let mut works = Works {
            shared,
            woken,
            reserved,
            listener: None,
            pairs: vec![],
            cuts: 0,
        };
        // Before the thread runs, so that the first client isn't refused.
        works.listen(Mode::Pass);
        works
    }

    pub fn run(mut self) {
        let mut fds = Vec::new();
        loop {
            let plan = self.obey();
            if plan.stop {
                return;
            }
            let now = Instant::now();
            fds.clear();
            fds.push(sys::poll_fd(self.woken.as_raw_fd(), libc::POLLIN));
            let listener = self
                .listener
                .as_ref()
                .map_or(-1, |listener| listener.as_raw_fd());
            fds.push(sys::poll_fd(listener, libc::POLLIN));
            for pair in &self.pairs {
                fds.extend(pair.interests(&plan, now));
            }
            let due = self
                .pairs
                .iter()
                .filter_map(|pair| pair.next_due(&plan, now))
                .min();
            if sys::poll(&mut fds, due.map(|due| due.saturating_duration_since(now))).is_err() {
                return;
            }
            let shared = self.shared.clone();
            let mut ready = fds[2..].chunks_exact(2);
            self.pairs.retain_mut(|pair| {
                let ready = ready.next().expect("two descriptors for each connection");
                match pair.step(&plan, &shared, ready[0].revents, ready[1].revents) {
                    Ok(()) => !pair.over(),
                    Err(Broken) => {
                        pair.reset();
                        false
                    }
                }
            });
            if fds[0].revents != 0 {
                while matches!(self.woken.read(&mut [0; 64]), Ok(1..)) {}
            }
            // Last: the new ones weren't part of this round.
            if fds[1].revents != 0 {
                self.accept(&plan);
            }
            self.shared.open.store(self.pairs.len(), Relaxed);
        }
    }

    /// Takes over what was asked for.
    fn obey(&mut self) -> Plan {
        let shared = self.shared.clone();
        let mut settings = shared.settings.lock();
        let plan = settings.plan;
        if plan.cuts != self.cuts {
            self.cuts = plan.cuts;
            self.pairs.drain(..).for_each(|pair| pair.reset());
            shared.open.store(0, Relaxed);
        }
        if plan.mode == Mode::BlackHole {
            self.pairs.iter_mut().for_each(Pair::darken);
        }
        self.listen(plan.mode);
        settings.seen = settings.asked;
        shared.in_force.notify_all();
        plan
    }

    fn listen(&mut self, mode: Mode) {
        if mode == Mode::Refuse {
            self.listener = None;
        } else if self.listener.is_none() {
            let listener = TcpListener::bind(("127.0.0.1", self.reserved.port));
            let listener = listener.expect("the reserved port is still ours");
            listener
                .set_nonblocking(true)
                .expect("a non-blocking listener");
            self.listener = Some(listener);
        }
    }

    fn accept(&mut self, plan: &Plan) {
        while let Some(Ok((client, _))) = self.listener.as_ref().map(TcpListener::accept) {
            self.shared.connections.fetch_add(1, Relaxed);
            let dark = plan.mode == Mode::BlackHole;
            let server = if dark {
                None
            } else {
                sys::connect_start(plan.target).ok()
            };
            if plan.mode == Mode::Reset || (!dark && server.is_none()) {
                sys::reset(client);
                continue;
            }
            let _ = client.set_nonblocking(true);
            let _ = client.set_nodelay(true);
            self.pairs.push(Pair::new(client, server, plan.cut_after));
        }
    }
}
