//! Chooses the pipeline whose call runs next, and when a running call must wait for others. Pure:
//! [`super::Scheduler`] provides threads and clock.
//!
//! Each queue has a virtual time, the CPU time of its calls so far, and the queue with the lowest
//! goes first. Calls run in slices of about [`SLICE`]: at the end of each, a call pauses if another
//! queue is behind its own. So the length of a call does not matter to others, and each of `n` busy
//! pipelines gets at least its `n`th part of the threads, at once.
//!
//! A queue that was idle, or that could not begin because of the limits below, starts a little
//! before the lowest virtual time of the busy queues: not far, so that idle time is not saved up,
//! but far enough for a queue that uses less than its part not to wait for those that use all of
//! theirs. A batch passes through several calls, one after another, and between two of them its
//! queue is idle.
//!
//! A call that has begun keeps its instance and its memory while it pauses. So slow calls, those
//! that take more than [`SLOW_CALL`], should not pause for each other: all of them would have
//! begun, and all would end late. They are served in levels, as in a multi-level feedback queue:
//! those of one level take up to four times as long as those of the level below. A level is like a
//! queue whose virtual time passes more slowly the more pipelines it serves: each of them counts as
//! much as a quick one. Within a level, calls run to their end one after another, that of the
//! pipeline with the least CPU time in this level first. So few of them have begun, and whoever
//! waits for a place waits for calls that are about as long as its own.
//!
//! A call that takes longer than those of its level moves up. Only so many calls that moved up have
//! begun at a level: one more ends, and is made again when it is the turn of its pipeline there. A
//! queue is on the level of the longest of its last [`SHORTER_CALLS`] calls. One with slow calls,
//! or of which no call with a batch has returned yet, begins and runs one at a time. Only so many
//! calls of quick and of new queues have begun, and a queue does not begin a second one while many
//! have.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limits::{
    HEAD_START, LEVEL_CALLS_MAX, LEVEL_FACTOR, LEVELS, NEW_CALLS_MAX, NEW_HEAD_START,
    QUICK_CALLS_MAX, SHORTER_CALLS, SLICE, SLOW_CALL,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(u64);

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It loads or configures a component. It says nothing about how long a batch takes.
    Preparation,
    Batch,
}

/// How long calls take: 0 are quick ones.
type Level = usize;

/// A call that has begun. Returned to [`Policy::finish`].
#[derive(Debug)]
#[must_use]
pub(super) struct BegunCall {
    pub(super) id: CallId,
    pub(super) queue: QueueId,
    /// It turned out to be slow, or the calls of its queue are.
    pub(super) is_slow: bool,
    counted: Counted,
    /// CPU time until its last slice ended.
    cpu: Duration,
    /// What it counts for in advance, while it runs.
    charge: Duration,
}

/// The limit that a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Of a queue of which no call with a batch has returned.
    New,
    /// Of those on a level.
    On(Level),
}

/// What a running call does at the end of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceEnd {
    GoOn,
    /// It must [`pause`](Policy::pause).
    Pause,
    /// It takes longer than those of its level, and too many of the next one have begun: it must
    /// end, and be made again.
    Postpone,
    /// Its queue has been removed: nobody waits for it.
    Stop,
}

/// The call that runs next.
#[derive(Debug)]
pub(super) enum Next {
    Begins(BegunCall),
    Resumes(CallId),
}

#[derive(Debug)]
pub(super) struct Policy {
    threads: usize,
    queues: BTreeMap<QueueId, Queue>,
    next_queue: u64,
    next_call: u64,
    /// Counts turns, to choose between queues with equal times.
    turns: u64,
    /// The virtual time of the busy queue that is furthest behind, of those whose calls may run.
    /// Never decreases.
    floor: Duration,
    running: usize,
    begun_new: usize,
    levels: [Calls; LEVELS],
}

/// The calls of one level. The first level only counts those that have begun: its queues have
/// virtual times of their own.
#[derive(Debug, Default)]
struct Calls {
    begun: usize,
    /// Virtual time without the charges of running calls.
    used: Duration,
    /// The least CPU time that one of its busy queues had on this level. Never decreases.
    floor: Duration,
    last_turn: u64,
}

/// The queues of one level, as they are now.
#[derive(Debug, Default)]
struct Found {
    /// Those that have calls.
    busy: u32,
    /// The charges of their running calls.
    charged: Duration,
    /// A call of them runs, or could.
    is_served: bool,
    /// The least time that one of them has had: among quick ones, of those that are served.
    least: Option<Duration>,
    /// The first of those that have a call that could run now.
    first: Option<First>,
}

/// In the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct First {
    /// Its call has not had its turn on a level of slow ones.
    is_new: bool,
    /// Virtual time of a quick queue, CPU time of a slow one on its level.
    time: Duration,
    last_turn: u64,
    id: QueueId,
}

#[derive(Debug, Default)]
struct Queue {
    /// Calls that have not begun.
    waiting: usize,
    /// Calls that have begun, do not run and could.
    paused: VecDeque<Paused>,
    running: usize,
    /// CPU time on each level, without the charges of running calls. On the first one, it is the
    /// queue's virtual time.
    used: [Duration; LEVELS],
    charged: Duration,
    last_call: Duration,
    last_turn: u64,
    pace: Pace,
    /// Its call has had a turn on this level, and runs to its end before others begin.
    is_in_turn: bool,
    /// It exists only for the calls that have begun.
    is_removed: bool,
}

#[derive(Debug)]
struct Paused {
    call: CallId,
    charge: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pace {
    /// No call with a batch has returned.
    #[default]
    Unknown,
    Known {
        level: Level,
        /// Calls in a row since the last one of this level …
        shorter: u32,
        /// … and the highest level of them.
        highest: Level,
    },
}

impl Policy {
    pub(super) fn new(threads: usize) -> Policy {
        Policy {
            threads: threads.max(1),
            queues: BTreeMap::new(),
            next_queue: 0,
            next_call: 0,
            turns: 0,
            floor: Duration::ZERO,
            running: 0,
            begun_new: 0,
            levels: Default::default(),
        }
    }

    pub(super) fn add(&mut self) -> QueueId {
        let id = QueueId(self.next_queue);
        self.next_queue += 1;
        self.queues.insert(id, Queue::default());
        id
    }

    /// Removes a queue with its waiting calls. Those that have begun must still
    /// [`finish`](Policy::finish).
    pub(super) fn remove(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.waiting = 0;
            queue.is_removed = true;
        }
        self.forget_if_removed(id);
    }

    fn forget_if_removed(&mut self, id: QueueId) {
        let is_over = |queue: &Queue| queue.is_removed && queue.begun() == 0;
        if self.queues.get(&id).is_some_and(is_over) {
            self.queues.remove(&id);
        }
    }

    /// Adds a waiting call.
    pub(super) fn submit(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else {
            return;
        };
        if !queue.is_busy() {
            self.enter(id, queue.level());
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.waiting += 1;
        }
    }

    /// Withdraws a waiting call.
    pub(super) fn withdraw(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.waiting -= 1;
        }
    }

    /// Begins or resumes the next call, if there is one and a thread for it.
    pub(super) fn take(&mut self) -> Option<Next> {
        if self.running >= self.threads {
            return None;
        }
        let found = self.survey();
        let id = self.next(&found)?;
        self.advance_floors(&found);
        let queue = self.queues.get_mut(&id)?;
        let level = queue.level();
        self.turns += 1;
        self.running += 1;
        self.levels[level].last_turn = self.turns;
        queue.last_turn = self.turns;
        queue.is_in_turn = true;
        queue.running += 1;
        if let Some(Paused { call, charge }) = queue.paused.pop_front() {
            queue.charged += charge;
            return Some(Next::Resumes(call));
        }
        // It may have waited for other calls to end, see `has_call`.
        if level == 0 && queue.begun() == 1 {
            let head_start = match queue.pace {
                Pace::Unknown => NEW_HEAD_START,
                Pace::Known { .. } => HEAD_START,
            };
            queue.begin_at(0, self.floor.saturating_sub(head_start));
        }
        let charge = queue.last_call.min(SLICE);
        let counted = match queue.pace {
            Pace::Unknown => Counted::New,
            Pace::Known { level, .. } => Counted::On(level),
        };
        queue.waiting -= 1;
        queue.charged += charge;
        let call = CallId(self.next_call);
        self.next_call += 1;
        *self.begun(counted) += 1;
        Some(Next::Begins(BegunCall {
            id: call,
            queue: id,
            is_slow: level > 0,
            counted,
            cpu: Duration::ZERO,
            charge,
        }))
    }

    /// A running call has used this much CPU time since it was last asked.
    pub(super) fn end_slice(
        &mut self,
        call: &mut BegunCall,
        purpose: Purpose,
        cpu: Duration,
    ) -> SliceEnd {
        self.charge(call, cpu);
        if self
            .queues
            .get(&call.queue)
            .is_none_or(|queue| queue.is_removed)
        {
            return SliceEnd::Stop;
        }
        if !self.moves_up(call, purpose) {
            return SliceEnd::Postpone;
        }
        let pauses = self.must_pause(call.queue);
        match self.queues.get_mut(&call.queue) {
            None => SliceEnd::Stop,
            Some(_) if pauses => SliceEnd::Pause,
            Some(queue) => {
                queue.is_in_turn = true;
                SliceEnd::GoOn
            }
        }
    }

    /// A running call gives its thread to others, until [`take`](Policy::take) returns it.
    pub(super) fn pause(&mut self, call: &BegunCall) {
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            let BegunCall { id, charge, .. } = *call;
            queue.running -= 1;
            queue.charged -= charge;
            queue.paused.push_back(Paused { call: id, charge });
            self.running -= 1;
        }
    }

    /// A running call has returned.
    pub(super) fn finish(&mut self, mut call: BegunCall, purpose: Purpose, finished: &Finished) {
        self.charge(&mut call, finished.last_slice);
        self.running -= 1;
        *self.begun(call.counted) -= 1;
        let level = level(finished.cpu).max(usize::from(finished.timed_out));
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            queue.running -= 1;
            queue.charged -= call.charge;
            queue.last_call = finished.cpu;
            queue.is_in_turn &= queue.begun() > 0;
            let pace = queue.pace;
            if purpose == Purpose::Batch && !finished.refused {
                self.set_pace(call.queue, pace.after(level));
            }
        }
        self.forget_if_removed(call.queue);
    }

    /// Whether its calls are slow.
    pub(super) fn is_slow(&self, id: QueueId) -> bool {
        self.queues.get(&id).is_some_and(|queue| queue.level() > 0)
    }

    /// A call has used CPU time.
    fn charge(&mut self, call: &mut BegunCall, cpu: Duration) {
        call.cpu += cpu;
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            let level = queue.level();
            queue.used[level] += cpu;
            let busy = self.survey()[level].busy.max(1);
            self.levels[level].used += cpu / busy;
        }
    }

    /// Moves a call to the level that it has reached, and its queue with it. Returns false if too
    /// many have begun there. What is no batch goes on, and still counts as it did: nothing shows
    /// beforehand that it will be slow.
    fn moves_up(&mut self, call: &mut BegunCall, purpose: Purpose) -> bool {
        let level = level(call.cpu);
        let counted = match call.counted {
            Counted::New => 0,
            Counted::On(level) => level,
        };
        if level <= counted {
            return true;
        }
        call.is_slow = true;
        if purpose == Purpose::Batch
            && let Some(queue) = self.queues.get(&call.queue)
        {
            self.set_pace(call.queue, queue.pace.reaching(level));
        }
        if self.levels[level].begun >= LEVEL_CALLS_MAX {
            return purpose == Purpose::Preparation;
        }
        *self.begun(call.counted) -= 1;
        call.counted = Counted::On(level);
        *self.begun(call.counted) += 1;
        true
    }

    fn set_pace(&mut self, id: QueueId, pace: Pace) {
        let Some(queue) = self.queues.get(&id) else {
            return;
        };
        let moves = pace.level() != queue.level();
        if moves {
            self.enter(id, pace.level());
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.pace = pace;
            queue.is_in_turn &= !moves;
        }
    }

    /// A queue is about to be busy on this level. The time for which it was not is not saved up.
    fn enter(&mut self, id: QueueId, level: Level) {
        let found = self.survey();
        self.advance_floors(&found);
        let mut start = self.floor.saturating_sub(HEAD_START);
        if level > 0 {
            let calls = &mut self.levels[level];
            if found[level].busy == 0 {
                calls.used = calls.used.max(start);
            }
            start = calls.floor.saturating_sub(HEAD_START);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.begin_at(level, start);
        }
    }

    /// Whether a running call of this queue must wait for others.
    fn must_pause(&self, id: QueueId) -> bool {
        let Some(queue) = self.queues.get(&id) else {
            return false;
        };
        let level = queue.level();
        if level > 0 && queue.running > 1 {
            return true;
        }
        let used = match level {
            0 => queue.used[0],
            _ => self.levels[level].used,
        };
        let found = self.survey();
        let are_behind = found.iter().enumerate().any(|(other, found)| {
            let time = self.time(other, found);
            (other == 0 || other != level) && time.is_some_and(|time| time + SLICE <= used)
        });
        match (level, found[level].first) {
            (0, _) => are_behind,
            _ if are_behind => !self.runs_one_ahead_of(level, queue),
            (_, Some(first)) if !queue.is_in_turn => {
                !first.is_new || first.time + SLICE <= queue.used[level]
            }
            _ => false,
        }
    }

    /// Whether a call of this level runs that has had more than this one, and will pause instead.
    fn runs_one_ahead_of(&self, level: Level, queue: &Queue) -> bool {
        let mut queues = self.queues.values();
        queues.any(|other| {
            other.level() == level
                && other.running > 0
                && other.used[level] > queue.used[level] + SLICE
        })
    }

    /// The queue whose call runs next.
    fn next(&self, found: &[Found; LEVELS]) -> Option<QueueId> {
        let firsts = found.iter().enumerate().filter_map(|(level, found)| {
            let first = found.first?;
            let last_turn = match level {
                0 => first.last_turn,
                _ => self.levels[level].last_turn,
            };
            Some((self.time(level, found)?, last_turn, first.id))
        });
        firsts.min().map(|(_, _, id)| id)
    }

    /// Virtual time of the first quick queue with a call that could run now, or of a level of slow
    /// ones with such a queue.
    fn time(&self, level: Level, found: &Found) -> Option<Duration> {
        let first = found.first?;
        Some(match level {
            0 => first.time,
            _ => self.level_time(level, found),
        })
    }

    fn level_time(&self, level: Level, found: &Found) -> Duration {
        self.levels[level].used + found.charged / found.busy.max(1)
    }

    fn survey(&self) -> [Found; LEVELS] {
        let mut all: [Found; LEVELS] = Default::default();
        let busy = self.queues.iter().filter(|(_, queue)| queue.is_busy());
        for (&id, queue) in busy {
            let level = queue.level();
            let time = match level {
                0 => queue.time(),
                _ => queue.used[level],
            };
            let can_run = self.has_call(queue);
            let is_served = can_run || queue.running > 0;
            let first = First {
                is_new: level > 0 && !queue.is_in_turn,
                time,
                last_turn: queue.last_turn,
                id,
            };
            let found = &mut all[level];
            found.busy += 1;
            found.charged += queue.charged;
            found.is_served |= is_served;
            if is_served || level > 0 {
                found.least = Some(found.least.map_or(time, |least| least.min(time)));
            }
            if can_run {
                found.first = Some(found.first.map_or(first, |found| found.min(first)));
            }
        }
        all
    }

    /// Whether it has a call that could run now.
    fn has_call(&self, queue: &Queue) -> bool {
        let begun = queue.begun();
        let quick = self.levels[0].begun;
        match queue.pace {
            Pace::Known { level: 0, .. } if !queue.paused.is_empty() => true,
            _ if !queue.paused.is_empty() => queue.running == 0,
            _ if queue.waiting == 0 => false,
            Pace::Unknown => begun == 0 && self.begun_new < NEW_CALLS_MAX,
            Pace::Known { level: 0, .. } if begun == 0 => quick < QUICK_CALLS_MAX,
            Pace::Known { level: 0, .. } => begun < self.threads && quick < QUICK_CALLS_MAX / 2,
            // Those that moved up leave a place for each thread.
            Pace::Known { level, .. } => {
                begun == 0 && self.levels[level].begun < LEVEL_CALLS_MAX + self.threads
            }
        }
    }

    fn advance_floors(&mut self, found: &[Found; LEVELS]) {
        let served = found
            .iter()
            .enumerate()
            .filter(|(_, found)| found.is_served);
        let least = served.filter_map(|(level, found)| match level {
            0 => found.least,
            _ => Some(self.level_time(level, found)),
        });
        self.floor = self.floor.max(least.min().unwrap_or_default());
        for (calls, found) in self.levels.iter_mut().zip(found) {
            calls.floor = calls.floor.max(found.least.unwrap_or_default());
        }
    }

    /// The calls that count against a limit.
    fn begun(&mut self, counted: Counted) -> &mut usize {
        match counted {
            Counted::New => &mut self.begun_new,
            Counted::On(level) => &mut self.levels[level].begun,
        }
    }
}

/// The cost of a call.
#[derive(Debug)]
pub(super) struct Finished {
    /// CPU time of the call.
    pub(super) cpu: Duration,
    /// Its part since the last [`Policy::end_slice`].
    pub(super) last_slice: Duration,
    pub(super) timed_out: bool,
    /// It ended early, because it was refused memory: how long it took says nothing.
    pub(super) refused: bool,
}

impl Queue {
    fn begun(&self) -> usize {
        self.running + self.paused.len()
    }

    fn level(&self) -> Level {
        self.pace.level()
    }

    fn is_busy(&self) -> bool {
        self.waiting > 0 || self.begun() > 0
    }

    fn begin_at(&mut self, level: Level, time: Duration) {
        self.used[level] = self.used[level].max(time);
    }

    /// Virtual time of a quick queue.
    fn time(&self) -> Duration {
        self.used[0] + self.charged
    }
}

impl Pace {
    fn level(self) -> Level {
        match self {
            Pace::Unknown => 0,
            Pace::Known { level, .. } => level,
        }
    }

    /// A call with a batch has reached this level.
    fn reaching(self, reached: Level) -> Pace {
        match self {
            Pace::Known { level, .. } if reached <= level => self,
            _ => Pace::Known {
                level: reached,
                shorter: 0,
                highest: 0,
            },
        }
    }

    /// A call of this level with a batch has returned.
    fn after(self, returned: Level) -> Pace {
        match self {
            Pace::Known {
                level,
                shorter,
                highest,
            } if returned < level => {
                let highest = highest.max(returned);
                match shorter + 1 {
                    SHORTER_CALLS => Pace::Unknown.reaching(highest),
                    shorter => Pace::Known {
                        level,
                        shorter,
                        highest,
                    },
                }
            }
            _ => Pace::Unknown.reaching(returned),
        }
    }
}

/// The level of a call that takes this much CPU time.
fn level(cpu: Duration) -> Level {
    let mut longest = SLOW_CALL;
    let mut level = 0;
    while cpu > longest && level + 1 < LEVELS {
        longest *= LEVEL_FACTOR;
        level += 1;
    }
    level
}

#[cfg(test)]
mod tests;
