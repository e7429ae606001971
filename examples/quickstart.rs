//! The main job from nothing: fetches etcd if need be, starts it, starts member processes and
//! watches them join, change, leave and die. Takes some seconds.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use headcount::{Cluster, Event};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TTL: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    env_logger::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, endpoint, server_type, id] = &args[..] {
        assert_eq!(
            role, "member",
            "the first argument is for this program's own use"
        );
        return member(endpoint, server_type, id);
    }

    let etcd = Etcd::start(&etcd_binary()?)?;
    println!("etcd runs at {}\n", etcd.endpoint);
    let started = Instant::now();
    let cluster = Cluster::builder().endpoints([&etcd.endpoint]).start()?;
    let mut story = Story {
        events: cluster.subscribe(),
        started,
    };

    story.until("Synced")?;
    let mut gate = Member::start(&etcd.endpoint, "gate", "gate-1")?;
    story.until("AddMember gate/gate-1")?;
    let mut room = Member::start(&etcd.endpoint, "room", "room-1")?;
    story.until("AddMember room/room-1")?;

    story.tell("room-1 changes its metadata");
    room.say("load=high\n")?;
    story.until("UpdateMember room/room-1")?;

    story.tell("gate-1 leaves");
    gate.say("leave\n")?;
    story.until("RemoveMember gate/gate-1")?;

    story.tell("room-1 is killed, and started again under its name");
    room.0.kill()?;
    room.0.wait()?;
    let mut room = Member::start(&etcd.endpoint, "room", "room-1")?;
    story.until("ServerDown room/room-1")?;
    story.until("AddMember room/room-1")?;

    story.tell("room-1 is killed for good; its lease has to run out");
    room.0.kill()?;
    room.0.wait()?;
    story.until("ServerDown room/room-1")?;

    let stats = cluster.stats();
    println!(
        "\nall came as it should: {} events, {} members left",
        stats.events, stats.members
    );
    cluster.leave()?;
    Ok(())
}

/// What a member process does: registers, and obeys its standard input.
fn member(endpoint: &str, server_type: &str, id: &str) -> Result<()> {
    let cluster = Cluster::builder()
        .endpoints([endpoint])
        .member(server_type, id)
        .ttl(TTL)
        .start()?;
    for line in std::io::stdin().lines() {
        match line?.split_once('=') {
            Some(pair) => cluster.update_metadata([pair])?,
            None => break,
        }
    }
    cluster.leave()?;
    Ok(())
}

/// Prints what is told until the expected comes.
struct Story {
    events: Receiver<Event>,
    started: Instant,
}

impl Story {
    fn tell(&self, what: &str) {
        println!("{:>7.3}s  -- {what}", self.started.elapsed().as_secs_f64());
    }

    fn until(&mut self, expected: &str) -> Result<()> {
        let deadline = Instant::now() + TTL + Duration::from_secs(10);
        loop {
            let event = self
                .events
                .recv_deadline(deadline)
                .map_err(|e| format!("waiting for {expected}: {e}"))?;
            println!("{:>7.3}s  {event}", self.started.elapsed().as_secs_f64());
            if event.to_string().starts_with(expected) {
                return Ok(());
            }
        }
    }
}

/// A process of its own, so that it can be killed.
struct Member(Child);

impl Member {
    fn start(endpoint: &str, server_type: &str, id: &str) -> Result<Member> {
        let child = Command::new(std::env::current_exe()?)
            .args(["member", endpoint, server_type, id])
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Member(child))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.0.stdin.as_mut().ok_or("its input is closed")?;
        Ok(input.write_all(line.as_bytes())?)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An etcd with a data folder of its own.
struct Etcd {
    process: Child,
    endpoint: String,
    _folder: tempfile::TempDir,
}

impl Etcd {
    fn start(binary: &Path) -> Result<Etcd> {
        let folder = tempfile::tempdir()?;
        let (client, peer) = (free_address()?, free_address()?);
        let endpoint = format!("http://{client}");
        let process = Command::new(binary)
            .arg("--data-dir")
            .arg(folder.path())
            .args([
                "--listen-client-urls",
                &endpoint,
                "--advertise-client-urls",
                &endpoint,
            ])
            .args([
                "--listen-peer-urls",
                &format!("http://{peer}"),
                "--log-level",
                "error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Etcd {
            process,
            endpoint,
            _folder: folder,
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that the kernel picks.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The etcd that the tests use, fetched first where it is missing; or the one on the PATH.
fn etcd_binary() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let fetched = target.join("etcd/new/etcd");
    if !fetched.exists() {
        println!("fetching etcd ...");
        let script = root.join("tests/etcd.sh");
        let mut fetch = Command::new("bash")
            .arg(script)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(output) = &mut fetch.stdout {
            output.read_to_string(&mut said)?;
        }
        if !fetch.wait()?.success() {
            return Ok("etcd".into());
        }
    }
    Ok(fetched)
}
