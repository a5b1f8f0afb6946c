//! Where a source delivers what it has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::Append;
use thiserror::Error;

/// The intake is closed; the source ends.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the store is closed")]
pub struct Closed;

/// Receives the blocks of a source.
///
/// `append` is called from several tasks at once. It returns when both the events and the cursors
/// are durable. A source waits for that, so a slow intake slows the source down. A call may be
/// dropped before it returns; it then may or may not take effect.
pub trait Intake: Send + Sync + 'static {
    fn append(&self, append: Append) -> impl Future<Output = Result<(), Closed>> + Send;
}

impl<I: Intake> Intake for Arc<I> {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        I::append(self, append).await
    }
}

/// The stored state from which a source continues.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Cursors as this source wrote them:
    /// - `start`: time of the first event to read;
    /// - `types`: the types read until now, separated by commas;
    /// - `export/<date>`, `export/<date>/<chunk>`: bulk export;
    /// - `export-from`: where polling ended before bulk export began;
    /// - `poll/until`: everything before this time was read;
    /// - `session/<sid>`: a recording to download.
    pub cursors: BTreeMap<String, String>,
    /// [`payload_hash`](lockgate_model::payload_hash) of the last events of the audit log, oldest
    /// first.
    pub recent_hashes: Vec<u64>,
}
