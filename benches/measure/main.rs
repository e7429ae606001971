//! What Headcount costs and how fast it is, beside what a user would pick instead.
//!
//! Everything runs in one go, the candidates in turn, each job in a process of its own, so that
//! its CPU time and its memory are its own. `benches/run.sh` builds the peers and runs it.

#[path = "../../tests/support/mod.rs"]
mod support;

mod child;
mod data;
mod machine;
mod plot;
mod report;
mod roles;
mod source;
mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use report::Report;

/// How much of everything.
pub struct Plan {
    /// Only see that it works.
    pub brief: bool,
    /// Names of the workloads to run; all where it is empty.
    pub only: Vec<String>,
    /// The program with the async peers, if it was built.
    pub peers: Option<PathBuf>,
    pub started: Instant,
}

impl Plan {
    /// The first for a real run, the second for a brief one.
    pub fn pick<T>(&self, full: T, brief: T) -> T {
        if self.brief { brief } else { full }
    }

    pub fn progress(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == name)
    }
}

type Workload = fn(&Plan, &mut Report);

/// In the order of the report.
const WORKLOADS: [(&str, Workload); 8] = [
    ("replay", work::replay::run),
    ("live", work::live::run),
    ("listing", work::listing::run),
    ("fanout", work::fanout::run),
    ("ends", work::ends::run),
    ("shutdown", work::shutdown::run),
    ("server", work::server::run),
    ("build", work::build::run),
];

fn main() {
    let mut plan = Plan {
        brief: false,
        only: Vec::new(),
        peers: std::env::var_os("HEADCOUNT_PEERS").map(PathBuf::from),
        started: Instant::now(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "role" => return roles::run(args.collect()),
            "--brief" => plan.brief = true,
            // What cargo itself passes on.
            "--bench" => {}
            name if WORKLOADS.iter().any(|(known, _)| *known == name) => {
                plan.only.push(name.to_owned());
            }
            other => {
                let names: Vec<_> = WORKLOADS.iter().map(|(name, _)| *name).collect();
                eprintln!(
                    "{other:?} is neither --brief nor one of {}",
                    names.join(", ")
                );
                std::process::exit(2);
            }
        }
    }
    let mut report = Report::new(machine::describe(&plan));
    for (name, workload) in WORKLOADS {
        if plan.wants(name) {
            workload(&plan, &mut report);
        }
    }
    println!("{}", report.text());
    // Only where no workload was left out, so that all of it is of one run.
    let folder = match plan.only.is_empty() && !plan.brief {
        true => concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results"),
        false => concat!(env!("CARGO_TARGET_TMPDIR"), "/measure"),
    };
    report.write(Path::new(folder));
    eprintln!("written to {folder}");
}
