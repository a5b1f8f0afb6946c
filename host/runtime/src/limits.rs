use std::time::Duration;

/// What one instance may use, and the defaults: the whole list is on this page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a call, in CPU time of its thread: a machine that was suspended, or busy with other
    /// things, times out nobody. Watched every [`TICK`].
    pub time: Duration,
    /// Of all calls for one batch, in CPU time, those that look for the event at fault included.
    /// Whoever makes the calls adds them up, see [`Ran::cpu`](crate::Ran::cpu).
    pub batch_time: Duration,
    /// Bytes of memory, over all linear memories and tables of an instance.
    pub memory: usize,
    /// Bytes a call may return: this many times what was passed in …
    pub output_factor: usize,
    /// … and this much on top.
    pub output_floor: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_secs(1),
            batch_time: Duration::from_secs(10),
            memory: 128 << 20,
            output_factor: 4,
            output_floor: 1 << 20,
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

/// Bytes of memory over all instances of an engine, by default.
pub(crate) const MEMORY_TOTAL: usize = 512 << 20;

/// How often a running component is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A call that takes more CPU time makes its pipeline slow: one call at a time, and all slow
/// pipelines together on half of the threads.
pub(crate) const SLOW_CALL: Duration = Duration::from_millis(50);

/// A slow pipeline is quick again after this many calls in a row that were.
pub(crate) const QUICK_CALLS: u32 = 8;

/// How much the priority of the threads for slow calls is lowered.
pub(crate) const SLOW_NICE: i32 = 10;

/// How much the priority of a process that compiles is lowered.
pub(crate) const COMPILE_NICE: i32 = 10;

/// Bytes of a component.
pub(crate) const COMPONENT_MAX: u64 = 64 << 20;

/// Log lines that a stage may write at once, over all its calls, …
pub(crate) const LOG_LINES: u32 = 200;

/// … and how many a second it may write in the long run.
pub(crate) const LOG_LINES_A_SECOND: u32 = 20;

/// Least time between two lines that say how many were left out.
pub(crate) const LOG_REPORT: Duration = Duration::from_secs(10);

/// Elements of one table. Python needs some thousands.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// What an element of a table counts as: a pointer, and what the pointer is to.
pub(crate) const TABLE_ELEMENT_BYTES: usize = 16;

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
