//! Waits between attempts: exponential, with full jitter and a cap. Pure: neither a clock nor a
//! source of randomness is read here, except by [`Random::from_system`].

mod random;

use std::time::Duration;

pub use random::Random;

/// How long to wait after each failure in a row.
///
/// The ceiling doubles from `first` to `cap`. Each wait is chosen evenly between zero and the
/// ceiling ("full jitter"), so that requests that failed together do not come back together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// `first`: the ceiling of the first wait. `cap`: the highest ceiling.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Backoff {
            first,
            cap,
            failures: 0,
        }
    }

    /// Records a failure and returns how long to wait before the next attempt.
    ///
    /// `fraction`: a random number from 0 up to, not including, 1, such as [`Random::fraction`]
    /// returns. A receiver's `Retry-After` is added by the caller: the jitter comes on top of it.
    pub fn next(&mut self, fraction: f64) -> Duration {
        let ceiling = self.ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fraction.clamp(0.0, 1.0))
    }

    /// The longest wait after so many failures in a row, whatever was recorded.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.cap)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Records a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn ceilings_double_up_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(FIRST, CAP);
        let millis: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(
            millis,
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
        assert_eq!(backoff.failures(), 9);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(250));
        assert_eq!(backoff.next(0.0), Duration::ZERO);
    }

    #[test]
    fn many_failures_neither_overflow_nor_pass_the_cap() {
        let mut backoff = Backoff::new(FIRST, CAP);
        let longest = (0..1000).map(|_| backoff.next(1.0)).max();
        assert_eq!(longest, Some(CAP));
        assert_eq!(backoff.ceiling(u32::MAX), CAP);
    }

    proptest! {
        #[test]
        fn waits_fill_the_range_evenly(seed: u64) {
            let mut random = Random::seeded(seed);
            let waits: Vec<Duration> = (0..400)
                .map(|_| Backoff::new(FIRST, CAP).next(random.fraction()))
                .collect();
            for quarter in 0..4 {
                let range = FIRST * quarter / 4..FIRST * (quarter + 1) / 4;
                let hits = waits.iter().filter(|&wait| range.contains(wait)).count();
                prop_assert!((50..=150).contains(&hits), "{hits} of 400 in {range:?}");
            }
        }
    }
}
