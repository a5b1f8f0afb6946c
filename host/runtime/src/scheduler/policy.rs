//! Chooses the pipeline whose call runs next. Pure: [`super::Scheduler`] provides threads and
//! clock.
//!
//! Each queue has a virtual time, the CPU time of its calls so far, and the waiting queue with the
//! lowest goes first. A queue that was idle starts at the lowest virtual time of the busy queues,
//! so that idle time is not saved up. A running call counts as much as the queue's last call until
//! its own time is known; otherwise a quick queue would look idle while it occupies every thread.
//!
//! Long calls are those that take more than 5 ms. A batch passes through several calls, one after
//! another, and between two of them its queue has none. If long calls then took all threads, each
//! short call would wait for one of them to end, although its queue has used the least time. So
//! queues with long calls run on at most half of the threads while others have short ones: until
//! eight long calls in a row have begun with no short one among them. Then long calls may take all
//! threads, so that none stays idle for a queue that has a call now and then. A queue has long
//! calls until its short ones have taken eight times as much CPU time as the longest: otherwise a
//! few short calls would hide the long ones among them.
//!
//! Slow calls are those that take more than 50 ms. Queues with slow calls run one call at a time,
//! on threads of their own, which are half as many and have a lower priority. A call that turns out
//! to be slow while it runs hands over its place to another: it goes on, but counts no longer,
//! except that its queue does not begin a further slow call.
//!
//! It is not known how long the calls of a new queue take, and it must neither occupy the threads
//! nor wait for the slow calls of others. New queues have a thread of their own, and run one call
//! at a time over all of them.
//!
//! The virtual times of quick, slow and new queues are compared only among themselves. A queue that
//! changes from one to the other begins at the lowest time of the busy queues there.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::{HANDED_OVER_MAX, LONG_CALL, LONG_CALLS, QUICK_CALLS, SLOW_CALL};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueId(u64);

/// The classes of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Quick,
    Slow,
    New,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It loads or configures a component. It says nothing about how long a batch takes.
    Preparation,
    Batch,
}

/// A running call. Returned to [`Policy::finish`].
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    pub(super) queue: QueueId,
    pub(super) class: Class,
    /// It turned out to be slow, and handed over its place to another call.
    pub(super) handed_over: bool,
    /// It is on a thread for quick calls, and its queue has long ones.
    long: bool,
    charged: Duration,
}

#[derive(Debug)]
pub(super) struct Policy {
    threads: usize,
    queues: BTreeMap<QueueId, Queue>,
    next_id: u64,
    /// Counts turns, to choose between queues with equal times.
    turns: u64,
    /// The virtual time at which a queue begins to be busy, or becomes one of this class. Never
    /// decreases.
    quick_floor: Duration,
    slow_floor: Duration,
    /// Short and long calls.
    running_quick: usize,
    running_long: usize,
    running_slow: usize,
    running_new: bool,
    handed_over: usize,
    /// Long calls that have begun since the last short one.
    long_calls: u32,
}

#[derive(Debug)]
struct Queue {
    waiting: usize,
    running: usize,
    /// Virtual time without the charges of running calls.
    used: Duration,
    charged: Duration,
    last_call: Duration,
    last_turn: u64,
    /// CPU time that its short calls must take before it no longer counts as one with long calls.
    short_time_due: Duration,
    pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// No call with a batch has returned yet.
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
            next_id: 0,
            turns: 0,
            quick_floor: Duration::ZERO,
            slow_floor: Duration::ZERO,
            running_quick: 0,
            running_long: 0,
            running_slow: 0,
            running_new: false,
            handed_over: 0,
            // No queue with short calls is known.
            long_calls: LONG_CALLS,
        }
    }

    /// Slow calls that may run at the same time.
    pub(super) fn slow_threads(&self) -> usize {
        (self.threads / 2).max(1)
    }

    /// Long calls that may run at the same time.
    fn long_threads(&self) -> usize {
        if self.long_calls < LONG_CALLS {
            (self.threads / 2).max(1)
        } else {
            self.threads
        }
    }

    pub(super) fn add(&mut self) -> QueueId {
        let id = QueueId(self.next_id);
        self.next_id += 1;
        let queue = Queue {
            waiting: 0,
            running: 0,
            used: Duration::ZERO,
            charged: Duration::ZERO,
            last_call: Duration::ZERO,
            last_turn: 0,
            short_time_due: Duration::ZERO,
            pace: Pace::Unknown,
        };
        self.queues.insert(id, queue);
        id
    }

    /// Removes a queue with its waiting calls. Running calls must still [`finish`](Policy::finish).
    pub(super) fn remove(&mut self, id: QueueId) {
        self.queues.remove(&id);
    }

    /// Adds a waiting call.
    pub(super) fn submit(&mut self, id: QueueId) {
        self.advance_floors();
        let Some(class) = self.queues.get(&id).map(Queue::class) else {
            return;
        };
        let floor = self.floor(class);
        if let Some(queue) = self.queues.get_mut(&id) {
            if queue.is_idle() {
                queue.used = queue.used.max(floor);
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

    /// The classes of threads that have a call to run now.
    pub(super) fn next_classes(&self) -> impl Iterator<Item = Class> {
        let classes = [Class::Quick, Class::Slow, Class::New].into_iter();
        classes.filter(|&class| self.next(class).is_some())
    }

    /// Begins the next call for this class of threads, if there is one.
    pub(super) fn take(&mut self, class: Class) -> Option<Turn> {
        let id = self.next(class)?;
        self.advance_floors();
        self.turns += 1;
        let queue = self.queues.get_mut(&id)?;
        let charged = queue.last_call;
        let long = class == Class::Quick && queue.has_long_calls();
        queue.waiting -= 1;
        queue.running += 1;
        queue.charged += charged;
        queue.last_turn = self.turns;
        match class {
            Class::New => self.running_new = true,
            Class::Slow => self.running_slow += 1,
            Class::Quick => {
                self.running_quick += 1;
                self.running_long += usize::from(long);
                self.long_calls = if long {
                    self.long_calls.saturating_add(1)
                } else {
                    0
                };
            }
        }
        Some(Turn {
            queue: id,
            class,
            handed_over: false,
            long,
            charged,
        })
    }

    /// Whether a running call that turned out to be slow may give its place to another one. The
    /// threads for slow calls are for just that.
    pub(super) fn may_hand_over(&self, turn: &Turn) -> bool {
        turn.class != Class::Slow && !turn.handed_over && self.handed_over < HANDED_OVER_MAX
    }

    /// A running call turned out to be slow: another one may run in its place.
    pub(super) fn hand_over(&mut self, turn: &mut Turn, purpose: Purpose) {
        self.free_place(turn);
        turn.handed_over = true;
        self.handed_over += 1;
        self.change_pace(turn.queue, |pace| pace.after(purpose, true));
    }

    fn change_pace(&mut self, id: QueueId, change: impl FnOnce(Pace) -> Pace) {
        self.advance_floors();
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let class = queue.class();
        queue.pace = change(queue.pace);
        let now = queue.class();
        if now != class {
            // The times of one class say nothing about those of another.
            let floor = self.floor(now);
            self.queues.entry(id).and_modify(|queue| queue.used = floor);
        }
    }

    fn free_place(&mut self, turn: &Turn) {
        if turn.handed_over {
            self.handed_over -= 1;
            return;
        }
        match turn.class {
            Class::New => self.running_new = false,
            Class::Quick => {
                self.running_quick -= 1;
                self.running_long -= usize::from(turn.long);
            }
            Class::Slow => self.running_slow -= 1,
        }
    }

    pub(super) fn finish(&mut self, turn: Turn, purpose: Purpose, cpu: Duration, timed_out: bool) {
        self.free_place(&turn);
        if let Some(queue) = self.queues.get_mut(&turn.queue) {
            queue.running -= 1;
            queue.charged -= turn.charged;
            queue.used += cpu;
            queue.last_call = cpu;
            if purpose == Purpose::Batch {
                queue.note_length(cpu);
            }
        }
        let is_slow = timed_out || cpu > SLOW_CALL;
        self.change_pace(turn.queue, |pace| pace.after(purpose, is_slow));
    }

    pub(super) fn is_slow(&self, id: QueueId) -> bool {
        self.queues
            .get(&id)
            .is_some_and(|queue| matches!(queue.pace, Pace::Slow { .. }))
    }

    /// The queue whose call runs next on this class of threads.
    fn next(&self, class: Class) -> Option<QueueId> {
        let has_thread = match class {
            Class::Quick => self.running_quick < self.threads,
            Class::Slow => self.running_slow < self.slow_threads(),
            Class::New => !self.running_new,
        };
        if !has_thread {
            return None;
        }
        let long_may_run = self.running_long < self.long_threads();
        self.first_waiting(|queue| {
            queue.class() == class
                && match class {
                    Class::Quick => long_may_run || !queue.has_long_calls(),
                    Class::Slow | Class::New => queue.running == 0,
                }
        })
    }

    fn first_waiting(&self, may_run: impl Fn(&Queue) -> bool) -> Option<QueueId> {
        self.queues
            .iter()
            .filter(|(_, queue)| queue.waiting > 0 && may_run(queue))
            .min_by_key(|(_, queue)| (queue.time(), queue.last_turn))
            .map(|(&id, _)| id)
    }

    fn floor(&self, class: Class) -> Duration {
        match class {
            Class::Quick => self.quick_floor,
            Class::Slow => self.slow_floor,
            Class::New => Duration::ZERO,
        }
    }

    fn advance_floors(&mut self) {
        let least = |class| {
            let busy = self.queues.values().filter(|queue| !queue.is_idle());
            let times = busy.filter(|queue| queue.class() == class).map(Queue::time);
            times.min().unwrap_or_default()
        };
        let (quick, slow) = (least(Class::Quick), least(Class::Slow));
        self.quick_floor = self.quick_floor.max(quick);
        self.slow_floor = self.slow_floor.max(slow);
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// Virtual time.
    fn time(&self) -> Duration {
        self.used + self.charged
    }

    fn has_long_calls(&self) -> bool {
        !self.short_time_due.is_zero()
    }

    fn note_length(&mut self, cpu: Duration) {
        self.short_time_due = if cpu > LONG_CALL {
            // A longer call hands over its place.
            let due = cpu.min(SLOW_CALL) * LONG_CALLS;
            self.short_time_due.max(due)
        } else {
            self.short_time_due.saturating_sub(cpu)
        };
    }

    fn class(&self) -> Class {
        match self.pace {
            Pace::Quick => Class::Quick,
            Pace::Slow { .. } => Class::Slow,
            Pace::Unknown => Class::New,
        }
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
