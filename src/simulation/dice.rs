//! Chance, all from one seed.

use crate::jitter::Random;

pub struct Dice(pub Random);

impl Dice {
    pub fn seeded(seed: u64) -> Self {
        Dice(Random::seeded(seed))
    }

    /// A generator of its own.
    pub fn part(&mut self) -> Random {
        Random::seeded(self.0.next())
    }

    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next() % n.max(1) as u64) as usize
    }

    /// In `from..to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.next() % (to - from).max(1)
    }

    /// So many times in a thousand.
    pub fn permille(&mut self, n: u64) -> bool {
        self.0.next() % 1000 < n
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
