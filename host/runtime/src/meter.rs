//! The memory of one instance: its linear memories and tables, counted against its own limit and
//! against what all instances share.

use std::sync::Arc;

use lockgate_model::contract::{Holder, Shortage};
use wasmtime::ResourceLimiter;

use crate::budget::{Allowance, InstanceMemory};
use crate::lack;
use crate::limits::{
    CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENT_BYTES, TABLE_ELEMENTS_MAX, TABLES_MAX,
};

/// The limit that an instance has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitHit {
    /// Its own, which is the component's fault.
    Own,
    /// That of all instances, which is not its fault.
    Shared(Shortage),
}

/// Counts the memory of one instance. Growth beyond a limit fails without a trap, because a guest
/// with a garbage collector may recover.
#[derive(Debug)]
pub(crate) struct Meter {
    memory: Arc<InstanceMemory>,
    limit: usize,
    allowance: Allowance,
    /// Whose instance it is, and the bytes that it holds.
    holder: Holder,
    hit: Option<LimitHit>,
}

impl Meter {
    #[cfg(test)]
    pub(crate) fn new(memory: Arc<InstanceMemory>, limit: usize) -> Meter {
        Meter::of("p".into(), "stage 1 (x)".into(), memory, limit)
    }

    /// `limit`: bytes. What the component alone would need beyond the total of all instances is
    /// beyond its own limit.
    pub(crate) fn of(
        pipeline: Arc<str>,
        stage: Arc<str>,
        memory: Arc<InstanceMemory>,
        limit: usize,
    ) -> Meter {
        Meter {
            limit: limit.min(memory.total()),
            memory,
            allowance: Allowance::Quick,
            holder: Holder {
                pipeline,
                stage,
                bytes: 0,
            },
            hit: None,
        }
    }

    /// Bytes that the instance may hold.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whose instance it is, and the bytes that it holds.
    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Bytes that the instance holds.
    pub(crate) fn held(&self) -> usize {
        self.holder.bytes
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.hit = None;
    }

    /// The current call, or the one that is about to begin, is slow. Where the memory that the
    /// instance holds is too much for that, remembers the limit, and the call must end.
    pub(crate) fn enter_slow(&mut self) -> Result<(), Shortage> {
        let entered = self.memory.enter_slow(&mut self.allowance, &self.holder);
        entered.inspect_err(|shortage| self.hit = Some(LimitHit::Shared(shortage.clone())))
    }

    /// A call has ended.
    pub(crate) fn end(&mut self) {
        self.memory
            .leave_slow(&mut self.allowance, self.holder.bytes);
    }

    /// Whether the current call found too little of the memory that all instances share.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.hit, Some(LimitHit::Shared(_)))
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
                // A limit that others share must not be overwritten: it means that the component
                // is not at fault.
                if matches!(self.hit, None | Some(LimitHit::Own)) {
                    self.hit = Some(refused);
                }
                false
            }
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), LimitHit> {
        let held = self.held().checked_add(bytes);
        let held = held.filter(|&sum| sum <= self.limit).ok_or(LimitHit::Own)?;
        let grown = self.memory.grow(&mut self.allowance, &self.holder, bytes);
        grown.map_err(LimitHit::Shared)?;
        self.holder.bytes = held;
        Ok(())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
        self.memory.release(&self.holder);
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

    /// The growth was granted, and the system refused it. That ends the call: the component would
    /// take it for its own limit. Growth beyond what its memory declares fails as usual.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        match lack::of_host(&error) {
            Some(_) => Err(error.context("its memory cannot grow")),
            None => Ok(()),
        }
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
        let memory = InstanceMemory::new(100);
        let mut first = Meter::new(memory.clone(), 70);
        assert!(first.memory_growing(0, 60, None).unwrap());
        assert!(!first.memory_growing(60, 80, None).unwrap());
        assert_eq!(first.take_limit(), Some(LimitHit::Own));

        let mut second = Meter::new(memory.clone(), 70);
        assert!(
            !second.memory_growing(0, 50, None).unwrap(),
            "60 of 100 are taken"
        );
        assert!(matches!(second.take_limit(), Some(LimitHit::Shared(_))));
        assert_eq!(second.take_limit(), None);
        drop(first);
        assert!(second.memory_growing(0, 50, None).unwrap());
        assert_eq!(memory.used(), 50);
        assert!(
            !second.memory_growing(50, 60, Some(55)).unwrap(),
            "beyond its declared maximum"
        );
        assert_eq!((memory.used(), second.take_limit()), (50, None));
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn the_total_is_a_limit_of_each_instance() {
        let memory = InstanceMemory::new(100);
        let mut meter = Meter::new(memory.clone(), 200);
        assert!(!meter.memory_growing(0, 101, None).unwrap());
        assert_eq!(meter.take_limit(), Some(LimitHit::Own));
        assert_eq!((meter.limit(), memory.used()), (100, 0));
    }

    /// Eight pipelines with filled tables once held 2 GB that were not counted.
    #[test]
    fn tables_count_as_memory() {
        let memory = InstanceMemory::new(1 << 30);
        let mut meter = Meter::new(memory.clone(), 128 << 20);
        let table = TABLE_ELEMENTS_MAX * TABLE_ELEMENT_BYTES;
        let tables = (0..TABLES_MAX)
            .take_while(|_| meter.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap())
            .count();
        assert_eq!(tables, (128 << 20) / table);
        assert_eq!(meter.take_limit(), Some(LimitHit::Own));
        assert_eq!(memory.used(), tables * table);
        assert!(!meter.memory_growing(0, table, None).unwrap());
        drop(meter);

        let mut meter = Meter::new(memory.clone(), 128 << 20);
        assert!(meter.table_growing(0, 10, Some(20)).unwrap());
        assert!(meter.table_growing(10, 20, Some(20)).unwrap());
        assert!(!meter.table_growing(20, 21, Some(20)).unwrap());
        assert!(
            !meter
                .table_growing(20, TABLE_ELEMENTS_MAX + 1, None)
                .unwrap()
        );
        assert_eq!(memory.used(), 20 * TABLE_ELEMENT_BYTES);
    }
}
