//! Memory of instances, for linear memories and tables, counted against a limit per instance and
//! against a total of all instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

use crate::limits::{
    CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENT_BYTES, TABLE_ELEMENTS_MAX, TABLES_MAX,
};

/// The memory that all instances of an engine may use together, in bytes.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    total: usize,
    used: AtomicUsize,
    /// One of the calls that run beside the threads uses what half of it cannot hold. No other may.
    one_beside_has_all: AtomicBool,
}

impl InstanceMemory {
    pub(crate) fn new(total: usize) -> Arc<InstanceMemory> {
        Arc::new(InstanceMemory {
            total,
            used: AtomicUsize::new(0),
            one_beside_has_all: AtomicBool::new(false),
        })
    }

    /// Whether less than half is left. Then no instance is kept for reuse.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.total / 2
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// `most`: bytes in use afterwards.
    fn reserve(&self, bytes: usize, most: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= most);
        self.used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The limit that an instance has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitHit {
    /// Its own, which is the component's fault.
    Own,
    /// The total of all instances, which is not its fault.
    Total,
    /// Half of that, which calls beside the threads leave to the others.
    Half,
}

/// How much of the total may be in use when an instance grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    All,
    /// The call runs beside the threads.
    Half,
    /// Such a call that needed more, and is the one that may use all.
    AllBeside,
}

/// Counts the memory of one instance. Growth beyond a limit fails without a trap, because a guest
/// with a garbage collector may recover.
#[derive(Debug)]
pub(crate) struct Meter {
    budget: Arc<InstanceMemory>,
    limit: usize,
    share: Share,
    held: usize,
    hit: Option<LimitHit>,
}

impl Meter {
    /// `limit`: bytes. What the component alone would need beyond the total of all instances is
    /// beyond its own limit.
    pub(crate) fn new(budget: Arc<InstanceMemory>, limit: usize) -> Meter {
        Meter {
            limit: limit.min(budget.total),
            budget,
            share: Share::All,
            held: 0,
            hit: None,
        }
    }

    /// Bytes that the instance may hold.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that the instance holds.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.end();
        self.hit = None;
    }

    /// The current call runs beside the threads, where there can be many. One of them may use as
    /// much as any call; the others leave half of the total to the calls of the threads.
    pub(crate) fn run_beside(&mut self) {
        if self.share == Share::All {
            self.share = Share::Half;
        }
    }

    /// A call has ended.
    pub(crate) fn end(&mut self) {
        if self.share == Share::AllBeside {
            let taken = &self.budget.one_beside_has_all;
            taken.store(false, Ordering::Relaxed);
        }
        self.share = Share::All;
    }

    /// The limit reached since the last call of this method.
    pub(crate) fn take_limit(&mut self) -> Option<LimitHit> {
        self.hit.take()
    }

    /// Returns whether the instance may grow. If not, remembers the limit.
    fn grows(&mut self, bytes: usize) -> bool {
        match self.grow(bytes) {
            Ok(()) => true,
            Err(refused) => {
                // Others must not be overwritten: they mean that the component is not at fault.
                if matches!(self.hit, None | Some(LimitHit::Own)) {
                    self.hit = Some(refused);
                }
                false
            }
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), LimitHit> {
        if self
            .held
            .checked_add(bytes)
            .is_none_or(|sum| sum > self.limit)
        {
            return Err(LimitHit::Own);
        }
        let budget = &self.budget;
        if self.share == Share::Half && !budget.reserve(bytes, budget.total / 2) {
            // Only now, so that a call that needs little memory does not keep it from one that
            // needs much.
            if budget.one_beside_has_all.swap(true, Ordering::Relaxed) {
                return Err(LimitHit::Half);
            }
            self.share = Share::AllBeside;
        }
        if self.share != Share::Half && !budget.reserve(bytes, budget.total) {
            return Err(LimitHit::Total);
        }
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
        self.budget.release(self.held);
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Growth beyond the component's declared maximum always fails, so it must not be counted.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grows(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.hit.get_or_insert(LimitHit::Own);
            return Ok(false);
        }
        let elements = desired.saturating_sub(current);
        Ok(self.grows(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_counts_against_both_limits_and_is_released() {
        let budget = InstanceMemory::new(100);
        let mut first = Meter::new(budget.clone(), 70);
        assert!(first.memory_growing(0, 60, None).unwrap());
        assert!(!first.memory_growing(60, 80, None).unwrap());
        assert_eq!(first.take_limit(), Some(LimitHit::Own));
        assert!(budget.is_tight());

        let mut second = Meter::new(budget.clone(), 70);
        assert!(
            !second.memory_growing(0, 50, None).unwrap(),
            "60 of 100 are taken"
        );
        assert_eq!(
            (second.take_limit(), second.take_limit()),
            (Some(LimitHit::Total), None)
        );
        drop(first);
        assert!(second.memory_growing(0, 50, None).unwrap());
        assert_eq!(budget.used(), 50);
        assert!(
            !second.memory_growing(50, 60, Some(55)).unwrap(),
            "beyond its declared maximum"
        );
        assert_eq!((budget.used(), second.take_limit()), (50, None));
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_total_is_a_limit_of_each_instance() {
        let budget = InstanceMemory::new(100);
        let mut meter = Meter::new(budget.clone(), 200);
        assert!(!meter.memory_growing(0, 101, None).unwrap());
        assert_eq!(meter.take_limit(), Some(LimitHit::Own));
        assert_eq!((meter.limit(), budget.used()), (100, 0));
    }

    #[test]
    fn calls_beside_the_threads_leave_half_of_the_total_to_others_but_one() {
        let budget = InstanceMemory::new(100);
        let meter = || Meter::new(budget.clone(), 90);
        let (mut small, mut first, mut second) = (meter(), meter(), meter());
        for meter in [&mut small, &mut first, &mut second] {
            meter.run_beside();
        }
        assert!(small.memory_growing(0, 5, None).unwrap());
        assert!(second.memory_growing(0, 20, None).unwrap());
        // More than half of the total: one may, whichever began first.
        assert!(first.memory_growing(0, 50, None).unwrap());
        assert!(!second.memory_growing(20, 30, None).unwrap());
        assert_eq!(second.take_limit(), Some(LimitHit::Half));
        let mut other = meter();
        assert!(other.memory_growing(0, 25, None).unwrap());
        drop(other);
        drop(first);
        // Now it may use all.
        assert!(second.memory_growing(20, 90, None).unwrap());
        // A call on a thread does not count among them.
        second.begin();
        let mut third = meter();
        third.run_beside();
        assert!(!third.memory_growing(0, 10, None).unwrap());
        assert_eq!(third.take_limit(), Some(LimitHit::Total));
    }

    /// Eight pipelines with filled tables once held 2 GB that were not counted.
    #[test]
    fn tables_count_as_memory() {
        let budget = InstanceMemory::new(1 << 30);
        let mut meter = Meter::new(budget.clone(), 128 << 20);
        let table = TABLE_ELEMENTS_MAX * TABLE_ELEMENT_BYTES;
        let tables = (0..TABLES_MAX)
            .take_while(|_| meter.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap())
            .count();
        assert_eq!(tables, (128 << 20) / table);
        assert_eq!(meter.take_limit(), Some(LimitHit::Own));
        assert_eq!(budget.used(), tables * table);
        assert!(!meter.memory_growing(0, table, None).unwrap());
        drop(meter);

        let mut meter = Meter::new(budget.clone(), 128 << 20);
        assert!(meter.table_growing(0, 10, Some(20)).unwrap());
        assert!(meter.table_growing(10, 20, Some(20)).unwrap());
        assert!(!meter.table_growing(20, 21, Some(20)).unwrap());
        assert!(
            !meter
                .table_growing(20, TABLE_ELEMENTS_MAX + 1, None)
                .unwrap()
        );
        assert_eq!(budget.used(), 20 * TABLE_ELEMENT_BYTES);
    }
}
