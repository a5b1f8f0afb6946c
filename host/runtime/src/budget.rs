//! The memory that all instances share, and the calls that wait for some of it.
//!
//! Each instance may have as much as is left of the total, as long as its call is quick. Slow calls
//! are those that have taken 50 ms of CPU time, and those of slow pipelines from their beginning.
//! Together they may have half of the total, whatever they took before they were slow, so that many
//! of them do not take the memory of quick calls. One of them may have more than what is left of
//! that half: otherwise a component that needs much would never have its turn beside smaller ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::contract::{SharedMemory, Shortage};
use tokio::sync::oneshot;

/// The memory that all instances of an engine may have together, in bytes.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    total: usize,
    account: Mutex<Account>,
}

/// Whose memory counts against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Against the total.
    Quick,
    /// Also against the half of slow calls.
    Slow,
    /// Against the total: the one slow call that may have more than what is left of the half.
    Excepted,
}

#[derive(Debug, Default)]
struct Account {
    /// Bytes of all instances.
    all: usize,
    /// Bytes of those with a slow call.
    slow: usize,
    /// A call is [`Side::Excepted`].
    one_is_excepted: bool,
    waiting: VecDeque<Waiting>,
}

/// A call that found too little memory.
#[derive(Debug)]
struct Waiting {
    shortage: Shortage,
    room: oneshot::Sender<()>,
}

impl InstanceMemory {
    pub(crate) fn new(total: usize) -> Arc<InstanceMemory> {
        Arc::new(InstanceMemory {
            total,
            account: Mutex::default(),
        })
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Whether less than half is left. Then no instance is kept for reuse.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.half()
    }

    pub(crate) fn used(&self) -> usize {
        self.lock().all
    }

    /// Waits until there is room for what a call needed. It may be gone again when the call asks.
    pub(crate) async fn room_for(&self, shortage: Shortage) {
        // Each sender is used before it is dropped.
        let _ = self.wait_for(shortage).await;
    }

    fn wait_for(&self, shortage: Shortage) -> oneshot::Receiver<()> {
        let (room, found) = oneshot::channel();
        let mut account = self.lock();
        account.waiting.push_back(Waiting { shortage, room });
        // It may have been released meanwhile.
        account.wake(self.total, self.half());
        found
    }

    /// An instance that has `held` bytes takes more. `side` may become [`Side::Excepted`].
    pub(crate) fn grow(&self, side: &mut Side, held: usize, bytes: usize) -> Result<(), Shortage> {
        let mut account = self.lock();
        let needs = held.saturating_add(bytes);
        if account.all.saturating_add(bytes) > self.total {
            return Err(self.shortage_of_all(&account, held, needs));
        }
        if *side == Side::Slow {
            if account.slow + bytes <= self.half() {
                account.slow += bytes;
            } else if account.one_is_excepted {
                return Err(self.shortage_of_half(account.slow - held, needs));
            } else {
                account.slow -= held;
                account.one_is_excepted = true;
                *side = Side::Excepted;
            }
        }
        account.all += bytes;
        Ok(())
    }

    /// The call of an instance that has `held` bytes counts as slow from now on.
    pub(crate) fn enter_slow(&self, side: &mut Side, held: usize) -> Result<(), Shortage> {
        if *side != Side::Quick {
            return Ok(());
        }
        let mut account = self.lock();
        if account.slow + held <= self.half() {
            account.slow += held;
            *side = Side::Slow;
        } else if account.one_is_excepted {
            return Err(self.shortage_of_half(account.slow, held));
        } else {
            account.one_is_excepted = true;
            *side = Side::Excepted;
        }
        Ok(())
    }

    /// The call has ended.
    pub(crate) fn leave_slow(&self, side: &mut Side, held: usize) {
        if *side == Side::Quick {
            return;
        }
        let mut account = self.lock();
        match side {
            Side::Slow => account.slow -= held,
            Side::Excepted => account.one_is_excepted = false,
            Side::Quick => {}
        }
        *side = Side::Quick;
        account.wake(self.total, self.half());
    }

    pub(crate) fn release(&self, held: usize) {
        let mut account = self.lock();
        account.all -= held;
        account.wake(self.total, self.half());
    }

    fn half(&self) -> usize {
        self.total / 2
    }

    fn shortage_of_all(&self, account: &Account, held: usize, needs: usize) -> Shortage {
        Shortage {
            needs,
            of: SharedMemory::All,
            taken: account.all - held,
            limit: self.total,
        }
    }

    fn shortage_of_half(&self, taken: usize, needs: usize) -> Shortage {
        Shortage {
            needs,
            of: SharedMemory::SlowCalls,
            taken,
            limit: self.half(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Wakes the calls that there is room for: those that are not kept to half of it first. One that
    /// needs more than there is does not keep others waiting.
    fn wake(&mut self, total: usize, half: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let (mut all, mut slow) = (self.all, self.slow);
        let mut one_is_excepted = self.one_is_excepted;
        for of in [SharedMemory::All, SharedMemory::SlowCalls] {
            for _ in 0..self.waiting.len() {
                let Some(waiting) = self.waiting.pop_front() else {
                    return;
                };
                let needs = waiting.shortage.needs;
                let mut fits = waiting.shortage.of == of && all + needs <= total;
                if fits && of == SharedMemory::SlowCalls {
                    if slow + needs <= half {
                        slow += needs;
                    } else {
                        fits = !std::mem::replace(&mut one_is_excepted, true);
                    }
                }
                if !fits {
                    self.waiting.push_back(waiting);
                } else if waiting.room.send(()).is_ok() {
                    all += needs;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
