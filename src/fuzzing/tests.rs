//! What the fuzzers start from, and what they have found, replayed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// All files of a folder of `tests/fuzz`, by name; none where it does not exist.
fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz")
        .join(folder)
        .join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&path)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    files
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = inputs("corpus", target);
    assert!(corpus.len() >= 10, "{target} has no corpus");
    for file in corpus.iter().chain(&inputs("found", target)) {
        let input = fs::read(file).expect("a file that can be read");
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&input)));
        assert!(outcome.is_ok(), "the input is {}", file.display());
    }
}

#[test]
fn g13_replay_frames() {
    replay("frames", super::frames);
}

#[test]
fn g13_replay_member() {
    replay("member", super::member);
}

#[test]
fn g13_replay_replies() {
    replay("replies", super::replies);
}

#[cfg(feature = "embedded")]
#[test]
fn g13_replay_registry() {
    replay("registry", super::registry);
}
