//! The calls that wait for memory, and the order in which they get it.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use lockgate_model::contract::Shortage;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::promises::Promise;
use super::{Account, InstanceMemory, PipelineName, is_large};
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
    pub(super) shortage: Shortage,
    /// `large_freed` when it began to wait.
    since: u64,
    /// The number of its promise, if that is a claim.
    claim: Option<u64>,
    /// Gets the number of its promise, if it has one.
    room: oneshot::Sender<Option<u64>>,
}

/// The calls that are woken at once.
#[derive(Default)]
struct Woken {
    pipelines: Vec<PipelineName>,
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
        let mut reservation_ends = self.reservation_ends.subscribe();
        loop {
            let ends = *reservation_ends.borrow_and_update();
            tokio::select! {
                biased;
                // Each sender is used before it is dropped.
                found = &mut room.found => {
                    room.promise = found.ok().flatten();
                    room.was_found = true;
                    return room;
                }
                _ = reservation_ends.changed() => {}
                () = until(ends) => self.wake(&mut self.lock()),
            }
        }
    }

    fn wait_for(&self, shortage: Shortage) -> oneshot::Receiver<Option<u64>> {
        let (room, found) = oneshot::channel();
        let mut account = self.lock();
        let since = account.large_freed;
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
        self.wake_waiting(account);
        self.update_reservations(account);
        self.claim(account);
    }

    fn wake_waiting(&self, account: &mut Account) {
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
                let to = holder.pipeline.clone();
                let exceeds = is_slow && self.exceeds_half(account, &waiting, &woken);
                woken.pipelines.push(to.clone());
                woken.one_is_exempt |= exceeds;
                let promise = is_large(*needs).then(|| {
                    if let Some(claim) = waiting.claim {
                        account.take_back(claim);
                    }
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
            // A pipeline of which a call was woken goes to the end: one with many batches or stages
            // gets no more turns than others.
            let was_woken =
                |waiting: &Waiting| woken.pipelines.contains(&waiting.shortage.holder.pipeline);
            later.make_contiguous().sort_by_key(was_woken);
            account.waiting = later;
        }
        let now = account.large_freed;
        for waiting in &mut account.waiting {
            if (woken.pipelines).contains(&waiting.shortage.holder.pipeline) {
                waiting.since = now;
            }
        }
    }

    /// Whether there is room for a call now.
    fn is_woken(&self, account: &Account, waiting: &Waiting, woken: &Woken) -> bool {
        let Shortage { needs, holder, .. } = &waiting.shortage;
        let (needs, to) = (*needs, &holder.pipeline);
        let has_its_turn = |one: &Promise| one.to == *to && Some(one.id) != waiting.claim;
        if account.promises.iter().any(has_its_turn) {
            return false;
        }
        let promised = account.promised_to_others(to, needs, waiting.shortage.is_slow);
        let taken = account.in_use() + woken.bytes + promised;
        let kept = self.kept_for_smaller(account, needs, taken);
        if taken + needs + kept > self.total {
            return false;
        }
        if !waiting.shortage.is_slow || !self.exceeds_half(account, waiting, woken) {
            return true;
        }
        let another_is_exempt = account.exempt.is_some()
            || woken.one_is_exempt
            || (account.promises.iter()).any(|one| one.is_exempt && one.to != *to);
        !another_is_exempt && taken + needs + kept + self.kept_for_quick(taken) <= self.total
    }

    /// Whether a slow call needs more than what is left of the half.
    fn exceeds_half(&self, account: &Account, waiting: &Waiting, woken: &Woken) -> bool {
        let Shortage { needs, holder, .. } = &waiting.shortage;
        let promised = account.promised_of_half(&holder.pipeline, *needs);
        account.slow + woken.slow + promised + needs > self.half()
    }

    /// Gives a claim to the call that has waited longest, if too many others were faster.
    fn claim(&self, account: &mut Account) {
        self.take_back_claims(account);
        if account.promises.iter().any(|one| one.is_claim) {
            return;
        }
        let (now, next) = (account.large_freed, account.next_promise);
        let is_due = |(_, one): &(usize, &Waiting)| {
            let Shortage { needs, holder, .. } = &one.shortage;
            let has_its_turn = |promise: &Promise| promise.to == holder.pipeline;
            one.since + OVERTAKEN_MAX <= now
                && is_large(*needs)
                && self.fits_beside_reserved(account, &one.shortage)
                && !account.promises.iter().any(has_its_turn)
        };
        let due = account.waiting.iter().enumerate().filter(is_due);
        let first = due.min_by_key(|(_, one)| one.since);
        let Some(first) = first.map(|(nth, _)| nth) else {
            return;
        };
        let first = &mut account.waiting[first];
        first.claim = Some(next);
        let Shortage { needs, is_slow, .. } = first.shortage;
        let to = first.shortage.holder.pipeline.clone();
        account.promise(Promise {
            id: next,
            to,
            bytes: needs,
            is_slow,
            is_exempt: is_slow && needs > self.half(),
            is_claim: true,
        });
    }

    /// Nobody has a claim to memory that is reserved for others.
    fn take_back_claims(&self, account: &mut Account) {
        let mut ended = Vec::new();
        for waiting in &account.waiting {
            if !self.fits_beside_reserved(account, &waiting.shortage) {
                ended.extend(waiting.claim);
            }
        }
        for waiting in &mut account.waiting {
            waiting.claim.take_if(|claim| ended.contains(claim));
        }
        account.promises.retain(|one| !ended.contains(&one.id));
    }
}

/// Waits for this time, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

impl Account {
    /// A call of this pipeline has turned out to be slow, and so the pipeline is. The calls that
    /// wait were refused before that.
    pub(super) fn note_slow(&mut self, pipeline: &PipelineName, half: usize) {
        for waiting in &mut self.waiting {
            waiting.shortage.is_slow |= waiting.shortage.holder.pipeline == *pipeline;
        }
        for promise in self.promises.iter_mut().filter(|one| one.to == *pipeline) {
            promise.is_exempt |= !promise.is_slow && promise.bytes > half;
            promise.is_slow = true;
        }
        self.reservations.remove(pipeline);
    }

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
