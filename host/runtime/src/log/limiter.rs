//! Limits the log lines of a stage. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::limits::{LOG_LINES, LOG_LINES_PER_SECOND, LOG_REPORT};

/// A token bucket for all calls of a stage, which counts the lines that it drops.
#[derive(Debug)]
pub(crate) struct LineLimiter {
    tokens: f64,
    refilled: Option<Instant>,
    dropped: u64,
    reported: Option<Instant>,
}

impl Default for LineLimiter {
    fn default() -> LineLimiter {
        LineLimiter {
            tokens: LOG_LINES.into(),
            refilled: None,
            dropped: 0,
            reported: None,
        }
    }
}

impl LineLimiter {
    /// Returns whether the line may be written. If not, it is counted as dropped.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = self
            .refilled
            .map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        self.refilled = Some(now);
        let refill = since.as_secs_f64() * f64::from(LOG_LINES_PER_SECOND);
        self.tokens = (self.tokens + refill).min(LOG_LINES.into());
        if self.tokens < 1.0 {
            self.dropped += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// So many lines are not written, whatever the rate is.
    pub(crate) fn leave_out(&mut self, lines: u64) {
        self.dropped += lines;
    }

    /// Lines dropped since the last report, if a report is due. Each is reported once.
    pub(crate) fn report(&mut self, now: Instant) -> Option<u64> {
        let recently = self
            .reported
            .is_some_and(|then| now.saturating_duration_since(then) < LOG_REPORT);
        if self.dropped == 0 || recently {
            return None;
        }
        self.reported = Some(now);
        self.rest()
    }

    /// Lines dropped since the last report.
    pub(crate) fn rest(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.dropped)).filter(|&count| count > 0)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant can be the first")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_written_and_then_twenty_lines_a_second() {
        let began = Instant::now();
        let mut limiter = LineLimiter::default();
        let mut written = |now| (0..1000).filter(|_| limiter.take(now)).count();
        assert_eq!(written(began), 200);
        assert_eq!(written(began), 0);
        assert_eq!(written(began + SECOND), 20);
        assert_eq!(written(began + 4 * SECOND), 60);
        assert_eq!(written(began + 1000 * SECOND), 200, "no more than a burst");
        assert_eq!(limiter.rest(), Some(5000 - 480));
        assert_eq!(limiter.rest(), None);
    }

    #[test]
    fn dropped_lines_are_reported_at_once_and_then_every_ten_seconds() {
        let began = Instant::now();
        let mut limiter = LineLimiter::default();
        assert_eq!(limiter.report(began), None);
        let mut flood = |now| {
            for _ in 0..300 {
                limiter.take(now);
            }
            limiter.report(now)
        };
        assert_eq!(flood(began), Some(100));
        assert_eq!(flood(began), None);
        assert_eq!(flood(began), None);
        assert_eq!(flood(began + 10 * SECOND), Some(600 + 100));
    }

    proptest! {
        #[test]
        fn each_line_is_written_or_reported(steps in proptest::collection::vec((0u64..5000, 0u32..400), 0..50)) {
            let began = Instant::now();
            let mut limiter = LineLimiter::default();
            let (mut now, mut lines, mut written, mut reported) = (began, 0, 0, 0);
            for (millis, count) in steps {
                now += Duration::from_millis(millis);
                lines += u64::from(count);
                written += (0..count).filter(|_| limiter.take(now)).count() as u64;
                reported += limiter.report(now).unwrap_or(0);
            }
            reported += limiter.rest().unwrap_or(0);
            prop_assert_eq!(written + reported, lines);
            let most = f64::from(LOG_LINES) + (now - began).as_secs_f64() * f64::from(LOG_LINES_PER_SECOND);
            prop_assert!(written as f64 <= most + 1.0);
        }
    }
}
