//! Memory of instances, linear and of tables: counted against each one's own limit and against a
//! total that all share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

use crate::limits::{
    CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENT_BYTES, TABLE_ELEMENTS_MAX, TABLES_MAX,
};

/// Bytes of memory that all instances of an engine may have together.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Arc<Budget> {
        Arc::new(Budget {
            total,
            used: AtomicUsize::new(0),
        })
    }

    /// True where less than half is left: then no instance is kept for reuse.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.total / 2
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.total);
        self.used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Which limit an instance ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its own: the component's doing.
    Own,
    /// The total: others' doing.
    Total,
}

/// One instance's share of the budget. Growth beyond a limit is refused, not trapped: a guest with
/// a garbage collector may recover.
#[derive(Debug)]
pub(crate) struct Meter {
    budget: Arc<Budget>,
    limit: usize,
    held: usize,
    refused: Option<Refused>,
}

impl Meter {
    pub(crate) fn new(budget: Arc<Budget>, limit: usize) -> Meter {
        Meter {
            budget,
            limit,
            held: 0,
            refused: None,
        }
    }

    /// What was refused since this was last asked.
    pub(crate) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    /// False where it may not. Remembers why.
    fn grows(&mut self, bytes: usize) -> bool {
        match self.grow(bytes) {
            Ok(()) => true,
            Err(refused) => {
                // The total explains more than the own limit: it must not be forgotten.
                if self.refused != Some(Refused::Total) {
                    self.refused = Some(refused);
                }
                false
            }
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        if self
            .held
            .checked_add(bytes)
            .is_none_or(|sum| sum > self.limit)
        {
            return Err(Refused::Own);
        }
        if !self.budget.reserve(bytes) {
            return Err(Refused::Total);
        }
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
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
        // Beyond the component's own maximum the growth fails whatever is answered; it must not be
        // counted.
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
            self.refused.get_or_insert(Refused::Own);
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
    fn growth_counts_against_the_own_limit_and_the_total_and_is_given_back() {
        let budget = Budget::new(100);
        let mut first = Meter::new(budget.clone(), 70);
        assert!(first.memory_growing(0, 60, None).unwrap());
        assert!(!first.memory_growing(60, 80, None).unwrap());
        assert_eq!(first.take_refused(), Some(Refused::Own));
        assert!(budget.is_tight());

        let mut second = Meter::new(budget.clone(), 70);
        assert!(
            !second.memory_growing(0, 50, None).unwrap(),
            "60 of 100 are taken"
        );
        assert_eq!(
            (second.take_refused(), second.take_refused()),
            (Some(Refused::Total), None)
        );
        drop(first);
        assert!(second.memory_growing(0, 50, None).unwrap());
        assert_eq!(budget.used(), 50);
        assert!(
            !second.memory_growing(50, 60, Some(55)).unwrap(),
            "beyond its own maximum"
        );
        assert_eq!((budget.used(), second.take_refused()), (50, None));
        drop(second);
        assert_eq!(budget.used(), 0);
    }
    /// Finding 6: eight pipelines with filled tables held 2 GB that nobody counted.
    #[test]
    fn tables_count_as_memory_does() {
        let budget = Budget::new(1 << 30);
        let mut meter = Meter::new(budget.clone(), 128 << 20);
        let table = TABLE_ELEMENTS_MAX * TABLE_ELEMENT_BYTES;
        let tables = (0..TABLES_MAX)
            .take_while(|_| meter.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap())
            .count();
        assert_eq!(tables, (128 << 20) / table);
        assert_eq!(meter.take_refused(), Some(Refused::Own));
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
