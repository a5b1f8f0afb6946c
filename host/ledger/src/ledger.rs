//! The trait of durable storage for readers and pipelines.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::{Append, Block, Commit, Generation, Millis, Redrive, Seq};
use tokio::sync::watch;

use crate::{Committed, LedgerError, Registration};

/// Durable storage as readers and pipelines see it. Cheap to clone; all clones are one ledger.
///
/// The order of calls:
///
/// 1. The host calls [`keep_only`](Self::keep_only) with all configured pipelines, and
///    again whenever others are configured.
/// 2. A reader calls [`cursors`](Self::cursors) once, then [`append`](Self::append) as often as it
///    has events.
/// 3. A pipeline calls [`register`](Self::register) before anything else, and again when its
///    configuration changes.
/// 4. A pipeline follows [`head`](Self::head), reads blocks from its watermark on with
///    [`cached`](Self::cached) or [`block_at`](Self::block_at), and calls [`commit`](Self::commit)
///    for runs of entries that are final, in any order. It skips the ranges that are done already.
/// 5. It takes the entries that wait again with [`redrive`](Self::redrive) and commits them the
///    same way: when it starts, and whenever [`retries`](Self::retries) changes.
///
/// Every ledger guarantees:
///
/// - An operation that returned `Ok` is durable: it is there after a kill at any later moment.
/// - An operation is atomic: events, cursors and gaps of an append; outcomes, dead letters, state
///   and brake of a commit stand together or not at all.
/// - Per pipeline and stream, at every moment: read = delivered + dropped + dead + waiting. An
///   outcome that was committed is never edited. What an operator does to a dead letter is a record
///   of its own, see [`DeadLetters`](crate::DeadLetters).
/// - After [`LedgerError::Closed`] nothing is accepted any more, and the same value may be given
///   again once the ledger has been reopened. If the call was cancelled or the process died
///   before the answer, the operation may or may not have happened. A repeated append repeats
///   events: a reader starts again from the cursors of the reopened ledger, so it does not repeat
///   one. A repeated commit is refused as a conflict.
/// - Nothing is retried inside.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Adds events to the stream `source/feed`, moves the source's cursors and notes its gaps.
    /// Called by readers, as often as they have events.
    ///
    /// Sequences are given in the order of the calls: the first event of a stream has 1, none is
    /// ever used twice, also when the events are gone. `None` if there were no events. Waits
    /// while too much is queued, and while the stream is at its retention limit in bytes and a
    /// pipeline needs the oldest block; appends to other streams do not. A cursor whose updates
    /// depend on each other must be moved by calls one after another.
    fn append(
        &self,
        append: Append,
    ) -> impl Future<Output = Result<Option<Arc<Block>>, LedgerError>> + Send;

    /// Gives entries their final outcome, and keeps the state and the brake that go with them.
    /// Called by pipelines, in any order: once for a batch or a redrive, or for each run of its
    /// entries that is final while others are held up. Waits while too much is queued.
    ///
    /// Refused with [`LedgerError::Conflict`], without any change and without an effect on others,
    /// if an entry has an outcome already or does not exist (of a redrive: does not wait again),
    /// or if the pipeline, its epoch or its generation is not registered. Refused with
    /// [`LedgerError::Invalid`] if [`check_commit`](crate::check_commit) refuses it.
    fn commit(&self, commit: Commit)
    -> impl Future<Output = Result<Committed, LedgerError>> + Send;

    /// Makes a pipeline known, or its changed configuration: equal descriptions are one generation.
    /// `at`: milliseconds.
    ///
    /// A new pipeline, or one that reads a stream for the first time, begins at the oldest event
    /// kept. From now on retention waits for it in exactly these streams. Its batches in flight may
    /// still be committed under the generation they were made in.
    fn register(
        &self,
        generation: Generation,
        streams: &[String],
        at: Millis,
    ) -> impl Future<Output = Result<Registration, LedgerError>> + Send;

    /// The streams of the configured pipelines, by the pipelines' names. Retention waits for them
    /// there, and stops waiting for every other pipeline, and in every other stream: what it
    /// removes that such a one has not finished becomes dropped, with the reason `retention`. A
    /// pipeline that has not been registered on one of its streams yet holds every event of that
    /// stream until it is. Nothing is removed before this call or the first append. Call it before
    /// anything is appended or registered, and whenever others are configured.
    fn keep_only(
        &self,
        configured: &BTreeMap<String, Vec<String>>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The block that holds a sequence, from memory if it is recent. `None`: not appended yet,
    /// or removed by retention.
    fn block_at(
        &self,
        stream: &str,
        seq: Seq,
    ) -> impl Future<Output = Result<Option<Arc<Block>>, LedgerError>> + Send;

    /// The same, from memory only: never waits.
    fn cached(&self, stream: &str, seq: Seq) -> Option<Arc<Block>>;

    /// The sequence that the stream's next event will get; changes with every append. 1 for a
    /// stream without events. It does not change any more once the ledger has closed, so wait for
    /// [`failed`](Self::failed) as well.
    fn head(&self, stream: &str) -> watch::Receiver<Seq>;

    /// True while appends to the stream wait for room.
    fn retention_full(&self, stream: &str) -> watch::Receiver<bool>;

    /// How often an operator has sent entries of the pipeline back, in any of its streams, since
    /// the ledger was opened. Only grows, and only by a retry: a number of waiting entries would
    /// not change if as many were committed in the same transaction.
    fn retries(&self, pipeline: &str) -> watch::Receiver<u64>;

    /// Bytes of the events of all dead letters that the pipeline keeps, dead or waiting again.
    /// Changes with every commit and with every operation of [`DeadLetters`](crate::DeadLetters)
    /// that adds or removes letters. 0 for a pipeline that was never registered.
    fn dead_bytes(&self, pipeline: &str) -> watch::Receiver<u64>;

    /// The first entries of the stream that wait again, at most `events` of them and about `bytes`
    /// of payload, at least one; `None` if none does. Their order is that of the stream.
    ///
    /// Changes nothing: the same entries are answered until they are committed as
    /// [`Entries::Redriven`](lockgate_model::Entries), so a pipeline has one redrive of a stream in
    /// flight at a time. A commit may finish some of them only.
    fn redrive(
        &self,
        pipeline: &str,
        stream: &str,
        events: usize,
        bytes: usize,
    ) -> impl Future<Output = Result<Option<Redrive>, LedgerError>> + Send;

    /// The source's cursors, as the last appends left them.
    fn cursors(
        &self,
        source: &str,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, LedgerError>> + Send;

    /// Becomes `Some` when the ledger has closed: by itself because a write failed, or by
    /// [`close`](Self::close). It may be opened again from then on.
    fn failed(&self) -> watch::Receiver<Option<LedgerError>>;

    /// Finishes what is queued and lets go of the storage. Other clones get
    /// [`LedgerError::Closed`], and so do appends that wait for room.
    fn close(self) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
