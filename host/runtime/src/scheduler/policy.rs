//! Chooses the pipeline whose call runs next. Pure: [`super::Scheduler`] provides threads and
//! clock.
//!
//! Each queue has a virtual time, the CPU time of its calls so far, and the waiting queue with the
//! lowest goes first. A queue that was idle starts at the lowest virtual time of the busy queues,
//! so that idle time is not saved up. A running call counts as much as the queue's last call until
//! its own time is known; otherwise a quick queue would look idle while it occupies every thread.
//!
//! Queues with slow calls run one call at a time, and all of them together on at most half of the
//! threads. A call that turns out to be slow while it runs hands over its place to another: it goes
//! on, but counts no longer, except that its queue does not begin a further slow call.
//!
//! It is not known how long the calls of a new queue take, and it must neither occupy the threads nor
//! wait for the slow calls of others. New queues have a thread of their own, and run one call at a
//! time over all of them. Their virtual times are compared only among themselves: once a queue is
//! no longer new, its time counts from the lowest of the busy queues.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::{HANDED_OVER_MAX, QUICK_CALLS, SLOW_CALL};

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
    charged: Duration,
}

#[derive(Debug)]
pub(super) struct Policy {
    threads: usize,
    queues: BTreeMap<QueueId, Queue>,
    next_id: u64,
    /// Counts turns, to choose between queues with equal times.
    turns: u64,
    /// The virtual time at which an idle queue starts. Never decreases.
    floor: Duration,
    /// Quick and slow calls.
    running: usize,
    running_slow: usize,
    running_new: bool,
    handed_over: usize,
}

#[derive(Debug)]
struct Queue {
    waiting: usize,
    running: usize,
    /// Virtual time, including the charges of running calls.
    used: Duration,
    last_call: Duration,
    last_turn: u64,
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
            floor: Duration::ZERO,
            running: 0,
            running_slow: 0,
            running_new: false,
            handed_over: 0,
        }
    }

    /// Slow calls that may run at the same time.
    pub(super) fn slow_threads(&self) -> usize {
        (self.threads / 2).max(1)
    }

    pub(super) fn add(&mut self) -> QueueId {
        let id = QueueId(self.next_id);
        self.next_id += 1;
        let queue = Queue {
            waiting: 0,
            running: 0,
            used: Duration::ZERO,
            last_call: Duration::ZERO,
            last_turn: 0,
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
        let floor = self.advance_floor();
        if let Some(queue) = self.queues.get_mut(&id) {
            if queue.is_idle() && queue.class() != Class::New {
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

    /// The classes of threads that have a call to run now: quick or slow, and new.
    pub(super) fn next_classes(&self) -> impl Iterator<Item = Class> {
        let shared = self.next_shared().map(|(_, class)| class);
        let new = self.next_new().map(|_| Class::New);
        shared.into_iter().chain(new)
    }

    /// Begins the next call for this class of threads, if there is one.
    pub(super) fn take(&mut self, class: Class) -> Option<Turn> {
        let id = match class {
            Class::New => self.next_new()?,
            Class::Quick | Class::Slow => {
                let (id, next) = self.next_shared()?;
                (next == class).then_some(id)?
            }
        };
        self.advance_floor();
        self.turns += 1;
        let queue = self.queues.get_mut(&id)?;
        let charged = queue.last_call;
        queue.waiting -= 1;
        queue.running += 1;
        queue.used += charged;
        queue.last_turn = self.turns;
        match class {
            Class::New => self.running_new = true,
            Class::Quick | Class::Slow => self.running += 1,
        }
        self.running_slow += usize::from(class == Class::Slow);
        Some(Turn {
            queue: id,
            class,
            handed_over: false,
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
        let floor = self.advance_floor();
        if let Some(queue) = self.queues.get_mut(&id) {
            let was_new = queue.class() == Class::New;
            queue.pace = change(queue.pace);
            if was_new && queue.class() != Class::New {
                queue.used += floor;
            }
        }
    }

    fn free_place(&mut self, turn: &Turn) {
        if turn.handed_over {
            self.handed_over -= 1;
            return;
        }
        match turn.class {
            Class::New => self.running_new = false,
            Class::Quick => self.running -= 1,
            Class::Slow => {
                self.running -= 1;
                self.running_slow -= 1;
            }
        }
    }

    pub(super) fn finish(&mut self, turn: Turn, purpose: Purpose, cpu: Duration, timed_out: bool) {
        self.free_place(&turn);
        if let Some(queue) = self.queues.get_mut(&turn.queue) {
            queue.running -= 1;
            queue.used = queue.used.saturating_sub(turn.charged) + cpu;
            queue.last_call = cpu;
        }
        let is_slow = timed_out || cpu > SLOW_CALL;
        self.change_pace(turn.queue, |pace| pace.after(purpose, is_slow));
    }

    pub(super) fn is_slow(&self, id: QueueId) -> bool {
        self.queues
            .get(&id)
            .is_some_and(|queue| matches!(queue.pace, Pace::Slow { .. }))
    }

    /// The next call of the threads that quick and slow queues share.
    fn next_shared(&self) -> Option<(QueueId, Class)> {
        if self.running == self.threads {
            return None;
        }
        let slow_may_run = self.running_slow < self.slow_threads();
        let id = self.first_waiting(|queue| match queue.class() {
            Class::Quick => true,
            Class::Slow => slow_may_run && queue.running == 0,
            Class::New => false,
        })?;
        Some((id, self.queues[&id].class()))
    }

    /// The next call of the thread for new queues.
    fn next_new(&self) -> Option<QueueId> {
        if self.running_new {
            return None;
        }
        self.first_waiting(|queue| queue.class() == Class::New && queue.running == 0)
    }

    fn first_waiting(&self, may_run: impl Fn(&Queue) -> bool) -> Option<QueueId> {
        self.queues
            .iter()
            .filter(|(_, queue)| queue.waiting > 0 && may_run(queue))
            .min_by_key(|(_, queue)| (queue.used, queue.last_turn))
            .map(|(&id, _)| id)
    }

    fn advance_floor(&mut self) -> Duration {
        let known = |queue: &&Queue| queue.class() != Class::New;
        let busy = self.queues.values().filter(known);
        let busy = busy.filter(|queue| !queue.is_idle());
        let least = busy.map(|queue| queue.used).min();
        self.floor = self.floor.max(least.unwrap_or_default());
        self.floor
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
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
