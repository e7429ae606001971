mod pair;
mod works;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::works::Works;
use super::sys::ReservedPort;

/// A TCP proxy that can be told to misbehave while it runs.
///
/// One thread does it all, woken by the kernel: no fault comes late because a thread was asleep, and
/// an idle proxy costs nothing. Every method that changes something returns when it is in force.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards.
    Pass,
    /// Holds everything back, and forwards it once the mode is `Pass` again.
    Stall,
    /// Accepts, swallows whatever comes from either side, closes nothing. A connection that has
    /// been in a black hole never recovers: what was swallowed is lost.
    BlackHole,
    /// New connections are refused, as if nobody listened. Those that exist go on.
    Refuse,
    /// New connections are accepted and reset at once. Those that exist go on.
    Reset,
}

struct Shared {
    settings: Mutex<Settings>,
    in_force: Condvar,
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    /// When each came, if anybody wants to know.
    arrivals: Mutex<Option<Vec<Instant>>>,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

struct Settings {
    plan: Plan,
    /// Changes asked for, and those the thread has seen.
    asked: u64,
    seen: u64,
}

#[derive(Clone, Copy)]
struct Plan {
    mode: Mode,
    target: SocketAddr,
    delay: Duration,
    chunk: Option<usize>,
    cut_after: Option<u64>,
    cuts: u64,
    stop: bool,
}

impl Proxy {
    /// In front of `host:port` (a leading `http://` is fine), passing everything on.
    #[track_caller]
    pub fn start(target: &str) -> Proxy {
        let reserved = ReservedPort::new().expect("a free port");
        let port = reserved.port;
        let plan = Plan {
            mode: Mode::Pass,
            target: address(target),
            delay: Duration::ZERO,
            chunk: None,
            cut_after: None,
            cuts: 0,
            stop: false,
        };
        let shared = Arc::new(Shared {
            settings: Mutex::new(Settings {
                plan,
                asked: 0,
                seen: 0,
            }),
            in_force: Condvar::new(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            arrivals: Mutex::new(None),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        });
        let (wake, woken) = UnixStream::pair().expect("a pair of sockets");
        woken.set_nonblocking(true).expect("a non-blocking socket");
        let works = Works::new(shared.clone(), woken, reserved);
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || works.run());
        Proxy {
            port,
            shared,
            wake,
            thread: Some(thread.expect("a thread")),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn set_mode(&self, mode: Mode) {
        self.change(|plan| plan.mode = mode);
    }

    /// Forwards, with every fault taken back; connections from a black hole stay dead.
    pub fn pass(&self) {
        self.change(|plan| {
            plan.mode = Mode::Pass;
            plan.delay = Duration::ZERO;
            plan.chunk = None;
            plan.cut_after = None;
        });
    }

    pub fn black_hole(&self) {
        self.set_mode(Mode::BlackHole);
    }

    pub fn refuse(&self) {
        self.set_mode(Mode::Refuse);
    }

    pub fn stall(&self) {
        self.set_mode(Mode::Stall);
    }

    /// Resets all connections that exist now.
    pub fn cut(&self) {
        self.change(|plan| plan.cuts += 1);
    }

    /// Everything, in both directions, arrives that much later; the order stays.
    pub fn delay(&self, delay: Duration) {
        self.change(|plan| plan.delay = delay);
    }

    /// What goes to the client is written in pieces of at most `size` bytes, each with the delay
    /// of its own. `None` writes as it comes.
    pub fn chunk(&self, size: impl Into<Option<usize>>) {
        let size = size.into();
        assert_ne!(size, Some(0), "pieces of nothing");
        self.change(|plan| plan.chunk = size);
    }

    /// Connections made from now on are reset after that many bytes to the client.
    pub fn cut_after(&self, bytes: impl Into<Option<u64>>) {
        let bytes = bytes.into();
        self.change(|plan| plan.cut_after = bytes);
    }

    /// Where connections made from now on lead.
    pub fn set_target(&self, target: &str) {
        let target = address(target);
        self.change(|plan| plan.target = target);
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Relaxed)
    }

    /// How many of them exist now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// How many HTTP requests clients have sent, counted by the ends of their headers.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Relaxed)
    }

    /// From now on, notes when each request comes.
    pub fn note_arrivals(&self) {
        *self.shared.arrivals.lock() = Some(vec![]);
    }

    /// When each of them came, in order.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.shared.arrivals.lock().clone().unwrap_or_default()
    }

    /// Bytes forwarded from clients.
    pub fn bytes_up(&self) -> u64 {
        self.shared.bytes_up.load(Relaxed)
    }

    /// Bytes forwarded to clients.
    pub fn bytes_down(&self) -> u64 {
        self.shared.bytes_down.load(Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Plan)) {
        let mut settings = self.shared.settings.lock();
        change(&mut settings.plan);
        settings.asked += 1;
        let asked = settings.asked;
        let _ = (&self.wake).write(&[1]);
        let give_up = Instant::now() + Duration::from_secs(5);
        while settings.seen < asked {
            let late = self
                .shared
                .in_force
                .wait_until(&mut settings, give_up)
                .timed_out();
            assert!(
                !late || settings.seen >= asked,
                "the proxy's thread is gone"
            );
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.settings.lock().plan.stop = true;
        let _ = (&self.wake).write(&[1]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn address(target: &str) -> SocketAddr {
    let target = target
        .trim_start_matches("http://")
        .trim_start_matches("https://");
    target
        .parse()
        .unwrap_or_else(|_| panic!("not a host and port: {target:?}"))
}
