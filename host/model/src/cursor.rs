use std::sync::Arc;

use crate::event::FeedKind;
use crate::{BlockParts, Millis};

/// A change of one of a source's cursors. Keys and values are the source's own; the store keeps
/// them as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorUpdate {
    pub key: String,
    /// `None` removes the cursor.
    pub value: Option<String>,
}

/// What a reader gives to the store: events and the cursors that say they were read, one
/// transaction.
#[derive(Clone, Debug)]
pub struct Append {
    /// Name of the source, such as `teleport`. Cursors are kept per source.
    pub source: Arc<str>,
    pub feed: FeedKind,
    pub read_at: Millis,
    /// May be empty: then only the cursors move.
    pub events: BlockParts,
    pub cursors: Vec<CursorUpdate>,
    /// Events the reader left out because they had been read before: counted per stream.
    pub duplicates: u64,
}

impl Append {
    /// `teleport/audit`.
    pub fn stream(&self) -> String {
        format!("{}/{}", self.source, self.feed.name())
    }
}
