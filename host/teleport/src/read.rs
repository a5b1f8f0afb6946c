//! Reading the audit log by bulk export or by polling, and downloading session recordings.

mod collect;
pub(crate) mod export;
pub(crate) mod poll;
mod probe;
mod recording;
mod seen;
mod to_polling;

pub(crate) use collect::{Collector, Feed};
pub(crate) use export::{
    PREFIX as EXPORT_PREFIX, handler_cursors as export_cursors, refused as refused_chunks,
};
pub(crate) use poll::{GAP as POLL_GAP, events_at, find_event, newest_event};
pub(crate) use probe::choose;
pub(crate) use recording::{
    Announced, KnownRecordings, PREFIX as SESSION_PREFIX, PendingRecording, download,
};
pub(crate) use seen::Seen;
pub use to_polling::polling_begins_at;
pub(crate) use to_polling::{HANDLER as POLLED_BY_HANDLER, Polled, poll_after_export, polled_from};
