//! Trying to read gaps again.

use std::collections::BTreeMap;
use std::time::Duration;

use lockgate_model::{Gap, GapState, Millis};

use super::{GAP, Poller};
use crate::read::poll::window::{Aim, Read, Window};
use crate::read::{Collector, Seen};
use crate::{Closed, Intake};

/// A long gap is read in this many slices ...
const SLICES: Millis = 8;
/// ... of at least an hour.
const SLICE_MIN: Millis = 3_600_000;

/// Parts of a slice that are asked for one by one in the first attempt ...
const PARTS: usize = 64;
/// ... and twice as many in each of so many more. Later attempts are as the first.
const DOUBLINGS: u64 = 2;

/// The gaps that polling found, and when each is tried again.
#[derive(Debug, Default)]
pub(super) struct Retries {
    schedules: BTreeMap<String, Schedule>,
}

#[derive(Debug, Default)]
struct Schedule {
    due: Duration,
    failures: u32,
    pass: Option<Pass>,
}

/// One attempt to read a gap.
#[derive(Clone, Debug)]
struct Pass {
    at: Millis,
    found: u64,
    /// Attempts at the slice at `at` that were refused.
    attempts: u32,
    /// The part that the server still refuses, with the reason.
    refused: Option<(Millis, Millis, String)>,
    is_doubtful: bool,
}

impl Pass {
    fn new(gap: &Gap) -> Pass {
        Pass {
            at: gap.from,
            found: 0,
            attempts: 0,
            refused: None,
            is_doubtful: false,
        }
    }
}

impl<I: Intake> Poller<I> {
    /// When the next gap is tried again, at most in an hour.
    pub(super) fn retry_wake(&mut self) -> Duration {
        let (first, longest) = self.source.settings.limits.gap_wait;
        let now = self.source.settings.clock.elapsed();
        let open = self.source.gaps.beginning(GAP);
        let schedules = &mut self.retries.schedules;
        schedules.retain(|key, _| open.iter().any(|gap| gap.key == *key));
        let due = open.into_iter().map(|gap| {
            let schedule = schedules.entry(gap.key).or_insert_with(|| Schedule {
                due: now + first,
                ..Schedule::default()
            });
            schedule.due
        });
        due.min().unwrap_or(now + longest)
    }

    pub(super) fn retry_due(&mut self, now: Duration) -> bool {
        self.retry_wake() <= now && self.sweeps.is_free(now)
    }

    /// Reads the next slice of the gap that is due first.
    pub(super) async fn retry(&mut self) -> Result<(), Closed> {
        let source = self.source.clone();
        let first = self
            .retries
            .schedules
            .iter()
            .min_by_key(|(_, schedule)| schedule.due);
        let Some(gap) = first.and_then(|(key, _)| source.gaps.of(key)) else {
            return Ok(());
        };
        let schedule = self.retries.schedules.get_mut(&gap.key);
        let pass = schedule.and_then(|schedule| schedule.pass.take());
        let mut pass = pass.unwrap_or_else(|| Pass::new(&gap));
        self.retry_slice(&gap, &mut pass).await?;
        let schedule = self.retries.schedules.entry(gap.key.clone()).or_default();
        if pass.at <= gap.to {
            schedule.pass = Some(pass);
            return Ok(());
        }
        schedule.failures += 1;
        let (first, longest) = source.settings.limits.gap_wait;
        let wait = first.saturating_mul(3u32.saturating_pow(schedule.failures.min(10)));
        schedule.due = source.settings.clock.elapsed() + wait.min(longest);
        source.note_gap(outcome(gap, &pass, source.now())).await
    }

    /// Tries each gap once, to its end.
    pub(super) async fn retry_each(&mut self) -> Result<(), Closed> {
        let source = self.source.clone();
        for gap in source.gaps.beginning(GAP) {
            let mut pass = Pass::new(&gap);
            while pass.at <= gap.to {
                self.retry_slice(&gap, &mut pass).await?;
            }
            source.note_gap(outcome(gap, &pass, source.now())).await?;
        }
        Ok(())
    }

    async fn retry_slice(&mut self, gap: &Gap, pass: &mut Pass) -> Result<(), Closed> {
        let size = (gap.millis() / SLICES).max(SLICE_MIN);
        let from = pass.at;
        let to = gap.to.min(from.saturating_add(size - 1));
        let (read, to) = self.retry_part(gap, from, to, pass).await?;
        pass.is_doubtful |= read.is_doubtful;
        if read.refusal.is_none() && (read.is_doubtful || read.is_empty && !was_refused(gap)) {
            self.divide(gap, from, read.to, pass).await?;
        }
        match read.refusal {
            None => {
                pass.at = read.to + 1;
                pass.attempts = 0;
            }
            // Teleport may be busy.
            Some(_) if read.reached > from => {
                pass.at = read.reached;
                pass.attempts = 0;
            }
            Some(_) if pass.attempts + 1 < self.sweeps.attempts() => pass.attempts += 1,
            Some(refusal) => {
                pass.attempts = 0;
                let error = format!("it {refusal}");
                let begin = pass.refused.take().map_or(from, |(begin, ..)| begin);
                pass.refused = Some((begin, to, error));
                pass.at = to + 1;
            }
        }
        Ok(())
    }

    /// Reads a slice in halves, quarters and so on, as far as nothing comes of them. An event that
    /// is too large to be sent hides those after it, and of several, the first hides the rest.
    async fn divide(
        &mut self,
        gap: &Gap,
        from: Millis,
        to: Millis,
        pass: &mut Pass,
    ) -> Result<(), Closed> {
        let mut parts = match gap.attempts {
            attempts @ 0..=DOUBLINGS => PARTS << attempts,
            _ => PARTS,
        };
        let mut silent = vec![(from, to)];
        while !silent.is_empty() && parts >= 2 * silent.len() {
            parts -= 2 * silent.len();
            let mut still = Vec::new();
            for (from, to) in silent {
                let middle = from + (to - from) / 2;
                for (from, to) in [(from, middle), (middle + 1, to)] {
                    if from > to {
                        continue;
                    }
                    let (read, _) = self.retry_part(gap, from, to, pass).await?;
                    // What hid it is still there.
                    pass.is_doubtful |= !read.is_empty;
                    let is_read = !read.is_empty && !read.is_doubtful && read.refusal.is_none();
                    if !(is_read && read.to == to) && from < to {
                        still.push((from, to));
                    }
                }
            }
            silent = still;
        }
        Ok(())
    }

    /// Reads a part of a gap, and says up to where it tried.
    async fn retry_part(
        &mut self,
        gap: &Gap,
        from: Millis,
        to: Millis,
        pass: &mut Pass,
    ) -> Result<(Read, Millis), Closed> {
        let source = self.source.clone();
        // Retention may have removed events of this time. They are not of the gap, of which none
        // was read.
        let known = source.known(from, to, source.settings.limits.slice).await?;
        let to = known.until.min(to);
        let main = std::mem::replace(&mut self.seen, Seen::of(from, known));
        // It may be before the start: another reader has read on since.
        let collector = Collector::audit_from(&source, gap.from);
        let collector = std::mem::replace(&mut self.collector, collector);
        let read = Box::pin(Window::new(self, from, to, Aim::Sweep).read()).await;
        self.seen = main;
        self.collector = collector;
        let read = read?;
        self.seen.note(&read.late);
        let found = read.late.len() as u64;
        pass.found += found;
        source.status.update(|status| status.late += found);
        Ok((read, to))
    }
}

/// The server answered with an error, and did not leave something out.
fn was_refused(gap: &Gap) -> bool {
    gap.key.starts_with(&format!("{GAP}refused/"))
}

/// The gap after an attempt. What could be read of it at its begin and its end is no longer a part
/// of it.
fn outcome(gap: Gap, pass: &Pass, now: Millis) -> Gap {
    let attempts = gap.attempts + 1;
    // If the server leaves something out, an answer without it proves nothing.
    let is_proven = was_refused(&gap) || pass.found > 0;
    match &pass.refused {
        Some((from, to, error)) => Gap {
            from: *from,
            to: *to,
            error: error.clone(),
            attempts,
            ..gap
        },
        None if pass.is_doubtful || !is_proven => Gap { attempts, ..gap },
        None => Gap {
            attempts,
            state: GapState::Read {
                at: now,
                events: pass.found,
            },
            ..gap
        },
    }
}
