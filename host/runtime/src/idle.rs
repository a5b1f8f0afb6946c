//! Instances that are kept from one batch to the next. They are dropped when others need their
//! memory, so that no call waits for memory that is not in use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::contract::{Holder, Shortage};

use crate::budget::{IdleId, InstanceMemory};

/// The idle instances of one component, those that were used last at the end.
pub(crate) struct IdleInstances<T: Send + 'static> {
    memory: Arc<InstanceMemory>,
    kept: Mutex<Vec<Kept<T>>>,
}

struct Kept<T> {
    id: IdleId,
    instance: Arc<Slot<T>>,
}

/// An instance, until it is taken or dropped.
type Slot<T> = Mutex<Option<T>>;

/// What is kept, without its type.
pub(crate) trait Discard: Send + Sync {
    /// Releases its memory.
    fn discard(&self);
}

impl<T: Send + 'static> IdleInstances<T> {
    pub(crate) fn new(memory: Arc<InstanceMemory>) -> IdleInstances<T> {
        IdleInstances {
            memory,
            kept: Mutex::default(),
        }
    }

    /// Keeps an instance of `holder`, with its memory, unless `most` are kept already.
    pub(crate) fn put(&self, instance: T, holder: Holder, most: usize) {
        let mut kept = lock(&self.kept);
        kept.retain(|kept| lock(&kept.instance).is_some());
        if kept.len() < most {
            let instance = Arc::new(Mutex::new(Some(instance)));
            let id = self.memory.add_idle(holder, instance.clone());
            kept.push(Kept { id, instance });
        }
    }

    /// The instance that was used last.
    ///
    /// # Errors
    /// Its memory has been promised to others.
    pub(crate) fn take(&self) -> Result<Option<T>, Shortage> {
        let mut all = lock(&self.kept);
        while let Some(kept) = all.last() {
            let is_kept = self.memory.use_idle(kept.id)?;
            let kept = all.pop();
            // Otherwise another thread drops it.
            if is_kept {
                return Ok(kept.and_then(|kept| lock(&kept.instance).take()));
            }
        }
        Ok(None)
    }
}

impl<T: Send + 'static> Drop for IdleInstances<T> {
    fn drop(&mut self) {
        for kept in lock(&self.kept).drain(..) {
            // Otherwise another thread drops it.
            if self.memory.remove_idle(kept.id) {
                kept.instance.discard();
            }
        }
    }
}

impl<T: Send> Discard for Slot<T> {
    fn discard(&self) {
        let instance = lock(self).take();
        drop(instance);
    }
}

impl<T: Send + 'static> fmt::Debug for IdleInstances<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleInstances")
            .field("kept", &lock(&self.kept).len())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use wasmtime::ResourceLimiter;

    use super::*;
    use crate::meter::Meter;

    /// An instance that holds this much.
    fn instance(memory: &Arc<InstanceMemory>, bytes: usize) -> Meter {
        let mut meter = Meter::new(memory.clone(), memory.total());
        assert!(meter.memory_growing(0, bytes, None).unwrap());
        meter
    }

    fn put(idle: &IdleInstances<Meter>, instance: Meter, most: usize) {
        let holder = instance.holder().clone();
        idle.put(instance, holder, most);
    }

    #[test]
    fn the_instances_that_were_idle_longest_are_dropped_for_those_that_need_memory() {
        let memory = InstanceMemory::new(100);
        let (first, second) = (
            IdleInstances::new(memory.clone()),
            IdleInstances::new(memory.clone()),
        );
        put(&first, instance(&memory, 20), 8);
        put(&second, instance(&memory, 30), 8);
        put(&first, instance(&memory, 40), 8);
        assert_eq!(memory.used(), 90);
        assert_eq!(memory.holders(), [], "nobody has to wait for them");
        let busy = instance(&memory, 25);
        assert_eq!(memory.used(), 95, "only the oldest had to go");
        let taken = first.take().unwrap().unwrap();
        assert_eq!(taken.held(), 40);
        assert!(first.take().unwrap().is_none());
        let bytes: Vec<usize> = memory.holders().iter().map(|found| found.bytes).collect();
        assert_eq!(bytes, [65]);
        // What is in use stays, and then nothing is dropped in vain.
        let mut refused = Meter::new(memory.clone(), 100);
        assert!(!refused.memory_growing(0, 36, None).unwrap());
        assert_eq!(memory.used(), 95);
        assert!(refused.memory_growing(0, 35, None).unwrap());
        assert!(second.take().unwrap().is_none());
        drop((busy, taken, refused));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_a_component_keeps_is_released_with_it() {
        let memory = InstanceMemory::new(100);
        let idle = IdleInstances::new(memory.clone());
        for _ in 0..3 {
            put(&idle, instance(&memory, 10), 2);
        }
        assert_eq!(memory.used(), 20, "two at most");
        drop(idle);
        assert_eq!(memory.used(), 0);
        let _all = instance(&memory, 100);
    }
}
