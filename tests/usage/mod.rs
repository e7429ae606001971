//! What this process uses while it does the same thing over and over, and whether that grows.

use std::fmt;
use std::time::{Duration, Instant};

use crate::support::load::{open_files, rss_kib, threads};

/// How often it is looked at; a quarter of the looks each are the beginning and the end.
const LOOKS: usize = 40;

/// From the first quarter to the last, by their medians, no more than this. What is lost once in a
/// hundred rounds shows at 10,000 as 75 threads or files.
const THREADS: usize = 2;
const FILES: usize = 2;
/// An allocator's pools settle late; 10,000 rounds that lose 200 bytes each are beyond it.
const MEMORY_KIB: usize = 1536;

/// Threads, open files, KiB of memory.
type Usage = [usize; 3];

#[derive(Debug)]
pub struct Course {
    rounds: usize,
    took: Duration,
    first: Usage,
    last: Usage,
}

impl Course {
    /// So many rounds, after a tenth more to warm up.
    pub fn of(rounds: usize, mut round: impl FnMut(usize)) -> Course {
        let warm_up = rounds.div_ceil(10);
        (0..warm_up).for_each(&mut round);
        let (started, mut looks) = (Instant::now(), Vec::with_capacity(LOOKS));
        for look in 0..LOOKS {
            let (from, to) = (rounds * look / LOOKS, rounds * (look + 1) / LOOKS);
            (warm_up + from..warm_up + to).for_each(&mut round);
            looks.push([threads(), open_files(), rss_kib()]);
        }
        Course {
            rounds,
            took: started.elapsed(),
            first: medians(&looks[..LOOKS / 4]),
            last: medians(&looks[LOOKS * 3 / 4..]),
        }
    }

    /// What has grown, if anything.
    pub fn grown(&self) -> Vec<&'static str> {
        let names = ["threads", "files", "memory"].into_iter();
        let bounds = [THREADS, FILES, MEMORY_KIB];
        let grown = names.enumerate();
        let grown = grown.filter(|(at, _)| self.last[*at] > self.first[*at] + bounds[*at]);
        grown.map(|(_, name)| name).collect()
    }

    #[track_caller]
    pub fn assert_flat(&self, what: &str) {
        println!("{what}: {self}");
        assert!(self.grown().is_empty(), "{what}: {self}");
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Course { first, last, .. } = self;
        write!(
            f,
            "{} rounds in {:.1?}; threads {} then {}, files {} then {}, memory {} then {} KiB",
            self.rounds, self.took, first[0], last[0], first[1], last[1], first[2], last[2]
        )
    }
}

fn medians(looks: &[Usage]) -> Usage {
    [0, 1, 2].map(|at| {
        let mut values: Vec<usize> = looks.iter().map(|usage| usage[at]).collect();
        values.sort_unstable();
        values[values.len() / 2]
    })
}
