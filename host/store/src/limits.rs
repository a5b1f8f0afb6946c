//! Every limit of the store on one page.

use std::time::Duration;

/// Events per compressed frame of payload.
pub const FRAME_EVENTS: usize = 128;
/// Bytes of one block's columns before compression, at most.
pub const BLOCK_MAX: usize = 256 << 20;
/// Bytes of recent blocks that are kept in memory.
pub const TAIL_BYTES: usize = 32 << 20;
/// Encoded bytes that may wait for the committer, for each stream.
pub const APPEND_QUEUE: usize = 8 << 20;
/// Bytes of commits that may wait for the committer, over all pipelines.
pub const COMMIT_QUEUE: usize = 16 << 20;
/// Bytes that have to be free before a store that a full disk closed is opened again: all commits
/// that may wait, once for the write-ahead log and once for the file.
pub const ROOM_TO_REOPEN: usize = 2 * COMMIT_QUEUE;
// The message of a directory without room says so.
const _: () = assert!(ROOM_TO_REOPEN == 32 << 20);
/// One transaction holds at most this many operations …
pub const GROUP_OPERATIONS: usize = 256;
/// … and closes after this many bytes.
pub const GROUP_BYTES: usize = 8 << 20;
/// How often retention by age looks, and whether the store's files are still there is checked, when
/// nothing is written.
pub const TICK: Duration = Duration::from_secs(5);
/// Blocks that retention removes in one transaction, at most: writers wait no longer than that.
pub const RETENTION_STEP: usize = 64;
/// Free pages the file keeps for what is written next; more than that is given back to the disk …
pub const FREE_PAGES_KEPT: u32 = 1024;
/// … in steps of this many pages.
pub const VACUUM_STEP: u32 = 64;
/// A store up to this size is checked in full when it is opened.
pub const FULL_CHECK: u64 = 1 << 30;
/// The same for an [`Inspector`](crate::Inspector), which is opened for one short command.
pub const FULL_CHECK_INSPECTOR: u64 = 64 << 20;
/// In a larger one the checksums of this many newest blocks of each stream.
pub const NEWEST_CHECKED: usize = 16;
/// Blocks of an earlier release that get their filters in one transaction.
pub const FILTER_STEP: usize = 32;
/// Connections for reading that are kept open between reads.
pub const IDLE_READERS: usize = 4;
/// Wait before another attempt to open one if the process has no file descriptor left.
pub const DESCRIPTOR_WAIT: Duration = Duration::from_millis(50);
/// A read fails after so many of these waits: two minutes, in which requests that hang time out.
pub const DESCRIPTOR_WAITS: u32 = 2400;
/// The write-ahead log is cut back to this after a checkpoint.
pub const WAL_KEPT: u64 = 64 << 20;
/// Blocks that an audit reads in one transaction.
pub const AUDIT_SLICE: usize = 64;
/// Findings that an audit keeps; more are counted.
pub const FINDINGS: usize = 100;
/// Links of a chain that one transaction folds, and that may wait for it.
pub const FOLD_LINKS: usize = 4096;
/// Blocks that retention removes before a busy store looks for links to fold.
pub const FOLD_BLOCKS: usize = 64;
/// Distinct reasons that are counted for a pass, day and outcome; more share one row.
pub const REASONS_PER_DAY: usize = 32;
/// Bytes of the write-ahead log that are unusual: a reader keeps it from being folded into the
/// file.
pub const LOG_LIMIT: u64 = 128 << 20;

/// A checksum that differs in no more bits from the one of its row was damaged itself: two
/// checksums of different content differ in about half of their 256.
pub const CHECKSUM_BITS: u32 = 8;

/// How many times of reading, one a millisecond, are tried for a block that was read between its
/// neighbours.
pub const READ_AT_TRIED: i64 = 4_000_000;

/// By how much a block of a recording may have been read before the one that is stored before it,
/// or after the one behind it, in milliseconds.
pub const READ_AT_OUT_OF_ORDER: i64 = 60_000;
