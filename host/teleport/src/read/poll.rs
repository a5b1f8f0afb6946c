//! Polling: the log as pages of a search, in time windows, oldest first.
//!
//! The only cursor is a time, `poll/until`: the events before it have been read. It moves to times
//! of events that the server has shown, never because time has passed here. Each round begins a
//! little before it and reads on to well after now, so it does not matter which clock is ahead.
//! Sweeps find what becomes visible later.
//!
//! The server's keys are followed only among events of the same time, and never stored: events with
//! equal times change their order between pages, and a server answers a key that it does not know,
//! or that lies outside the window, with an empty page, as at the end of the log. Pages and windows
//! overlap instead, and duplicates are recognised by their hash.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, Day, Millis};

use super::{Collector, Seen};
use crate::source::Source;
use crate::status::{CLOCK, Phase};
use crate::time::{parse_time, time};
use crate::{Clock, Closed, Intake, Resume, SourceLimits};

mod beside;
mod ending;
mod find;
mod horizon;
mod page;
mod retry;
mod standstill;
mod step;
mod sweep;
mod time_order;
mod window;

pub(crate) use beside::{retry_beside, retry_once};
pub(crate) use find::{events_at, find_event};
use horizon::{Horizon, Skew};
use page::{Query, Refusal};
use retry::Retries;
pub(crate) use standstill::REFUSED;
use standstill::Standstill;
pub(crate) use sweep::DUE as SWEEP_DUE;
use sweep::Sweeps;
use window::{Aim, Window};

pub(crate) const UNTIL: &str = "poll/until";
/// The keys of gaps that polling found begin so.
pub(crate) const GAP: &str = "poll/";
const PLACE: &str = "poll";
/// The place of what fails beside a bulk export.
const ASIDE: &str = "sweep of gaps";
/// How far after the end of the log the newest event is looked for.
const FAR: Millis = 31 * Day::MILLIS;
/// Windows without events grow by this factor …
const GROWTH: Millis = 4;
/// … unless the server took longer than this for one.
const QUICK: Duration = Duration::from_secs(5);
/// A difference of the clocks that is reported.
const SKEW_MAX: Millis = 15_000;

/// The state that lasts from window to window.
struct Poller<I> {
    source: Arc<Source<I>>,
    collector: Collector,
    seen: Seen,
    /// The events before this time have been read.
    until: Millis,
    /// As stored.
    stored: Option<Millis>,
    /// The time of the newest event that the server has shown, as far as it is credible.
    shown: Millis,
    /// The newest event of any type, and when to ask again.
    newest: Option<Millis>,
    newest_due: Duration,
    /// Events before this time are not requested: the start, or the time after an event that the
    /// server could not send.
    floor: Millis,
    standstill: Standstill,
    retries: Retries,
    horizon: Horizon,
    skew: Skew,
    is_skewed: bool,
    /// The newest new event of the round.
    latest: Option<Millis>,
    /// When the last round began.
    began: Option<Duration>,
    sweeps: Sweeps,
    /// It only tries gaps again, beside a bulk export.
    is_aside: bool,
}

/// A round that has ended.
struct Round {
    /// New events.
    fresh: u64,
    /// The wait before the next one, if the server refuses to return a part of the log.
    wait: Option<Duration>,
}

/// The time of the newest event of any type between two times.
pub(crate) async fn newest_event<I: Intake>(
    source: &Source<I>,
    from: Millis,
    to: Millis,
) -> Result<Option<Millis>, Refusal> {
    let query = Query {
        from,
        to,
        any_type: true,
        ..Query::default()
    };
    step::newest(source, &query).await
}

/// Reads forever, or, if the settings say so, until everything that was in the log at the start has
/// been read.
pub(crate) async fn run<I: Intake>(source: Arc<Source<I>>, resume: &Resume) -> Result<(), Closed> {
    let clock = source.settings.clock.clone();
    let goal = clock.elapsed() + source.settings.limits.lag;
    let mut poller = Poller::new(source.clone(), resume);
    loop {
        let (began, began_at) = (clock.elapsed(), clock.now());
        let round = Box::pin(poller.round()).await?;
        if let Some(wait) = round.wait {
            poller.rest(wait).await?;
            continue;
        }
        source.status.set_complete(began_at);
        poller.measure_skew(began);
        let is_last = source.settings.exit_on_last_event && began >= goal;
        if is_last {
            poller.finish().await?;
        }
        if round.fresh == 0 || is_last {
            source
                .status
                .update(|status| status.phase = Phase::CaughtUp);
        }
        if is_last {
            return Ok(());
        }
        if source.settings.exit_on_last_event {
            clock.sleep(goal.saturating_sub(clock.elapsed())).await;
        } else {
            let poll = source.settings.limits.poll;
            poller
                .rest(poll.mul_f64(1.0 - clock.chance() / 7.0))
                .await?;
        }
    }
}

impl<I: Intake> Poller<I> {
    fn new(source: Arc<Source<I>>, resume: &Resume) -> Poller<I> {
        let clock = &*source.settings.clock;
        let horizon = Horizon::new(clock, &resume.recent_times);
        let start = source.start();
        let stored = resume.cursors.get(UNTIL).and_then(|text| parse_time(text));
        let mut until = stored.unwrap_or(start).max(start);
        let limit = horizon.latest(clock);
        if until > limit && until > start {
            let latest = resume.recent_times.iter().map(|&(_, latest)| latest);
            let read = latest.clone().filter(|&time| time <= limit).max();
            let from = match read {
                Some(_) => "after the newest event in the store",
                None => "a day earlier, since the store has no earlier event",
            };
            // Events that were read before may have been removed from the store.
            let read = read.unwrap_or(limit - Day::MILLIS).max(start);
            if latest.max().is_none_or(|latest| until > latest) {
                source.status.report(format!(
                    "the stored position {} lies in the future: the clock of this machine is \
                     wrong, or was when it was stored. Reading continues at {}, {from}",
                    time(until),
                    time(read)
                ));
            }
            until = read;
        }
        Poller {
            collector: Collector::audit(&source),
            seen: Seen::new(source.settings.limits.hashes),
            until,
            stored,
            shown: until,
            newest: None,
            newest_due: Duration::ZERO,
            floor: start,
            standstill: Standstill::new(&source.settings.limits, clock, resume),
            retries: Retries::default(),
            horizon,
            skew: Skew::default(),
            is_skewed: false,
            latest: None,
            began: None,
            sweeps: Sweeps::new(&source.settings, resume),
            is_aside: false,
            source,
        }
    }

    /// Reads from shortly before the cursor to well after now, or to where it has to wait.
    async fn round(&mut self) -> Result<Round, Closed> {
        let source = self.source.clone();
        let (clock, limits) = (&*source.settings.clock, &source.settings.limits);
        // Newer events showed that earlier ones had a time in the future.
        self.until = self.until.min(self.horizon());
        self.shown = self.shown.min(self.horizon());
        self.latest = None;
        let is_asked = self.ask_newest().await;
        let newest = self.newest.unwrap_or(Millis::MIN);
        let mut end = self.local().max(self.until).max(newest) + millis(limits.ahead);
        if !is_asked && end - self.until > Day::MILLIS && self.is_quiet(end).await {
            // Nothing but the overlap has to be read.
            end = self.until + 1;
        }
        let (reread, base) = (millis(limits.reread), usual_window(limits));
        let (mut at, mut size, mut fresh) = (self.until, base, 0);
        let mut from = (at - reread).max(self.floor);
        while at < end {
            let mut to = window_end(at, size, end) - 1;
            if let Some(stop) = self.standstill.after(from) {
                // Up to there, the server may answer.
                to = to.min(stop - 1);
            }
            let to = self.cover(&mut from, to).await?;
            let asked = clock.elapsed();
            let is_tail = to >= newest.max(self.shown).min(self.horizon());
            let window = Window::new(self, from, to, Aim::Log { is_tail });
            let read = Box::pin(window.read()).await?;
            if read.refusal.is_some() {
                // The window had several days: they are read one by one, to find the one at fault.
                size = base;
                continue;
            }
            fresh += read.fresh;
            if read.wait.is_some() {
                let wait = read.wait;
                return Ok(Round { fresh, wait });
            }
            self.note_read(read.to);
            let next = (read.to + 1).max(self.floor.min(end));
            self.advance(next);
            if !self.collector.is_empty() || self.stored != Some(self.until) {
                self.store(self.until).await?;
            }
            let is_quick = clock.elapsed().saturating_sub(asked) < QUICK;
            size = if read.is_empty && is_quick {
                size.saturating_mul(GROWTH)
                    .min(millis(limits.window_max))
                    .max(base)
            } else {
                base
            };
            from = if next > at { next - reread } else { next };
            from = from.max(self.floor);
            at = at.max(next);
        }
        self.note_all_read().await?;
        if fresh == 0 {
            self.collector.forget_duplicates();
        }
        Ok(Round { fresh, wait: None })
    }

    /// Asks for the newest event of any type from time to time, so that a server is noticed whose
    /// clock is far ahead, and a log of which only some types are read. Returns whether it asked.
    async fn ask_newest(&mut self) -> bool {
        let now = self.clock().elapsed();
        if now < self.newest_due {
            return false;
        }
        self.newest_due = now + self.source.settings.limits.newest;
        let query = Query {
            from: self.until,
            to: self.local().max(self.until) + FAR,
            any_type: true,
            ..Query::default()
        };
        self.newest = step::newest_readable(&self.source, query).await;
        let horizon = self.horizon();
        if let Some(newest) = self.newest.filter(|&newest| newest <= horizon) {
            self.source.status.set_newest(newest);
        }
        true
    }

    /// Whether the server says that there are no events after the cursor.
    async fn is_quiet(&self, end: Millis) -> bool {
        let query = Query {
            from: self.until + 1,
            to: end,
            ..Query::default()
        };
        matches!(step::newest(&self.source, &query).await, Ok(None))
    }

    /// Moves the cursor: the windows before `to` have been read. It stays if the server has not
    /// shown a later event.
    fn advance(&mut self, to: Millis) {
        let horizon = self.horizon();
        let newest = self.newest.filter(|&newest| newest <= horizon);
        let floor = (self.floor <= horizon).then_some(self.floor);
        let shown = newest
            .into_iter()
            .chain(floor)
            .fold(self.shown, Millis::max);
        self.until = self.until.max(to.min(shown));
    }

    /// Makes sure that the stored events from `from` on are known. Returns up to when they are, at
    /// most `to`. If the store may have removed some, `from` is moved to the first that it still
    /// has, or to the cursor: the ones before would seem to be new.
    async fn cover(&mut self, from: &mut Millis, to: Millis) -> Result<Millis, Closed> {
        let max = self.source.settings.limits.hashes;
        self.seen.forget_before(*from);
        if let Some(end) = self.seen.end_from(*from) {
            return Ok(to.min(end));
        }
        let known = self.source.known(*from, Millis::MAX, max).await?;
        let end = known.until;
        if !known.is_complete {
            let first = known.events.iter().map(|&(time, _)| time).min();
            *from = (*from).max(first.unwrap_or(Millis::MAX).min(self.until).min(to));
        }
        self.seen = Seen::of(*from, known).with_max(max);
        Ok(to.min(end))
    }

    /// Stores the collected events. The events before `until` have been read.
    async fn store(&mut self, until: Millis) -> Result<(), Closed> {
        let moved = vec![CursorUpdate {
            key: UNTIL.to_owned(),
            value: Some(time(until)),
        }];
        self.source.store(&mut self.collector, moved).await?;
        self.stored = Some(until);
        self.source
            .status
            .update(|status| status.read_until = Some(until));
        Ok(())
    }

    /// Compares Teleport's clock with ours, after a round of a log that is read as it grows.
    fn measure_skew(&mut self, began: Duration) {
        let usual = self.source.settings.limits.poll * 3 + QUICK;
        let before = self.began.replace(began);
        let is_live = before.is_some_and(|before| began - before < usual);
        if let Some(latest) = self.latest.filter(|_| is_live) {
            self.skew.note(latest, self.clock().now());
        }
        let skew = self.skew.measured();
        let status = &self.source.status;
        status.set_skew(skew);
        let is_skewed = skew.is_some_and(|skew| skew.abs() > SKEW_MAX);
        match (is_skewed, self.is_skewed) {
            // It may have changed since it was shown.
            (true, _) => {
                let skew = skew.unwrap_or_default();
                let side = if skew > 0 { "ahead of" } else { "behind" };
                status.set_failure(
                    CLOCK,
                    format!(
                        "Teleport's clock is {} s {side} the clock of this machine, or all of its \
                         events arrive late",
                        skew.abs() / 1000
                    ),
                );
            }
            (false, true) => status.clear_failure(CLOCK),
            _ => {}
        }
        self.is_skewed = is_skewed;
    }

    fn clock(&self) -> &dyn Clock {
        &*self.source.settings.clock
    }

    fn local(&self) -> Millis {
        self.horizon.local(self.clock())
    }

    /// The latest time of an event that may move the cursor.
    fn horizon(&self) -> Millis {
        self.horizon.latest(self.clock())
    }
}

/// The size of a window if there are events.
fn usual_window(limits: &SourceLimits) -> Millis {
    millis(limits.window).min(Day::MILLIS)
}

/// The end of a window: after `size` or at `end`, and at midnight unless it is larger than a day.
fn window_end(from: Millis, size: Millis, end: Millis) -> Millis {
    let midnight = |time: Millis| Day(Day::of(time).0.saturating_add(1)).start();
    let to = from.saturating_add(size.max(1));
    if size > Day::MILLIS {
        return end.min(midnight(to));
    }
    end.min(midnight(from)).min(to)
}

fn millis(duration: Duration) -> Millis {
    duration.as_millis() as Millis
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
            (5, 2 * day, 10 * day, 3 * day),
            (5, 20 * day, 10 * day, 10 * day),
        ] {
            assert_eq!(window_end(from, size, end), to, "{from} {size} {end}");
        }
    }
}
