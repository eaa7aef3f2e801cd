//! Chance, drawn from the seed: one stream a purpose, so that one more draw in one does not move the others.

use proffer_cluster::ports::entropy::{Entropy, SeededEntropy};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of draws.
#[derive(Debug)]
pub struct Draws(SeededEntropy);

impl Draws {
    /// The stream for a purpose, and of the `number`th who has it.
    pub fn new(seed: u64, purpose: &str, number: u64) -> Self {
        Draws(SeededEntropy::new(stream(seed, purpose, number)))
    }

    /// Sixty-four bits.
    pub fn bits(&self) -> u64 {
        self.0.u64()
    }

    /// One of `0..count`.
    pub fn below(&self, count: u64) -> u64 {
        self.bits() % count.max(1)
    }

    /// One of `least..=most`.
    pub fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Whether something happens that does so `in_a_million` times in a million.
    pub fn happens(&self, in_a_million: u64) -> bool {
        self.below(1_000_000) < in_a_million
    }

    /// One of these; `None` if there are none.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        let number = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        of.get(number)
    }

    /// Puts them into another order.
    pub fn shuffle<T>(&self, of: &mut [T]) {
        for last in (1..of.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            of.swap(last, other);
        }
    }

    /// A time with a heavy tail: usually near `usual`, now and then many times that, never above `most`.
    pub fn heavy(&self, usual: u64, most: u64) -> u64 {
        let mut drawn = usual / 2 + self.below(usual.max(1) + 1);
        while drawn < most && self.below(16) == 0 {
            drawn = drawn.saturating_mul(4).max(1);
        }
        drawn.min(most)
    }
}

/// The seed of the stream for a purpose.
pub fn stream(seed: u64, purpose: &str, number: u64) -> u64 {
    xxh3_64_with_seed(purpose.as_bytes(), seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_do_not_follow_each_other() {
        let of = |purpose, number| Draws::new(7, purpose, number).bits();
        assert_eq!(of("net", 1), of("net", 1));
        assert_ne!(of("net", 1), of("net", 2));
        assert_ne!(of("net", 1), of("disk", 1));
    }

    #[test]
    fn a_heavy_tail_stays_below_its_most_and_reaches_far() {
        let draws = Draws::new(1, "tail", 0);
        let drawn: Vec<u64> = (0..10_000).map(|_| draws.heavy(4, 400)).collect();
        assert!(drawn.iter().all(|drawn| (2..=400).contains(drawn)));
        assert!(drawn.iter().any(|drawn| *drawn > 100));
    }
}
