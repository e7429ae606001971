mod request;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select, unbounded};
use parking_lot::Mutex;
use serde_json::Value;

pub use self::request::Request;
use self::request::read_requests;
use super::sys;
use super::wait::eventually;

/// An HTTP server that answers whatever a test wants, and remembers what it was asked.
pub struct FakeGateway {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

pub enum Reply {
    Json(u16, Value),
    Text(u16, String),
    /// Status, content type, body.
    Bytes(u16, String, Vec<u8>),
    /// Status 200 and a chunked body that is made up of these steps.
    Stream(Vec<StreamStep>),
    /// These bytes instead of HTTP, then the connection is closed.
    Raw(Vec<u8>),
    /// No answer; the connection stays open until the client closes it.
    Silence,
    /// No answer; the connection is reset.
    Reset,
}

pub enum StreamStep {
    /// One HTTP chunk.
    Send(Vec<u8>),
    Wait(Duration),
    /// Goes on at a message, or when nobody can send one any more.
    WaitFor(Receiver<()>),
    WaitUntilClosed,
    /// Does what it is sent, as it is sent, until the sender is gone or a step ends the stream.
    Live(Receiver<StreamStep>),
    /// Does nothing, but holds something until the stream ends, however it ends.
    Keep(Box<dyn std::any::Any + Send>),
    /// The proper end. Also what happens behind the last step.
    End,
    /// Resets the connection in the middle of the body.
    Abort,
}

impl StreamStep {
    /// One message as etcd frames it: a JSON object and a newline.
    pub fn line(message: &Value) -> StreamStep {
        StreamStep::Send(format!("{message}\n").into_bytes())
    }

    /// The same bytes in HTTP chunks of at most `size`.
    pub fn split(bytes: &[u8], size: usize) -> Vec<StreamStep> {
        bytes
            .chunks(size)
            .map(|piece| StreamStep::Send(piece.to_vec()))
            .collect()
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<(Weak<TcpStream>, JoinHandle<()>)>>,
    accepted: Mutex<usize>,
    stop: AtomicBool,
}

impl FakeGateway {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> FakeGateway {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            connections: Mutex::default(),
            accepted: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let inner = shared.clone();
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                if inner.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let _ = client.set_nodelay(true);
                let client = Arc::new(client);
                let weak = Arc::downgrade(&client);
                let shared = inner.clone();
                let served = std::thread::spawn(move || serve(client, &shared));
                *inner.accepted.lock() += 1;
                let mut connections = inner.connections.lock();
                connections.retain(|(_, thread)| !thread.is_finished());
                connections.push((weak, served));
            }
        });
        FakeGateway {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().clone()
    }

    /// How many requests there were for this path.
    pub fn count(&self, path: &str) -> usize {
        self.shared
            .requests
            .lock()
            .iter()
            .filter(|request| request.path == path)
            .count()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        *self.shared.accepted.lock()
    }

    /// The first request that fits, be it past or still to come.
    #[track_caller]
    pub fn wait_request(&self, bound: Duration, fits: impl Fn(&Request) -> bool) -> Request {
        eventually(bound, "a request to the fake gateway", || {
            self.shared
                .requests
                .lock()
                .iter()
                .find(|request| fits(request))
                .cloned()
        })
    }

    /// Resets all connections that exist now.
    pub fn cut(&self) {
        for (client, _) in &*self.shared.connections.lock() {
            if let Some(client) = client.upgrade() {
                abort(&client);
            }
        }
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let connections = std::mem::take(&mut *self.shared.connections.lock());
        for (client, _) in &connections {
            if let Some(client) = client.upgrade() {
                let _ = client.shutdown(Shutdown::Both);
            }
        }
        // A handler that doesn't return is the test's own fault, but must not hang it.
        let give_up = Instant::now() + Duration::from_secs(5);
        for (_, thread) in connections {
            while !thread.is_finished() && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Closes with RST: wakes our own reader without telling the client; the last handle that goes does
/// the rest.
fn abort(client: &TcpStream) {
    sys::reset_on_close(client);
    let _ = client.shutdown(Shutdown::Read);
}

/// The connection is at its end.
struct Closed;

struct Connection {
    client: Arc<TcpStream>,
    /// Disconnected when the client has closed, or the fake is dropped.
    closed: Receiver<()>,
}

/// One connection: this thread answers, another one reads, so that a close is seen at any time.
fn serve(client: Arc<TcpStream>, shared: &Shared) {
    let (requests, inbox) = unbounded();
    let (open, closed) = unbounded::<()>();
    let input = client.clone();
    let reader = std::thread::spawn(move || {
        read_requests(&input, &requests);
        drop(open);
    });
    let connection = Connection { client, closed };
    for request in inbox {
        shared.requests.lock().push(request.clone());
        let keep = request
            .header("connection")
            .is_none_or(|value| value != "close");
        if connection.reply((shared.handler)(&request)).is_err() || !keep {
            break;
        }
    }
    drop(connection);
    let _ = reader.join();
}

impl Drop for Connection {
    /// Also when a handler panics: the client must not wait for it. Nothing goes out here where the
    /// connection is to be reset.
    fn drop(&mut self) {
        let resets = matches!(sys::resets_on_close(&self.client), Ok(true));
        let how = if resets {
            Shutdown::Read
        } else {
            Shutdown::Both
        };
        let _ = self.client.shutdown(how);
    }
}

impl Connection {
    fn reply(&self, reply: Reply) -> Result<(), Closed> {
        match reply {
            Reply::Json(status, body) => {
                self.whole(status, "application/json", body.to_string().as_bytes())
            }
            Reply::Text(status, body) => self.whole(status, "text/plain", body.as_bytes()),
            Reply::Bytes(status, content_type, body) => self.whole(status, &content_type, &body),
            Reply::Stream(steps) => {
                self.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                      Transfer-Encoding: chunked\r\n\r\n",
                )?;
                for step in steps {
                    if self.step(step)? {
                        return Ok(());
                    }
                }
                self.write(b"0\r\n\r\n")
            }
            Reply::Raw(bytes) => {
                self.write(&bytes)?;
                Err(Closed)
            }
            Reply::Silence => self.until_closed(),
            Reply::Reset => {
                abort(&self.client);
                Err(Closed)
            }
        }
    }

    fn whole(&self, status: u16, content_type: &str, body: &[u8]) -> Result<(), Closed> {
        let mut answer = format!(
            "HTTP/1.1 {status} Fake\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(body);
        self.write(&answer)
    }

    /// Whether that was the proper end of the stream.
    fn step(&self, step: StreamStep) -> Result<bool, Closed> {
        match step {
            // An empty chunk would be the end of the body.
            StreamStep::Send(bytes) if bytes.is_empty() => {}
            StreamStep::Send(bytes) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                self.write(&chunk)?;
            }
            StreamStep::Wait(time) => {
                if self
                    .closed
                    .recv_timeout(time)
                    .is_err_and(|error| error.is_disconnected())
                {
                    return Err(Closed);
                }
            }
            StreamStep::WaitFor(signal) => select! {
                recv(signal) -> _ => {}
                recv(self.closed) -> _ => return Err(Closed),
            },
            StreamStep::WaitUntilClosed => self.until_closed()?,
            StreamStep::Keep(_) => {}
            StreamStep::Live(steps) => loop {
                select! {
                    recv(steps) -> step => match step {
                        Ok(step) => if self.step(step)? { return Ok(true) },
                        Err(_) => break,
                    },
                    recv(self.closed) -> _ => return Err(Closed),
                }
            },
            StreamStep::End => {
                self.write(b"0\r\n\r\n")?;
                return Ok(true);
            }
            StreamStep::Abort => {
                abort(&self.client);
                return Err(Closed);
            }
        }
        Ok(false)
    }

    fn until_closed(&self) -> Result<(), Closed> {
        let _ = self.closed.recv();
        Err(Closed)
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Closed> {
        (&*self.client).write_all(bytes).map_err(|_| Closed)
    }
}
