//! Waiting at a part of the log that the server refuses to return.
//!
//! The round ends there and begins again after the wait, so that events before that part are still
//! read, late ones are found, and gaps are tried again.

use std::time::Duration;

use lockgate_backoff::Backoff;
use lockgate_model::{CursorUpdate, FeedKind, Millis};

use super::{PLACE, Poller, millis};
use crate::time::{parse_time, time};
use crate::{Clock, Closed, Intake, Resume, SourceLimits};

/// The cursor with the time of the first refusal, so that a restart does not begin the wait again.
pub(crate) const REFUSED: &str = "poll/refused";
/// The place of its failure. Other requests are answered meanwhile.
const STANDSTILL: &str = "poll/held";

/// Where reading waits, and since when.
#[derive(Debug)]
pub(super) struct Standstill {
    /// The time from which the server refuses to answer.
    at: Option<Millis>,
    backoff: Backoff,
    /// When the server first refused to return a part of the log, and last.
    refused: Option<(Duration, Duration)>,
    /// How long it had refused when the source was started.
    before: Duration,
    /// The cursor is in the store.
    is_stored: bool,
}

impl Standstill {
    pub(super) fn new(limits: &SourceLimits, clock: &dyn Clock, resume: &Resume) -> Standstill {
        let stored = resume.cursors.get(REFUSED);
        let since = stored.and_then(|text| parse_time(text));
        let before = since.map_or(0, |since| (clock.now() - since).max(0));
        Standstill {
            at: None,
            backoff: Backoff::new(limits.backoff.0, limits.standstill),
            refused: None,
            before: Duration::from_millis(before as u64),
            is_stored: stored.is_some(),
        }
    }

    /// Whether reading waits at this time.
    pub(super) fn is_at(&self, at: Millis) -> bool {
        self.at == Some(at)
    }

    /// Where reading waits, if that is after `from`.
    pub(super) fn after(&self, from: Millis) -> Option<Millis> {
        self.at.filter(|&at| from < at)
    }

    /// How long the server has refused. One wait serves for all that it refuses, until reading has
    /// gone on and it has not refused anything for as long as `limit`.
    fn waited(&mut self, now: Duration, limit: Option<Duration>) -> Duration {
        let is_waiting = self.at.is_some();
        let is_recent = |last| limit.is_none_or(|limit| now - last <= limit);
        let since = match self.refused {
            // The searches of one attempt may take longer than the limit.
            Some((since, last)) if is_waiting || is_recent(last) => since,
            Some(_) => {
                self.before = Duration::ZERO;
                now
            }
            None => now,
        };
        self.refused = Some((since, now));
        self.before + (now - since)
    }
}

impl<I: Intake> Poller<I> {
    /// How long to wait before the next attempt at what the server refuses from `at` on. `None`: it
    /// has been waited for long enough.
    pub(super) async fn patience(
        &mut self,
        at: Millis,
        problem: &str,
    ) -> Result<Option<Duration>, Closed> {
        let source = self.source.clone();
        let clock = &source.settings.clock;
        let limit = source.settings.limits.gap_after;
        let waited = self.standstill.waited(clock.elapsed(), limit);
        if !std::mem::replace(&mut self.standstill.is_stored, true) {
            self.store_refused(Some(clock.now())).await?;
        }
        let left = limit.map(|limit| limit.saturating_sub(waited));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        let then = match left {
            Some(left) => format!(
                "from {} on, if Teleport then returns what comes later, reading goes on after it, \
                 and it is on the books as a gap (`gap-after`)",
                time(clock.now() + millis(left))
            ),
            None => "reading waits for it (`gap-after = \"never\"`)".to_owned(),
        };
        Ok(Some(self.wait_at(at, problem, &then, left)))
    }

    /// The wait before the next attempt at what the server refuses from `at` on.
    pub(super) fn wait_at(
        &mut self,
        at: Millis,
        problem: &str,
        then: &str,
        most: Option<Duration>,
    ) -> Duration {
        let clock = &self.source.settings.clock;
        if self.standstill.at.replace(at) != Some(at) {
            self.standstill.backoff.reset();
        }
        let wait = self.standstill.backoff.next(clock.chance());
        let wait = wait.min(most.unwrap_or(Duration::MAX));
        let next = clock.now() + millis(wait);
        let status = &self.source.status;
        let problem = format!("{problem}. It is tried again; {then}");
        status.set_failure_until(STANDSTILL, problem, Some(next));
        status.clear_failure(PLACE);
        wait
    }

    /// The log was read up to a time.
    pub(super) fn note_read(&mut self, to: Millis) {
        if self.standstill.at.is_some_and(|at| at <= to) {
            self.standstill.at = None;
            self.source.status.clear_failure(STANDSTILL);
        }
    }

    /// The log was read to its end.
    pub(super) async fn note_all_read(&mut self) -> Result<(), Closed> {
        self.note_read(Millis::MAX);
        self.standstill.before = Duration::ZERO;
        if std::mem::take(&mut self.standstill.is_stored) {
            self.store_refused(None).await?;
        }
        Ok(())
    }

    async fn store_refused(&self, since: Option<Millis>) -> Result<(), Closed> {
        let moved = CursorUpdate {
            key: REFUSED.to_owned(),
            value: since.map(time),
        };
        self.source.move_cursors(FeedKind::Audit, vec![moved]).await
    }
}
