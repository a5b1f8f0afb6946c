//! The calls that wait for memory, and the order in which they get it.

use std::collections::VecDeque;
use std::sync::Arc;

use lockgate_model::contract::Shortage;
use tokio::sync::oneshot;

use super::promises::Promise;
use super::{Account, InstanceMemory, StageKey, is_large, key};
use crate::limits::OVERTAKEN_MAX;

/// There is room for a call that had found too little memory. Drop this once the call has been made
/// again: until then, what was promised to it stays promised.
#[derive(Debug)]
pub struct Room {
    memory: Arc<InstanceMemory>,
    found: oneshot::Receiver<Option<u64>>,
    was_found: bool,
    promise: Option<u64>,
}

/// A call that found too little memory.
#[derive(Debug)]
pub(super) struct Waiting {
    shortage: Shortage,
    /// `large_released` when it began to wait.
    since: u64,
    /// The number of its promise, if that is a claim.
    claim: Option<u64>,
    /// Gets the number of its promise, if it has one.
    room: oneshot::Sender<Option<u64>>,
}

/// The calls that are woken at once.
#[derive(Default)]
struct Woken {
    stages: Vec<StageKey>,
    /// Bytes that they need and that are not promised to them, and those of slow ones.
    bytes: usize,
    slow: usize,
    /// One of them may be [`Allowance::Exempt`].
    one_is_exempt: bool,
}

impl InstanceMemory {
    /// Waits until there is room for what a call needed. Little memory is not promised, so it may
    /// be gone again when the call asks for it.
    pub(crate) async fn room_for(self: &Arc<Self>, shortage: Shortage) -> Room {
        let mut room = Room {
            memory: self.clone(),
            found: self.wait_for(shortage),
            was_found: false,
            promise: None,
        };
        // Each sender is used before it is dropped.
        room.promise = (&mut room.found).await.ok().flatten();
        room.was_found = true;
        room
    }

    fn wait_for(&self, shortage: Shortage) -> oneshot::Receiver<Option<u64>> {
        let (room, found) = oneshot::channel();
        let mut account = self.lock();
        let since = account.large_released;
        account.waiting.push_back(Waiting {
            shortage,
            since,
            claim: None,
            room,
        });
        // Memory may have been released since the call was refused.
        self.wake(&mut account);
        found
    }

    /// Wakes the waiting calls that there is room for: first the quick ones, then the slow ones,
    /// each in the order in which they wait. A call without room does not keep those behind it
    /// waiting, unless it has a claim.
    pub(super) fn wake(&self, account: &mut Account) {
        account.forget_those_that_left();
        if account.waiting.is_empty() {
            return;
        }
        let mut woken = Woken::default();
        for is_slow in [false, true] {
            let mut later = VecDeque::new();
            while let Some(waiting) = account.waiting.pop_front() {
                if waiting.shortage.is_slow != is_slow || !self.is_woken(account, &waiting, &woken)
                {
                    later.push_back(waiting);
                    continue;
                }
                let Shortage { needs, holder, .. } = &waiting.shortage;
                let to = key(holder);
                let exceeds = is_slow && self.exceeds_half(account, &waiting, &woken);
                woken.stages.push(to.clone());
                woken.one_is_exempt |= exceeds;
                let promise = is_large(*needs).then(|| {
                    waiting.claim.inspect(|&claim| account.take_back(claim));
                    account.promise(Promise {
                        id: 0,
                        to,
                        bytes: *needs,
                        is_slow,
                        is_exempt: exceeds,
                        is_claim: false,
                    })
                });
                if promise.is_none() {
                    woken.bytes += needs;
                    woken.slow += if is_slow { *needs } else { 0 };
                }
                if waiting.room.send(promise).is_err()
                    && let Some(id) = promise
                {
                    account.take_back(id);
                }
            }
            // A stage of which a call was woken goes to the end: one with many batches gets no more
            // turns than others.
            let was_woken =
                |waiting: &Waiting| woken.stages.contains(&key(&waiting.shortage.holder));
            later.make_contiguous().sort_by_key(was_woken);
            account.waiting = later;
        }
        let now = account.large_released;
        for waiting in &mut account.waiting {
            if woken.stages.contains(&key(&waiting.shortage.holder)) {
                waiting.since = now;
            }
        }
        self.claim(account);
    }

    /// Whether there is room for a call now.
    fn is_woken(&self, account: &Account, waiting: &Waiting, woken: &Woken) -> bool {
        let Shortage { needs, holder, .. } = &waiting.shortage;
        let (needs, to) = (*needs, key(holder));
        let has_its_turn = |one: &Promise| one.to == to && Some(one.id) != waiting.claim;
        if account.promises.iter().any(has_its_turn) {
            return false;
        }
        let taken = account.in_use() + woken.bytes + account.promised_to_others(&to, needs, false);
        let kept = self.kept_for_smaller(account, needs, taken);
        if taken + needs + kept > self.total {
            return false;
        }
        if !waiting.shortage.is_slow || !self.exceeds_half(account, waiting, woken) {
            return true;
        }
        let another_is_exempt = account.exempt.is_some()
            || woken.one_is_exempt
            || (account.promises.iter()).any(|one| one.is_exempt && one.to != to);
        !another_is_exempt && taken + needs + kept + self.kept_for_quick(taken) <= self.total
    }

    /// Whether a slow call needs more than what is left of the half.
    fn exceeds_half(&self, account: &Account, waiting: &Waiting, woken: &Woken) -> bool {
        let Shortage { needs, holder, .. } = &waiting.shortage;
        let promised = account.promised_to_others(&key(holder), *needs, true);
        account.slow + woken.slow + promised + needs > self.half()
    }

    /// Gives a claim to the call that has waited longest, if too many others were faster.
    fn claim(&self, account: &mut Account) {
        if account.promises.iter().any(|one| one.is_claim) {
            return;
        }
        let (now, next) = (account.large_released, account.next_promise);
        let is_due = |one: &&mut Waiting| {
            let Shortage { needs, holder, .. } = &one.shortage;
            let has_its_turn = |promise: &Promise| promise.to == key(holder);
            one.since + OVERTAKEN_MAX <= now
                && is_large(*needs)
                && !account.promises.iter().any(has_its_turn)
        };
        let due = account.waiting.iter_mut().filter(is_due);
        let Some(first) = due.min_by_key(|one| one.since) else {
            return;
        };
        first.claim = Some(next);
        let Shortage { needs, is_slow, .. } = first.shortage;
        let to = key(&first.shortage.holder);
        account.promise(Promise {
            id: next,
            to,
            bytes: needs,
            is_slow,
            is_exempt: is_slow && needs > self.half(),
            is_claim: true,
        });
    }
}

impl Account {
    fn forget_those_that_left(&mut self) {
        let mut left = Vec::new();
        self.waiting.retain(|waiting| {
            let has_left = waiting.room.is_closed();
            left.extend(waiting.claim.filter(|_| has_left));
            !has_left
        });
        for claim in left {
            self.take_back(claim);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.found.close();
        // The promise may have been sent without anybody having received it.
        let promise = self
            .promise
            .or_else(|| self.found.try_recv().ok().flatten());
        if promise.is_none() && self.was_found {
            return;
        }
        let mut account = self.memory.lock();
        if let Some(promise) = promise {
            account.take_back(promise);
        }
        // A call that no longer waits may have had a claim.
        self.memory.wake(&mut account);
    }
}
