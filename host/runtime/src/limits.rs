//! Every limit of the runtime on one page.

use std::time::Duration;

/// The limits of one instance, with their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of a call. A suspended or busy machine does not cause a time-out. Checked every
    /// `TICK`.
    pub time: Duration,
    /// Bytes of memory, over all linear memories and tables of an instance.
    pub memory: usize,
    /// A call may return the size of its input times this, plus `output_floor`.
    pub output_factor: usize,
    /// Bytes that a call may return however small its input is.
    pub output_floor: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_secs(1),
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

/// Memory for small instances, as pairs of `bytes` and `n`: an instance of more than `bytes` leaves
/// one `n`th of all memory to those of at most `bytes`. What these have already counts.
pub(crate) const KEPT_FOR_SMALLER: [(usize, usize); 3] =
    [(16 << 20, 4), (4 << 20, 8), (2 << 20, 16)];

/// An instance leaves nothing to smaller ones while all others together have at most one `n`th of
/// all memory, with this `n`.
pub(crate) const FEW_OTHERS: usize = 8;

/// A slow call that exceeds the half of slow calls leaves one `n`th of all memory, with this `n`,
/// to quick calls, on top of what it leaves to smaller instances.
pub(crate) const KEPT_FOR_QUICK: usize = 8;

/// After this many large instances have been dropped or become idle, the call that has waited for
/// memory since then has a claim: what is released from then on is kept for it.
pub(crate) const OVERTAKEN_MAX: u64 = 16;

/// What is reserved for the quick calls of a pipeline is free again once the pipeline has had no
/// instance in use for this time.
pub(crate) const RESERVED_UNUSED_MAX: Duration = Duration::from_secs(1);

/// The same is not reserved from the quick calls of others for longer than this: several times as
/// long as the longest of them.
pub(crate) const RESERVED_FROM_QUICK_MAX: Duration = Duration::from_millis(200);

/// How often the time of a running component is checked.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// The ticker stops after this many ticks without a running component.
pub(crate) const IDLE_TICKS: u32 = 100;

/// CPU time by which a pipeline may be ahead of one that waits before its calls pause.
pub(crate) const SLICE: Duration = Duration::from_millis(1);

/// CPU time by which a pipeline that had no calls starts before those that are busy.
pub(crate) const HEAD_START: Duration = Duration::from_millis(5);

/// The same for the first call of a new pipeline, which may have waited for the first calls of
/// other new pipelines.
pub(crate) const NEW_HEAD_START: Duration = Duration::from_millis(20);

/// A call that takes more CPU time than this makes its pipeline slow, which then has one call at a
/// time.
pub(crate) const SLOW_CALL: Duration = Duration::from_millis(50);

/// Levels of calls by their CPU time: one of quick calls, the others of slow ones.
pub(crate) const LEVELS: usize = 6;

/// The calls of a level take up to this many times as long as those of the level below.
pub(crate) const LEVEL_FACTOR: u32 = 4;

/// A job of the host's work for a pipeline ends after this much CPU time, and another goes on. It
/// is shorter than a slow call.
pub(crate) const WORK: Duration = Duration::from_millis(20);

/// After this many shorter calls in a row, a stage goes back to the level of the longest of them.
pub(crate) const SHORTER_CALLS: u32 = 2;

/// Most calls of quick pipelines that have begun, running or paused. Each has a thread and an
/// instance. Once half as many have begun, each pipeline begins one call at a time.
pub(crate) const QUICK_CALLS_MAX: usize = 64;

/// Most calls of new pipelines that have begun. Those that turn out to be slow no longer count.
pub(crate) const NEW_CALLS_MAX: usize = 16;

/// No call moves up to a level of slow calls on which this many have begun. Pipelines that are on
/// the level already may begin one more for each thread.
pub(crate) const LEVEL_CALLS_MAX: usize = 12;

/// Most calls that have begun, over all pipelines.
pub(crate) fn begun_calls_max(threads: usize) -> usize {
    QUICK_CALLS_MAX + NEW_CALLS_MAX + (LEVELS - 1) * (LEVEL_CALLS_MAX + threads)
}

/// How much the priority of the threads for components is lowered: those that read, store and send
/// serve all pipelines.
pub(crate) const COMPONENT_NICE: i32 = 5;

/// How much the priority of a process that compiles is lowered.
pub(crate) const COMPILE_NICE: i32 = 10;

/// Largest component, in bytes.
pub(crate) const COMPONENT_MAX: u64 = 64 << 20;

/// Log lines that a stage may write at once, over all its calls. As many are kept of one call until
/// it ends.
pub(crate) const LOG_LINES: u32 = 200;

/// Log lines that a stage may write per second in the long run.
pub(crate) const LOG_LINES_PER_SECOND: u32 = 20;

/// Shortest time between two reports of dropped lines.
pub(crate) const LOG_REPORT: Duration = Duration::from_secs(10);

/// Traps of a stage that follow each other within this time share one line in the log: a component
/// that traps on every batch must not fill it.
pub(crate) const TRAPS_ENDED_AFTER: Duration = Duration::from_secs(10);

/// Most elements of one table. Python needs a few thousand.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Bytes that an element of a table counts as: a pointer and its target.
pub(crate) const TABLE_ELEMENT_BYTES: usize = 16;

/// Most core instances, tables and memories of one instance of a component. Python needs a few
/// dozen core instances.
pub(crate) const CORE_INSTANCES_MAX: usize = 256;
pub(crate) const TABLES_MAX: usize = 256;
pub(crate) const MEMORIES_MAX: usize = 8;

/// Most memory that an operator may allow one instance: the upper bound of a plugin's
/// `limits.memory`.
pub(crate) const MEMORY_MAX: usize = 4 << 30;

/// Bytes of an instance's unused slot that stay resident.
pub(crate) const KEPT_RESIDENT: usize = 8 << 20;

/// Most instances that address space is reserved for. With 8 memories of 4 GiB each, they take half
/// of the 128 TiB that a process has.
pub(crate) const INSTANCES_MAX: usize = 2048;

/// Most problems in the configuration of one component that are reported.
pub(crate) const CONFIG_ISSUES_MAX: usize = 100;

/// Longest `setup.time-member`, in bytes.
pub(crate) const MEMBER_BYTES_MAX: usize = 200;

/// Most attributes of all documents that a mapper makes of one event, and their bytes.
pub(crate) const ATTRIBUTES_MAX: usize = 64;
pub(crate) const ATTRIBUTE_BYTES_MAX: usize = 4 << 10;

/// Most reasons that a component may declare.
pub const REASONS_MAX: usize = 64;

/// Longest of `setup.reasons`, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 200;

/// Most distinct metric names of a stage.
pub(crate) const METRICS_MAX: usize = 64;

/// Most refused metrics of a stage that are logged, each name and problem once.
pub(crate) const REFUSALS_LOGGED: usize = 16;

/// Most refused metrics of a stage that are counted, each name and problem once.
pub(crate) const REFUSALS_COUNTED: usize = 1024;

/// Most bytes of a response that `classify` may ask for.
pub const RESPONSE_MAX: u32 = 4 << 20;

/// Bytes of a response that `classify` gets by default.
pub const RESPONSE_MAX_DEFAULT: u32 = 64 << 10;

/// Most bytes of an event's key in a message.
pub(crate) const KEY_SHOWN: usize = 100;

/// Longest name of a field of a component's log line, in characters.
pub(crate) const FIELD_NAME_MAX: usize = 64;
