use std::time::{Duration, Instant};

/// Short enough not to be felt, long enough to leave two cores to the processes waited for.
const POLL: Duration = Duration::from_millis(5);

/// Asks again and again until there is an answer; panics with `what` once `bound` has passed.
#[track_caller]
pub fn eventually<T>(bound: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < bound, "not within {bound:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// `eventually` for a plain yes or no.
#[track_caller]
pub fn until(bound: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    eventually(bound, what, || ask().then_some(()));
}

/// Asserts that something stays true for the whole of `span`: for what must *not* happen, the only
/// place where a test has to spend time.
#[track_caller]
pub fn throughout(span: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < span {
        assert!(
            ask(),
            "no longer true after {:?}: {what}",
            started.elapsed()
        );
        std::thread::sleep(POLL);
    }
}
