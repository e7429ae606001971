//! Randomness for back-off and instance tokens: spread, not secrecy.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The standard library seeds every `RandomState` differently; that is all that is needed here.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Somewhere in `0..n`; 0 where `n` is.
pub(crate) fn below(n: usize) -> usize {
    (random() % n.max(1) as u64) as usize
}

/// `period`, less up to a tenth.
pub(crate) fn about(period: Duration) -> Duration {
    Random::new().about(period)
}

/// A generator (SplitMix64) for what decides: from the same seed it decides the same.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Random::seeded(random())
    }

    pub fn seeded(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `period`, less up to a tenth.
    pub fn about(&mut self, period: Duration) -> Duration {
        period - period.mul_f64(0.1 * self.fraction())
    }
}

/// A token that no other process has.
pub(crate) fn token() -> Box<str> {
    format!("{:016x}{:016x}", random(), random()).into()
}

/// Waits that grow from `first` to `most`, each a random part of its bound ("full jitter"), so
/// that clients who lost etcd together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
    random: Random,
}

impl Backoff {
    pub fn new((first, most): (Duration, Duration), random: Random) -> Self {
        Backoff {
            first,
            most,
            tries: 0,
            random,
        }
    }

    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How long to wait now.
    pub fn next(&mut self) -> Duration {
        let bound = self
            .first
            .saturating_mul(1 << self.tries.min(20))
            .min(self.most);
        self.tries += 1;
        bound.mul_f64(self.random.fraction())
    }

    /// The slowest wait, for what haste would make worse.
    pub fn slowest(&mut self) -> Duration {
        self.random.about(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_jitter_fills_its_growing_bound() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut longest = [Duration::ZERO; 10];
        let mut shortest = [most; 10];
        for _ in 0..500 {
            let mut backoff = Backoff::new((first, most), Random::new());
            for i in 0..10 {
                let wait = backoff.next();
                assert!(wait <= most.min(first * (1 << i)));
                longest[i] = longest[i].max(wait);
                shortest[i] = shortest[i].min(wait);
            }
        }
        for i in 0..10 {
            let bound = most.min(first * (1 << i));
            assert!(longest[i] > bound.mul_f64(0.9), "round {i}");
            assert!(shortest[i] < bound.mul_f64(0.1), "round {i}");
        }
    }

    #[test]
    fn tokens_differ() {
        let tokens: std::collections::HashSet<_> = (0..1000).map(|_| token()).collect();
        assert_eq!(tokens.len(), 1000);
    }
}
