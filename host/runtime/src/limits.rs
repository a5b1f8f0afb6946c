use std::time::Duration;

/// What one instance may use, and the defaults: the whole list is on this page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a call, in CPU time of its thread: a machine that was suspended, or busy with other
    /// things, times out nobody. Watched every [`TICK`].
    pub time: Duration,
    /// Bytes of linear memory, over all memories of an instance.
    pub memory: usize,
    /// Bytes a call may return: this many times what was passed in …
    pub output_factor: usize,
    /// … and this much on top.
    pub output_floor: usize,
    /// Log lines a batch; one more says how many were left out.
    pub log_lines: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_secs(1),
            memory: 128 << 20,
            output_factor: 4,
            output_floor: 1 << 20,
            log_lines: 200,
        }
    }
}

impl Limits {
    pub(crate) fn output(&self, input: usize) -> usize {
        input
            .saturating_mul(self.output_factor)
            .saturating_add(self.output_floor)
    }
}

/// Bytes of linear memory over all instances of an engine, by default.
pub(crate) const MEMORY_TOTAL: usize = 512 << 20;

/// How often a running component is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Elements of one table. Python needs some thousands.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Core instances, tables and memories of one component's instance. Python needs some dozens of
/// core instances.
pub(crate) const CORE_INSTANCES_MAX: usize = 256;
pub(crate) const TABLES_MAX: usize = 256;
pub(crate) const MEMORIES_MAX: usize = 8;

/// Problems in a configuration that are passed on.
pub(crate) const CONFIG_ISSUES_MAX: usize = 100;

/// Bytes of `setup.time-member`.
pub(crate) const MEMBER_BYTES_MAX: usize = 200;

/// Attributes of all documents that a mapper makes of one event, and their bytes.
pub(crate) const ATTRIBUTES_MAX: usize = 64;
pub(crate) const ATTRIBUTE_BYTES_MAX: usize = 4 << 10;

/// Bytes of one of `setup.reasons`.
pub(crate) const REASON_BYTES_MAX: usize = 200;

/// Distinct metric names of a stage.
pub(crate) const METRICS_MAX: usize = 64;
