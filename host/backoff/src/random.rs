//! A small random number generator, for jitter.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood 2014): small, even, reproducible. Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub const fn seeded(seed: u64) -> Self {
        Random(seed)
    }

    /// A seed that differs between processes and between calls.
    #[allow(clippy::disallowed_methods, reason = "the one source of seeds")]
    pub fn from_system() -> Self {
        // Each `RandomState` has keys of its own.
        Random(RandomState::new().hash_one(0))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        // The upper 53 bits: as many as an `f64` holds.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reproduces_its_numbers() {
        // The reference implementation's first numbers for the seed 0.
        let mut random = Random::seeded(0);
        assert_eq!(random.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn fractions_are_below_one_and_seeds_of_the_system_differ() {
        let mut random = Random::from_system();
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.fraction())));
        assert_ne!(Random::from_system(), Random::from_system());
    }
}
