//! `tests/README.md` says which test covers what. This holds it true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> String {
    fs::read_to_string(root().join("tests/README.md")).expect("the table")
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests that a text names: file and function.
fn named(text: &str) -> Vec<(&str, &str)> {
    let names = quoted(text).filter_map(|word| word.split_once("::"));
    names.filter(|(_, test)| *test != "…").collect()
}

/// A file, or the files of the folder of that name.
fn sources(file: &str) -> Vec<String> {
    let file = match file.starts_with("src/") {
        true => root().join(file),
        false => root().join("tests").join(file),
    };
    let folder = fs::read_dir(&file).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.path()).collect();
    files.push(file.with_extension("rs"));
    let read = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    read.collect()
}

/// Whether there is a test of that name, and not just a function.
fn is_test(file: &str, test: &str) -> bool {
    let head = format!("fn {test}(");
    sources(file).iter().any(|source| {
        let at = source.find(&head);
        let before = at.map(|at| source[..at].trim_end());
        before.is_some_and(|before| {
            let attributes = before.lines().rev();
            let mut attributes = attributes.take_while(|line| line.trim().starts_with("#["));
            attributes.any(|line| line.trim() == "#[test]")
        })
    })
}

/// The rows below a heading, by their first cell.
fn rows<'a>(table: &'a str, heading: &str) -> BTreeMap<&'a str, &'a str> {
    let (_, rest) = table.split_once(&format!("## {heading}\n")).expect(heading);
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let lines = section.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = lines.filter_map(|line| line.split_once(" | "));
    cells.map(|(first, rest)| (first.trim(), rest)).collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let table = table();
    let named = named(&table);
    assert!(named.len() > 200, "{} tests named", named.len());
    for (file, test) in named {
        assert!(is_test(file, test), "{file}::{test} is no test");
    }
}

#[test]
fn what_is_no_test_is_seen() {
    assert!(is_test("table", "what_is_no_test_is_seen"));
    assert!(!is_test("table", "is_test"), "a function, but no test");
    assert!(!is_test("table", "what_is_no_test_is"));
    assert!(!is_test("no_such_file", "what_is_no_test_is_seen"));
}

#[test]
fn every_row_has_a_test() {
    let table = table();
    for (heading, count) in [
        ("What goes wrong in the field", 25),
        ("Where Pitaya's own discovery is weak", 15),
        ("Compatibility with Pitaya", 7),
    ] {
        let rows = rows(&table, heading);
        for row in 1..=count {
            let row = row.to_string();
            let cells = rows
                .get(&*row)
                .unwrap_or_else(|| panic!("{heading}: no {row}"));
            assert!(!named(cells).is_empty(), "{heading}: no test in row {row}");
        }
    }
}

#[test]
fn every_guarantee_is_enforced_where_it_says_and_its_tests_bear_its_number() {
    let table = table();
    let rows = rows(&table, "Guarantees");
    for number in 1..=13 {
        let cells = rows[&*format!("G{number}")];
        let named = named(cells);
        assert!(!named.is_empty(), "G{number} has no test");
        for (file, test) in named {
            let bears = test.split('_').any(|word| word == format!("g{number}"));
            assert!(bears, "{file}::{test} does not say G{number}");
        }
        let files: Vec<&str> = quoted(cells).filter(|word| word.ends_with(".rs")).collect();
        assert!(!files.is_empty(), "where is G{number} enforced?");
        for file in files {
            let source = fs::read_to_string(root().join(file)).expect(file);
            assert!(
                source.contains(&format!("G{number}")),
                "{file}: no G{number}"
            );
        }
    }
}

#[test]
fn every_file_of_tests_is_in_a_suite() {
    let table = table();
    let (_, suites) = table.split_once("## How to run each").expect("the suites");
    let files = fs::read_dir(root().join("tests")).expect("the tests");
    for file in files {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|end| end == "rs") {
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.expect("a name");
            assert!(
                quoted(suites).any(|word| word == name),
                "{name} is in no suite"
            );
        }
    }
}
