use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Exponential backoff with full jitter, for ever.
///
/// The ceiling doubles from 500 ms to 60 s; a wait is chosen evenly between nothing and the
/// ceiling, so that many batches that failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff<R> {
    /// Even random numbers.
    random: R,
    failures: u32,
}

impl<R: FnMut() -> u64> Backoff<R> {
    pub const BASE: Duration = Duration::from_millis(500);
    pub const CAP: Duration = Duration::from_secs(60);

    pub fn new(random: R) -> Self {
        Backoff {
            random,
            failures: 0,
        }
    }

    /// How long to wait after one more failure. The receiver's `Retry-After` is the least; the
    /// jitter comes on top of it.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        // The upper 53 bits, as a fraction in [0, 1).
        let fraction = ((self.random)() >> 11) as f64 / (1u64 << 53) as f64;
        retry_after.unwrap_or_default() + ceiling.mul_f64(fraction)
    }

    /// The longest that [`Backoff::next`] would wait of its own accord.
    pub fn ceiling(&self) -> Duration {
        // 500 ms doubled seven times is over a minute.
        Self::CAP.min(Self::BASE * (1 << self.failures.min(7)))
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, even, and not for secrets.
pub fn split_mix(mut seed: u64) -> impl FnMut() -> u64 + Clone + Send {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A seed that differs from process to process and from call to call.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(|| u64::MAX);
        let millis: Vec<u128> = (0..10).map(|_| backoff.next(None).as_millis()).collect();
        assert_eq!(
            millis,
            [
                500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000
            ]
        );
        backoff.reset();
        assert_eq!(backoff.next(None).as_millis(), 500);
        assert_eq!(Backoff::new(|| 0).next(None), Duration::ZERO);
        assert_eq!(
            Backoff::new(|| 0).next(Some(Duration::from_secs(7))),
            Duration::from_secs(7)
        );
    }

    proptest! {
        #[test]
        fn a_wait_is_between_retry_after_and_that_plus_the_ceiling(
            seed: u64,
            answers in prop::collection::vec(prop::option::of(0u64..4_000_000), 1..80),
        ) {
            let mut backoff = Backoff::new(split_mix(seed));
            for answer in answers {
                let floor = answer.map(Duration::from_millis);
                let ceiling = backoff.ceiling();
                let wait = backoff.next(floor);
                prop_assert!(ceiling >= Duration::from_millis(500) && ceiling <= Duration::from_secs(60));
                prop_assert!(wait >= floor.unwrap_or_default());
                prop_assert!(wait <= floor.unwrap_or_default() + ceiling);
            }
        }

        #[test]
        fn jitter_is_full(seed: u64) {
            let waits: Vec<Duration> = {
                let mut random = split_mix(seed);
                (0..400).map(|_| Backoff::new(&mut random).next(None)).collect()
            };
            for quarter in 0..4 {
                let range = Duration::from_millis(125 * quarter)..Duration::from_millis(125 * (quarter + 1));
                let hits = waits.iter().filter(|&&wait| range.contains(&wait)).count();
                prop_assert!((50..=150).contains(&hits), "{hits} of 400 in {range:?}");
            }
        }
    }
}
