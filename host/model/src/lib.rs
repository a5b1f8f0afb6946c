//! Pure data shared by the host's crates: events, blocks, batches, outcomes, commits, requests.
//!
//! Nothing here does IO, reads a clock or knows a runtime. Units: times are milliseconds since the
//! Unix epoch (UTC, signed), sizes are bytes, sequences count events within one stream.

mod block;
mod books;
mod certificate;
mod commit;
pub mod contract;
mod cursor;
pub mod der;
mod event;
mod file_target;
mod gap;
mod known;
mod logged;
mod mask;
mod outbound;
mod outcome;
mod reasons;
pub mod request;
mod secret;
mod sentence;
mod size;
mod state;
mod time;

pub use block::{
    BLOCK_BYTES, BLOCK_EVENTS, Batch, Block, BlockBuilder, BlockParts, Dictionary, Slice, Texts,
};
pub use books::{Books, DayTally};
pub use certificate::{Validity, common_name, is_version_1};
pub use commit::{
    BatchRecord, Commit, DeadLetter, Entries, Generation, Redrive, RequestRecord, StateWrite,
    ranges,
};
pub use cursor::{Append, CursorUpdate};
pub use event::{DocumentView, EventView, FeedKind, FeedRef, Head, key_of, payload_hash};
pub use file_target::{Component, FileTarget, FileTargetError, PathTemplate};
pub use gap::{Gap, GapState};
pub use known::{KnownEvents, KnownEventsBuilder};
pub use logged::LoggedMessage;
pub use mask::{
    HeldMask, LINE_MAX, MASK, MASKED_MIN_CHARS, Masks, escape, logfmt, percent_decoded,
    percent_encoded,
};
pub use outbound::{OutboundExceptions, OutboundLogin, OutboundProxy, OutboundScheme};
pub use outcome::{Fate, Outcome, OutcomeRun, Outcomes, ReasonIndex};
pub use reasons::{REASON_MAX, REASONS_MAX, Reasons};
pub use secret::{Secret, names_a_secret};
pub use sentence::sentence;
pub use size::{SIZE_FACTORS, show_size};
pub use state::{
    STATE_ENTRY_BYTES, STATE_KEY_MAX, STATE_VALUE_MAX, StateError, StateMap, StateOverlay,
    StateSize, state_owners,
};
pub use time::{Day, Millis, utc};

/// Position of an event in its stream. Starts at 1, increases by 1, is never reused.
pub type Seq = u64;

/// A half-open range of sequences: `first..end`.
pub type SeqRange = std::ops::Range<Seq>;
