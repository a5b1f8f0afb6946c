use std::sync::Arc;

use lockgate_model::{Append, Block, Commit};

use crate::StoreError;

/// The two write operations. Whatever keeps this protocol can stand in the store's place: for more
/// than one machine, a message log where an append is one message and a commit is one message
/// fenced by the expected last sequence.
///
/// - An operation that returned `Ok` is durable: it is there after a kill at any later moment.
/// - An operation is atomic: events and cursors of an append, outcomes, dead letters and state of a
///   commit, stand together or not at all.
/// - After [`StoreError::Closed`] nothing is accepted any more, and the same value may be given
///   again to a ledger opened anew; where the call was cancelled or the process died before the
///   answer, the operation may or may not have happened. A repeated append repeats events (the
///   reader starts again from the cursors of the new ledger, so it does not); a repeated commit is
///   refused as a conflict.
/// - Both wait while too much is queued. Neither is retried inside.
pub trait Ledger: Send + Sync {
    /// Adds events to the stream `source/feed` and moves the source's cursors. Called by readers,
    /// as often as they have events.
    ///
    /// Sequences are given in the order of the calls: the first event of a stream has 1, none is
    /// ever used twice, also when the events are gone. `None` where there were no events. Waits
    /// while the stream is at its retention limit in bytes and a pipeline needs the oldest
    /// block; appends to other streams do not. A cursor whose updates depend on each other must be
    /// moved by calls one after another.
    fn append(
        &self,
        append: Append,
    ) -> impl Future<Output = Result<Option<Arc<Block>>, StoreError>> + Send;

    /// Gives entries their final outcome. Called by pipelines, once for each batch when all its
    /// documents are final, in any order.
    ///
    /// Refused with [`StoreError::Conflict`], without any change and without an effect on others,
    /// where an entry of the range has an outcome already or does not exist, or where the
    /// pipeline, its epoch or its generation is not registered. Refused with
    /// [`StoreError::Invalid`] where outcomes, reasons, days and dead letters do not agree with
    /// each other.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<(), StoreError>> + Send;
}
