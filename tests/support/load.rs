use std::fs;
use std::time::Duration;

/// How many threads this process has right now.
pub fn threads() -> usize {
    status("Threads:")
}

/// The memory of this process that is in RAM, in KiB.
pub fn rss_kib() -> usize {
    status("VmRSS:")
}

/// How many files, sockets among them, this process has open.
pub fn open_files() -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("a /proc, that is, Linux");
    // One of them is for reading this.
    open.count() - 1
}

fn status(field: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("a /proc, that is, Linux");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("a known field");
    value
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

/// What this process has used of the processors so far.
pub fn cpu() -> Duration {
    cpu_of(std::process::id())
}

/// What another one has used.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let text = stat.expect("a /proc, that is, Linux");
    // The name, in brackets, may hold spaces.
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
