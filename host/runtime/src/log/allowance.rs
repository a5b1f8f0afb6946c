//! How many log lines a stage may write. Pure: time comes in as an argument.

use std::time::{Duration, Instant};

use crate::limits::{LOG_LINES, LOG_LINES_A_SECOND, LOG_REPORT};

/// A token bucket over all calls of a stage, with a count of the lines it did not let through.
#[derive(Debug)]
pub(crate) struct Allowance {
    tokens: f64,
    refilled: Option<Instant>,
    left_out: u64,
    reported: Option<Instant>,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance {
            tokens: LOG_LINES.into(),
            refilled: None,
            left_out: 0,
            reported: None,
        }
    }
}

impl Allowance {
    /// False: the line is left out, and counted.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = self
            .refilled
            .map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        self.refilled = Some(now);
        let refill = since.as_secs_f64() * f64::from(LOG_LINES_A_SECOND);
        self.tokens = (self.tokens + refill).min(LOG_LINES.into());
        if self.tokens < 1.0 {
            self.left_out += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// Lines left out since the last report, when it is time for one. Each is reported once.
    pub(crate) fn report(&mut self, now: Instant) -> Option<u64> {
        let recently = self
            .reported
            .is_some_and(|then| now.saturating_duration_since(then) < LOG_REPORT);
        if self.left_out == 0 || recently {
            return None;
        }
        self.reported = Some(now);
        self.rest()
    }

    /// Lines left out since the last report.
    pub(crate) fn rest(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.left_out)).filter(|&count| count > 0)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant serves as the first")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_written_and_then_twenty_lines_a_second() {
        let began = Instant::now();
        let mut allowance = Allowance::default();
        let mut written = |now| (0..1000).filter(|_| allowance.take(now)).count();
        assert_eq!(written(began), 200);
        assert_eq!(written(began), 0);
        assert_eq!(written(began + SECOND), 20);
        assert_eq!(written(began + 4 * SECOND), 60);
        assert_eq!(written(began + 1000 * SECOND), 200, "no more than a burst");
        assert_eq!(allowance.rest(), Some(5000 - 480));
        assert_eq!(allowance.rest(), None);
    }

    #[test]
    fn what_was_left_out_is_reported_at_once_and_then_now_and_again() {
        let began = Instant::now();
        let mut allowance = Allowance::default();
        assert_eq!(allowance.report(began), None);
        let mut flood = |now| {
            for _ in 0..300 {
                allowance.take(now);
            }
            allowance.report(now)
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
            let mut allowance = Allowance::default();
            let (mut now, mut lines, mut written, mut reported) = (began, 0, 0, 0);
            for (millis, count) in steps {
                now += Duration::from_millis(millis);
                lines += u64::from(count);
                written += (0..count).filter(|_| allowance.take(now)).count() as u64;
                reported += allowance.report(now).unwrap_or(0);
            }
            reported += allowance.rest().unwrap_or(0);
            prop_assert_eq!(written + reported, lines);
            let most = f64::from(LOG_LINES) + (now - began).as_secs_f64() * f64::from(LOG_LINES_A_SECOND);
            prop_assert!(written as f64 <= most + 1.0);
        }
    }
}
