use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;
use serde_json::Value;

use super::sys;

/// One of the crate's examples as a process of its own, killed when this is dropped.
pub struct Example {
    name: String,
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    lines: Receiver<Line>,
    said: Arc<Mutex<Vec<Line>>>,
    complained: Arc<Mutex<String>>,
    /// They end with the process, which ends at the latest when this is dropped.
    readers: [JoinHandle<()>; 2],
}

/// One line of its standard output.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

impl Line {
    /// `Null` where the line isn't JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Example {
    #[track_caller]
    pub fn spawn<A: AsRef<str>>(name: &str, args: impl IntoIterator<Item = A>) -> Example {
        Example::spawn_with(name, args, &[])
    }

    /// `spawn`, with these environment variables besides the test's own.
    #[track_caller]
    pub fn spawn_with<A: AsRef<str>>(
        name: &str,
        args: impl IntoIterator<Item = A>,
        env: &[(&str, &str)],
    ) -> Example {
        let mut command = Command::new(example(name));
        for arg in args {
            command.arg(arg.as_ref());
        }
        command.envs(env.iter().copied());
        Example::run(name, command)
    }

    /// Any other program, handled in the same way.
    #[track_caller]
    pub fn run(name: &str, mut command: Command) -> Example {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = sys::spawn(command).unwrap_or_else(|why| panic!("start {name}: {why}"));
        let stdin = child.stdin.take();

        let (sender, lines) = unbounded();
        let said = Arc::new(Mutex::new(Vec::new()));
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let all = said.clone();
        let hears_output = std::thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                let line = Line {
                    at: Instant::now(),
                    text,
                };
                all.lock().push(line.clone());
                let _ = sender.send(line);
            }
        });
        let complained = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().expect("a pipe");
        let all = complained.clone();
        let hears_errors = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                all.lock()
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let (child, stdin) = (Mutex::new(child), Mutex::new(stdin));
        Example {
            name: name.into(),
            child,
            stdin,
            lines,
            said,
            complained,
            readers: [hears_output, hears_errors],
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().id()
    }

    /// Takes lines until one fits; those before it are gone for the next call.
    #[track_caller]
    pub fn wait_line(&self, bound: Duration, mut fits: impl FnMut(&Value) -> bool) -> Line {
        let give_up = Instant::now() + bound;
        loop {
            match self.lines.recv_deadline(give_up) {
                Ok(line) if fits(&line.json()) => return line,
                Ok(_) => {}
                Err(error) => panic!(
                    "no such line of {} within {bound:?} ({error}); it has said\n{}\n{}",
                    self.name,
                    self.output(),
                    self.errors()
                ),
            }
        }
    }

    /// The next line, if one comes in time.
    pub fn next_line(&self, bound: Duration) -> Option<Line> {
        self.lines.recv_timeout(bound).ok()
    }

    /// Everything it has written so far, `wait_line` or not.
    pub fn lines(&self) -> Vec<Line> {
        self.said.lock().clone()
    }

    pub fn output(&self) -> String {
        self.said
            .lock()
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect()
    }

    /// Its standard error so far.
    pub fn errors(&self) -> String {
        self.complained.lock().clone()
    }

    /// Writes one line to its standard input.
    #[track_caller]
    pub fn write_line(&self, line: &str) {
        let mut stdin = self.stdin.lock();
        let stdin = stdin.as_mut().expect("its standard input is still open");
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .expect("it reads its input");
    }

    pub fn close_stdin(&self) {
        self.stdin.lock().take();
    }

    /// `libc::SIGTERM`, `SIGKILL`, `SIGSTOP`, `SIGCONT`, …
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        if let Err(why) = sys::signal(&mut self.child.lock(), signal) {
            panic!("signal {signal} to {}: {why}", self.name);
        }
    }

    pub fn running(&self) -> bool {
        matches!(self.child.lock().try_wait(), Ok(None))
    }

    /// Until it has ended and all that it wrote is read.
    #[track_caller]
    pub fn wait_exit(&self, bound: Duration) -> ExitStatus {
        let give_up = Instant::now() + bound;
        loop {
            // Not locked for the whole time: a signal from another thread has to get through.
            let status = self.child.lock().try_wait().expect("wait for the example");
            match status {
                Some(status) if self.readers.iter().all(JoinHandle::is_finished) => return status,
                _ => {}
            }
            if Instant::now() >= give_up {
                panic!("{} runs on after {bound:?}:\n{}", self.name, self.errors());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The example's program, not older than its source.
///
/// A plain `cargo test` has built it already, with the right features. `cargo test --test …` hasn't:
/// testing what happens to lie there from yesterday would be worse than not testing at all.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    // target/<profile>/deps/<test> → target/<profile>/examples/<name>
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("a test lies in target/…/deps");
    let program = profile.join("examples").join(name);
    if !is_fresh(&program) {
        static BUILD: OnceLock<Result<(), String>> = OnceLock::new();
        if let Err(why) = BUILD.get_or_init(|| build(profile)) {
            panic!("{why}");
        }
    }
    assert!(
        program.is_file(),
        "there is no example {name} at {}",
        program.display()
    );
    program
}

/// With default features, the only ones a test can be sure of.
fn build(profile: &Path) -> Result<(), String> {
    let folder = profile
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("debug");
    let target = profile.parent().expect("a profile lies in a target folder");
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--examples"])
        .args(["--profile", if folder == "debug" { "dev" } else { folder }])
        .arg("--target-dir")
        .arg(target)
        .output()
        .map_err(|why| format!("run cargo: {why}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "the examples: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn is_fresh(program: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "examples", "Cargo.toml"].map(|name| newest(&root.join(name)));
    let built = fs::metadata(program).and_then(|data| data.modified());
    built.is_ok_and(|built| sources.into_iter().flatten().all(|source| source <= built))
}

fn newest(path: &Path) -> Option<SystemTime> {
    if path.is_dir() {
        let entries = fs::read_dir(path).ok()?.flatten();
        return entries.filter_map(|entry| newest(&entry.path())).max();
    }
    fs::metadata(path).and_then(|data| data.modified()).ok()
}
