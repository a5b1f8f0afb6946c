//! Reading the last hours again, for events that became visible only after later ones.

use std::time::Duration;

use lockgate_model::{CursorUpdate, FeedKind, Millis};

use super::{Poller, millis, usual_window, window_end};
use crate::limits::Sweep;
use crate::read::Seen;
use crate::read::poll::window::{Aim, Window};
use crate::status::SWEEP;
use crate::time::{parse_time, time, words};
use crate::{Closed, Intake, Resume, SourceSettings};

/// The keys of the cursors that say when a stretch is swept next begin so, and end with its length
/// in seconds. Only readers that are to end have them: the others sweep when they start.
pub(crate) const DUE: &str = "poll/sweep-due/";
/// Attempts at one place of a sweep before it goes on after the slice.
const ATTEMPTS: u32 = 8;
/// For each second of sweeping, this many are left for everything else.
const OTHER: u32 = 9;

/// The sweeps of a source, one slice of each after the other.
#[derive(Debug)]
pub(super) struct Sweeps {
    scheduled: Vec<ScheduledSweep>,
    /// The one to begin with when the next slice is read.
    next: usize,
    /// No slice is read before this time.
    pause: Duration,
    /// Attempts at one place of a sweep or a gap before reading goes on after the slice.
    attempts: u32,
    /// When a stretch is swept next is stored.
    is_stored: bool,
}

#[derive(Debug)]
struct ScheduledSweep {
    sweep: Sweep,
    due: Duration,
    pass: Option<Pass>,
}

/// One pass over the whole stretch.
#[derive(Debug)]
struct Pass {
    began: Duration,
    at: Millis,
    /// Inclusive.
    end: Millis,
    found: u64,
    /// How late the latest of them was.
    late: Millis,
    /// Attempts at the slice at `at` that were refused.
    refused: u32,
    problem: Option<String>,
}

impl Sweeps {
    pub(super) fn new(settings: &SourceSettings, resume: &Resume) -> Sweeps {
        let is_ending = settings.exit_on_last_event;
        let clock = &settings.clock;
        let scheduled = |&sweep: &Sweep| {
            let stored = resume.cursors.get(&due_key(&sweep)).filter(|_| is_ending);
            let left = stored.and_then(|text| parse_time(text)).unwrap_or_default() - clock.now();
            // A time that is further away was stored by a clock that was ahead.
            let left = Duration::from_millis(left.max(0) as u64);
            let left = Some(left).filter(|left| *left <= sweep.every);
            ScheduledSweep {
                sweep,
                due: left.map_or(Duration::ZERO, |left| clock.elapsed() + left),
                pass: None,
            }
        };
        Sweeps {
            scheduled: settings.limits.sweeps.iter().map(scheduled).collect(),
            next: 0,
            pause: Duration::ZERO,
            attempts: ATTEMPTS,
            is_stored: is_ending,
        }
    }

    /// Nothing is swept.
    pub(super) fn none() -> Sweeps {
        Sweeps {
            scheduled: Vec::new(),
            next: 0,
            pause: Duration::ZERO,
            attempts: ATTEMPTS,
            is_stored: false,
        }
    }

    /// What cannot be read is not tried again from now on.
    pub(super) fn try_once(&mut self) {
        self.attempts = 1;
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The sweeps that are due, or have begun.
    pub(super) fn all_due(&self, now: Duration) -> Vec<usize> {
        let indexes = 0..self.scheduled.len();
        indexes
            .filter(|&index| self.scheduled[index].due() <= now)
            .collect()
    }

    /// Whether a sweep has begun and not come to its end.
    pub(super) fn has_begun(&self, index: usize) -> bool {
        self.scheduled[index].pass.is_some()
    }

    /// Whether a slice may be read now.
    pub(super) fn is_free(&self, now: Duration) -> bool {
        self.pause <= now
    }

    /// When the next slice may be read. `None` if nothing is swept.
    fn wake(&self) -> Option<Duration> {
        let due = self.scheduled.iter().map(ScheduledSweep::due).min();
        due.map(|due| due.max(self.pause))
    }

    /// The sweep to read a slice of now.
    fn next_due(&mut self, now: Duration) -> Option<usize> {
        let count = self.scheduled.len();
        let index = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|&index| self.scheduled[index].due() <= now)?;
        self.next = index + 1;
        Some(index)
    }
}

impl ScheduledSweep {
    fn due(&self) -> Duration {
        if self.pass.is_some() {
            Duration::ZERO
        } else {
            self.due
        }
    }
}

impl<I: Intake> Poller<I> {
    /// Waits for the next round, and sweeps meanwhile.
    pub(super) async fn rest(&mut self, wait: Duration) -> Result<(), Closed> {
        let clock = self.source.settings.clock.clone();
        let round = clock.elapsed() + wait;
        loop {
            let now = clock.elapsed();
            if now >= round {
                return Ok(());
            }
            let wake = self
                .sweeps
                .wake()
                .unwrap_or(round)
                .min(self.retry_wake().max(self.sweeps.pause));
            if self.retry_due(now) {
                self.retry().await?;
                let done = clock.elapsed();
                self.sweeps.pause = done + (done - now) * OTHER;
            } else if wake <= now
                && let Some(index) = self.sweeps.next_due(now)
            {
                self.sweep(index).await?;
                let done = clock.elapsed();
                self.sweeps.pause = done + (done - now) * OTHER;
            } else {
                clock.sleep(wake.clamp(now, round) - now).await;
            }
        }
    }

    /// Reads the next slice of a sweep.
    pub(super) async fn sweep(&mut self, index: usize) -> Result<(), Closed> {
        let source = self.source.clone();
        let clock = &*source.settings.clock;
        let Sweep { span, every } = self.sweeps.scheduled[index].sweep;
        let mut pass = self.sweeps.scheduled[index].pass.take().unwrap_or(Pass {
            began: clock.elapsed(),
            at: (self.until.min(self.local()) - millis(span)).max(source.start()),
            // Rounds do not read before the floor, also if the position is before it because the
            // clock was set back.
            end: self.until.max(self.floor),
            found: 0,
            late: 0,
            refused: 0,
            problem: None,
        });
        if pass.at <= pass.end {
            self.sweep_slice(&mut pass).await?;
        }
        let now = clock.elapsed();
        let place = format!("{SWEEP} {}", words(span));
        if now - pass.began > span.max(every) {
            pass.problem = Some(format!(
                "looking for late events of the last {0} takes longer than {0}, so some may not be \
                 found: Teleport answers too slowly",
                words(span)
            ));
        }
        if let Some(problem) = &pass.problem {
            source.status.set_failure(&place, problem.clone());
        }
        if pass.at <= pass.end {
            self.sweeps.scheduled[index].pass = Some(pass);
            return Ok(());
        }
        if pass.problem.is_none() {
            source.status.clear_failure(&place);
        }
        if pass.found > 0 {
            tracing::info!(
                events = pass.found,
                latest_s = pass.late / 1000,
                "found events that became visible late in the last {}",
                words(span)
            );
        }
        let due = (pass.began + every).max(now);
        self.sweeps.scheduled[index].due = due;
        if self.sweeps.is_stored && pass.problem.is_none() {
            // What was found is in the store by now.
            let due = CursorUpdate {
                key: due_key(&self.sweeps.scheduled[index].sweep),
                value: Some(time(clock.now() + millis(due - now))),
            };
            source.move_cursors(FeedKind::Audit, vec![due]).await?;
        }
        Ok(())
    }

    async fn sweep_slice(&mut self, pass: &mut Pass) -> Result<(), Closed> {
        let source = self.source.clone();
        let limits = &source.settings.limits;
        let from = pass.at;
        if let Some(end) = source.end_of_gap(from) {
            // It is tried again by itself.
            pass.at = end + 1;
            return Ok(());
        }
        let mut to = window_end(from, usual_window(limits), pass.end + 1) - 1;
        to = to.min(source.next_gap(from).map_or(to, |gap| gap - 1));
        let read = if let Some(end) = self.seen.end_from(from) {
            to = self.seen.bound(from, to.min(end), limits.slice);
            Box::pin(Window::new(self, from, to, Aim::Sweep).read()).await?
        } else {
            let known = source.known(from, to, limits.slice).await?;
            to = known.until;
            if !known.is_complete {
                // Retention has removed events, which would seem to be new.
                pass.at = to + 1;
                return Ok(());
            }
            let main = std::mem::replace(&mut self.seen, Seen::of(from, known));
            let read = Box::pin(Window::new(self, from, to, Aim::Sweep).read()).await?;
            self.seen = main;
            self.seen.note(&read.late);
            read
        };
        self.collector.forget_duplicates();
        pass.found += read.late.len() as u64;
        let earliest = read.late.iter().map(|&(time, _)| time).min();
        pass.late = pass.late.max(earliest.map_or(0, |time| self.shown - time));
        pass.refused = match read.refusal {
            Some(_) if read.reached == from => pass.refused + 1,
            _ => 0,
        };
        pass.at = match read.refusal {
            // Teleport may be busy: it goes on here later.
            Some(_) if pass.refused < self.sweeps.attempts => read.reached,
            _ => read.to + 1,
        };
        let is_given_up = pass.refused >= self.sweeps.attempts;
        if let Some(refusal) = read.refusal.filter(|_| is_given_up) {
            pass.refused = 0;
            pass.problem = Some(format!(
                "late events cannot be looked for everywhere: Teleport {refusal}"
            ));
        }
        source
            .status
            .update(|status| status.late += read.late.len() as u64);
        Ok(())
    }
}

fn due_key(sweep: &Sweep) -> String {
    format!("{DUE}{}", sweep.span.as_secs())
}
