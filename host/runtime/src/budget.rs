//! The memory that all instances share, and the calls that wait for some of it.
//!
//! Each instance may have as much as is left of the total, as long as its call is quick. Slow calls
//! are those that have taken 50 ms of CPU time, and those of slow pipelines from their beginning.
//! Together they may have half of the total, whatever they took before they were slow, so that many
//! of them do not take the memory of quick calls. One of them may have more than what is left of
//! that half: otherwise a component that needs much would never have its turn next to smaller ones.
//!
//! Instances that need much leave some of the total to those that need less, unless the others have
//! little: most components need a few MiB, and must get them whatever others have taken. Slow calls
//! with little memory may have half of what is left to them, or they would keep quick ones from it.
//!
//! A call that was refused waits until there is room for what it needed then, and that much is
//! promised to its stage until it has been made again: others could take it meanwhile, and two that
//! need more than half would refuse each other for ever. Those that need little take no notice.
//! One that needs much would find room only by chance as long as others keep taking what is
//! released. So after some time, the one that has waited longest has a claim: what is released is
//! kept for it, and others that need much wait.
//!
//! Idle instances, which are kept for a next batch, are dropped when their memory is needed, those
//! that have been idle longest first. So nobody waits for what they have.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::contract::{Holder, SharedMemory, Shortage};
use tokio::sync::oneshot;

use crate::clock;
use crate::idle::Discard;
use crate::limits::{FEW_OTHERS, KEPT_FOR_SMALLER, OVERTAKEN_MAX};

/// The memory that all instances of an engine may have together, in bytes.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    total: usize,
    account: Mutex<Account>,
}

/// Which limit an instance's memory counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Against the total.
    Quick,
    /// Also against the half of slow calls.
    Slow,
    /// Against the total: the one slow call that may have more than what is left of the half.
    Excepted,
}

/// An idle instance. Those that have been idle longer have lower ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdleId(u64);

#[derive(Default)]
struct Account {
    /// Bytes of all instances.
    all: usize,
    /// Bytes of those with a slow call.
    slow: usize,
    /// The call that is [`Side::Excepted`].
    excepted: Option<Holder>,
    /// Bytes of all instances by pipeline and stage.
    held: BTreeMap<(Arc<str>, Arc<str>), usize>,
    idle: BTreeMap<IdleId, Idle>,
    /// Bytes of idle instances.
    idle_bytes: usize,
    /// Bytes in use by instances that have at most so many, for each of [`KEPT_FOR_SMALLER`].
    in_use_by_smaller: [Smaller; KEPT_FOR_SMALLER.len()],
    next_idle: u64,
    waiting: VecDeque<Waiting>,
    /// Instances with much memory that have released it so far.
    large_released: u64,
    promises: Vec<Promise>,
    next_promise: u64,
}

/// Instances with little memory.
#[derive(Clone, Copy, Default)]
struct Smaller {
    quick: usize,
    /// With a slow call.
    slow: usize,
}

/// Memory that a stage gets for a call that is made again. One at a time for each stage.
struct Promise {
    id: u64,
    to: (Arc<str>, Arc<str>),
    /// Of its instances in use, in all.
    bytes: usize,
    /// Of a slow call.
    is_slow: bool,
    /// Its call may be [`Side::Excepted`].
    is_excepted: bool,
    /// Made before there is room for it. Only instances that need much take notice: what is kept
    /// for others is not kept for it.
    is_claim: bool,
}

/// Room for a call that found too little memory. What was promised to it is promised until this is
/// dropped, which has to be when the call has been made again.
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
    stages: Vec<(Arc<str>, Arc<str>)>,
    /// Bytes that they need and that are not promised to them, and those of slow ones.
    bytes: usize,
    slow: usize,
    /// One of them may be [`Side::Excepted`].
    one_is_excepted: bool,
}

/// What an instance that needs memory gets.
enum Growth {
    Granted,
    /// It must ask again when this idle instance is dropped.
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

    /// Those whose instances have memory and are not idle, those with the most first.
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

    /// Waits until there is room for what a call needed. If that is little, it may be gone again
    /// when the call asks.
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
        // It may have been released meanwhile.
        self.wake(&mut account);
        found
    }

    /// An instance of `holder`, with its memory, is kept for a next batch, until it is removed or
    /// dropped.
    pub(crate) fn add_idle(&self, holder: Holder, instance: Arc<dyn Discard>) -> IdleId {
        let mut account = self.lock();
        let id = IdleId(account.next_idle);
        account.next_idle += 1;
        account.idle_bytes += holder.bytes;
        account.change_smaller(Side::Quick, holder.bytes, 0);
        account.idle.insert(id, Idle { holder, instance });
        self.wake(&mut account);
        id
    }

    /// The instance is no longer idle. Returns false if it has been dropped.
    pub(crate) fn remove_idle(&self, id: IdleId) -> bool {
        self.lock().remove_idle(id).is_some()
    }

    /// An instance of `holder` that has `held` bytes takes more. `side` may become
    /// [`Side::Excepted`].
    pub(crate) fn grow(
        &self,
        side: &mut Side,
        holder: &Holder,
        bytes: usize,
    ) -> Result<(), Shortage> {
        loop {
            // Without the lock: what is dropped takes it.
            match self.try_to_grow(side, holder, bytes)? {
                Growth::Granted => return Ok(()),
                Growth::After(idle) => clock::uncounted(|| idle.discard()),
            }
        }
    }

    fn try_to_grow(
        &self,
        side: &mut Side,
        holder: &Holder,
        bytes: usize,
    ) -> Result<Growth, Shortage> {
        let mut account = self.lock();
        let held = holder.bytes;
        let needs = held.saturating_add(bytes);
        let others =
            account.in_use() - held + account.promised_to_others(&key(holder), needs, false);
        let kept = match account.has_promised(holder, needs) {
            true => 0,
            false => self.kept(&account, needs, others),
        };
        if others.saturating_add(needs).saturating_add(kept) > self.total {
            let is_slow = *side != Side::Quick;
            return Err(self.shortage_of_all(holder, others, needs, kept, is_slow));
        }
        let promised = account.promised_to_others(&key(holder), needs, true);
        let fits_into_half = account.slow + promised + bytes <= self.half();
        if *side == Side::Slow && !fits_into_half && account.excepts_another(holder) {
            return Err(self.shortage_of_half(&account, holder, account.slow - held, needs));
        }
        if account.all + bytes > self.total
            && let Some((&longest, _)) = account.idle.first_key_value()
            && let Some(idle) = account.remove_idle(longest)
        {
            return Ok(Growth::After(idle.instance));
        }
        match side {
            Side::Slow if fits_into_half => account.slow += bytes,
            Side::Slow => {
                account.slow -= held;
                account.except(holder, needs);
                *side = Side::Excepted;
            }
            Side::Excepted => account.except(holder, needs),
            Side::Quick => {}
        }
        account.all += bytes;
        account.change_smaller(*side, held, needs);
        *account.held.entry(key(holder)).or_default() += bytes;
        Ok(Growth::Granted)
    }

    /// The call of an instance of `holder` counts as slow from now on.
    pub(crate) fn enter_slow(&self, side: &mut Side, holder: &Holder) -> Result<(), Shortage> {
        if *side != Side::Quick {
            return Ok(());
        }
        let held = holder.bytes;
        let mut account = self.lock();
        let promised = account.promised_to_others(&key(holder), held, true);
        if account.slow + promised + held <= self.half() {
            account.slow += held;
            *side = Side::Slow;
        } else if account.excepts_another(holder) {
            return Err(self.shortage_of_half(&account, holder, account.slow, held));
        } else {
            account.except(holder, held);
            *side = Side::Excepted;
        }
        account.change_smaller(Side::Quick, held, 0);
        account.change_smaller(*side, 0, held);
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
            Side::Excepted => account.excepted = None,
            Side::Quick => {}
        }
        account.change_smaller(*side, held, 0);
        account.change_smaller(Side::Quick, 0, held);
        *side = Side::Quick;
        self.wake(&mut account);
    }

    /// An instance of `holder` is dropped.
    pub(crate) fn release(&self, holder: &Holder) {
        let mut account = self.lock();
        account.all -= holder.bytes;
        account.large_released += u64::from(is_large(holder.bytes));
        account.change_smaller(Side::Quick, holder.bytes, 0);
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

    /// Bytes that an instance that needs this much leaves to those that need less, besides what
    /// they have. `others`: bytes of the other instances. Next to few small ones an instance may
    /// need nearly everything.
    fn kept(&self, account: &Account, needs: usize, others: usize) -> usize {
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
            excepted: None,
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
            excepted: account.excepted.clone(),
        }
    }

    /// Wakes the calls that there is room for: those that are not kept to half of it first. One
    /// that needs more than there is does not keep others waiting, unless it has a claim.
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
                woken.one_is_excepted |= exceeds;
                let promise = is_large(*needs).then(|| {
                    waiting.claim.inspect(|&claim| account.take_back(claim));
                    account.promise(Promise {
                        id: 0,
                        to,
                        bytes: *needs,
                        is_slow,
                        is_excepted: exceeds,
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
            // A stage with many batches gets no more turns than others.
            let has_had_its_turn =
                |waiting: &Waiting| woken.stages.contains(&key(&waiting.shortage.holder));
            later.make_contiguous().sort_by_key(has_had_its_turn);
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
        if taken + needs + self.kept(account, needs, taken) > self.total {
            return false;
        }
        let excepts = account.excepted.is_some()
            || woken.one_is_excepted
            || (account.promises.iter()).any(|one| one.is_excepted && one.to != to);
        !(waiting.shortage.is_slow && excepts && self.exceeds_half(account, waiting, woken))
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
            is_excepted: is_slow && needs > self.half(),
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
        self.change_smaller(Side::Quick, 0, idle.holder.bytes);
        Some(idle)
    }

    /// An instance in use had so many bytes, and has so many now.
    fn change_smaller(&mut self, side: Side, before: usize, after: usize) {
        for ((most, _), smaller) in KEPT_FOR_SMALLER.iter().zip(&mut self.in_use_by_smaller) {
            let counted = |bytes: usize| if bytes <= *most { bytes } else { 0 };
            let in_use = match side {
                Side::Quick => &mut smaller.quick,
                Side::Slow | Side::Excepted => &mut smaller.slow,
            };
            *in_use = *in_use - counted(before) + counted(after);
        }
    }

    /// Bytes in use by instances of a stage.
    fn in_use_by(&self, stage: &(Arc<str>, Arc<str>)) -> usize {
        let idle = self
            .idle
            .values()
            .filter(|idle| key(&idle.holder) == *stage);
        let idle: usize = idle.map(|idle| idle.holder.bytes).sum();
        self.held.get(stage).map_or(0, |held| held - idle)
    }

    /// Bytes that are promised to other stages and not in use yet, as far as an instance that needs
    /// this much takes notice. `of_slow`: those of slow calls that are kept to the half.
    fn promised_to_others(
        &self,
        stage: &(Arc<str>, Arc<str>),
        needs: usize,
        of_slow: bool,
    ) -> usize {
        let least = |one: &Promise| match one.is_claim {
            true => KEPT_FOR_SMALLER[0].0,
            false => KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0,
        };
        let promises = self.promises.iter().filter(|one| {
            one.to != *stage && needs > least(one) && (!of_slow || one.is_slow && !one.is_excepted)
        });
        promises
            .map(|one| one.bytes.saturating_sub(self.in_use_by(&one.to)))
            .sum()
    }

    /// An instance of `holder` has been promised this much.
    fn has_promised(&self, holder: &Holder, bytes: usize) -> bool {
        let mut promises = self.promises.iter();
        promises.any(|one| one.to == key(holder) && bytes <= one.bytes)
    }

    /// A call of another stage is the one that may be [`Side::Excepted`], or will be.
    fn excepts_another(&self, holder: &Holder) -> bool {
        let mut promises = self.promises.iter();
        self.excepted.is_some() || promises.any(|one| one.is_excepted && one.to != key(holder))
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

    /// The call of `holder` may have more than what is left of the half, and has this much.
    fn except(&mut self, holder: &Holder, bytes: usize) {
        let holder = holder.clone();
        self.excepted = Some(Holder { bytes, ..holder });
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.found.close();
        // It may have been found, and nobody have looked.
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

/// Instances that need no more find memory whatever others have taken.
fn is_large(bytes: usize) -> bool {
    bytes > KEPT_FOR_SMALLER[KEPT_FOR_SMALLER.len() - 1].0
}

fn key(holder: &Holder) -> (Arc<str>, Arc<str>) {
    (holder.pipeline.clone(), holder.stage.clone())
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("all", &self.all)
            .field("slow", &self.slow)
            .field("excepted", &self.excepted)
            .field("idle_bytes", &self.idle_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
