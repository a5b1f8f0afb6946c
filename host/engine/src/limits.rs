//! The limits of the engine that an operator could run into. The brake has its own, because its
//! arithmetic depends on them.

use std::time::Duration;

use lockgate_model::Seq;

use crate::Uptime;

/// No batch begins further than this past the watermark: 256 blocks of 512 events, as many as may
/// each have a batch that is parked.
pub(crate) const DISPATCH_WINDOW: Seq = 256 * 512;

/// Entries between the first of a batch and its last, if entries in between are final.
pub(crate) const BATCH_SPAN: Seq = 8 * 512;

/// Batches that may be open beyond `batches_in_flight`, because they are parked.
pub(crate) const PARKED_BATCHES_MAX: usize = 256;

/// Documents of such batches, from which on no further batch begins. It also bounds the done ranges
/// that a commit saves.
pub(crate) const PARKED_DOCUMENTS_MAX: usize = 16 * 512;

/// A pipeline is ready although single documents wait, for this long.
pub(crate) const DOCUMENTS_TOLERATED: Duration = Duration::from_secs(60);

/// A parked batch shrinks to what is left of it when that is one of so many events in memory, or
/// less.
pub(crate) const SHRINKS_TO_ONE_OF: usize = 4;

/// Bytes of a batch that is begun although its pipeline has used up its memory.
pub(crate) const URGENT_BATCH_BYTES: usize = 64 * 1024;

/// Entries wait and none has become final for this long: the pipeline is stalled.
pub(crate) const STALLED_AFTER: Uptime = Uptime::from_secs(60);

/// Calls of a component for a batch fail for this long: that is shown before their end.
pub(crate) const FAILING_AFTER: Uptime = Uptime::from_secs(5);

/// Documents that a mapper may make of one event.
pub const FAN_OUT_OF_EVENT_MAX: usize = 1000;

/// Documents of a batch, per event, at most. A batch may always have [`FAN_OUT_OF_EVENT_MAX`].
pub(crate) const FAN_OUT_OF_BATCH_MAX: usize = 10;

/// Bytes that one stage may make of a batch, for each byte of its events, at most. It may always
/// make [`BYTES_OF_BATCH`].
pub(crate) const BYTES_OF_BATCH_FACTOR: usize = 8;

/// Bytes that one stage may make of any batch.
pub(crate) const BYTES_OF_BATCH: usize = 4 << 20;

/// After this many events in a row that a component could not take, the component is broken and
/// not the events. Each may have cost the whole time limit of a call.
pub(crate) const FAILED_IN_A_ROW_MAX: usize = 16;

/// The longest wait between two probes, but for a `Retry-After`.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The longest wait before the first probe; it doubles with each failure.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// Single documents that are refused one after another before only probes are sent.
pub(crate) const REFUSED_IN_A_ROW_MAX: u32 = 2;

/// Requests that fail or are split one after another, none accepted between, before only probes are
/// sent although each of them may be at fault itself. More than it takes to find one document among
/// 5,000, if none of the halves without it was sent before.
pub(crate) const SUSPECTS_IN_A_ROW_MAX: usize = 16;

/// While probes are split for the first time, the wait between them grows as after this many
/// failures at most.
pub(crate) const NARROWING_BACKOFF: u32 = 3;

/// A document is dead-lettered when it was refused alone this often, with others accepted between.
pub(crate) const REFUSALS_MAX: u32 = 3;

/// One that is too large needs less: the answer says what is wrong with it.
pub(crate) const REFUSALS_TOO_LARGE_MAX: u32 = 2;

/// A request that fails this often while others are accepted is split.
pub(crate) const FAILURES_BEFORE_SPLIT: u32 = 5;

/// A single document that fails for this long while others are accepted is dead-lettered.
pub(crate) const FAILING_MAX: Uptime = Uptime::from_secs(600);

/// A request that failed this often keeps to its own waits when the endpoint recovers.
pub(crate) const OWN_WAITS_AFTER: u32 = 3;

/// Bytes of a request from which on an endpoint that once had a limit has none any more.
pub(crate) const SIZE_LIMIT_MAX: usize = 1 << 30;

/// Split requests whose halves are awaited. The oldest ones are forgotten.
pub(crate) const EXPECTED_MAX: usize = 64;

/// After a failed `classify` the wait is that after this many failures.
pub(crate) const CLASSIFY_BACKOFF: u32 = 4;

/// Requests of a batch that its commit records one by one.
pub(crate) const RECORDS_MAX: usize = 64;

/// A document that the brake keeps from being dead-lettered waits as after this many failures.
pub(crate) const BRAKE_BACKOFF: u32 = 6;

/// Bytes of a dead letter's reason in a condition, at most.
pub(crate) const REASON_MAX: usize = 200;

/// Bytes of a dead letter's reason, at most.
pub(crate) const LETTER_REASON_MAX: usize = 1024;

/// Bytes of an answer's body in which its first line is looked for …
pub(crate) const EXCERPT_OF: usize = 1024;
/// … and of that line in a message, at most.
pub(crate) const EXCERPT_MAX: usize = 200;

/// Bytes of a path in the record of a request, at most.
pub(crate) const PATH_MAX: usize = 200;
