//! Who hangs on one lease: nearly always one, but anybody may hang everybody on one.

use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) enum Names {
    /// Costs a lease of one's own no more than the name.
    One(Box<str>),
    /// G13: however many there are, each is found at once. None is many, too.
    Many(BTreeSet<Box<str>>),
}

impl Names {
    pub fn new(name: &str) -> Self {
        Names::One(name.into())
    }

    pub fn insert(&mut self, name: &str) {
        match self {
            Names::One(only) if **only == *name => {}
            Names::One(only) => {
                let first = std::mem::take(only);
                *self = Names::Many(BTreeSet::from([first, name.into()]));
            }
            Names::Many(names) => {
                names.insert(name.into());
            }
        }
    }

    pub fn remove(&mut self, name: &str) {
        match self {
            Names::One(only) if **only == *name => *self = Names::Many(BTreeSet::new()),
            Names::One(_) => {}
            Names::Many(names) => {
                names.remove(name);
            }
        }
    }

    pub fn has(&self, name: &str) -> bool {
        match self {
            Names::One(only) => **only == *name,
            Names::Many(names) => names.contains(name),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Names::Many(names) if names.is_empty())
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Names::One(only) => (Some(only), None),
            Names::Many(names) => (None, Some(names)),
        };
        let all = one.into_iter().chain(many.into_iter().flatten());
        all.map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[track_caller]
    fn holds(names: &Names, wanted: &[&str]) {
        assert_eq!(names.iter().collect::<Vec<_>>(), wanted);
        assert_eq!(names.is_empty(), wanted.is_empty());
        for name in ["a/1", "a/2", "a/3"] {
            assert_eq!(names.has(name), wanted.contains(&name));
        }
    }

    #[test]
    fn they_come_and_go() {
        let mut names = Names::new("a/1");
        names.insert("a/1");
        names.remove("a/2");
        holds(&names, &["a/1"]);
        names.insert("a/2");
        names.insert("a/2");
        holds(&names, &["a/1", "a/2"]);
        names.remove("a/1");
        holds(&names, &["a/2"]);
        names.remove("a/2");
        holds(&names, &[]);
        names.insert("a/3");
        holds(&names, &["a/3"]);
        let mut one = Names::new("a/1");
        one.remove("a/1");
        holds(&one, &[]);
    }

    /// Looking through all of them for each would take minutes.
    #[test]
    fn g13_a_hundred_thousand_on_one_lease() {
        let started = Instant::now();
        let all: Vec<String> = (0..100_000).map(|n| format!("room/{n}")).collect();
        let mut names = Names::new("room/x");
        all.iter().for_each(|name| names.insert(name));
        all.iter().for_each(|name| names.remove(name));
        holds(&names, &["room/x"]);
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
