//! How far ahead of the local clock the times of events are believed.

use std::collections::VecDeque;
use std::time::Duration;

use lockgate_model::Millis;

use crate::Clock;

/// Pages with new events that must agree.
const EVIDENCE: usize = 12;

/// The latest time of an event that may move the cursor: the local time, or later if many events
/// show that Teleport's clock is ahead. A few events with a time in the future are read, but
/// events before them are still to come.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The local time, and the time elapsed, when reading began.
    began: (Millis, Duration),
    /// Of the last pages with new events: by how much their median is ahead of the local time.
    ahead: VecDeque<Millis>,
}

impl Horizon {
    /// `recent_times` are those of [`Resume`](crate::Resume).
    pub(super) fn new(clock: &dyn Clock, recent_times: &[(Millis, Millis)]) -> Horizon {
        // What was read before the restart shows the time, too: the earliest events, since one bad
        // clock among many agents has a time in the future in every block.
        let read = recent_times.get(..EVIDENCE).into_iter().flatten();
        let read = read.map(|&(earliest, _)| earliest).min();
        Horizon {
            began: (
                clock.now().max(read.unwrap_or(Millis::MIN)),
                clock.elapsed(),
            ),
            ahead: VecDeque::new(),
        }
    }

    /// The local time. It advances while the clock is set back.
    pub(super) fn local(&self, clock: &dyn Clock) -> Millis {
        let (began, elapsed) = self.began;
        let since = clock.elapsed().saturating_sub(elapsed);
        clock.now().max(began + since.as_millis() as Millis)
    }

    pub(super) fn latest(&self, clock: &dyn Clock) -> Millis {
        let ahead = self
            .ahead
            .iter()
            .min()
            .filter(|_| self.ahead.len() == EVIDENCE);
        self.local(clock) + ahead.map_or(0, |&ahead| ahead.max(0))
    }

    /// Takes note of the times of the new events of a page, in order.
    pub(super) fn note(&mut self, clock: &dyn Clock, times: Vec<Millis>) {
        if times.is_empty() {
            return;
        }
        self.ahead.truncate(EVIDENCE - 1);
        self.ahead
            .push_front(times[times.len() / 2] - self.local(clock));
    }
}

/// The difference between Teleport's clock and ours, by the newest events of the last rounds.
#[derive(Debug, Default)]
pub(super) struct Skew {
    ahead: VecDeque<Millis>,
}

impl Skew {
    /// Takes note of the newest new event of a round.
    pub(super) fn note(&mut self, newest: Millis, now: Millis) {
        self.ahead.truncate(EVIDENCE - 1);
        self.ahead.push_front(newest - now);
    }

    /// Positive if Teleport's clock is ahead. `None` until there is enough evidence.
    pub(super) fn measured(&self) -> Option<Millis> {
        let least = *self
            .ahead
            .iter()
            .min()
            .filter(|_| self.ahead.len() == EVIDENCE)?;
        let most = *self.ahead.iter().max()?;
        Some(if least > 0 { least } else { most.min(0) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Fixed {
        now: AtomicI64,
        elapsed: AtomicI64,
    }

    impl Clock for Fixed {
        fn now(&self) -> Millis {
            self.now.load(Ordering::SeqCst)
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.elapsed.load(Ordering::SeqCst) as u64)
        }
    }

    #[test]
    fn only_many_pages_move_the_horizon_past_the_local_time() {
        let clock = Fixed::default();
        let mut horizon = Horizon::new(&clock, &[]);
        for _ in 0..EVIDENCE - 1 {
            horizon.note(&clock, vec![-9, 500, 90_000]);
        }
        assert_eq!(horizon.latest(&clock), 0);
        horizon.note(&clock, vec![400]);
        assert_eq!(horizon.latest(&clock), 400);
        horizon.note(&clock, vec![]);
        horizon.note(&clock, vec![-4, -3, 90_000]);
        assert_eq!(
            horizon.latest(&clock),
            0,
            "most of its events are not ahead"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_or_was_wrong_at_the_start_does_not_move_the_horizon_back() {
        let clock = Fixed::default();
        let horizon = Horizon::new(&clock, &[(90, 95); EVIDENCE - 1]);
        clock.now.store(-5_000, Ordering::SeqCst);
        clock.elapsed.store(70, Ordering::SeqCst);
        assert_eq!(horizon.latest(&clock), 70);
        clock.now.store(5_000, Ordering::SeqCst);
        assert_eq!(horizon.latest(&clock), 5_000);
        let horizon = Horizon::new(&clock, &[(9_000, 90_000); EVIDENCE]);
        assert_eq!(horizon.latest(&clock), 9_000);
    }

    #[test]
    fn the_skew_is_what_all_rounds_agree_on() {
        for (noted, measured) in [
            (vec![7; EVIDENCE - 1], None),
            (vec![7; EVIDENCE], Some(7)),
            ([vec![900_000], vec![-2; EVIDENCE - 1]].concat(), Some(0)),
            ([vec![9], vec![8; EVIDENCE - 1]].concat(), Some(8)),
            (
                [vec![-60_001], vec![-60_000; EVIDENCE - 1]].concat(),
                Some(-60_000),
            ),
            ([vec![-5; 3], vec![7; EVIDENCE]].concat(), Some(7)),
        ] {
            let mut skew = Skew::default();
            noted
                .iter()
                .for_each(|&ahead| skew.note(1_000 + ahead, 1_000));
            assert_eq!(skew.measured(), measured, "{noted:?}");
        }
    }
}
