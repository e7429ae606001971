//! Where the HTTP candidates get their bytes from: an empty listing, then a watch stream that
//! begins when the bench says so. Either scripted, or etcd's own, passed through untouched.
//!
//! One source serves one job, so that nothing of one job can be taken for the next one's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

/// What a watch gets.
#[derive(Clone)]
pub enum Stream {
    /// These bytes, in chunks already.
    Script(Arc<Vec<u8>>),
    /// Bytes as they come, in chunks already.
    Live(Receiver<Vec<u8>>),
    /// What the etcd at this address sends.
    Etcd(String),
}

pub struct Source {
    port: u16,
    /// Gone once the watch has come: a second one fails to say so.
    watched: Option<Receiver<()>>,
    /// Nobody sends here: once it is dropped, every watch may have its stream.
    held: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    stream: Stream,
    /// The revision and the cluster of the empty listing.
    revision: i64,
    cluster: u64,
    watched: Sender<()>,
    held: Receiver<()>,
}

impl Source {
    pub fn start(stream: Stream, revision: i64, cluster: u64) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (watched_tx, watched) = bounded(1);
        let (hold, held) = bounded(0);
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            stream,
            revision,
            cluster,
            watched: watched_tx,
            held,
        };
        let stopped = Arc::clone(&stop);
        // Its connections end with their clients, which are child processes.
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || {
                    // A client that hangs up is done.
                    let _ = serve(&client, &shared);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Source {
            port,
            watched: Some(watched),
            held: Some(hold),
            stop,
            acceptor: Some(acceptor),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits for the watch, for which there has to be one.
    pub fn wait_watched(&mut self) {
        let watched = self.watched.take().expect("once");
        let bound = Duration::from_secs(60);
        watched.recv_timeout(bound).expect("somebody watches");
    }

    /// The watch gets its stream.
    pub fn release(&mut self) {
        self.held = None;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(client: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    let mut writer = client;
    let header = format!(
        r#""header":{{"cluster_id":"{}","member_id":"1","revision":"{}","raft_term":"2"}}"#,
        shared.cluster, shared.revision
    );
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let length = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = text.split(' ').nth(1).unwrap_or_default();
        if path == "/v3/watch" {
            break watch(shared, reader, [&head, &body], &header);
        }
        // An empty listing; leases all live.
        let body = match path {
            "/v3/lease/timetolive" => format!(r#"{{{header},"TTL":"9","grantedTTL":"10"}}"#),
            _ => format!("{{{header}}}"),
        };
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

/// Serves a watch until the client hangs up, as it does when it has seen the last change.
fn watch(
    shared: &Shared,
    mut reader: BufReader<&TcpStream>,
    request: [&[u8]; 2],
    header: &str,
) -> std::io::Result<()> {
    let mut writer = *reader.get_ref();
    if let Stream::Etcd(address) = &shared.stream {
        shared.await_release();
        let mut etcd = TcpStream::connect(address)?;
        etcd.write_all(&request.concat())?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match etcd.read(&mut buffer)? {
                0 => return Ok(()),
                count => writer.write_all(&buffer[..count])?,
            }
        }
    }
    let created = format!(r#"{{"result":{{{header},"created":true}}}}"#);
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{created}\r\n1\r\n\n\r\n",
        created.len()
    )?;
    shared.await_release();
    match &shared.stream {
        Stream::Script(bytes) => writer.write_all(bytes)?,
        Stream::Live(bytes) => {
            for bytes in bytes {
                writer.write_all(&bytes)?;
            }
        }
        Stream::Etcd(_) => unreachable!("was dealt with"),
    }
    let _ = reader.read(&mut [0; 1])?;
    Ok(())
}

impl Shared {
    fn await_release(&self) {
        if self.watched.try_send(()).is_err() {
            // What was measured so far is void, and the client would try for ever.
            eprintln!("a client has opened its watch again, in the middle of a measurement");
            std::process::exit(1);
        }
        // Disconnects.
        let _ = self.held.recv();
    }
}
