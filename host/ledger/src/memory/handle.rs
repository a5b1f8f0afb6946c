//! The asynchronous ledger over a [`MemoryCore`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::{Append, Block, Commit, Generation, Millis, Redrive, Seq};
use tokio::sync::watch;

use super::core::{Appended, MemoryCore};
use crate::{
    CodeDigests, Committed, DeadLetters, KeptLetter, Ledger, LedgerError, LetterCounts,
    LetterQuery, Registration,
};

/// A [`MemoryCore`] behind the asynchronous traits. Clones are one ledger.
#[derive(Clone, Default)]
pub struct MemoryLedger {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    core: Mutex<MemoryCore>,
    streams: Mutex<HashMap<String, Channels>>,
    retries: Mutex<HashMap<String, watch::Sender<u64>>>,
    dead_bytes: Mutex<HashMap<String, watch::Sender<u64>>>,
    closed: watch::Sender<Option<LedgerError>>,
    /// Counts writes: an append without room looks again after each.
    writes: watch::Sender<u64>,
    /// The next write closes the ledger, and is applied or not.
    crash: Mutex<Option<bool>>,
}

#[derive(Clone)]
struct Channels {
    head: watch::Sender<Seq>,
    full: watch::Sender<bool>,
    /// Appends to a stream keep their order while one waits for room.
    order: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryLedger {
    /// A ledger over what a crash left, or over a new one.
    pub fn open(core: MemoryCore) -> MemoryLedger {
        let ledger = MemoryLedger::default();
        *lock(&ledger.shared.core) = core;
        ledger
    }

    /// Ends this ledger as a crash between two operations does: every handle gets
    /// [`LedgerError::Closed`] from now on. What it answers is what a process started again finds.
    pub fn crash(&self) -> MemoryCore {
        self.shut("it crashed");
        std::mem::take(&mut *lock(&self.shared.core))
    }

    /// The next write crashes: its caller gets [`LedgerError::Closed`], and it is durable or not,
    /// as `applied` says. Take what is left with [`crash`](Self::crash).
    pub fn crash_in_next_write(&self, applied: bool) {
        *lock(&self.shared.crash) = Some(applied);
    }

    /// Looks at what is durable now.
    pub fn with<T>(&self, look: impl FnOnce(&MemoryCore) -> T) -> T {
        look(&lock(&self.shared.core))
    }

    fn read<T>(&self, look: impl FnOnce(&MemoryCore) -> T) -> Result<T, LedgerError> {
        self.check_open()?;
        Ok(self.with(look))
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&mut MemoryCore) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let answer = self.attempt(change)?;
        self.shared.writes.send_modify(|writes| *writes += 1);
        Ok(answer)
    }

    /// A write that does not wake appends without room.
    fn attempt<T>(
        &self,
        change: impl FnOnce(&mut MemoryCore) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.check_open()?;
        let mut core = lock(&self.shared.core);
        if let Some(applied) = lock(&self.shared.crash).take() {
            if applied {
                let _ = change(&mut core);
            }
            return Err(self.shut("it crashed"));
        }
        let answer = change(&mut core)?;
        for (stream, next) in core.stream_names() {
            let head = self.channels(stream).head;
            head.send_if_modified(|head| std::mem::replace(head, next) != next);
        }
        for (pipeline, bytes) in lock(&self.shared.dead_bytes).iter() {
            let now = core.dead_bytes(pipeline);
            bytes.send_if_modified(|bytes| std::mem::replace(bytes, now) != now);
        }
        Ok(answer)
    }

    fn check_open(&self) -> Result<(), LedgerError> {
        self.shared.closed.borrow().clone().map_or(Ok(()), Err)
    }

    /// The first cause stands.
    fn shut(&self, cause: &str) -> LedgerError {
        let cause = LedgerError::Closed {
            cause: cause.to_owned(),
            full: false,
        };
        self.shared.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| cause.clone());
            first
        });
        cause
    }

    fn channels(&self, stream: &str) -> Channels {
        let mut streams = lock(&self.shared.streams);
        let new = || Channels {
            head: watch::Sender::new(1),
            full: watch::Sender::new(false),
            order: Arc::default(),
        };
        streams.entry(stream.to_owned()).or_insert_with(new).clone()
    }
}

impl Ledger for MemoryLedger {
    async fn append(&self, append: Append) -> Result<Option<Arc<Block>>, LedgerError> {
        let channels = self.channels(&append.stream());
        let _order = channels.order.lock().await;
        let mut closed = self.shared.closed.subscribe();
        let mut writes = self.shared.writes.subscribe();
        let mut pending = append;
        loop {
            writes.mark_unchanged();
            match self.attempt(|core| Ok(core.append(pending)))? {
                Appended::Done(block) => {
                    channels.full.send_if_modified(std::mem::take);
                    return Ok(block);
                }
                Appended::NoRoom(append) => pending = *append,
            }
            channels
                .full
                .send_if_modified(|full| !std::mem::replace(full, true));
            tokio::select! {
                _ = writes.changed() => {}
                _ = closed.wait_for(Option::is_some) => {}
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, LedgerError> {
        self.write(|core| core.commit(commit))
    }

    async fn register(
        &self,
        generation: Generation,
        streams: &[String],
        _at: Millis,
    ) -> Result<Registration, LedgerError> {
        self.write(|core| core.register(generation, streams))
    }

    async fn keep_only(
        &self,
        configured: &BTreeMap<String, Vec<String>>,
    ) -> Result<(), LedgerError> {
        self.write(|core| {
            core.keep_only(configured);
            Ok(())
        })
    }

    async fn block_at(&self, stream: &str, seq: Seq) -> Result<Option<Arc<Block>>, LedgerError> {
        self.read(|core| core.block_at(stream, seq))
    }

    fn cached(&self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        self.with(|core| core.block_at(stream, seq))
    }

    fn head(&self, stream: &str) -> watch::Receiver<Seq> {
        let core = lock(&self.shared.core);
        let head = self.channels(stream).head;
        head.send_replace(core.next(stream));
        head.subscribe()
    }

    fn retention_full(&self, stream: &str) -> watch::Receiver<bool> {
        self.channels(stream).full.subscribe()
    }

    fn retries(&self, pipeline: &str) -> watch::Receiver<u64> {
        let mut counts = lock(&self.shared.retries);
        counts.entry(pipeline.to_owned()).or_default().subscribe()
    }

    fn dead_bytes(&self, pipeline: &str) -> watch::Receiver<u64> {
        let core = lock(&self.shared.core);
        let mut bytes = lock(&self.shared.dead_bytes);
        let new = || watch::Sender::new(core.dead_bytes(pipeline));
        bytes
            .entry(pipeline.to_owned())
            .or_insert_with(new)
            .subscribe()
    }

    async fn redrive(
        &self,
        pipeline: &str,
        stream: &str,
        events: usize,
        bytes: usize,
    ) -> Result<Option<Redrive>, LedgerError> {
        self.read(|core| core.redrive(pipeline, stream, events, bytes))
    }

    async fn cursors(&self, source: &str) -> Result<BTreeMap<String, String>, LedgerError> {
        self.read(|core| core.cursors(source))
    }

    fn failed(&self) -> watch::Receiver<Option<LedgerError>> {
        self.shared.closed.subscribe()
    }

    async fn close(self) -> Result<(), LedgerError> {
        self.check_open()?;
        self.shut("it was closed");
        Ok(())
    }
}

impl DeadLetters for MemoryLedger {
    async fn dead_letters(&self, query: &LetterQuery) -> Result<Vec<KeptLetter>, LedgerError> {
        self.read(|core| core.dead_letters(query))
    }

    async fn dead_letter(
        &self,
        pipeline: &str,
        stream: &str,
        seq: Seq,
    ) -> Result<Option<KeptLetter>, LedgerError> {
        self.read(|core| core.dead_letter(pipeline, stream, seq))
    }

    async fn retry(
        &self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        _at: Millis,
    ) -> Result<(), LedgerError> {
        self.write(|core| core.retry(pipeline, stream, seqs))?;
        let mut counts = lock(&self.shared.retries);
        let count = counts.entry(pipeline.to_owned()).or_default();
        count.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn drop_letters(
        &self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        _at: Millis,
    ) -> Result<(), LedgerError> {
        self.write(|core| core.drop_letters(pipeline, stream, seqs))
    }

    async fn expire_letters(
        &self,
        pipeline: &str,
        before: Millis,
        _at: Millis,
    ) -> Result<u64, LedgerError> {
        self.write(|core| core.expire_letters(pipeline, before))
    }

    async fn letter_counts(&self, pipeline: &str) -> Result<LetterCounts, LedgerError> {
        self.read(|core| core.letter_counts(pipeline))?
    }
}

impl CodeDigests for MemoryLedger {
    async fn code_digest(&self, key: &str) -> Result<Option<[u8; 32]>, LedgerError> {
        self.read(|core| core.code_digest(key))
    }

    async fn keep_code_digest(
        &self,
        key: &str,
        digest: [u8; 32],
        _at: Millis,
    ) -> Result<(), LedgerError> {
        self.write(|core| {
            core.keep_code_digest(key, digest);
            Ok(())
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
