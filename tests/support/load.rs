use std::fs;

/// How many threads this process has right now.
pub fn threads() -> usize {
    status("Threads:")
}

/// The memory of this process that is in RAM, in KiB.
pub fn rss_kib() -> usize {
    status("VmRSS:")
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
