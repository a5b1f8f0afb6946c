//! The public handle of the store: opens it, and passes operations to the committer.

mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use lockgate_ledger::check_seqs;
use lockgate_model::{Append, Block, Commit, Generation, KnownEvents, Millis, Redrive, Seq};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::committer::Committer;
use crate::directory::{DirectoryLock, Files};
use crate::encoded::{EncodedBlock, EncodedCommit};
use crate::operation::{LettersAction, Operation, Queued, QueuedAppend};
use crate::reads::Reads;
use crate::writer::retention::Yielded;
use crate::writer::{AppendArgs, Writer};
use crate::{
    CodeDigests, Committed, DeadLetters, KeptLetter, LagLimit, Ledger, LedgerError, LetterCounts,
    LetterQuery, OpenError, Options, Registration, Retention, directory, limits, open,
};
use shared::lock;

pub use shared::{PinnedLog, Shared};

/// The store of this process. Cheap to clone; all clones are one store. [`reads`](Self::reads) has
/// what can be read by callers that may block.
///
/// If the last clone is dropped without [`close`](Self::close), the store closes in the
/// background.
#[derive(Clone)]
pub struct Store {
    queue: Sender<Queued>,
    shared: Arc<Shared>,
    commits: Arc<Semaphore>,
}

impl Store {
    /// Opens the store in the directory, or creates it. Holds the lock of the directory until it
    /// is closed.
    ///
    /// Blocks while the file is checked: about a second for each GiB, up to one GiB.
    pub fn open(options: Options) -> Result<Store, OpenError> {
        let lock = DirectoryLock::take(&options.path, (options.clock)())?;
        Store::open_locked(options, lock)
    }

    /// The same for who holds the lock of the directory already, and maybe keeps a clone of it.
    pub fn open_locked(options: Options, lock: DirectoryLock) -> Result<Store, OpenError> {
        let database = directory::database(&options.path);
        let connection = open::writer(&options.path, options.size_max)?;
        let writer = Writer::load(connection, &options)
            .map_err(|error| open::unreadable(&options.path, error))?;
        if let Some(change) = directory::take_change(&options.path) {
            tracing::warn!(
                "when this store was last open, {change}. Unless all of it was put back from a \
                 backup since, what was written shortly before is gone: those events are read \
                 again, documents that were delivered may be sent again, and dead letters that \
                 were dropped or retried may be back"
            );
        }
        let shared = Arc::new(Shared::new(
            Reads::new(database.clone()),
            options.tail_bytes,
        ));
        shared.publish(std::iter::empty(), std::iter::empty(), writer.heads());
        shared.publish_dead_bytes(writer.dead_bytes());
        let (sender, queue) = mpsc::channel();
        let committer = Committer {
            files: Files::of(&options.path),
            writer,
            queue,
            shared: shared.clone(),
            lock,
            log_limit: options.log_limit,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || committer.run())
            .map_err(|source| OpenError::Io {
                doing: "start a thread for",
                path: database,
                source,
            })?;
        Ok(Store {
            queue: sender,
            shared,
            commits: Arc::new(Semaphore::new(limits::COMMIT_QUEUE)),
        })
    }

    /// The blocking twin of [`Ledger::block_at`].
    pub fn block_at(&self, stream: &str, seq: Seq) -> Result<Option<Arc<Block>>, LedgerError> {
        match self.cached(stream, seq) {
            Some(block) => Ok(Some(block)),
            None => {
                let read = self.shared.reads.block_at(stream, seq)?;
                Ok(read.map(|block| self.share(block)))
            }
        }
    }

    /// See [`Reads::known_events`], which blocks.
    pub async fn known_events(
        &self,
        stream: &str,
        from: Millis,
        to: Millis,
        max: usize,
    ) -> Result<KnownEvents, LedgerError> {
        let stream = stream.to_owned();
        self.read(move |reads| reads.known_events(&stream, from, to, max))
            .await
    }

    /// The log, if a reader keeps it from being folded into the file and it has grown for that.
    pub fn pinned_log(&self) -> Option<PinnedLog> {
        self.shared.pinned_log()
    }

    /// Puts events that were read from the source again into the damaged block that holds an entry:
    /// those that it had, found by what can still be read of it.
    ///
    /// [`LedgerError::Conflict`] if the block would not be exactly what it was, is sound, or is
    /// not there.
    pub async fn restore(&self, stream: &str, seq: Seq, events: Block) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Restore {
            stream: stream.to_owned(),
            seq,
            events: Box::new(events),
            reply,
        })?;
        self.answer(answer).await?
    }

    /// Corrects what the row of the damaged block that holds an entry says besides its events, if
    /// these are as they were; or the block's filter. False if that is not enough.
    pub async fn mend(&self, stream: &str, seq: Seq) -> Result<bool, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Mend {
            stream: stream.to_owned(),
            seq,
            reply,
        })?;
        self.answer(answer).await?
    }

    /// Gives up the events of the damaged block that holds an entry: they become dead letters,
    /// without their events, of every pipeline that has not finished them. Answers how many.
    ///
    /// [`LedgerError::Conflict`] if the block is sound, or not there.
    pub async fn write_off(&self, stream: &str, seq: Seq, at: Millis) -> Result<u64, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::WriteOff {
            stream: stream.to_owned(),
            seq,
            at,
            reply,
        })?;
        self.answer(answer).await?
    }

    /// Reads, for callers that may block.
    pub fn reads(&self) -> &Reads {
        &self.shared.reads
    }

    fn share(&self, block: Arc<Block>) -> Arc<Block> {
        lock(&self.shared.tail).share(block)
    }

    fn send(&self, operation: Operation) -> Result<(), LedgerError> {
        self.enqueue(Queued::Operation(operation))
    }

    fn enqueue(&self, queued: Queued) -> Result<(), LedgerError> {
        self.shared.reads.check_open()?;
        self.queue
            .send(queued)
            .map_err(|_| self.shared.reads.cause())
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Reads) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let shared = self.shared.clone();
        match tokio::task::spawn_blocking(move || f(&shared.reads)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(LedgerError::Read("the program is ending".to_owned())),
            },
        }
    }

    async fn letters(
        &self,
        action: LettersAction,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> Result<(), LedgerError> {
        check_seqs(seqs)?;
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Letters {
            action,
            pipeline: pipeline.to_owned(),
            stream: stream.to_owned(),
            seqs: seqs.to_vec(),
            at,
            reply,
        })?;
        self.answer(answer).await?
    }

    /// Keeps the events of these streams for so long from now on; `streams` as in [`Options`].
    pub async fn retain(&self, streams: BTreeMap<String, Retention>) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Retain { streams, reply })?;
        self.answer(answer).await
    }

    /// The configured pipelines that read a stream.
    pub fn readers_of(&self, stream: &str) -> Vec<String> {
        let configured = lock(&self.shared.configured);
        let reads = configured
            .iter()
            .filter(|(_, streams)| streams.iter().any(|name| name == stream));
        reads.map(|(pipeline, _)| pipeline.clone()).collect()
    }

    /// How far each pipeline may hold retention back, by name, in place of what was given before.
    /// What is removed of a pipeline that has not finished it becomes dropped, with the reason
    /// `lag-limit`: also of one that never ran. One that runs is asked first, by
    /// [`room_wanted`](Self::room_wanted).
    pub async fn limit_lag(&self, limits: BTreeMap<String, LagLimit>) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::LimitLag { limits, reply })?;
        self.answer(answer).await
    }

    /// Gives up what a pipeline has not finished and what is past its lag limit, in the streams in
    /// which retention has asked it for room. Gives up an eighth of the limit more, so that it is
    /// not at the limit again at once. Nothing of it may be in flight, and it has to be registered
    /// again. False if nothing was given up: it has finished what was past the limit, or the oldest
    /// block is damaged.
    pub async fn give_up(&self, pipeline: &str) -> Result<bool, LedgerError> {
        let mut gave_up = false;
        loop {
            let (reply, answer) = oneshot::channel();
            let pipeline = pipeline.to_owned();
            self.send(Operation::GiveUp { pipeline, reply })?;
            // In steps, between which others commit.
            match self.answer(answer).await? {
                Yielded::Nothing => return Ok(gave_up),
                Yielded::Some { more: false } => return Ok(true),
                Yielded::Some { more: true } => gave_up = true,
            }
        }
    }

    /// How often retention has asked the running pipeline for room: it is past its lag limit, and
    /// nothing else holds the oldest block. What it has in flight may be committed until it calls
    /// [`give_up`](Self::give_up), or for half a minute: after that the block is removed, and
    /// commits of its entries are refused.
    pub fn room_wanted(&self, pipeline: &str) -> watch::Receiver<u64> {
        let mut counts = lock(&self.shared.room_wanted);
        counts.entry(pipeline.into()).or_default().subscribe()
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, LedgerError> {
        match answer.await {
            Ok(answer) => Ok(answer),
            // The committer let go of it; it says why in a moment, at the latest when its thread
            // ends.
            Err(_) => {
                let mut closed = self.shared.reads.closed.subscribe();
                let _ = closed.wait_for(Option::is_some).await;
                Err(self.shared.reads.cause())
            }
        }
    }
}

impl Ledger for Store {
    async fn append(&self, append: Append) -> Result<Option<Arc<Block>>, LedgerError> {
        self.shared.reads.check_open()?;
        let stream: Arc<str> = append.stream().into();
        let Append {
            source,
            feed,
            read_at,
            events,
            cursors,
            gaps,
            duplicates,
        } = append;
        let block = EncodedBlock::new(events)?;
        let bytes = block.as_ref().map_or(0, |block| {
            block.bytes() as usize + block.parts.payloads.bytes.len() / 4
        }) + 256;
        // One that is larger than the whole queue waits until it has the queue for itself.
        let room = bytes.min(limits::APPEND_QUEUE) as u32;
        let room = self
            .shared
            .channels(&stream)
            .room
            .acquire_many_owned(room)
            .await
            .map_err(|_| self.shared.reads.cause())?;
        let (reply, answer) = oneshot::channel();
        let args = AppendArgs {
            source,
            stream,
            feed,
            read_at,
            block: block.map(Box::new),
            cursors,
            gaps,
            duplicates,
        };
        self.send(Operation::Append(QueuedAppend {
            args,
            reply,
            _room: room,
        }))?;
        self.answer(answer).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, LedgerError> {
        self.shared.reads.check_open()?;
        let encoded = Box::new(EncodedCommit::new(commit)?);
        let room = encoded.bytes().min(limits::COMMIT_QUEUE) as u32;
        let room = self
            .commits
            .clone()
            .acquire_many_owned(room)
            .await
            .map_err(|_| self.shared.reads.cause())?;
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Commit {
            encoded,
            reply,
            _room: room,
        })?;
        self.answer(answer).await?
    }

    async fn register(
        &self,
        generation: Generation,
        streams: &[String],
        at: Millis,
    ) -> Result<Registration, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Register {
            generation,
            streams: streams.to_vec(),
            at,
            reply,
        })?;
        self.answer(answer).await?
    }

    async fn keep_only(
        &self,
        configured: &BTreeMap<String, Vec<String>>,
    ) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::KeepOnly {
            configured: configured.clone(),
            reply,
        })?;
        self.answer(answer).await?;
        lock(&self.shared.configured).clone_from(configured);
        Ok(())
    }

    async fn block_at(&self, stream: &str, seq: Seq) -> Result<Option<Arc<Block>>, LedgerError> {
        if let Some(block) = self.cached(stream, seq) {
            return Ok(Some(block));
        }
        let stream = stream.to_owned();
        let read = self.read(move |reads| reads.block_at(&stream, seq)).await?;
        Ok(read.map(|block| self.share(block)))
    }

    fn cached(&self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        lock(&self.shared.tail).at(stream, seq)
    }

    fn head(&self, stream: &str) -> watch::Receiver<Seq> {
        self.shared.channels(stream).head.subscribe()
    }

    fn retention_full(&self, stream: &str) -> watch::Receiver<bool> {
        self.shared.channels(stream).full.subscribe()
    }

    fn retries(&self, pipeline: &str) -> watch::Receiver<u64> {
        let mut counts = lock(&self.shared.retries);
        counts.entry(pipeline.into()).or_default().subscribe()
    }

    fn dead_bytes(&self, pipeline: &str) -> watch::Receiver<u64> {
        let mut bytes = lock(&self.shared.dead_bytes);
        bytes.entry(pipeline.into()).or_default().subscribe()
    }

    async fn redrive(
        &self,
        pipeline: &str,
        stream: &str,
        events: usize,
        bytes: usize,
    ) -> Result<Option<Redrive>, LedgerError> {
        let (pipeline, stream) = (pipeline.to_owned(), stream.to_owned());
        self.read(move |reads| reads.redrive(&pipeline, &stream, events, bytes))
            .await
    }

    async fn cursors(&self, source: &str) -> Result<BTreeMap<String, String>, LedgerError> {
        let source = source.to_owned();
        self.read(move |reads| reads.cursors(&source)).await
    }

    fn failed(&self) -> watch::Receiver<Option<LedgerError>> {
        self.shared.reads.closed.subscribe()
    }

    async fn close(self) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Queued::Close { reply })?;
        self.answer(answer).await
    }
}

impl DeadLetters for Store {
    async fn dead_letters(&self, query: &LetterQuery) -> Result<Vec<KeptLetter>, LedgerError> {
        let query = query.clone();
        self.read(move |reads| reads.dead_letters(&query)).await
    }

    async fn dead_letter(
        &self,
        pipeline: &str,
        stream: &str,
        seq: Seq,
    ) -> Result<Option<KeptLetter>, LedgerError> {
        let (pipeline, stream) = (pipeline.to_owned(), stream.to_owned());
        self.read(move |reads| reads.dead_letter(&pipeline, &stream, seq))
            .await
    }

    async fn retry(
        &self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> Result<(), LedgerError> {
        self.letters(LettersAction::Retry, pipeline, stream, seqs, at)
            .await
    }

    async fn drop_letters(
        &self,
        pipeline: &str,
        stream: &str,
        seqs: &[Seq],
        at: Millis,
    ) -> Result<(), LedgerError> {
        self.letters(LettersAction::Drop, pipeline, stream, seqs, at)
            .await
    }

    async fn expire_letters(
        &self,
        pipeline: &str,
        before: Millis,
        at: Millis,
    ) -> Result<u64, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::ExpireLetters {
            pipeline: pipeline.to_owned(),
            before,
            at,
            reply,
        })?;
        self.answer(answer).await?
    }

    async fn letter_counts(&self, pipeline: &str) -> Result<LetterCounts, LedgerError> {
        let pipeline = pipeline.to_owned();
        self.read(move |reads| reads.letter_counts(&pipeline)).await
    }
}

impl CodeDigests for Store {
    async fn code_digest(&self, key: &str) -> Result<Option<[u8; 32]>, LedgerError> {
        let key = key.to_owned();
        self.read(move |reads| reads.code_digest(&key)).await
    }

    async fn keep_code_digest(
        &self,
        key: &str,
        digest: [u8; 32],
        at: Millis,
    ) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::KeepCodeDigest {
            key: key.to_owned(),
            digest,
            at,
            reply,
        })?;
        self.answer(answer).await
    }
}
