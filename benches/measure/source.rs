//! Where the HTTP candidates get their bytes from: an empty listing, then a watch stream that
//! begins when the bench says so. Either scripted, or etcd's own, passed through untouched.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::data;

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
    watched: Receiver<()>,
    go: Sender<()>,
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
    go: Receiver<()>,
}

impl Source {
    pub fn start(stream: Stream, revision: i64, cluster: u64) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (watched_tx, watched) = bounded(100);
        let (go, go_rx) = bounded(100);
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            stream,
            revision,
            cluster,
            watched: watched_tx,
            go: go_rx,
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
            watched,
            go,
            stop,
            acceptor: Some(acceptor),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits for a watch, then lets it have its stream.
    pub fn release(&self) {
        let bound = std::time::Duration::from_secs(20);
        self.watched.recv_timeout(bound).expect("somebody watches");
        self.go.send(()).expect("the source serves");
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
    let header = |revision| {
        let cluster = shared.cluster;
        format!(
            r#""header":{{"cluster_id":"{cluster}","member_id":"1","revision":"{revision}","raft_term":"2"}}"#
        )
    };
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
        if path != "/v3/watch" {
            // An empty listing; leases all live.
            let body = match path {
                "/v3/lease/timetolive" | "/v3/kv/lease/timetolive" => {
                    let header = header(shared.revision);
                    format!(
                        r#"{{{header},"ID":"{}","TTL":"9","grantedTTL":"10"}}"#,
                        data::LEASE
                    )
                }
                _ => format!("{{{}}}", header(shared.revision)),
            };
            write!(
                writer,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            continue;
        }
        let _ = shared.watched.try_send(());
        // Ends with the source where nobody says so.
        if shared.go.recv().is_err() {
            return Ok(());
        }
        if let Stream::Etcd(address) = &shared.stream {
            let mut etcd = TcpStream::connect(address)?;
            etcd.write_all(&head)?;
            etcd.write_all(&body)?;
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match etcd.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => writer.write_all(&buffer[..count])?,
                }
            }
        }
        let created = format!(
            r#"{{"result":{{{},"created":true}}}}"#,
            header(shared.revision)
        );
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{created}\r\n1\r\n\n\r\n",
            created.len()
        )?;
        match &shared.stream {
            Stream::Script(bytes) => writer.write_all(bytes)?,
            Stream::Live(bytes) => {
                for bytes in bytes {
                    writer.write_all(&bytes)?;
                }
            }
            Stream::Etcd(_) => unreachable!("was dealt with"),
        }
        // The client hangs up when it has seen the last change.
        let _ = reader.read(&mut [0; 1])?;
        return Ok(());
    }
}
