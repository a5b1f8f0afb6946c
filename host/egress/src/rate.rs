//! The limit on events per second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Limits the average number of events per second.
///
/// A token bucket that may go into debt: a request larger than the bucket passes, and the next one
/// waits longer, so that no request is too large to be sent. The clock is an argument.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: f64,
    /// When the debt of all requests so far is paid off, in seconds on the caller's clock.
    paid_at: f64,
}

impl TokenBucket {
    /// The capacity of the bucket, in seconds of its rate.
    pub const BURST: Duration = Duration::from_secs(1);

    /// `per_second`: events, at least one in about eleven days.
    pub fn new(per_second: f64) -> Self {
        TokenBucket {
            per_second: per_second.max(1e-6),
            paid_at: f64::NEG_INFINITY,
        }
    }

    /// Reserves tokens for `events` and returns how long to wait before sending them. `now`: time
    /// since any fixed point.
    pub fn take(&mut self, now: Duration, events: usize) -> Duration {
        let now = now.as_secs_f64();
        let from = self.paid_at.max(now - Self::BURST.as_secs_f64());
        self.paid_at = from + events as f64 / self.per_second;
        Duration::from_secs_f64((from - now).max(0.0))
    }
}

/// A [`TokenBucket`] shared by a pipeline's requests, on the runtime's clock.
#[derive(Debug)]
pub struct RateLimiter {
    started: Instant,
    bucket: Mutex<TokenBucket>,
}

impl RateLimiter {
    /// `per_second`: events.
    pub fn new(per_second: f64) -> Self {
        RateLimiter {
            started: Instant::now(),
            bucket: Mutex::new(TokenBucket::new(per_second)),
        }
    }

    /// Waits until `events` more may be sent. First come, first served. Dropping the future does
    /// not cancel the reservation.
    pub async fn take(&self, events: usize) {
        let now = Instant::now();
        let wait = self
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(now - self.started, events);
        if !wait.is_zero() {
            sleep_until(now + wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_turn() {
        let rate = RateLimiter::new(1000.0);
        let started = Instant::now();
        let mut sent = Vec::new();
        for _ in 0..5 {
            rate.take(500).await;
            sent.push(started.elapsed().as_millis());
        }
        assert_eq!(sent, [0, 0, 0, 500, 1000]);
        tokio::time::advance(Duration::from_secs(60)).await;
        let idle = Instant::now();
        rate.take(3000).await;
        rate.take(1).await;
        assert_eq!(
            idle.elapsed().as_millis(),
            2000,
            "a minute of idling earns one second, not sixty"
        );
    }

    proptest! {
        #[test]
        fn no_window_exceeds_the_rate(
            per_second in 1.0f64..5000.0,
            requests in prop::collection::vec((0u64..3000, 1usize..800), 1..60),
        ) {
            let mut bucket = TokenBucket::new(per_second);
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for (pause, events) in requests {
                now += Duration::from_millis(pause);
                now += bucket.take(now, events);
                sent.push((now.as_secs_f64(), events as f64));
            }
            for first in 0..sent.len() {
                // The last request of a window may have any size, so it is not counted.
                let mut events = 0.0;
                for last in first + 1..sent.len() {
                    events += sent[last - 1].1;
                    let window = sent[last].0 - sent[first].0;
                    prop_assert!(events <= per_second * (window + 1.0) + 1.0, "{events} in {window} s at {per_second}/s");
                }
            }
        }
    }
}
