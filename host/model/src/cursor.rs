//! The cursors of a source, and the transaction that moves them.

use std::sync::Arc;

use crate::event::FeedKind;
use crate::{BlockParts, Gap, Millis};

/// A change of one of a source's cursors. The source defines keys and values; the store keeps them
/// unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorUpdate {
    pub key: String,
    /// `None` removes the cursor.
    pub value: Option<String>,
}

/// The transaction in which a reader stores events together with its cursors and gaps.
#[derive(Clone, Debug)]
pub struct Append {
    /// Name of the source, such as `teleport`. Cursors are kept per source.
    pub source: Arc<str>,
    pub feed: FeedKind,
    pub read_at: Millis,
    /// May be empty, if only the cursors move.
    pub events: BlockParts,
    pub cursors: Vec<CursorUpdate>,
    /// Gaps as they are from now on: a new one, or one that replaces that with the same key.
    pub gaps: Vec<Gap>,
    /// Events that the reader skipped because they had been read before. Counted per stream.
    pub duplicates: u64,
}

impl Append {
    /// Name of the stream, such as `teleport/audit`.
    pub fn stream(&self) -> String {
        format!("{}/{}", self.source, self.feed.name())
    }
}
