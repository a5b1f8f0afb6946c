//! Address space reserved for instances.
//!
//! Most instances live for one call. A new one reuses the pages of an earlier one, which are
//! overwritten with zeros or with the component's image. New pages would cost page faults: a fifth
//! of the time that a small component takes.

use wasmtime::{Enabled, PoolingAllocationConfig};

use crate::limits::{
    CORE_INSTANCES_MAX, INSTANCES_MAX, KEPT_RESIDENT, MEMORIES_MAX, MEMORY_MAX, TABLE_ELEMENTS_MAX,
    TABLES_MAX, begun_calls_max,
};

/// Most instances that can exist at the same time, whatever they consist of. Half are for calls,
/// and half may be idle.
pub(crate) fn instances(threads: usize) -> u32 {
    let instances = 2 * (begun_calls_max(threads) + 8 * threads);
    u32::try_from(instances.min(INSTANCES_MAX)).unwrap_or(u32::MAX)
}

pub(crate) fn pooling(threads: usize) -> PoolingAllocationConfig {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let instances = instances(threads);
    let of_all = |most: usize| instances.saturating_mul(count(most));
    let mut config = PoolingAllocationConfig::new();
    config
        .total_memories(of_all(MEMORIES_MAX))
        .total_component_instances(instances)
        .total_core_instances(of_all(CORE_INSTANCES_MAX))
        .total_tables(of_all(TABLES_MAX))
        .max_memory_size(MEMORY_MAX)
        .max_memories_per_module(count(MEMORIES_MAX))
        .max_memories_per_component(count(MEMORIES_MAX))
        .max_tables_per_module(count(TABLES_MAX))
        .max_tables_per_component(count(TABLES_MAX))
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_core_instances_per_component(count(CORE_INSTANCES_MAX))
        .max_core_instance_size(16 << 20)
        .max_component_instance_size(16 << 20)
        .linear_memory_keep_resident(KEPT_RESIDENT)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(count(8 * threads))
        .pagemap_scan(Enabled::Auto);
    config
}
