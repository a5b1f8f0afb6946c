use std::time::Duration;

use lockgate_backoff::Random;

const FIRST: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(30);

/// Waits between attempts, with jitter of their own.
pub(crate) struct Backoff {
    backoff: lockgate_backoff::Backoff,
    random: Random,
}

pub(crate) fn backoff() -> Backoff {
    Backoff {
        backoff: lockgate_backoff::Backoff::new(FIRST, CAP),
        random: Random::from_system(),
    }
}

impl Backoff {
    /// `at_least`: the receiver's `Retry-After`; the jitter comes on top of it.
    pub(crate) fn next(&mut self, at_least: Option<Duration>) -> Duration {
        at_least.unwrap_or_default() + self.backoff.next(self.random.fraction())
    }

    pub(crate) fn reset(&mut self) {
        self.backoff.reset();
    }
}
