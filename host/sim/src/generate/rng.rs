//! The simulator's own random number generator: the same seed gives the same numbers in every
//! release.

use super::text::ShortText;

/// SplitMix64. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// An independent sequence for each (seed, stream).
    pub(crate) fn new(seed: u64, stream: u64) -> Rng {
        Rng(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform on `0..end`; 0 when `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// Uniform on `from..end`.
    pub(crate) fn range(&mut self, from: u64, end: u64) -> u64 {
        from + self.below(end - from)
    }

    /// Uniform on `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A random item. `items` must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        *self.one(items)
    }

    pub(crate) fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// `count` distinct items, in random order.
    pub(crate) fn sample<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut pool = items.to_vec();
        (0..count.min(items.len()))
            .map(|_| pool.swap_remove(self.below(pool.len() as u64) as usize))
            .collect()
    }

    /// Lower-case hexadecimal text of `digits` random digits, at most 60.
    pub(crate) fn hex(&mut self, digits: usize) -> ShortText {
        let mut text = ShortText::default();
        let mut left = digits.min(60);
        while left > 0 {
            let step = left.min(16);
            text.push_hex(self.bits(), step);
            left -= step;
        }
        text
    }

    /// A random UUID, version 4.
    pub(crate) fn uuid(&mut self) -> ShortText {
        ShortText::uuid((u128::from(self.bits()) << 64) | u128::from(self.bits()))
    }
}

/// The finaliser of SplitMix64: a bijection in which each input bit moves about half of the output
/// bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_in_every_release() {
        let mut rng = Rng::new(42, 7);
        let drawn = [rng.bits(), rng.below(1000), rng.range(5, 8)];
        assert_eq!(drawn, [Rng::new(42, 7).bits(), drawn[1], drawn[2]]);
        assert_eq!(
            Rng::new(1, 0).hex(8).as_str(),
            Rng::new(1, 0).hex(8).as_str()
        );
        assert_ne!(Rng::new(1, 0).bits(), Rng::new(1, 1).bits());
        assert_ne!(Rng::new(1, 0).bits(), Rng::new(2, 0).bits());
    }

    #[test]
    fn ranges_hold() {
        let mut rng = Rng::new(3, 3);
        for _ in 0..1000 {
            assert!((5..9).contains(&rng.range(5, 9)));
            assert!(rng.unit() < 1.0);
        }
        let mut drawn = rng.sample(&[1, 2, 3, 4], 4);
        drawn.sort();
        assert_eq!(drawn, [1, 2, 3, 4]);
    }
}
