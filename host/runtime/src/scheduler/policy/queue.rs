//! The calls of one pipeline, and how long they take.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{CallId, StageId};
use crate::limits::{LEVEL_FACTOR, LEVELS, SHORTER_CALLS, SLOW_CALL};

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Calls that have not begun.
    pub(super) waiting: usize,
    /// Calls that have begun and wait for their next slice.
    pub(super) paused: VecDeque<Paused>,
    pub(super) running: usize,
    /// CPU time on each level, without the advances of running calls. On level 0 it is the queue's
    /// virtual time.
    pub(super) used: [Duration; LEVELS],
    /// CPU time that the running calls have probably used since their last slices ended. It counts
    /// while they run, so that a queue does not begin many calls before the first is charged.
    pub(super) advance: Duration,
    /// CPU time of the call that returned last.
    pub(super) last_call: Duration,
    pub(super) last_turn: u64,
    /// The paces of the stages of which a call with a batch has returned or turned out to be slow,
    /// and that of a preparation that has turned out to be slow, until it has ended.
    pub(super) paces: BTreeMap<StageId, Pace>,
    /// The highest level of these. None if the queue is new.
    pub(super) level: Option<Level>,
    /// A call of it has run on its present level. On a level of slow calls, others wait until that
    /// call has returned.
    pub(super) is_under_way: bool,
    /// It has been removed, and is kept until the calls that have begun return.
    pub(super) is_removed: bool,
}

#[derive(Debug)]
pub(super) struct Paused {
    pub(super) call: CallId,
    pub(super) advance: Duration,
}

/// How long the calls of a stage take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) level: Level,
    /// Calls in a row that were shorter than those of this level.
    shorter: u32,
    /// The highest level of these.
    highest: Level,
}

/// How long calls take. Level 0 is that of quick calls.
pub(super) type Level = usize;

impl Queue {
    pub(super) fn begun(&self) -> usize {
        self.running + self.paused.len()
    }

    pub(super) fn level(&self) -> Level {
        self.level.unwrap_or_default()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.waiting > 0 || self.begun() > 0
    }

    /// Moves its time on this level forward, if it is behind `time`.
    pub(super) fn begin_at(&mut self, level: Level, time: Duration) {
        self.used[level] = self.used[level].max(time);
    }

    /// Virtual time of a quick queue.
    pub(super) fn time(&self) -> Duration {
        self.used[0] + self.advance
    }
}

impl Pace {
    /// A call has shown that it is at least on this level.
    pub(super) fn of(level: Level) -> Pace {
        Pace {
            level,
            ..Pace::default()
        }
    }

    /// A call of this level has returned.
    pub(super) fn after(before: Option<Pace>, returned: Level) -> Pace {
        match before {
            Some(before) if returned < before.level => {
                let highest = before.highest.max(returned);
                match before.shorter + 1 {
                    SHORTER_CALLS => Pace::of(highest),
                    shorter => Pace {
                        level: before.level,
                        shorter,
                        highest,
                    },
                }
            }
            _ => Pace::of(returned),
        }
    }
}

/// The level of a call that takes this much CPU time.
pub(super) fn level_of(cpu: Duration) -> Level {
    let mut longest = SLOW_CALL;
    let mut level = 0;
    while cpu > longest && level + 1 < LEVELS {
        longest *= LEVEL_FACTOR;
        level += 1;
    }
    level
}
