//! Where a source delivers what it has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::{Append, Gap, KnownEvents, Millis};
use thiserror::Error;

/// The intake is closed; the source ends.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the store is closed")]
pub struct Closed;

/// Receives the blocks of a source.
///
/// `append` is called from several tasks at once. It returns when the events, the cursors and the
/// gaps are durable. A source waits for that, so a slow intake slows the source down. A call may be
/// dropped before it returns; it then may or may not take effect.
pub trait Intake: Send + Sync + 'static {
    fn append(&self, append: Append) -> impl Future<Output = Result<(), Closed>> + Send;

    /// The stored events of this source's audit log with times in `from..=to`. The range is
    /// shortened if there are more than `max`.
    fn known(
        &self,
        from: Millis,
        to: Millis,
        max: usize,
    ) -> impl Future<Output = Result<KnownEvents, Closed>> + Send;
}

impl<I: Intake> Intake for Arc<I> {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        I::append(self, append).await
    }

    async fn known(&self, from: Millis, to: Millis, max: usize) -> Result<KnownEvents, Closed> {
        I::known(self, from, to, max).await
    }
}

/// The stored state from which a source continues.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Cursors as this source wrote them:
    /// - `start`: time of the first event to read;
    /// - `handler`: the last event that Teleport's Event Handler has sent, until it was found;
    /// - `handler/start`: the start time of that Event Handler;
    /// - `handler/polled`: where the Event Handler would poll, if it has exported;
    /// - `types`: the types read until now, separated by commas;
    /// - `export/<date>`, `export/<date>/<chunk>`: bulk export;
    /// - `refused/export/<date>/<chunk>`: since when a chunk cannot be read;
    /// - `export-from`: where polling ended before bulk export began;
    /// - `poll-from`: where polling began after bulk export had ended;
    /// - `poll/until`: the events before this time were read;
    /// - `poll/sweep-due/<seconds>`: when a run that is to end sweeps that stretch next;
    /// - `poll/refused`: since when the server refuses to return what comes next;
    /// - `session/<sid>`: a recording to download, or one that was downloaded;
    /// - `login/<user>`: the failed logins of a user, and the lock that is to be made;
    /// - `again/<sid>`: a recording that was announced once more.
    pub cursors: BTreeMap<String, String>,
    /// The times of the earliest and of the latest event of the newest blocks of the audit log,
    /// newest block first.
    pub recent_times: Vec<(Millis, Millis)>,
    /// The gaps of the source.
    pub gaps: Vec<Gap>,
}
