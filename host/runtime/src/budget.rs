//! The memory that all instances share, and the calls that wait for some of it.
//!
//! As long as its call is quick, an instance may have whatever is left of the total. A call is slow
//! once it has taken 50 ms of CPU time; calls of slow pipelines are slow from their beginning.
//!
//! **Slow calls** together may have half of the total, so that they leave memory to quick ones.
//! What they took before they were slow counts. One of them is exempt and may exceed what is left
//! of that half: otherwise a component that needs much would never have its turn next to smaller
//! ones.
//!
//! **Large instances** leave some of the total to smaller ones, unless all others together have
//! little. Most components need a few MiB, and must get them whatever others have taken. Small
//! instances with a slow call may use half of that: it also has to serve the quick ones.
//!
//! **A call that was refused** waits until there is room for what it needed then. That much is
//! promised to its stage until the call has been made again. Otherwise others could take it
//! meanwhile, and two calls that each need more than half would refuse each other for ever. Small
//! instances may take memory that is promised: they do not need enough to matter.
//!
//! **A claim** is a promise that is made before there is room. As long as others keep taking what
//! is released, a call that needs much would find room only by chance. So after some time, the call
//! that has waited longest has a claim: what is released is kept for it, and others that need much
//! wait.
//!
//! **Idle instances**, which are kept for a later batch, are dropped when their memory is needed,
//! those that have been idle longest first. So nobody waits for what they have.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::contract::{Holder, SharedMemory, Shortage};
use tokio::sync::oneshot;

use crate::clock;
use crate::idle::Discard;
use crate::limits::{FEW_OTHERS, KEPT_FOR_QUICK, KEPT_FOR_SMALLER, OVERTAKEN_MAX};

/// The memory that all instances of an engine may have together, in bytes.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    total: usize,
    account: Mutex<Account>,
}

/// What the memory of an instance counts against, by its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// A quick call or none: against the total.
    Quick,
    /// A slow call: against the total, and against the half that slow calls may have.
    Slow,
    /// The one slow call that may exceed that half: against the total.
    Exempt,
}

/// An idle instance. Those that have been idle longer have lower ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdleId(u64);

#[derive(Default)]
struct Account {
    /// Bytes of all instances.
    all: usize,
    /// Bytes of instances whose calls are [`Allowance::Slow`].
    slow: usize,
    /// The call that is [`Allowance::Exempt`].
    exempt: Option<Holder>,
    /// Bytes of all instances of a stage.
    held: BTreeMap<StageKey, usize>,
    idle: BTreeMap<IdleId, Idle>,
    /// Bytes of idle instances.
    idle_bytes: usize,
    /// For each of [`KEPT_FOR_SMALLER`]: what the instances in use that are small by it have.
    in_use_by_smaller: [SmallInstances; KEPT_FOR_SMALLER.len()],
    next_idle: u64,
    waiting: VecDeque<Waiting>,
    /// How many instances with much memory have been dropped so far.
    large_released: u64,
    promises: Vec<Promise>,
    next_promise: u64,
}

/// Bytes of small instances.
#[derive(Clone, Copy, Default)]
struct SmallInstances {
    quick: usize,
    /// Of those with a slow call.
    slow: usize,
}

/// The names of a pipeline and of one of its stages.
type StageKey = (Arc<str>, Arc<str>);

/// Memory that a stage may count on for a call that is made again. A stage has one at a time.
struct Promise {
    id: u64,
    to: StageKey,
    /// What the instances of the stage that are in use may have together.
    bytes: usize,
    /// The call is slow.
    is_slow: bool,
    /// Its call may be [`Allowance::Exempt`].
    is_exempt: bool,
    /// It was made before there was room for it. It binds only instances above the largest size in
    /// [`KEPT_FOR_SMALLER`]: what is kept for smaller ones is not kept for it.
    is_claim: bool,
}

/// There is room for a call that had found too little memory. Drop this once the call has been made
/// again: until then, what was promised to it stays promised.
#[derive(Debug)]
pub struct Room {
    memory: Arc<InstanceMemory>,
    found: oneshot::Receiver<Option<u64>>,
    was_found: bool,
    promise: Option<u64>,
}

struct Idle {
    holder: Holder,
    instance: Arc<dyn Discard>,
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

/// What an instance that needs memory gets.
enum Growth {
    Granted,
    /// It must drop this idle instance, and ask again.
    After(Arc<dyn Discard>),
}

/// A call that found too little memory.
#[derive(Debug)]
struct Waiting {
    shortage: Shortage,
    /// `large_released` when it began to wait.
    since: u64,
    /// The number of its promise, if that is a claim.
    claim: Option<u64>,
    /// Gets the number of its promise, if it has one.
    room: oneshot::Sender<Option<u64>>,
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

    /// Bytes of all instances, idle ones included.
    pub(crate) fn used(&self) -> usize {
        self.lock().all
    }

    /// The stages that have memory in use, those with the most first. Idle instances do not count.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let account = self.lock();
        let mut held = account.held.clone();
        for idle in account.idle.values() {
            if let Some(bytes) = held.get_mut(&key(&idle.holder)) {
                *bytes = bytes.saturating_sub(idle.holder.bytes);
            }
        }
        drop(account);
        let mut holders: Vec<Holder> = held
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|((pipeline, stage), bytes)| Holder {
                pipeline,
                stage,
                bytes,
            })
            .collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
        holders
    }

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

    /// An instance of `holder` is idle from now on: its memory may be taken by discarding it.
    pub(crate) fn add_idle(&self, holder: Holder, instance: Arc<dyn Discard>) -> IdleId {
        let mut account = self.lock();
        let id = IdleId(account.next_idle);
        account.next_idle += 1;
        account.idle_bytes += holder.bytes;
        account.recount_smaller(Allowance::Quick, holder.bytes, 0);
        account.idle.insert(id, Idle { holder, instance });
        self.wake(&mut account);
        id
    }

    /// The instance is in use again. Returns false if it has been discarded.
    pub(crate) fn remove_idle(&self, id: IdleId) -> bool {
        self.lock().remove_idle(id).is_some()
    }

    /// An instance of `holder` takes more memory. `allowance` may become [`Allowance::Exempt`].
    pub(crate) fn grow(
        &self,
        allowance: &mut Allowance,
        holder: &Holder,
        bytes: usize,
    ) -> Result<(), Shortage> {
        loop {
            // Not while the account is locked: releasing memory locks it.
            match self.try_to_grow(allowance, holder, bytes)? {
                Growth::Granted => return Ok(()),
                Growth::After(idle) => clock::uncounted(|| idle.discard()),
            }
        }
    }

    fn try_to_grow(
        &self,
        allowance: &mut Allowance,
        holder: &Holder,
        bytes: usize,
    ) -> Result<Growth, Shortage> {
        let mut account = self.lock();
        let held = holder.bytes;
        let needs = held.saturating_add(bytes);
        let others =
            account.in_use() - held + account.promised_to_others(&key(holder), needs, false);
        let kept = match account.is_promised(holder, needs) {
            true => 0,
            false => self.kept_for_smaller(&account, needs, others),
        };
        if others.saturating_add(needs).saturating_add(kept) > self.total {
            let is_slow = *allowance != Allowance::Quick;
            return Err(self.shortage_of_all(holder, others, needs, kept, is_slow));
        }
        let promised = account.promised_to_others(&key(holder), needs, true);
        let fits_into_half = account.slow + promised + bytes <= self.half();
        if *allowance == Allowance::Slow && !fits_into_half {
            if account.exempts_another(holder) {
                return Err(self.shortage_of_half(&account, holder, account.slow - held, needs));
            }
            let kept = match account.is_promised(holder, needs) {
                true => 0,
                false => kept + self.kept_for_quick(others),
            };
            if others + needs + kept > self.total {
                return Err(self.shortage_of_all(holder, others, needs, kept, true));
            }
        }
        if account.all + bytes > self.total
            && let Some((&longest, _)) = account.idle.first_key_value()
            && let Some(idle) = account.remove_idle(longest)
        {
            return Ok(Growth::After(idle.instance));
        }
        match allowance {
            Allowance::Slow if fits_into_half => account.slow += bytes,
            Allowance::Slow => {
                account.slow -= held;
                account.set_exempt(holder, needs);
                *allowance = Allowance::Exempt;
            }
            Allowance::Exempt => account.set_exempt(holder, needs),
            Allowance::Quick => {}
        }
        account.all += bytes;
        account.recount_smaller(*allowance, held, needs);
        *account.held.entry(key(holder)).or_default() += bytes;
        Ok(Growth::Granted)
    }

    /// The call of an instance of `holder` counts as slow from now on.
    pub(crate) fn enter_slow(
        &self,
        allowance: &mut Allowance,
        holder: &Holder,
    ) -> Result<(), Shortage> {
        if *allowance != Allowance::Quick {
            return Ok(());
        }
        let held = holder.bytes;
        let mut account = self.lock();
        let promised = account.promised_to_others(&key(holder), held, true);
        if account.slow + promised + held <= self.half() {
            account.slow += held;
            *allowance = Allowance::Slow;
        } else if account.exempts_another(holder) {
            return Err(self.shortage_of_half(&account, holder, account.slow, held));
        } else {
            let others = account.in_use() - held;
            let kept = match account.is_promised(holder, held) {
                true => 0,
                false => self.kept_for_quick(others),
            };
            if others + held + kept > self.total {
                return Err(self.shortage_of_all(holder, others, held, kept, true));
            }
            account.set_exempt(holder, held);
            *allowance = Allowance::Exempt;
        }
        account.recount_smaller(Allowance::Quick, held, 0);
        account.recount_smaller(*allowance, 0, held);
        Ok(())
    }

    /// The call has ended.
    pub(crate) fn leave_slow(&self, allowance: &mut Allowance, held: usize) {
        if *allowance == Allowance::Quick {
            return;
        }
        let mut account = self.lock();
        match allowance {
            Allowance::Slow => account.slow -= held,
            Allowance::Exempt => account.exempt = None,
            Allowance::Quick => {}
        }
        account.recount_smaller(*allowance, held, 0);
        account.recount_smaller(Allowance::Quick, 0, held);
        *allowance = Allowance::Quick;
        self.wake(&mut account);
    }

    /// An instance of `holder` is dropped.
    pub(crate) fn release(&self, holder: &Holder) {
        let mut account = self.lock();
        account.all -= holder.bytes;
        account.large_released += u64::from(is_large(holder.bytes));
        account.recount_smaller(Allowance::Quick, holder.bytes, 0);
        let key = key(holder);
        if let Some(held) = account.held.get_mut(&key) {
            *held -= holder.bytes;
            if *held == 0 {
                account.held.remove(&key);
            }
        }
        self.wake(&mut account);
    }

    fn half(&self) -> usize {
        self.total / 2
    }

    /// Bytes that must stay free for smaller instances when one has grown to `needs`, see
    /// [`KEPT_FOR_SMALLER`]. `others`: bytes of all other instances. If these have little, an
    /// instance may have nearly everything.
    fn kept_for_smaller(&self, account: &Account, needs: usize, others: usize) -> usize {
        if others <= self.total / FEW_OTHERS {
            return 0;
        }
        let tiers = KEPT_FOR_SMALLER.into_iter().zip(account.in_use_by_smaller);
        let kept = tiers
            .filter(|((bytes, _), _)| needs > *bytes)
            .map(|((_, one_in), have)| {
                let all = self.total / one_in;
                all.saturating_sub(have.quick + have.slow.min(all / 2))
            });
        kept.max().unwrap_or_default()
    }

    /// Bytes that must stay free for quick calls when a slow one becomes exempt. `others`: bytes of
    /// all other instances.
    fn kept_for_quick(&self, others: usize) -> usize {
        match others <= self.total / FEW_OTHERS {
            true => 0,
            false => self.total / KEPT_FOR_QUICK,
        }
    }

    fn shortage_of_all(
        &self,
        holder: &Holder,
        others: usize,
        needs: usize,
        kept: usize,
        is_slow: bool,
    ) -> Shortage {
        Shortage {
            holder: Box::new(holder.clone()),
            needs,
            of: SharedMemory::All,
            taken: others,
            limit: self.total,
            is_slow,
            kept,
            exempt: None,
        }
    }

    fn shortage_of_half(
        &self,
        account: &Account,
        holder: &Holder,
        taken: usize,
        needs: usize,
    ) -> Shortage {
        Shortage {
            holder: Box::new(holder.clone()),
            needs,
            of: SharedMemory::SlowCalls,
            taken,
            limit: self.half(),
            is_slow: true,
            kept: 0,
            exempt: account.exempt.clone(),
        }
    }

    /// Wakes the waiting calls that there is room for: first the quick ones, then the slow ones,
    /// each in the order in which they wait. A call without room does not keep those behind it
    /// waiting, unless it has a claim.
    fn wake(&self, account: &mut Account) {
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

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Bytes of the instances that are not idle.
    fn in_use(&self) -> usize {
        self.all - self.idle_bytes
    }

    fn remove_idle(&mut self, id: IdleId) -> Option<Idle> {
        let idle = self.idle.remove(&id)?;
        self.idle_bytes -= idle.holder.bytes;
        self.recount_smaller(Allowance::Quick, 0, idle.holder.bytes);
        Some(idle)
    }

    /// The bytes of an instance in use have changed. It has 0 while it is not in use.
    fn recount_smaller(&mut self, allowance: Allowance, before: usize, after: usize) {
        for ((most, _), smaller) in KEPT_FOR_SMALLER.iter().zip(&mut self.in_use_by_smaller) {
            let counted = |bytes: usize| if bytes <= *most { bytes } else { 0 };
            let in_use = match allowance {
                Allowance::Quick => &mut smaller.quick,
                Allowance::Slow | Allowance::Exempt => &mut smaller.slow,
            };
            *in_use = *in_use - counted(before) + counted(after);
        }
    }

    /// Bytes in use by instances of a stage.
    fn in_use_by(&self, stage: &StageKey) -> usize {
        let idle = self
            .idle
            .values()
            .filter(|idle| key(&idle.holder) == *stage);
        let idle: usize = idle.map(|idle| idle.holder.bytes).sum();
        self.held.get(stage).map_or(0, |held| held - idle)
    }

    /// Bytes that are promised to other stages, that these do not have yet, and that an instance
    /// that needs this much must leave to them. `of_slow`: only what is promised out of the half of
    /// slow calls.
    fn promised_to_others(&self, stage: &StageKey, needs: usize, of_slow: bool) -> usize {
        let least = |one: &Promise| match one.is_claim {
            true => KEPT_FOR_SMALLER[0].0,
            false => KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0,
        };
        let promises = self.promises.iter().filter(|one| {
            one.to != *stage && needs > least(one) && (!of_slow || one.is_slow && !one.is_exempt)
        });
        promises
            .map(|one| one.bytes.saturating_sub(self.in_use_by(&one.to)))
            .sum()
    }

    /// Whether the stage of `holder` has been promised this much.
    fn is_promised(&self, holder: &Holder, bytes: usize) -> bool {
        let mut promises = self.promises.iter();
        promises.any(|one| one.to == key(holder) && bytes <= one.bytes)
    }

    /// Whether another call is [`Allowance::Exempt`], or that has been promised to another stage.
    fn exempts_another(&self, holder: &Holder) -> bool {
        let mut promises = self.promises.iter();
        self.exempt.is_some() || promises.any(|one| one.is_exempt && one.to != key(holder))
    }

    fn promise(&mut self, promise: Promise) -> u64 {
        let id = self.next_promise;
        self.next_promise += 1;
        self.promises.push(Promise { id, ..promise });
        id
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

    fn take_back(&mut self, promise: u64) {
        self.promises.retain(|one| one.id != promise);
    }

    /// The call of `holder` is [`Allowance::Exempt`], and its instance has this much.
    fn set_exempt(&mut self, holder: &Holder, bytes: usize) {
        let holder = holder.clone();
        self.exempt = Some(Holder { bytes, ..holder });
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

/// Whether promises bind an instance with so many bytes. Smaller ones find memory whatever others
/// have taken or been promised.
fn is_large(bytes: usize) -> bool {
    bytes > KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0
}

fn key(holder: &Holder) -> StageKey {
    (holder.pipeline.clone(), holder.stage.clone())
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("all", &self.all)
            .field("slow", &self.slow)
            .field("exempt", &self.exempt)
            .field("idle_bytes", &self.idle_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
