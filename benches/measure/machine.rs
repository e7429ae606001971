//! Where it was measured.

use std::fs;
use std::process::Command;

use crate::Plan;
use crate::support::etcd::Etcd;

/// Lines for the head of the report.
pub fn describe(plan: &Plan) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("CPU unknown", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = release.split('.').take(2).collect();
    let kernel = kernel.join(".");
    let (major, minor, patch) = Etcd::options().version();
    let mut versions = vec![
        format!("etcd {major}.{minor}.{patch}, on the same machine, without fsync"),
        said("rustc", "--version"),
        format!("headcount {}", env!("CARGO_PKG_VERSION")),
    ];
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));
    versions.extend(locked(&lock.unwrap_or_default(), "ureq"));
    if plan.peers.is_some() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/Cargo.lock");
        let lock = fs::read_to_string(lock).unwrap_or_default();
        versions.extend(
            ["etcd-client", "tonic", "tokio"]
                .iter()
                .filter_map(|n| locked(&lock, n)),
        );
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    vec![
        format!("{cores} cores ({model}), Linux {kernel}; load before the start {load}"),
        versions.join(" · "),
    ]
}

/// A package and its version, from a lock file.
fn locked(lock: &str, name: &str) -> Option<String> {
    let at = lock.find(&format!("name = \"{name}\"\n"))?;
    let version = lock[at..].lines().nth(1)?.split('"').nth(1)?;
    Some(format!("{name} {version}"))
}

fn said(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(
        |_| format!("{program} unknown"),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}
