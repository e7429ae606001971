//! What all jobs need: arguments, clocks, memory, and how to say what came of it.
//!
//! The program with the async peers includes this file as well.

#![allow(dead_code)]

use std::collections::HashMap;
use std::fs;
use std::io::Write;

/// `name=value`, as many as there are.
pub struct Args(HashMap<String, String>);

impl Args {
    pub fn new(args: &[String]) -> Args {
        let pairs = args.iter().filter_map(|arg| arg.split_once('='));
        Args(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    }

    pub fn text(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("{name}=… is missing"))
    }

    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().expect("a number")
    }
}

/// The machine's monotonic clock, the same in all processes; nanoseconds.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes the struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU time of this process so far, its kernel time included; seconds.
pub fn cpu() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes the struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// A field of this process' status, such as `VmHWM:`, in KiB.
pub fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a /proc, that is, Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).expect("a known field")
}

/// What was freed goes back to the system, so that what is held can be read off.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own means, without conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From now on this thread, and all that it starts, share one core: the one that it runs on.
pub fn one_core() {
    // SAFETY: a set of bits on the stack, filled and read within its size.
    let failed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(failed, 0, "a core of its own");
}

pub fn ready() {
    println!(r#"{{"ready":true}}"#);
    std::io::stdout().flush().expect("somebody listens");
}

pub fn wait_go() {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("a word from the bench");
}

pub fn done(result: serde_json::Value) {
    let mut result = result;
    result["done"] = true.into();
    println!("{result}");
}

/// Of the events of a timed watch, those that find everything cold: they don't count.
pub const WARM: usize = 20;

/// How a watch went: kept by the one who watches.
pub struct Watched {
    cpu: f64,
    events: usize,
    /// Times from a put's being sent to here; nanoseconds.
    late: Vec<u64>,
    timed: bool,
}

impl Watched {
    /// From here on CPU time counts, but for a timed one.
    pub fn new(timed: bool) -> Watched {
        Watched {
            cpu: cpu(),
            events: 0,
            late: Vec::with_capacity(if timed { 10_000 } else { 0 }),
            timed,
        }
    }

    /// The same, and the bench may go on.
    pub fn begin(timed: bool) -> Watched {
        let watched = Watched::new(timed);
        ready();
        watched
    }

    /// One change was seen; `stamp` is asked for when it was sent.
    pub fn event(&mut self, stamp: impl FnOnce() -> u64) {
        self.events += 1;
        if self.timed && self.events > WARM {
            self.late.push(now() - stamp());
        }
        if self.timed && self.events == WARM {
            self.cpu = cpu();
        }
    }

    pub fn end(self, extra: serde_json::Value) {
        let (at, cpu) = (now(), cpu() - self.cpu);
        let counted = self.events - if self.timed { WARM } else { 0 };
        done(serde_json::json!({
            "at": at, "cpu": cpu, "events": counted, "late": self.late, "extra": extra,
        }));
    }
}

/// The digits of `"t":"…"` in a value.
pub fn stamp(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    let at = text.find(r#""t":""#).expect("a value of the bench") + 5;
    text[at..at + 19].parse().expect("digits")
}
