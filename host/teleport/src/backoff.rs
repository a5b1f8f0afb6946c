//! How long to wait before the next attempt.

use std::time::Duration;

use crate::Clock;

/// Exponential, with half of each wait left to chance.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff {
            first,
            max,
            attempts: 0,
        }
    }

    /// Failures since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Notes a failure; the time to wait.
    pub fn next(&mut self, clock: &dyn Clock) -> Duration {
        let full = self
            .first
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        full / 2 + full.mul_f64(clock.chance() / 2.0)
    }

    /// Notes a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use lockgate_model::Millis;

    use super::*;

    struct Fixed(f64);

    impl Clock for Fixed {
        fn now(&self) -> Millis {
            0
        }
        fn chance(&self) -> f64 {
            self.0
        }
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_half_is_chance() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<f64> = (0..9)
            .map(|_| backoff.next(&Fixed(0.0)).as_secs_f64())
            .collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        backoff.reset();
        assert_eq!(backoff.next(&Fixed(0.5)), Duration::from_millis(750));
    }
}
