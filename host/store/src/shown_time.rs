//! The time by which the store decides what is old: by what events show, not by the local clock
//! alone, which may be wrong and may jump.

use std::collections::VecDeque;
use std::time::Duration;

use lockgate_model::Millis;

/// Blocks of a stream that together show a time.
pub(crate) const BLOCKS: usize = 12;

/// The earliest times of the newest blocks of a stream, the newest block first.
#[derive(Debug, Default)]
pub(crate) struct NewestBlocks {
    earliest: VecDeque<Millis>,
}

impl NewestBlocks {
    pub(crate) fn new(earliest: impl IntoIterator<Item = Millis>) -> NewestBlocks {
        NewestBlocks {
            earliest: earliest.into_iter().take(BLOCKS).collect(),
        }
    }

    pub(crate) fn push(&mut self, earliest: Millis) {
        self.earliest.truncate(BLOCKS - 1);
        self.earliest.push_front(earliest);
    }

    /// The median: an event with a time in the future, from an agent with a bad clock, convinces
    /// nobody.
    fn shows(&self) -> Option<Millis> {
        let mut times: Vec<Millis> = self.earliest.iter().copied().collect();
        times.sort_unstable();
        times.get(times.len().saturating_sub(1) / 2).copied()
    }
}

/// A time that has certainly been reached: the newest that events have shown, and what has elapsed
/// since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShownTime {
    /// The time, and how long the process had been running then.
    shown: Option<(Millis, Duration)>,
}

impl ShownTime {
    /// Takes note of what the newest blocks show. `elapsed`: since a moment before the first call,
    /// by a clock that nobody can set.
    pub(crate) fn note(&mut self, blocks: &NewestBlocks, elapsed: Duration) {
        let Some(time) = blocks.shows() else { return };
        if self.reached(elapsed).is_none_or(|reached| reached < time) {
            self.shown = Some((time, elapsed));
        }
    }

    /// The time now, by which age is measured: the local one, or an earlier one if nothing shows
    /// that so much time has passed. `None` if no event has shown any time.
    pub(crate) fn now(&self, local: Millis, elapsed: Duration) -> Option<Millis> {
        Some(self.reached(elapsed)?.min(local))
    }

    fn reached(&self, elapsed: Duration) -> Option<Millis> {
        let (time, then) = self.shown?;
        let since = elapsed.saturating_sub(then).as_millis();
        Some(time.saturating_add(Millis::try_from(since).unwrap_or(Millis::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 86_400_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_local_clock_that_is_ahead_is_not_believed() {
        let mut shown = ShownTime::default();
        assert_eq!(shown.now(100 * DAY, seconds(0)), None, "nothing was shown");
        shown.note(&NewestBlocks::new([DAY]), seconds(5));
        assert_eq!(shown.now(100 * DAY, seconds(5)), Some(DAY));
        assert_eq!(shown.now(100 * DAY, seconds(7)), Some(DAY + 2000));
        shown.note(&NewestBlocks::new([2 * DAY]), seconds(8));
        assert_eq!(shown.now(100 * DAY, seconds(9)), Some(2 * DAY + 1000));
    }

    #[test]
    fn a_local_clock_that_is_behind_is_believed() {
        let mut shown = ShownTime::default();
        shown.note(&NewestBlocks::new([9 * DAY]), seconds(5));
        assert_eq!(shown.now(DAY, seconds(100)), Some(DAY));
    }

    #[test]
    fn what_was_shown_is_not_taken_back_by_older_events() {
        let mut shown = ShownTime::default();
        shown.note(&NewestBlocks::new([9 * DAY]), seconds(5));
        shown.note(&NewestBlocks::new([DAY]), seconds(6));
        assert_eq!(shown.now(99 * DAY, seconds(6)), Some(9 * DAY + 1000));
    }

    #[test]
    fn a_few_events_with_times_in_the_future_show_nothing() {
        let mut blocks = NewestBlocks::new([3, 2, 1].map(|day| day * DAY));
        blocks.push(900 * DAY);
        assert_eq!(blocks.shows(), Some(2 * DAY));
        for _ in 0..20 {
            blocks.push(4 * DAY);
        }
        assert_eq!(
            (blocks.shows(), blocks.earliest.len()),
            (Some(4 * DAY), BLOCKS)
        );
    }
}
