//! A candidate at work: a process of its own that says `ready`, then what it has measured.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::process::Example;

/// No job takes longer.
const BOUND: Duration = Duration::from_secs(300);

/// Who does the job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The gateway's bytes, read and thrown away.
    Raw,
    /// ureq and serde: frames, keys and values, nothing more.
    Minimal,
    Headcount,
    /// etcd-client on a tokio runtime of one thread.
    Single,
    /// etcd-client on tokio's default runtime.
    Multi,
}

impl Who {
    pub const ALL: [Who; 5] = [
        Who::Raw,
        Who::Minimal,
        Who::Headcount,
        Who::Single,
        Who::Multi,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Who::Raw => "raw gateway stream",
            Who::Minimal => "minimal ureq + serde",
            Who::Headcount => "Headcount",
            Who::Single => "etcd-client, 1 thread",
            Who::Multi => "etcd-client, tokio's default",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Who::Raw => "raw",
            Who::Minimal => "minimal",
            Who::Headcount => "headcount",
            Who::Single => "single",
            Who::Multi => "multi",
        }
    }

    pub fn is_async(self) -> bool {
        matches!(self, Who::Single | Who::Multi)
    }
}

/// Who can be measured here, of those.
pub fn able(peers: Option<&Path>, of: &[Who]) -> Vec<Who> {
    of.iter()
        .copied()
        .filter(|who| !who.is_async() || peers.is_some())
        .collect()
}

pub struct Job(Example);

impl Job {
    /// Starts `who` on a job; its arguments are `name=value`.
    pub fn start(peers: Option<&Path>, who: Who, job: &str, args: &[(&str, String)]) -> Job {
        let own = std::env::current_exe().expect("this program's path");
        let mut command = match who.is_async() {
            true => Command::new(peers.expect("only who is able is asked")),
            false => Command::new(own),
        };
        command.args(["role", job, who.word()]);
        command.args(args.iter().map(|(name, value)| format!("{name}={value}")));
        Job(Example::run(who.name(), command))
    }

    pub fn wait_ready(&self) {
        self.0.wait_line(BOUND, |line| line["ready"] == true);
    }

    pub fn go(&self) {
        self.0.write_line("go");
    }

    pub fn result(self) -> Value {
        let line = self.0.wait_line(BOUND, |line| line["done"] == true);
        self.0.wait_exit(BOUND);
        line.json()
    }

    /// With the seconds from `began` until it was done.
    pub fn result_since(self, began: u64) -> Value {
        let mut result = self.result();
        let took = result["at"].as_u64().expect("a time") - began;
        result["wall"] = (took as f64 * 1e-9).into();
        result
    }
}
