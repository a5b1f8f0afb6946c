//! Polling: the log as pages of a search, in windows of time, oldest first.
//!
//! The only cursor is a time, `poll/until`: everything before it was read. The server's keys are
//! followed within one time only and never kept: ties reorder between pages, and a server answers a
//! key that it does not know, or that lies outside the window, with an empty page, as if there were
//! no more. Pages and windows overlap instead; what comes twice is left out by its hash.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, Day, Millis};

use super::{Collector, Seen};
use crate::connect::{parse_time, time};
use crate::context::Context;
use crate::status::Phase;
use crate::{Closed, Intake, Resume};

mod order;
mod page;
mod step;
mod window;

use window::Window;

pub(crate) const UNTIL: &str = "poll/until";
const PLACE: &str = "poll";

/// What lasts from window to window.
struct Poller<I> {
    context: Arc<Context<I>>,
    collector: Collector,
    seen: Seen,
    /// Everything before it was read.
    until: Millis,
    /// Nothing before it is asked for: the start, or what lies after something that the server
    /// could not send.
    floor: Millis,
    /// After this time something could not be sent, and that was reported.
    unsent: Option<Millis>,
}

/// Reads for ever, or until everything that stood in the log at the start has been read, where that
/// is wanted.
pub(crate) async fn run<I: Intake>(
    context: Arc<Context<I>>,
    resume: &Resume,
) -> Result<(), Closed> {
    let goal = context.now();
    let stored = resume.cursors.get(UNTIL).and_then(|text| parse_time(text));
    let mut poller = Poller {
        collector: Collector::audit(&context),
        seen: Seen::new(context.settings.limits.hashes, &resume.recent_hashes),
        until: stored.unwrap_or(context.start()).max(context.start()),
        floor: context.start(),
        unsent: None,
        context: context.clone(),
    };
    let limits = &context.settings.limits;
    loop {
        let end = context.now() - limits.lag.as_millis() as Millis;
        let to = window_end(poller.until, limits.window.as_millis() as Millis, end);
        if to > poller.until {
            let from = (poller.until - limits.overlap.as_millis() as Millis).max(poller.floor);
            let fresh = Window::new(&mut poller, from, to - 1).read().await?;
            poller.until = poller.until.max(to);
            poller.store(poller.until).await?;
            if to < end {
                continue;
            }
            if context.settings.exit_on_last_event && to >= goal {
                context
                    .board
                    .update(|status| status.phase = Phase::CaughtUp);
                return Ok(());
            }
            if fresh == 0 {
                context
                    .board
                    .update(|status| status.phase = Phase::CaughtUp);
            }
        }
        let wait = if context.settings.exit_on_last_event {
            // No longer than until the goal lies behind the lag.
            let left = (goal - end).clamp(0, limits.poll.as_millis() as Millis);
            Duration::from_millis(left as u64 + 1).min(limits.poll)
        } else {
            limits.poll
        };
        context.rest(wait).await;
    }
}

/// Windows end after so long, at midnight, or at the end.
fn window_end(from: Millis, size: Millis, end: Millis) -> Millis {
    let midnight = Day(Day::of(from).0.saturating_add(1)).start();
    end.min(midnight).min(from.saturating_add(size.max(1)))
}

impl<I: Intake> Poller<I> {
    /// Stores what was collected; everything before `until` has been read then.
    async fn store(&mut self, until: Millis) -> Result<(), Closed> {
        let moved = vec![CursorUpdate {
            key: UNTIL.to_owned(),
            value: Some(time(until)),
        }];
        self.context.store(&mut self.collector, moved).await?;
        self.context
            .board
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
