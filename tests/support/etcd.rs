mod binary;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use self::binary::{Version, default_binary, is_embedded, version_of};
use super::gateway::Gateway;
use super::sys::{self, ReservedPort};

/// Generous: the machine may be small and run other tests besides.
const START_BOUND: Duration = Duration::from_secs(30);
/// etcd 3.5 takes up to 7 s to end while a watch is open through its gateway.
const STOP_BOUND: Duration = Duration::from_secs(15);

/// One real etcd process with ports and a folder of its own, gone when this is dropped.
pub struct Etcd {
    options: Options,
    client: ReservedPort,
    peer: ReservedPort,
    metrics: ReservedPort,
    child: Mutex<Option<Child>>,
    /// Counts the wipes: each one makes another cluster.
    generation: AtomicU32,
    // Behind the child: first the process has to go, then the folder.
    dir: TempDir,
}

/// How an etcd is to be started.
#[derive(Clone)]
pub struct Options {
    binary: PathBuf,
    version: Version,
    embedded: bool,
    args: Vec<OsString>,
    https: bool,
    pub(super) name: String,
    /// Name and peer URL of every node, where there is more than one.
    nodes: Option<String>,
}

impl Options {
    /// An etcd other than the one that `HEADCOUNT_ETCD` or `tests/etcd.sh` provides.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Options {
        self.embedded = false;
        self.binary = path.into();
        self.version = version_of(&self.binary)
            .unwrap_or_else(|| panic!("{} is no etcd that runs here", self.binary.display()));
        self
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Options {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Options {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Clients are served over TLS.
    pub fn tls(mut self, certificate: &Path, key: &Path) -> Options {
        self.https = true;
        self.arg("--cert-file")
            .arg(certificate)
            .arg("--key-file")
            .arg(key)
    }

    /// With `tls`: clients need a certificate signed by this authority.
    pub fn client_ca(self, authority: &Path) -> Options {
        self.arg("--client-cert-auth")
            .arg("--trusted-ca-file")
            .arg(authority)
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Etcd {
        let mut tries = 3;
        loop {
            let etcd = self.clone().prepare();
            etcd.launch();
            match etcd.try_wait_ready(START_BOUND) {
                Ok(()) => return etcd,
                // The ports are reserved, so this ought not to happen; other systems than Linux
                // only reserve them until etcd starts.
                Err(why) if tries > 1 && why.contains("address already in use") => tries -= 1,
                Err(why) => panic!("{why}"),
            }
        }
    }

    /// Ports and a folder, but no process yet.
    #[track_caller]
    pub(super) fn prepare(self) -> Etcd {
        let port = || ReservedPort::new().expect("a free port on 127.0.0.1");
        let dir = tempfile::Builder::new().prefix("headcount-etcd-").tempdir();
        Etcd {
            options: self,
            client: port(),
            peer: port(),
            metrics: port(),
            child: Mutex::new(None),
            generation: AtomicU32::new(0),
            dir: dir.expect("a temporary folder"),
        }
    }
}

impl Etcd {
    /// A fresh etcd that answers.
    #[track_caller]
    pub fn start() -> Etcd {
        Etcd::options().start()
    }

    #[track_caller]
    pub fn options() -> Options {
        let (binary, version) = default_binary().clone();
        Options {
            binary,
            version,
            embedded: is_embedded(),
            args: vec![],
            https: false,
            name: "n0".into(),
            nodes: None,
        }
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.options.https { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Host and port, as a proxy wants it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client.port)
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer.port)
    }

    pub fn version(&self) -> Version {
        self.options.version
    }

    /// Whether its data outlive a restart.
    pub fn is_durable(&self) -> bool {
        !self.options.embedded
    }

    pub fn gateway(&self) -> Gateway {
        Gateway::new(self.endpoint())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.lock().as_ref().map(Child::id)
    }

    /// Asks it to end, and makes it end where it doesn't. The data stays.
    #[track_caller]
    pub fn stop(&self) {
        let mut slot = self.child.lock();
        let Some(mut child) = slot.take() else { return };
        let _ = sys::signal(&mut child, libc::SIGTERM);
        // One that is paused would not even hear that.
        let _ = sys::signal(&mut child, libc::SIGCONT);
        if sys::wait_child(&mut child, STOP_BOUND)
            .expect("wait for etcd")
            .is_none()
        {
            end(child);
        }
    }

    /// Ends it as a crash would: at once. The data stays.
    pub fn kill(&self) {
        if let Some(child) = self.child.lock().take() {
            end(child);
        }
    }

    /// Stops it if it runs, starts it again on the same ports and data, waits until it answers.
    #[track_caller]
    pub fn restart(&self) {
        self.stop();
        self.launch();
        self.wait_ready(START_BOUND);
    }

    /// The process stands still; its sockets stay open and its kernel still accepts connections.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    #[track_caller]
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    #[track_caller]
    pub fn signal(&self, signal: i32) {
        let mut slot = self.child.lock();
        let child = slot.as_mut().expect("etcd is running");
        sys::signal(child, signal).expect("signal etcd");
    }

    /// All data lost, same address: an empty store that starts at revision 1, with another cluster
    /// id. For a single node.
    #[track_caller]
    pub fn wipe(&self) {
        self.new_generation();
        self.wipe_in_place();
    }

    /// The same, but it comes back under the same id, as an etcd with the same flags does.
    #[track_caller]
    pub fn wipe_in_place(&self) {
        assert!(
            self.options.nodes.is_none(),
            "a node of a cluster can't be wiped alone"
        );
        self.forget();
        self.launch();
        self.wait_ready(START_BOUND);
    }

    /// It will come back under another id.
    pub(super) fn new_generation(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it, and all that it knew is gone.
    pub(super) fn forget(&self) {
        self.kill();
        if !self.options.embedded {
            fs::remove_dir_all(self.data()).expect("remove etcd's data");
        }
    }

    /// Makes it one node of a cluster, before its first start.
    pub(super) fn join(&mut self, nodes: String) {
        self.options.nodes = Some(nodes);
    }

    /// Starts the process and doesn't wait for it. Nothing happens if it runs.
    #[track_caller]
    pub fn launch(&self) {
        let mut slot = self.child.lock();
        if slot.is_none() {
            *slot = Some(sys::spawn(self.command()).expect("start etcd"));
        }
    }

    /// Waits until it answers reads, which takes a leader.
    #[track_caller]
    pub fn wait_ready(&self, bound: Duration) {
        if let Err(why) = self.try_wait_ready(bound) {
            panic!("{why}");
        }
    }

    /// Whether it answers reads right now.
    pub fn healthy(&self) -> bool {
        // By a port of its own, for it is plain HTTP whatever the clients are served.
        let port = match self.options.embedded {
            true => self.client.port,
            false => self.metrics.port,
        };
        let metrics = format!("http://127.0.0.1:{port}");
        let health = Gateway::with_timeout(metrics, Duration::from_secs(2)).try_get("/health");
        // The value is the string "true"; a server without a leader says "false" and 503.
        health.is_ok_and(|(status, body)| status == 200 && body["health"] == "true")
    }

    /// The end of what etcd has logged, without 3.4's complaints about being asked whether it is
    /// ready yet.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| !line.contains("/health error"))
            .collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn try_wait_ready(&self, bound: Duration) -> Result<(), String> {
        let started = Instant::now();
        loop {
            if self.healthy() {
                return Ok(());
            }
            let ended = match self.child.lock().as_mut() {
                Some(child) => child.try_wait().expect("wait for etcd"),
                None => return Err("etcd was never started".into()),
            };
            let why = match ended {
                Some(status) => format!("etcd ended with {status}"),
                None if started.elapsed() >= bound => format!("etcd isn't ready after {bound:?}"),
                None => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            return Err(format!("{why}; its log ends with\n{}", self.log_tail()));
        }
    }

    fn command(&self) -> Command {
        if self.options.embedded {
            return self.embedded();
        }
        let Options {
            binary,
            version,
            args,
            name,
            nodes,
            ..
        } = &self.options;
        let peer = self.peer_url();
        let generation = self.generation.load(Ordering::Relaxed);
        let nodes = nodes.clone().unwrap_or_else(|| format!("{name}={peer}"));
        // Tests that run at the same time must not be able to take each other for a member, and a
        // wiped etcd has to come back with another cluster id, which is made from this.
        let token = match self.options.nodes {
            Some(_) => format!("{nodes} {generation}"),
            None => format!("{peer} {generation}"),
        };
        let log = self.log_file();

        let mut command = Command::new(binary);
        // Settings in the environment count wherever there is no flag.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(key);
            }
        }
        if cfg!(target_arch = "aarch64") {
            // Before 3.5, etcd wants to be told that one means it.
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("etcd's log file, twice"))
            .stderr(log)
            .args([
                "--logger",
                "zap",
                "--log-outputs",
                "stderr",
                "--log-level",
                "error",
            ])
            .arg("--name")
            .arg(name)
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen-client-urls", &self.endpoint()])
            .args(["--advertise-client-urls", &self.endpoint()])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--listen-metrics-urls",
                &format!("http://127.0.0.1:{}", self.metrics.port),
            ])
            .args([
                "--initial-cluster",
                &nodes,
                "--initial-cluster-token",
                &token,
            ])
            .args(["--initial-cluster-state", "new"]);
        if *version >= (3, 5, 0) {
            command.arg("--unsafe-no-fsync");
        }
        command.args(args);
        command
    }

    /// The embedded registry in its place.
    fn embedded(&self) -> Command {
        let Options {
            binary,
            args,
            nodes,
            ..
        } = &self.options;
        assert!(
            args.is_empty() && nodes.is_none(),
            "this test needs an etcd: the embedded registry knows no {args:?}"
        );
        let mut command = Command::new(binary);
        command
            .args(["--listen", &self.address()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log_file());
        command
    }

    fn log_file(&self) -> fs::File {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log());
        log.expect("etcd's log file")
    }

    /// A copy of its data, taken while it was stopped.
    #[track_caller]
    pub fn backup(&self) -> TempDir {
        self.stop();
        let backup = tempfile::tempdir().expect("a folder");
        copy(&self.data(), backup.path());
        self.restart();
        backup
    }

    /// Goes back to it: the same cluster, whose revision is smaller than it was.
    #[track_caller]
    pub fn restore(&self, backup: &TempDir) {
        self.stop();
        fs::remove_dir_all(self.data()).expect("remove the data");
        copy(backup.path(), &self.data());
        self.restart();
    }

    /// Where its data is. Only to be touched while it is stopped.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("etcd.log")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// SIGKILL also ends a process that is paused.
fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).expect("a copy")),
        }
    }
}
