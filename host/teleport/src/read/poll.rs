//! Polling: the log as pages of a search, in time windows, oldest first.
//!
//! The only cursor is a time, `poll/until`: everything before it has been read. The server's keys
//! are followed only among events of the same time, and never stored: events with equal times
//! change their order between pages, and a server answers a key that it does not know, or that lies
//! outside the window, with an empty page, as at the end of the log. Pages and windows overlap
//! instead, and duplicates are recognised by their hash.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, Day, Millis};

use super::{Collector, Seen};
use crate::source::Source;
use crate::status::Phase;
use crate::time::{parse_time, time};
use crate::{Closed, Intake, Resume};

mod order;
mod page;
mod step;
mod window;

use window::Window;

pub(crate) const UNTIL: &str = "poll/until";
const PLACE: &str = "poll";

/// The state that lasts from window to window.
struct Poller<I> {
    source: Arc<Source<I>>,
    collector: Collector,
    seen: Seen,
    /// Everything before this time has been read.
    until: Millis,
    /// Events before this time are not requested: the start, or the time after an event that the
    /// server could not send.
    floor: Millis,
    /// The time after which the server could not send an event, once that has been reported.
    unsent: Option<Millis>,
}

/// Reads forever, or, if the settings say so, until everything that was in the log at the start has
/// been read.
pub(crate) async fn run<I: Intake>(source: Arc<Source<I>>, resume: &Resume) -> Result<(), Closed> {
    let goal = source.now();
    let stored = resume.cursors.get(UNTIL).and_then(|text| parse_time(text));
    let mut poller = Poller {
        collector: Collector::audit(&source),
        seen: Seen::new(source.settings.limits.hashes, &resume.recent_hashes),
        until: stored.unwrap_or(source.start()).max(source.start()),
        floor: source.start(),
        unsent: None,
        source: source.clone(),
    };
    let limits = &source.settings.limits;
    loop {
        let end = source.now() - limits.lag.as_millis() as Millis;
        let to = window_end(poller.until, limits.window.as_millis() as Millis, end);
        if to > poller.until {
            let from = (poller.until - limits.overlap.as_millis() as Millis).max(poller.floor);
            let fresh = Window::new(&mut poller, from, to - 1).read().await?;
            poller.until = poller.until.max(to);
            poller.store(poller.until).await?;
            if to < end {
                continue;
            }
            if source.settings.exit_on_last_event && to >= goal {
                source
                    .status
                    .update(|status| status.phase = Phase::CaughtUp);
                return Ok(());
            }
            if fresh == 0 {
                source
                    .status
                    .update(|status| status.phase = Phase::CaughtUp);
            }
        }
        let wait = if source.settings.exit_on_last_event {
            // Wait no longer than until the lag has passed since the start.
            let left = (goal - end).clamp(0, limits.poll.as_millis() as Millis);
            Duration::from_millis(left as u64 + 1).min(limits.poll)
        } else {
            limits.poll
        };
        source.rest(wait).await;
    }
}

/// The end of a window: after `size`, at midnight, or at `end`.
fn window_end(from: Millis, size: Millis, end: Millis) -> Millis {
    let midnight = Day(Day::of(from).0.saturating_add(1)).start();
    end.min(midnight).min(from.saturating_add(size.max(1)))
}

impl<I: Intake> Poller<I> {
    /// Stores the collected events. Everything before `until` has been read.
    async fn store(&mut self, until: Millis) -> Result<(), Closed> {
        let moved = vec![CursorUpdate {
            key: UNTIL.to_owned(),
            value: Some(time(until)),
        }];
        self.source.store(&mut self.collector, moved).await?;
        self.source
            .status
            .update(|status| status.read_until = Some(until));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_at_midnight_or_after_their_size_or_at_the_end() {
        let day = Day::MILLIS;
        for (from, size, end, to) in [
            (0, day, 10 * day, day),
            (5, day, 10 * day, day),
            (5, 100, 10 * day, 105),
            (day - 5, 100, 10 * day, day),
            (day, day, day + 7, day + 7),
            (-5, day, 10 * day, 0),
        ] {
            assert_eq!(window_end(from, size, end), to, "{from} {size} {end}");
        }
        // A week: seven slices.
        let mut at = 3;
        let slices = std::iter::from_fn(|| {
            at = window_end(at, 30 * day, 7 * day);
            (at < 7 * day).then_some(at)
        });
        assert_eq!(slices.count(), 6);
    }
}
