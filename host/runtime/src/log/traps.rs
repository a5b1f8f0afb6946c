//! Which traps of a stage are logged. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::limits::TRAPS_ENDED_AFTER;

/// The traps of all calls of a stage: the first one is logged, and how many there were once they
/// have ended.
#[derive(Debug, Default)]
pub(crate) struct Traps {
    going_on: Option<Period>,
}

/// A time in which calls trap now and then.
#[derive(Debug)]
struct Period {
    since: Instant,
    last: Instant,
    times: u64,
}

/// Traps of which all but the first were not logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EndedTraps {
    pub(crate) lasted: Duration,
    pub(crate) times: u64,
}

impl Traps {
    /// Whether the line of a further trap would be left out.
    pub(crate) fn go_on(&self) -> bool {
        self.going_on.is_some()
    }

    /// `again`: the call is a repetition, to find out what is at fault, and is not counted.
    pub(crate) fn trapped(&mut self, now: Instant, again: bool) {
        match &mut self.going_on {
            Some(period) => {
                period.last = now;
                period.times += u64::from(!again);
            }
            None if again => {}
            None => {
                self.going_on = Some(Period {
                    since: now,
                    last: now,
                    times: 1,
                });
            }
        }
    }

    /// A call did not trap. Returns what has ended by that and was not logged.
    pub(crate) fn returned(&mut self, now: Instant) -> Option<EndedTraps> {
        let period = self.going_on.as_ref()?;
        if now.saturating_duration_since(period.last) < TRAPS_ENDED_AFTER {
            return None;
        }
        self.rest()
    }

    /// There are no more calls. Returns what was not logged.
    pub(crate) fn rest(&mut self) -> Option<EndedTraps> {
        let period = self.going_on.take()?;
        (period.times > 1).then(|| EndedTraps {
            lasted: period.last.saturating_duration_since(period.since),
            times: period.times,
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant can be the first")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn traps_that_come_and_go_are_one_in_the_log() {
        let began = Instant::now();
        let mut traps = Traps::default();
        for nth in 0..50 {
            assert_eq!(traps.go_on(), nth > 0);
            traps.trapped(began + 2 * nth * SECOND, false);
            traps.trapped(began + 2 * nth * SECOND, true);
            assert_eq!(traps.returned(began + (2 * nth + 1) * SECOND), None);
        }
        let ended = EndedTraps {
            lasted: 98 * SECOND,
            times: 50,
        };
        assert_eq!(traps.returned(began + 107 * SECOND), None);
        assert_eq!(traps.returned(began + 108 * SECOND), Some(ended));
        assert!(!traps.go_on());
        assert_eq!(traps.rest(), None);
    }

    #[test]
    fn a_single_trap_was_logged_and_is_not_counted() {
        let began = Instant::now();
        let mut traps = Traps::default();
        traps.trapped(began, false);
        assert_eq!(traps.returned(began + 60 * SECOND), None);
        assert!(!traps.go_on());
        traps.trapped(began, false);
        traps.trapped(began, false);
        let rest = traps.rest().map(|ended| ended.times);
        assert_eq!(rest, Some(2));
    }
}
