//! Decides whose call runs next, and when a running call must wait for others. Pure:
//! [`super::Scheduler`] provides threads and clock.
//!
//! # Shares
//!
//! Each pipeline has a queue. The virtual time of a queue is the CPU time that its calls have used,
//! and the queue with the lowest goes first. Calls run in slices of about [`SLICE`]: at the end of
//! each, a call pauses if another queue is behind its own. So the length of a call does not matter
//! to others, and each of `n` busy pipelines gets at least one `n`th of the threads, at once.
//!
//! A queue that was idle, or could not begin a call because of the limits below, starts
//! [`HEAD_START`] before the lowest virtual time of the busy queues. That is little, so that idle
//! time is not saved up. But it is enough for a queue that uses less than its share: a batch passes
//! through several calls, one after another, and although the queue is idle between two of them, it
//! does not wait for the queues that use all of their shares.
//!
//! # Slow calls
//!
//! A call that has begun keeps its instance and its memory while it is paused. If slow calls, those
//! that take more than [`SLOW_CALL`], paused for each other, all of them would soon have begun, and
//! all would end late. So they are served in levels, as in a multi-level feedback queue: the calls
//! of one level take up to [`LEVEL_FACTOR`] times as long as those of the level below.
//!
//! A level takes part in the order above like a queue. Its virtual time passes more slowly the more
//! busy queues it has, so that each of them counts as much as a quick one. Within a level, calls
//! run to their end one after another, and the queue that has used the least CPU time on this level
//! is next. So few calls have begun, and a call only waits for others that are about as long as
//! itself.
//!
//! A call that outgrows its level moves up to the next, unless [`LEVEL_CALLS_MAX`] calls have begun
//! there. Then it is postponed: it ends, and is made again when its queue is next on that level.
//!
//! A queue is on the level of its slowest stage: the quick calls of a sink do not hide the slow
//! ones of a mapper. A stage moves down after [`SHORTER_CALLS`] shorter calls in a row.
//!
//! A preparation, which loads or configures a component, is served in the same way. Its level is
//! that of the queue until it has ended, also while it waits to be made again. After that, the
//! queue is as it was.
//!
//! # Limits
//!
//! A slow queue has one call at a time, and so has a new one, until its first call with a batch has
//! returned. Of quick queues, [`QUICK_CALLS_MAX`] calls may have begun, and of new ones
//! [`NEW_CALLS_MAX`]. While half of the former have, a quick queue does not begin a second one.
//!
//! [`LEVEL_FACTOR`]: crate::limits::LEVEL_FACTOR
//! [`SHORTER_CALLS`]: crate::limits::SHORTER_CALLS
//! [`SLOW_CALL`]: crate::limits::SLOW_CALL

mod queue;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{
    HEAD_START, LEVEL_CALLS_MAX, LEVELS, NEW_CALLS_MAX, NEW_HEAD_START, QUICK_CALLS_MAX, SLICE,
};
use queue::{Level, Pace, Paused, Queue, level_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(u64);

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It loads or configures a component, which does not show how long a batch takes.
    Preparation,
    Batch,
    /// The host works for the pipeline. It runs in short jobs, which say nothing about the calls.
    Work,
}

/// The stage or sink that a job calls. The default stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StageId(u64);

/// What a job does. The stage is known once it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobKind {
    pub(super) purpose: Purpose,
    pub(super) stage: StageId,
}

/// A call that has begun. Returned to [`Policy::finish`].
#[derive(Debug)]
#[must_use]
pub(super) struct BegunCall {
    pub(super) id: CallId,
    pub(super) queue: QueueId,
    /// It has turned out to be slow, or was begun by a slow queue.
    pub(super) is_slow: bool,
    /// It must end, and be made again.
    is_postponed: bool,
    counted: Counted,
    /// CPU time until its last slice ended.
    cpu: Duration,
    /// CPU time that its queue is charged in advance while it runs, see [`Queue::advance`].
    advance: Duration,
}

/// The limit that a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// That of new queues, of which no call with a batch has returned.
    New,
    /// That of this level.
    On(Level),
}

/// What a running call does at the end of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceEnd {
    GoOn,
    /// It must [`pause`](Policy::pause).
    Pause,
    /// It has outgrown its level, and as many calls as may have moved up to the next one: it must
    /// end, and be made again.
    Postpone,
    /// Its queue has been removed, so nobody waits for its result: it must end.
    Abandon,
}

/// The cost of a call.
#[derive(Debug)]
pub(super) struct Finished {
    /// CPU time of the call.
    pub(super) cpu: Duration,
    /// The part of it since the last [`Policy::end_slice`].
    pub(super) last_slice: Duration,
    pub(super) timed_out: bool,
    /// It was refused memory and ended early, so its length says nothing about the next one.
    pub(super) refused: bool,
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
    /// Numbers the turns. Of queues with equal times, the one whose last turn is longest ago goes
    /// first.
    turns: u64,
    /// The lowest virtual time of the quick queues and levels that have a call that runs or could.
    /// Never decreases.
    floor: Duration,
    running: usize,
    /// Calls of new queues that have begun.
    begun_new: usize,
    levels: [LevelState; LEVELS],
}

/// A level, without what its queues know. On level 0 only `begun` matters: each quick queue has a
/// virtual time of its own.
#[derive(Debug, Default)]
struct LevelState {
    /// Calls that have begun.
    begun: usize,
    /// Virtual time, without the advances of running calls.
    used: Duration,
    /// The least CPU time of a busy queue on this level. Never decreases.
    floor: Duration,
    last_turn: u64,
}

/// What the queues of a level ask for now.
#[derive(Debug, Default)]
struct LevelDemand {
    /// Queues that have calls.
    busy: u32,
    /// The advances of their running calls.
    advance: Duration,
    /// Whether one of them has a call that runs or could.
    is_served: bool,
    /// The least time of a queue: on level 0, of those with a call that runs or could.
    least: Option<Duration>,
    /// The queue that is next, of those with a call that could run.
    next: Option<Candidate>,
}

/// A queue with a call that could run. The least one is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// It is slow, and none of its calls is under way, see [`Queue::is_under_way`].
    is_yet_to_begin: bool,
    /// The virtual time of a quick queue, or the CPU time of a slow one on its level.
    time: Duration,
    last_turn: u64,
    id: QueueId,
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
            self.join(id, queue.level());
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
        let demand = self.demand();
        let id = self.choose(&demand)?;
        self.raise_floors(&demand);
        let queue = self.queues.get_mut(&id)?;
        let level = queue.level();
        self.turns += 1;
        self.running += 1;
        self.levels[level].last_turn = self.turns;
        queue.last_turn = self.turns;
        queue.is_under_way = true;
        queue.running += 1;
        if let Some(Paused { call, advance }) = queue.paused.pop_front() {
            queue.advance += advance;
            return Some(Next::Resumes(call));
        }
        // It may have been kept from beginning by the limits in `can_run`.
        if level == 0 && queue.begun() == 1 {
            let head_start = match queue.level {
                None => NEW_HEAD_START,
                Some(_) => HEAD_START,
            };
            queue.begin_at(0, self.floor.saturating_sub(head_start));
        }
        let advance = queue.last_call.min(SLICE);
        let counted = match queue.level {
            None => Counted::New,
            Some(level) => Counted::On(level),
        };
        queue.waiting -= 1;
        queue.advance += advance;
        let call = CallId(self.next_call);
        self.next_call += 1;
        *self.begun_of(counted) += 1;
        Some(Next::Begins(BegunCall {
            id: call,
            queue: id,
            is_slow: level > 0,
            is_postponed: false,
            counted,
            cpu: Duration::ZERO,
            advance,
        }))
    }

    /// A running call has used this much CPU time since its last slice ended.
    pub(super) fn end_slice(
        &mut self,
        call: &mut BegunCall,
        job: JobKind,
        cpu: Duration,
    ) -> SliceEnd {
        self.charge(call, cpu);
        if self
            .queues
            .get(&call.queue)
            .is_none_or(|queue| queue.is_removed)
        {
            return SliceEnd::Abandon;
        }
        if !self.move_up(call, job) {
            return SliceEnd::Postpone;
        }
        if self.must_pause(call.queue) {
            return SliceEnd::Pause;
        }
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            queue.is_under_way = true;
        }
        SliceEnd::GoOn
    }

    /// A running call gives its thread to others, until [`take`](Policy::take) returns it.
    pub(super) fn pause(&mut self, call: &BegunCall) {
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            let BegunCall { id, advance, .. } = *call;
            queue.running -= 1;
            queue.advance -= advance;
            queue.paused.push_back(Paused { call: id, advance });
            self.running -= 1;
        }
    }

    /// A running call has returned.
    pub(super) fn finish(&mut self, mut call: BegunCall, job: JobKind, finished: &Finished) {
        self.charge(&mut call, finished.last_slice);
        self.running -= 1;
        *self.begun_of(call.counted) -= 1;
        let level = level_of(finished.cpu).max(usize::from(finished.timed_out));
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            queue.running -= 1;
            queue.advance -= call.advance;
            queue.last_call = finished.cpu;
            queue.is_under_way &= queue.begun() > 0;
            let pace = queue.paces.get(&job.stage).copied();
            match job.purpose {
                Purpose::Batch if !finished.refused => {
                    self.set_pace(call.queue, job.stage, Some(Pace::after(pace, level)));
                }
                Purpose::Preparation if !call.is_postponed => {
                    self.set_pace(call.queue, job.stage, None);
                }
                Purpose::Batch | Purpose::Preparation | Purpose::Work => {}
            }
        }
        self.forget_if_removed(call.queue);
    }

    /// Whether the calls of this queue are slow.
    pub(super) fn is_slow(&self, id: QueueId) -> bool {
        self.queues.get(&id).is_some_and(|queue| queue.level() > 0)
    }

    /// A call has used CPU time.
    fn charge(&mut self, call: &mut BegunCall, cpu: Duration) {
        call.cpu += cpu;
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            let level = queue.level();
            queue.used[level] += cpu;
            let busy = self.demand()[level].busy.max(1);
            self.levels[level].used += cpu / busy;
        }
    }

    /// Moves a call to the level that it has reached, and its queue with it. Returns false if too
    /// many have begun there.
    fn move_up(&mut self, call: &mut BegunCall, job: JobKind) -> bool {
        let level = level_of(call.cpu);
        let counted = match call.counted {
            Counted::New => 0,
            Counted::On(level) => level,
        };
        if level <= counted || job.purpose == Purpose::Work {
            return true;
        }
        call.is_slow = true;
        if let Some(queue) = self.queues.get(&call.queue) {
            let pace = queue.paces.get(&job.stage).copied();
            if pace.is_none_or(|pace| pace.level < level) {
                self.set_pace(call.queue, job.stage, Some(Pace::of(level)));
            }
        }
        if self.levels[level].begun >= LEVEL_CALLS_MAX {
            call.is_postponed = true;
            return false;
        }
        *self.begun_of(call.counted) -= 1;
        call.counted = Counted::On(level);
        *self.begun_of(call.counted) += 1;
        true
    }

    /// `None`: the stage has no pace any more.
    fn set_pace(&mut self, id: QueueId, stage: StageId, pace: Option<Pace>) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let before = queue.level();
        match pace {
            Some(pace) => _ = queue.paces.insert(stage, pace),
            None => _ = queue.paces.remove(&stage),
        }
        let level = queue.paces.values().map(|pace| pace.level).max();
        let after = level.unwrap_or_default();
        if after != before {
            self.join(id, after);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.level = level;
            queue.is_under_way &= after == before;
        }
    }

    /// A queue is about to be busy on this level. It starts a little before the others there: what
    /// it could have used before is not saved up.
    fn join(&mut self, id: QueueId, level: Level) {
        let demand = self.demand();
        self.raise_floors(&demand);
        let mut start = self.floor.saturating_sub(HEAD_START);
        if level > 0 {
            let state = &mut self.levels[level];
            if demand[level].busy == 0 {
                state.used = state.used.max(start);
            }
            start = state.floor.saturating_sub(HEAD_START);
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
        // It became slow while several of its calls ran.
        if level > 0 && queue.running > 1 {
            return true;
        }
        let used = match level {
            0 => queue.used[0],
            _ => self.levels[level].used,
        };
        let demand = self.demand();
        // Slow calls on the same level share a virtual time.
        let are_behind = demand.iter().enumerate().any(|(other, demand)| {
            let time = self.time(other, demand);
            (other == 0 || other != level) && time.is_some_and(|time| time + SLICE <= used)
        });
        match (level, demand[level].next) {
            (0, _) => are_behind,
            _ if are_behind => !self.runs_one_ahead_of(level, queue),
            // It has just moved up: those that are under way there go first, and those that have
            // used less.
            (_, Some(next)) if !queue.is_under_way => {
                !next.is_yet_to_begin || next.time + SLICE <= queue.used[level]
            }
            _ => false,
        }
    }

    /// Whether a queue that has used more than this one runs on this level: it will pause instead.
    fn runs_one_ahead_of(&self, level: Level, queue: &Queue) -> bool {
        let mut queues = self.queues.values();
        queues.any(|other| {
            other.level() == level
                && other.running > 0
                && other.used[level] > queue.used[level] + SLICE
        })
    }

    /// The queue whose call runs next.
    fn choose(&self, demand: &[LevelDemand; LEVELS]) -> Option<QueueId> {
        let candidates = demand.iter().enumerate().filter_map(|(level, demand)| {
            let next = demand.next?;
            let last_turn = match level {
                0 => next.last_turn,
                _ => self.levels[level].last_turn,
            };
            Some((self.time(level, demand)?, last_turn, next.id))
        });
        candidates.min().map(|(_, _, id)| id)
    }

    /// Virtual time of the quick queue that is next, or of a level of slow ones. None if no call
    /// could run.
    fn time(&self, level: Level, demand: &LevelDemand) -> Option<Duration> {
        let next = demand.next?;
        Some(match level {
            0 => next.time,
            _ => self.level_time(level, demand),
        })
    }

    fn level_time(&self, level: Level, demand: &LevelDemand) -> Duration {
        self.levels[level].used + demand.advance / demand.busy.max(1)
    }

    fn demand(&self) -> [LevelDemand; LEVELS] {
        let mut levels: [LevelDemand; LEVELS] = Default::default();
        let busy = self.queues.iter().filter(|(_, queue)| queue.is_busy());
        for (&id, queue) in busy {
            let level = queue.level();
            let time = match level {
                0 => queue.time(),
                _ => queue.used[level],
            };
            let can_run = self.can_run(queue);
            let is_served = can_run || queue.running > 0;
            let demand = &mut levels[level];
            demand.busy += 1;
            demand.advance += queue.advance;
            demand.is_served |= is_served;
            if is_served || level > 0 {
                demand.least = Some(demand.least.map_or(time, |least| least.min(time)));
            }
            if can_run {
                let candidate = Candidate {
                    is_yet_to_begin: level > 0 && !queue.is_under_way,
                    time,
                    last_turn: queue.last_turn,
                    id,
                };
                demand.next = Some(demand.next.map_or(candidate, |next| next.min(candidate)));
            }
        }
        levels
    }

    /// Whether this queue has a call that could run now, if a thread is free.
    fn can_run(&self, queue: &Queue) -> bool {
        let begun = queue.begun();
        let quick = self.levels[0].begun;
        match queue.level {
            Some(0) if !queue.paused.is_empty() => true,
            _ if !queue.paused.is_empty() => queue.running == 0,
            _ if queue.waiting == 0 => false,
            None => begun == 0 && self.begun_new < NEW_CALLS_MAX,
            Some(0) if begun == 0 => quick < QUICK_CALLS_MAX,
            Some(0) => begun < self.threads && quick < QUICK_CALLS_MAX / 2,
            // Those that moved up leave a place for each thread.
            Some(level) => begun == 0 && self.levels[level].begun < LEVEL_CALLS_MAX + self.threads,
        }
    }

    fn raise_floors(&mut self, demand: &[LevelDemand; LEVELS]) {
        let served = demand
            .iter()
            .enumerate()
            .filter(|(_, demand)| demand.is_served);
        let least = served.filter_map(|(level, demand)| match level {
            0 => demand.least,
            _ => Some(self.level_time(level, demand)),
        });
        self.floor = self.floor.max(least.min().unwrap_or_default());
        for (state, demand) in self.levels.iter_mut().zip(demand) {
            state.floor = state.floor.max(demand.least.unwrap_or_default());
        }
    }

    /// How many calls that have begun count against a limit.
    fn begun_of(&mut self, counted: Counted) -> &mut usize {
        match counted {
            Counted::New => &mut self.begun_new,
            Counted::On(level) => &mut self.levels[level].begun,
        }
    }
}

impl StageId {
    /// An id that no other stage has.
    pub(crate) fn next() -> StageId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        StageId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[cfg(test)]
mod tests;
