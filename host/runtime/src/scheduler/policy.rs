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
//! theirs. A batch passes through several calls, one after
//! another, and between two of them its queue is idle.
//!
//! Slow calls are those that take more than [`SLOW_CALL`]. A queue with slow calls, or of which no
//! call with a batch has returned yet, begins and runs one at a time, because a call that has begun
//! keeps its instance and its memory while it pauses. For the same reason, only so many calls have
//! begun at a time, over all queues, fewer slow ones, and fewer still of new queues; and a queue
//! does not begin a second call while many have begun. A call that turns out to be slow while there
//! are enough of them ends, and is made again when its turn comes: otherwise slow calls would keep
//! quick ones from beginning.
//!
//! [`SLOW_CALL`]: crate::limits::SLOW_CALL

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limits::{
    BEGUN_CALLS_MAX, HEAD_START, NEW_CALLS_MAX, NEW_HEAD_START, QUICK_CALLS, SLICE, SLOW_CALLS_MAX,
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

/// A call that has begun. Returned to [`Policy::finish`].
#[derive(Debug)]
#[must_use]
pub(super) struct BegunCall {
    pub(super) id: CallId,
    pub(super) queue: QueueId,
    /// It turned out to be slow, or the calls of its queue are.
    pub(super) is_slow: bool,
    /// The limit that it counts against, besides the one for all.
    counted: Option<Counted>,
    /// What it counts for in advance, while it runs.
    charge: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Of a queue of which no call with a batch has returned.
    New,
    /// It turned out to be slow, or the calls of its queue are.
    Slow,
}

/// What a running call does at the end of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceEnd {
    GoOn,
    /// It must [`pause`](Policy::pause).
    Pause,
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
    begun: usize,
    begun_new: usize,
    begun_slow: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Calls that have not begun.
    waiting: usize,
    /// Calls that have begun, do not run and could.
    paused: VecDeque<Paused>,
    running: usize,
    /// Virtual time without the charges of running calls.
    used: Duration,
    charged: Duration,
    last_call: Duration,
    last_turn: u64,
    pace: Pace,
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
    Quick,
    Slow {
        /// Quick calls in a row since the last slow one.
        quick_calls: u32,
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
            begun: 0,
            begun_new: 0,
            begun_slow: 0,
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
        self.advance_floor();
        if let Some(queue) = self.queues.get_mut(&id) {
            if queue.is_idle() {
                queue.begin_at(self.floor, HEAD_START);
            }
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
        let id = self.first(|_| true)?;
        self.advance_floor();
        let queue = self.queues.get_mut(&id)?;
        self.turns += 1;
        self.running += 1;
        queue.last_turn = self.turns;
        queue.running += 1;
        if let Some(Paused { call, charge }) = queue.paused.pop_front() {
            queue.charged += charge;
            return Some(Next::Resumes(call));
        }
        // It may have waited for other calls to end, see `has_call`.
        if queue.begun() == 1 {
            let head_start = match queue.pace {
                Pace::Unknown => NEW_HEAD_START,
                _ => HEAD_START,
            };
            queue.begin_at(self.floor, head_start);
        }
        let charge = queue.last_call.min(SLICE);
        let counted = match queue.pace {
            Pace::Unknown => Some(Counted::New),
            Pace::Slow { .. } => Some(Counted::Slow),
            Pace::Quick => None,
        };
        queue.waiting -= 1;
        queue.charged += charge;
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.begun += 1;
        self.begun_new += usize::from(counted == Some(Counted::New));
        self.begun_slow += usize::from(counted == Some(Counted::Slow));
        Some(Next::Begins(BegunCall {
            id: call,
            queue: id,
            is_slow: counted == Some(Counted::Slow),
            counted,
            charge,
        }))
    }

    /// A running call has used this much CPU time since it was last asked.
    pub(super) fn end_slice(&mut self, call: &BegunCall, cpu: Duration) -> SliceEnd {
        let Some(queue) = self.queues.get_mut(&call.queue) else {
            return SliceEnd::Stop;
        };
        queue.used += cpu;
        if queue.is_removed {
            return SliceEnd::Stop;
        }
        let is_one_too_many = queue.is_slow() && queue.running > 1;
        let time = queue.used;
        let is_behind = |queue: &Queue| queue.time() + SLICE <= time;
        if is_one_too_many || self.first(is_behind).is_some() {
            SliceEnd::Pause
        } else {
            SliceEnd::GoOn
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

    /// A running call turned out to be slow. Returns false if as many slow calls have begun as may:
    /// it must end, and is made again as one of a slow queue. What is no batch goes on, and still
    /// counts as it did: nothing shows beforehand that it will be slow.
    pub(super) fn note_slow(&mut self, call: &mut BegunCall, purpose: Purpose) -> bool {
        call.is_slow = true;
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            queue.pace = queue.pace.after(purpose, true);
        }
        if call.counted == Some(Counted::Slow) {
            return true;
        }
        if self.begun_slow >= SLOW_CALLS_MAX {
            return purpose == Purpose::Preparation;
        }
        self.begun_new -= usize::from(call.counted == Some(Counted::New));
        self.begun_slow += 1;
        call.counted = Some(Counted::Slow);
        true
    }

    /// A running call has returned.
    pub(super) fn finish(&mut self, call: BegunCall, purpose: Purpose, finished: &Finished) {
        self.running -= 1;
        self.begun -= 1;
        self.begun_new -= usize::from(call.counted == Some(Counted::New));
        self.begun_slow -= usize::from(call.counted == Some(Counted::Slow));
        if let Some(queue) = self.queues.get_mut(&call.queue) {
            queue.running -= 1;
            queue.charged -= call.charge;
            queue.used += finished.last_slice;
            queue.last_call = finished.cpu;
            queue.pace = queue.pace.after(purpose, finished.is_slow);
        }
        self.forget_if_removed(call.queue);
    }

    pub(super) fn is_slow(&self, id: QueueId) -> bool {
        self.queues.get(&id).is_some_and(Queue::is_slow)
    }

    /// Of these queues, the one whose call runs next.
    fn first(&self, of: impl Fn(&Queue) -> bool) -> Option<QueueId> {
        self.queues
            .iter()
            .filter(|(_, queue)| self.has_call(queue) && of(queue))
            .min_by_key(|(_, queue)| (queue.time(), queue.last_turn))
            .map(|(&id, _)| id)
    }

    /// Whether it has a call that could run now.
    fn has_call(&self, queue: &Queue) -> bool {
        if !queue.paused.is_empty() {
            return queue.pace == Pace::Quick || queue.running == 0;
        }
        let may_begin = match (queue.pace, queue.begun()) {
            (Pace::Unknown, 0) => self.begun_new < NEW_CALLS_MAX,
            (Pace::Slow { .. }, 0) => self.begun_slow < SLOW_CALLS_MAX,
            (Pace::Quick, 0) => true,
            (Pace::Quick, begun) => begun < self.threads && self.begun < BEGUN_CALLS_MAX / 2,
            _ => false,
        };
        queue.waiting > 0 && may_begin && self.begun < BEGUN_CALLS_MAX
    }

    fn advance_floor(&mut self) {
        let runs = |queue: &&Queue| queue.running > 0 || self.has_call(queue);
        let busy = self.queues.values().filter(runs);
        let least = busy.map(Queue::time).min().unwrap_or_default();
        self.floor = self.floor.max(least);
    }
}

/// The cost of a call.
#[derive(Debug)]
pub(super) struct Finished {
    /// CPU time of the call.
    pub(super) cpu: Duration,
    /// Its part since the last [`Policy::end_slice`].
    pub(super) last_slice: Duration,
    /// It took too long for a quick one, or timed out.
    pub(super) is_slow: bool,
}

impl Queue {
    fn begun(&self) -> usize {
        self.running + self.paused.len()
    }

    fn is_slow(&self) -> bool {
        matches!(self.pace, Pace::Slow { .. })
    }

    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.begun() == 0
    }

    /// It was idle, or could not begin. The time is not saved up.
    fn begin_at(&mut self, floor: Duration, head_start: Duration) {
        self.used = self.used.max(floor.saturating_sub(head_start));
    }

    /// Virtual time.
    fn time(&self) -> Duration {
        self.used + self.charged
    }
}

impl Pace {
    fn after(self, purpose: Purpose, slow: bool) -> Pace {
        match self {
            _ if purpose == Purpose::Preparation => self,
            _ if slow => Pace::Slow { quick_calls: 0 },
            Pace::Slow { quick_calls } if quick_calls + 1 < QUICK_CALLS => Pace::Slow {
                quick_calls: quick_calls + 1,
            },
            _ => Pace::Quick,
        }
    }
}

#[cfg(test)]
mod tests;
