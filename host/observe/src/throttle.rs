use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one log line through per interval, and counts those it holds back.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # let throttle = lockgate_observe::Throttle::new(Duration::from_secs(10));
/// if let Some(suppressed) = throttle.pass(Instant::now()) {
///     tracing::warn!(suppressed, "the receiver does not answer");
/// }
/// ```
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    pub fn new(interval: Duration) -> Self {
        Throttle {
            interval,
            state: Mutex::default(),
        }
    }

    /// Some: write the line, and say how many were held back since the last one. None: do not.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.interval)
        {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_per_interval_and_tells_of_the_others() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let start = Instant::now();
        let passed: Vec<_> = [0, 1, 9, 10, 11, 40, 41]
            .map(|second| throttle.pass(start + Duration::from_secs(second)))
            .into_iter()
            .collect();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1), None]);
    }
}
