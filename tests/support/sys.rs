//! All `unsafe` of the tests is in this file.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns a child that can't outlive this process, not even when this process is killed.
///
/// The kernel ends such a child when the *thread* that forked it ends, and a test's thread ends with
/// the test. So all forking is done by one thread that lives as long as the process.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    die_with_parent(&mut command);
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread to spawn processes from");
        jobs
    });
    let (reply, answer) = mpsc::channel();
    spawner
        .send((command, reply))
        .expect("the spawner never ends");
    answer.recv().expect("the spawner answers every job")
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let before_exec = move || {
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl and getppid
        // are plain system calls, and building an error from a code doesn't allocate.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before prctl: then nobody would ever send the signal.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure keeps to what is allowed after a fork, see there.
    unsafe { command.pre_exec(before_exec) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// Sends a signal to a child. Behind SIGSTOP, the child really stands still: the signal itself
/// returns while other threads of the child still run, long enough to answer one more request.
pub fn signal(child: &mut Child, signal: i32) -> io::Result<()> {
    // Not reaped before, so the id is still its own, and can't become another's while borrowed.
    if child.try_wait()?.is_some() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the process has ended",
        ));
    }
    // SAFETY: kill takes two numbers and touches no memory of ours.
    if unsafe { libc::kill(child.id() as libc::pid_t, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if signal == libc::SIGSTOP {
        wait_stopped(child)
    } else {
        Ok(())
    }
}

fn wait_stopped(child: &Child) -> io::Result<()> {
    let give_up = Instant::now() + Duration::from_secs(5);
    while Instant::now() < give_up {
        // Only a look: the state stays there to be asked for again.
        let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: all-zero is a valid siginfo_t, live during the call; si_pid may be read because
        // waitid fills it in, or leaves it zero when there is nothing to tell.
        let (outcome, pid) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let outcome = libc::waitid(libc::P_PID, child.id(), &mut info, options);
            (outcome, info.si_pid())
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        if pid != 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "SIGSTOP didn't stop the process",
    ))
}

/// Waits for a child's end, but not longer than `bound`.
pub fn wait_child(child: &mut Child, bound: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        let status = child.try_wait()?;
        if status.is_some() || started.elapsed() >= bound {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port on 127.0.0.1 that stays ours, whether somebody listens on it or not.
///
/// The socket is bound but doesn't listen. So another listener with `SO_REUSEADDR` (what etcd sets)
/// can have the port, the kernel hands it to nobody else, a connect while the listener is down is
/// refused, and a client that retries for long can't happen to connect to itself.
pub struct ReservedPort {
    pub port: u16,
    // Elsewhere than on Linux a bound socket would keep the listener out.
    _held: Option<OwnedFd>,
}

impl ReservedPort {
    pub fn new() -> io::Result<ReservedPort> {
        let socket = tcp_socket()?;
        let on: libc::c_int = 1;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
        let mut address = loopback(0);
        let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        // SAFETY: `address` is a valid sockaddr_in, `length` its size, both outlive the calls.
        let failed = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) != 0
                || libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut length)
                    != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
        let port = u16::from_be(address.sin_port);
        Ok(ReservedPort {
            port,
            _held: cfg!(target_os = "linux").then_some(socket),
        })
    }
}

/// Starts to connect without waiting for the outcome: writable means done, `take_error` how it went.
pub fn connect_start(target: SocketAddr) -> io::Result<TcpStream> {
    let SocketAddr::V4(target) = target else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "tests stay on IPv4",
        ));
    };
    let stream = TcpStream::from(tcp_socket()?);
    stream.set_nonblocking(true)?;
    let mut address = loopback(target.port());
    address.sin_addr.s_addr = u32::from_ne_bytes(target.ip().octets());
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: `address` is a valid sockaddr_in of that length and outlives the call.
    if unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Closes a connection with RST instead of FIN: the other side sees "connection reset".
pub fn reset(stream: TcpStream) {
    reset_on_close(&stream);
}

/// The same, once the last handle of the connection is dropped.
pub fn reset_on_close(stream: &TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = set_option(stream, libc::SOL_SOCKET, libc::SO_LINGER, &at_once);
}

/// Whether `reset_on_close` was called for it.
pub fn resets_on_close(stream: &TcpStream) -> io::Result<bool> {
    let mut linger = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let mut length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: `linger` and `length` are live, and `length` is the size of `linger`.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw mut linger).cast(),
            &mut length,
        )
    };
    if outcome == 0 {
        Ok(linger.l_onoff != 0)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One descriptor to wait for, and afterwards what has become possible.
pub type PollFd = libc::pollfd;

pub fn poll_fd(fd: RawFd, events: i16) -> PollFd {
    PollFd {
        fd,
        events,
        revents: 0,
    }
}

/// Waits until one of `fds` is ready or the time is up; `None` waits without a bound.
pub fn poll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up: waking a fraction of a millisecond early would spin.
    let millis = timeout.map_or(-1, |t| {
        t.as_micros().div_ceil(1000).min(60_000) as libc::c_int
    });
    // SAFETY: the pointer and the length are those of one live slice.
    if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

fn tcp_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory involved; a descriptor that is not negative is fresh and owned by nobody.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // A child that inherits it would keep the connection or the port open.
    // SAFETY: fcntl with F_SETFD takes numbers only.
    match unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

fn loopback(port: u16) -> libc::sockaddr_in {
    // SAFETY: all-zero is a valid sockaddr_in.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address
}

fn set_option<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is live, and `length` is its size.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            length,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
