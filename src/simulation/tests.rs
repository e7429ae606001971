//! Fresh seeds each time, and the proof that the checks can fail.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::bug::Bug;
use super::dice::Dice;
use super::{Summary, run, simulate};

/// A minute of churn.
const TICKS: u64 = 3000;
const SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    )
}

/// `HEADCOUNT_SEEDS` of them; or the one `HEADCOUNT_SEED`, with its trace.
#[test]
fn fresh_seeds() {
    let ticks = number("HEADCOUNT_TICKS").unwrap_or(TICKS);
    if let Some(seed) = number("HEADCOUNT_SEED") {
        let done = simulate(seed, ticks, None, &mut |line| println!("{}", line()));
        println!("{done:#?}");
        run(seed, ticks, None).unwrap_or_else(|failure| panic!("{failure}"));
        return;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let base = number("HEADCOUNT_BASE").unwrap_or(now.as_nanos() as u64);
    let seeds = number("HEADCOUNT_SEEDS").unwrap_or(SEEDS);
    println!("{seeds} seeds of {ticks} ticks from base {base}");
    let (started, mut all, mut failed) = (Instant::now(), Summary::default(), 0);
    let mut dice = Dice::seeded(base);
    for n in 1..=seeds {
        match run(dice.0.next(), ticks, None) {
            Ok(summary) => all.add(summary),
            Err(failure) => {
                println!("{failure}");
                failed += 1;
            }
        }
        if n % 1000 == 0 || n == seeds {
            println!(
                "{n} seeds, {failed} failed, in {:?}: {all:?}",
                started.elapsed()
            );
        }
        assert!(failed < 10, "{failed} of {n} seeds failed");
    }
    assert_eq!(failed, 0);
    assert!(all.changes > 20 * seeds, "too little happens: {all:?}");
}

#[test]
fn the_same_seed_runs_the_same_way() {
    let trace = |seed| {
        let mut trace = Vec::new();
        let done = simulate(seed, 1000, None, &mut |line| trace.push(line()));
        (format!("{done:?}"), trace)
    };
    for seed in 0..3 {
        let (one, other) = (trace(seed), trace(seed));
        assert!(one.1.len() > 50, "{} lines", one.1.len());
        assert_eq!(one, other);
    }
}

/// The checks are worth something only if they can fail: each bug is found within some hundred
/// seeds, and named by its guarantee.
#[test]
fn every_known_bug_is_found() {
    let mut wrong = Vec::new();
    for (bug, guarantees) in Bug::ALL {
        let found = (0..400).find_map(|seed| run(seed, TICKS, Some(bug)).err());
        let Some(found) = found else {
            wrong.push(format!("{bug:?} is never found"));
            continue;
        };
        let (guarantee, what) = (found.violation.guarantee, &found.violation.what);
        println!("{bug:?}: {guarantee} at seed {}: {what}", found.seed);
        if !guarantees.contains(&guarantee) {
            wrong.push(format!("{bug:?} is named {guarantee}: {what}"));
        }
        let again = run(found.seed, TICKS, Some(bug)).err();
        assert_eq!(again.as_ref(), Some(&found), "it fails in another way");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
