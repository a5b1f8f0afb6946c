//! The calls of one pipeline, and how long they take.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{CallId, StageId};
use crate::limits::{LEVEL_FACTOR, LEVELS, SHORTER_CALLS, SLOW_CALL};

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Calls that have not begun.
    pub(super) waiting: usize,
    /// Calls that have begun, do not run and could.
    pub(super) paused: VecDeque<Paused>,
    pub(super) running: usize,
    /// CPU time on each level, without the charges of running calls. On the first one, it is the
    /// queue's virtual time.
    pub(super) used: [Duration; LEVELS],
    pub(super) charged: Duration,
    pub(super) last_call: Duration,
    pub(super) last_turn: u64,
    /// Of its stages of which a call with a batch has returned, or has turned out to be slow.
    pub(super) paces: BTreeMap<StageId, Pace>,
    /// The highest level of these.
    pub(super) level: Option<Level>,
    /// Its call has had a turn on this level, and runs to its end before others begin.
    pub(super) is_in_turn: bool,
    /// It exists only for the calls that have begun.
    pub(super) is_removed: bool,
}

#[derive(Debug)]
pub(super) struct Paused {
    pub(super) call: CallId,
    pub(super) charge: Duration,
}

/// How long the calls of a stage take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) level: Level,
    /// Calls in a row since the last one of this level …
    shorter: u32,
    /// … and the highest level of them.
    highest: Level,
}

/// How long calls take: 0 are quick ones.
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

    pub(super) fn begin_at(&mut self, level: Level, time: Duration) {
        self.used[level] = self.used[level].max(time);
    }

    /// Virtual time of a quick queue.
    pub(super) fn time(&self) -> Duration {
        self.used[0] + self.charged
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
pub(super) fn level(cpu: Duration) -> Level {
    let mut longest = SLOW_CALL;
    let mut level = 0;
    while cpu > longest && level + 1 < LEVELS {
        longest *= LEVEL_FACTOR;
        level += 1;
    }
    level
}
