//! Reading: what becomes of an event, and the two readers and the downloader that fetch them.

mod collect;
pub(crate) mod export;
pub(crate) mod poll;
mod probe;
mod recording;
mod seen;

pub(crate) use collect::{Collector, Feed};
pub(crate) use probe::choose;
pub(crate) use recording::{Pending, download};
pub(crate) use seen::Seen;
