//! (h) What it takes to build.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{labelled, samples};
use crate::Plan;
use crate::report::{Report, Section};

pub fn run(plan: &Plan, report: &mut Report) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rounds = plan.pick(2, 1);
    let own = format!("headcount = {{ path = {:?} }}", root.display().to_string());
    let minimal = "ureq = { version = \"~3.5.2\", default-features = false }\n\
                   serde = { version = \"1\", features = [\"derive\"] }\n\
                   serde_json = \"1\"\nbase64 = \"0.23\"";
    let heavy = "etcd-client = \"0.21\"\n\
                 tokio = { version = \"1\", features = [\"rt-multi-thread\"] }";
    let locks = [
        root.join("Cargo.lock"),
        root.join("benches/peers/Cargo.lock"),
    ];
    let mut candidates = vec![
        ("minimal ureq + serde", minimal, &locks[0]),
        ("Headcount, without TLS", own.as_str(), &locks[0]),
    ];
    if plan.peers.is_some() {
        candidates.push(("etcd-client + tokio", heavy, &locks[1]));
    }
    let mut took = vec![Vec::new(); candidates.len()];
    let mut crates = vec![0; candidates.len()];
    for round in 0..rounds {
        for (at, (name, dependencies, lock)) in candidates.iter().enumerate() {
            // The slow one once: it is far enough from the others.
            if round > 0 && at == 2 {
                continue;
            }
            plan.progress(&format!("building {name}, round {} of {rounds}", round + 1));
            let (count, seconds) = build(dependencies, lock, plan.brief);
            crates[at] = count;
            took[at].extend(seconds);
        }
    }
    let about = "A cold release build of an empty program that depends on it, two jobs at a time; \
                 etcd-client needs protoc besides."
        .into();
    let mut section = Section::new("build", "h. Building", about);
    section.head = vec!["", "crates", "cold release build, s"];
    section.plot = ("Cold release build".into(), "s");
    for (at, (name, ..)) in candidates.iter().enumerate() {
        let time = said(&took[at]);
        let row = vec![(*name).into(), crates[at].to_string(), time];
        section.rows.push(row);
        if !took[at].is_empty() {
            let bar = labelled((*name).into(), &took[at], at == 1);
            section.bars.push(bar);
        }
    }
    let count = crates[1];
    section.target('h', "≤ 30 crates", count.to_string(), count <= 30);
    if !took[1].is_empty() {
        let measured = format!("{} s", said(&took[1]));
        let target = "≤ 25 s cold release build without TLS";
        let met = samples(&took[1]).median() <= 25.0;
        section.target('h', target, measured, met);
    }
    report.add(section);
}

fn said(took: &[f64]) -> String {
    match took {
        [] => "not measured".into(),
        _ => samples(took).spread(1),
    }
}

/// How many crates it takes, and how long it builds; a brief run only asks for the first.
fn build(dependencies: &str, lock: &Path, brief: bool) -> (usize, Option<f64>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let manifest = format!(
        "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{dependencies}\n"
    );
    fs::create_dir(folder.join("src")).expect("a folder");
    fs::write(folder.join("src/main.rs"), "fn main() {}\n").expect("a file");
    fs::write(folder.join("Cargo.toml"), manifest).expect("a file");
    // The same versions as in the rest of the bench.
    fs::copy(lock, folder.join("Cargo.lock")).expect("a lock file");
    // Nothing is to be fetched while the clock runs.
    cargo(folder, &["fetch"]);
    let tree = ["tree", "-e", "normal", "--prefix", "none", "--no-dedupe"];
    let listed = cargo(folder, &tree);
    let all: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split(" (").next())
        .filter(|line| !line.trim().is_empty())
        .collect();
    let seconds = (!brief).then(|| {
        let began = Instant::now();
        cargo(folder, &["build", "--release", "--offline", "-j2"]);
        began.elapsed().as_secs_f64()
    });
    // Without the empty program itself.
    (all.len() - 1, seconds)
}

/// Runs cargo in a folder, with a target folder there; what it said.
fn cargo(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(folder);
    command.env("CARGO_TARGET_DIR", folder.join("target"));
    let output = command.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
