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
//! promised to its pipeline until the call has been made again. Otherwise others could take it
//! meanwhile, and two calls that each need more than half would refuse each other for ever. Small
//! instances may take memory that is promised: they do not need enough to matter. All stages of the
//! pipeline may use it: one that starts loads and configures all of its components again.
//!
//! **A claim** is a promise that is made before there is room. As long as others keep taking what
//! is released, a call that needs much would find room only by chance. So after some time, the call
//! that has waited longest has a claim: what is released is kept for it, and others that need much
//! wait.
//!
//! **A reservation** is memory that others leave to the quick calls of a pipeline. Calls that do
//! not fit into the memory together take turns. If they did so call by call, a quick pipeline would
//! have one call of a millisecond for each that takes seconds. So the time that slow calls keep it
//! waiting is measured, and what it needs is then reserved for it for as long. Meanwhile, slow
//! calls that do not fit beside it wait, and have no claim. The same holds between quick pipelines,
//! for a short time. A reservation ends early if the pipeline does not use it.
//!
//! **Idle instances**, which are kept for a later batch, are dropped when their memory is needed,
//! those that have been idle longest first. So nobody waits for what they have. One whose memory
//! has been promised to others is not used again until they have had it.
//!
//! Turns, promises and reservations are those of pipelines, not of stages: a pipeline with many
//! stages has no more of them than others.

mod promises;
mod reservations;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::contract::{Holder, SharedMemory, Shortage};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::idle::Discard;
use crate::limits::{FEW_OTHERS, KEPT_FOR_QUICK, KEPT_FOR_SMALLER};
use promises::Promise;
use reservations::Reservation;
pub use waiting::Room;
use waiting::Waiting;

/// The memory that all instances of an engine may have together, in bytes.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    total: usize,
    account: Mutex<Account>,
    /// When the next reservation ends.
    reservation_ends: watch::Sender<Option<Instant>>,
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
    /// How often an instance with much memory has been dropped or become idle so far.
    large_freed: u64,
    promises: Vec<Promise>,
    next_promise: u64,
    reservations: BTreeMap<PipelineName, Reservation>,
}

/// Bytes of small instances.
#[derive(Clone, Copy, Default)]
struct SmallInstances {
    quick: usize,
    /// Of those with a slow call.
    slow: usize,
}

type PipelineName = Arc<str>;

/// The names of a pipeline and of one of its stages.
type StageKey = (PipelineName, Arc<str>);

struct Idle {
    holder: Holder,
    instance: Arc<dyn Discard>,
}

/// What an instance that needs memory gets.
enum Growth {
    Granted,
    /// It must drop this idle instance, and ask again.
    After(Arc<dyn Discard>),
}

impl InstanceMemory {
    pub(crate) fn new(total: usize) -> Arc<InstanceMemory> {
        Arc::new(InstanceMemory {
            total,
            account: Mutex::default(),
            reservation_ends: watch::Sender::new(None),
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

    /// An instance of `holder` is idle from now on: its memory may be taken by discarding it.
    pub(crate) fn add_idle(&self, holder: Holder, instance: Arc<dyn Discard>) -> IdleId {
        let mut account = self.lock();
        let id = IdleId(account.next_idle);
        account.next_idle += 1;
        account.idle_bytes += holder.bytes;
        account.recount_smaller(Allowance::Quick, holder.bytes, 0);
        account.large_freed += u64::from(is_large(holder.bytes));
        account.idle.insert(id, Idle { holder, instance });
        self.wake(&mut account);
        id
    }

    /// The instance is to be dropped. Returns false if it has been discarded.
    pub(crate) fn remove_idle(&self, id: IdleId) -> bool {
        self.lock().remove_idle(id).is_some()
    }

    /// The instance is in use again, unless its memory has been promised to others. Returns false
    /// if it has been discarded.
    pub(crate) fn use_idle(&self, id: IdleId) -> Result<bool, Shortage> {
        let mut account = self.lock();
        if let Some(Idle { holder, .. }) = account.idle.get(&id) {
            let needs = holder.bytes;
            let promised = account.promised_to_others(&holder.pipeline, needs, false);
            let others = account.in_use() + promised;
            if promised > 0 && others + needs > self.total {
                return Err(self.shortage_of_all(holder, others, needs, 0, false));
            }
        }
        let used = account.remove_idle(id);
        if let Some(Idle { holder, .. }) = &used {
            account.note_use(&holder.pipeline);
        }
        Ok(used.is_some())
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
        let is_slow = *allowance != Allowance::Quick;
        let promised = account.promised_to_others(&holder.pipeline, needs, is_slow);
        let others = account.in_use() - held + promised;
        let kept = match account.is_promised(holder, needs) {
            true => 0,
            false => self.kept_for_smaller(&account, needs, others),
        };
        if others.saturating_add(needs).saturating_add(kept) > self.total {
            return Err(self.shortage_of_all(holder, others, needs, kept, is_slow));
        }
        let promised = account.promised_of_half(&holder.pipeline, needs);
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
        account.note_use(&holder.pipeline);
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
        let reserved = match is_large(held) {
            true => account.reserved_for_others(&holder.pipeline, true),
            false => 0,
        };
        let others = account.in_use() - held + reserved;
        if reserved > 0
            && others + held + self.kept_for_smaller(&account, held, others) > self.total
        {
            return Err(self.shortage_of_all(holder, others, held, 0, true));
        }
        let promised = account.promised_of_half(&holder.pipeline, held);
        if account.slow + promised + held <= self.half() {
            account.slow += held;
            *allowance = Allowance::Slow;
        } else if account.exempts_another(holder) {
            return Err(self.shortage_of_half(&account, holder, account.slow, held));
        } else {
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
        account.note_slow(&holder.pipeline, self.half());
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
        account.large_freed += u64::from(is_large(holder.bytes));
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

    /// Bytes in use by instances of a pipeline.
    fn in_use_by(&self, pipeline: &PipelineName) -> usize {
        let of_stages = (self.held.iter()).filter(|((of, _), _)| of == pipeline);
        let held: usize = of_stages.map(|(_, bytes)| bytes).sum();
        let idle = (self.idle.values()).filter(|idle| idle.holder.pipeline == *pipeline);
        held - idle.map(|idle| idle.holder.bytes).sum::<usize>()
    }

    /// The call of `holder` is [`Allowance::Exempt`], and its instance has this much.
    fn set_exempt(&mut self, holder: &Holder, bytes: usize) {
        let holder = holder.clone();
        self.exempt = Some(Holder { bytes, ..holder });
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
