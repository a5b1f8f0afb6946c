//! The clock of a source.

use std::pin::Pin;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockgate_backoff::Random;
use lockgate_model::Millis;
use tokio::time::Instant;

/// Time and randomness, so that tests control both.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. An operator, or NTP, may set it forwards and backwards.
    fn now(&self) -> Millis;

    /// Time since some moment, which nobody can set.
    fn elapsed(&self) -> Duration {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGUN.elapsed()
    }

    /// Waits. [`elapsed`](Self::elapsed) advances by at least as much.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(time))
    }

    /// A random number from 0 up to, not including, 1, for jitter.
    fn chance(&self) -> f64 {
        Random::from_system().fraction()
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the only place in the crate that reads the system clock"
    )]
    fn now(&self) -> Millis {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as Millis,
            Err(before) => -(before.duration().as_millis() as Millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_a_fraction_and_varies() {
        let drawn: Vec<f64> = (0..64).map(|_| SystemClock.chance()).collect();
        assert!(drawn.iter().all(|chance| (0.0..1.0).contains(chance)));
        assert!(drawn.iter().any(|&chance| chance != drawn[0]));
    }
}
