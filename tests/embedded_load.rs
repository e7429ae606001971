//! What the embedded registry can bear. Alone in its process, since it measures its memory.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use headcount::embedded::Registry;

use support::gateway::{Gateway, b64, int};
use support::load::rss_kib;

const SOON: Duration = Duration::from_secs(10);

/// A connection on which one put follows the other, as fast as they are answered.
struct Puts {
    socket: BufReader<TcpStream>,
}

impl Puts {
    fn to(registry: &Registry) -> Puts {
        let socket = TcpStream::connect(registry.address()).expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        let socket = BufReader::new(socket);
        Puts { socket }
    }

    fn put(&mut self, key: &str, value: &str) {
        let body = format!(r#"{{"key":"{}","value":"{value}"}}"#, b64(key));
        let length = body.len();
        let request = format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let socket = self.socket.get_mut();
        socket.write_all(request.as_bytes()).expect("it reads");
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            self.socket.read_line(&mut line).expect("it answers");
            assert_ne!(line, "", "it has closed the connection");
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).expect("the whole answer");
        assert!(body.starts_with(b"{\"header\""), "{body:?}");
    }
}

/// So many puts by each of two writers, while one watcher reads; how long the writers took.
fn puts(registry: &Registry, each: usize) -> Duration {
    let watch = Gateway::new(registry.endpoint()).watch_prefix("load/", 0);
    let (_, created) = watch.find(SOON, |line| line["result"]["created"] == true);
    let mut last = int(&created["result"]["header"]["revision"]);
    let until = last + 2 * each as i64;

    let started = Instant::now();
    std::thread::scope(|scope| {
        let writers = ["a", "b"].map(|writer| {
            let (mut puts, value) = (Puts::to(registry), b64([b'v'; 100]));
            scope.spawn(move || {
                for n in 0..each {
                    puts.put(&format!("load/{writer}/{}", n % 100), &value);
                }
                started.elapsed()
            })
        });
        while last < until {
            let (_, line) = watch.next(SOON).expect("one more");
            for event in line["result"]["events"].as_array().expect("events") {
                let revision = int(&event["kv"]["mod_revision"]);
                assert_eq!(revision, last + 1, "one after the other, none left out");
                last = revision;
            }
        }
        let took = writers.map(|writer| writer.join().expect("all were answered"));
        took.into_iter().max().expect("two of them")
    })
}

#[test]
fn puts_by_the_thousand_with_a_watcher_beside() {
    let registry = Registry::start().expect("a registry");
    let took = puts(&registry, 5_000);
    let rate = 10_000.0 / took.as_secs_f64();
    println!("{rate:.0} puts a second of 100 bytes by two writers, with one watcher");

    // 128 MiB: twice what history may hold.
    let before = rss_kib();
    let value = b64(vec![b'v'; 64 << 10]);
    let mut writer = Puts::to(&registry);
    for n in 0..2_048 {
        writer.put(&format!("load/{}", n % 100), &value);
    }
    let grown = rss_kib().saturating_sub(before) / 1024;
    println!("128 MiB put: memory grew by {grown} MiB");
    assert!(grown < 100, "memory grew by {grown} MiB");
}
