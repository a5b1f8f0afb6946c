use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_backoff::Random;
use lockgate_model::Millis;

/// Time and chance, so that a test can decide both.
///
/// `now` must move on: a reader that is to end when it has caught up waits until its time of start
/// has passed by the lag.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Millis;

    /// A number from 0 up to, not including, 1: what jitter is made of.
    fn chance(&self) -> f64 {
        Random::from_system().fraction()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
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
