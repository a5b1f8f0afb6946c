use std::collections::HashMap;
use std::ops::Deref;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_model::{Append, Block, Commit, Generation, Millis, Seq};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::committer::{Committer, Operation, QueuedAppend};
use crate::encoded::{EncodedBlock, EncodedCommit};
use crate::reads::Reads;
use crate::tail::Tail;
use crate::writer::{AppendArgs, Writer};
use crate::{Ledger, OpenError, Options, Registration, StoreError, folder, limits, open};

/// The store of this process. Cheap to clone; all clones are one store. What can be read stands at
/// [`Reads`].
///
/// Where the last clone is dropped without [`close`](Self::close), the store closes in the
/// background.
#[derive(Clone)]
pub struct Store {
    queue: Sender<Operation>,
    shared: Arc<Shared>,
    commits: Arc<Semaphore>,
}

impl Store {
    /// Opens the folder's store, or makes one where there is none. Takes the folder's lock until it
    /// is closed.
    ///
    /// Blocks while the file is checked: about a second for each GiB, up to one GiB.
    pub fn open(options: Options) -> Result<Store, OpenError> {
        folder::prepare(&options.path)?;
        let lock = folder::lock(&options.path, (options.clock)())?;
        let database = folder::database(&options.path);
        let connection = open::writer(&options.path, options.size_max)?;
        let writer = Writer::load(connection, &options).map_err(|error| match error {
            StoreError::Damaged(what) => OpenError::Damaged {
                path: database.clone(),
                what,
            },
            other => OpenError::Failed {
                path: database.clone(),
                cause: other.to_string(),
                full: open::no_room(&options.path),
            },
        })?;

        let shared = Arc::new(Shared::new(
            Reads::new(database.clone()),
            options.tail_bytes,
        ));
        shared.publish(std::iter::empty(), std::iter::empty(), writer.heads());
        let (sender, queue) = mpsc::channel();
        let committer = Committer {
            writer,
            queue,
            shared: shared.clone(),
            lock,
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

    /// Makes a pipeline known, or its changed configuration: equal descriptions are one generation.
    /// `at`: milliseconds.
    ///
    /// A new pipeline, or one that reads a stream for the first time, begins at the oldest event
    /// kept. From now on retention waits for it in exactly these streams.
    pub async fn register(
        &self,
        generation: Generation,
        streams: &[String],
        at: Millis,
    ) -> Result<Registration, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Register {
            generation,
            streams: streams.to_vec(),
            at,
            reply,
        })?;
        self.answer(answer).await?
    }

    /// Retention stops waiting for every other pipeline that was ever registered: what it removes
    /// that such a one has not finished becomes dropped, with the reason `retention`. Call it
    /// once, after the configured pipelines are registered.
    pub async fn keep_only(&self, pipelines: &[String]) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::KeepOnly {
            pipelines: pipelines.to_vec(),
            reply,
        })?;
        self.answer(answer).await
    }

    /// The block that holds a sequence: from memory where it is recent, else from disk (blocking,
    /// about a millisecond). `None`: not appended yet, or removed by retention.
    pub fn block_at(&self, stream: &str, seq: Seq) -> Result<Option<Arc<Block>>, StoreError> {
        match self.cached(stream, seq) {
            Some(block) => Ok(Some(block)),
            None => self.shared.reads.block_at(stream, seq),
        }
    }

    /// The same, from memory only: never blocks.
    pub fn cached(&self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        lock(&self.shared.tail).at(stream, seq)
    }

    /// The sequence that the stream's next event will get; changes with every append. 1 for a
    /// stream that nobody has appended to. It stands still when the store closes: who waits for
    /// it waits for [`failed`](Self::failed) as well.
    pub fn head(&self, stream: &str) -> watch::Receiver<Seq> {
        self.shared.channels(stream).head.subscribe()
    }

    /// True while appends to the stream wait for room, see [`Retention`](crate::Retention).
    pub fn retention_full(&self, stream: &str) -> watch::Receiver<bool> {
        self.shared.channels(stream).full.subscribe()
    }

    /// Becomes `Some` when the store has closed: by itself because a write failed, or by
    /// [`close`](Self::close). The folder may be opened again from then on.
    pub fn failed(&self) -> watch::Receiver<Option<StoreError>> {
        self.shared.reads.closed.subscribe()
    }

    /// Finishes what is queued, folds the log into the file, and lets go of the folder. Other
    /// clones get [`StoreError::Closed`], and so do appends that wait for room.
    pub async fn close(self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Operation::Close { reply })?;
        self.answer(answer).await
    }

    fn send(&self, operation: Operation) -> Result<(), StoreError> {
        self.shared.reads.check_open()?;
        self.queue
            .send(operation)
            .map_err(|_| self.shared.reads.cause())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, StoreError> {
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
    async fn append(&self, append: Append) -> Result<Option<Arc<Block>>, StoreError> {
        self.shared.reads.check_open()?;
        let stream: Arc<str> = append.stream().into();
        let Append {
            source,
            feed,
            read_at,
            events,
            cursors,
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
            duplicates,
        };
        self.send(Operation::Append(QueuedAppend {
            args,
            reply,
            _room: room,
        }))?;
        self.answer(answer).await
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
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
}

impl Deref for Store {
    type Target = Reads;

    fn deref(&self) -> &Reads {
        &self.shared.reads
    }
}

/// What the committer tells everybody else.
pub struct Shared {
    reads: Reads,
    tail: Mutex<Tail>,
    streams: Mutex<HashMap<Arc<str>, Channels>>,
}

#[derive(Clone)]
struct Channels {
    head: watch::Sender<Seq>,
    full: watch::Sender<bool>,
    /// Bytes that may still be queued. Of its own for each stream: where one waits for room,
    /// others do not.
    room: Arc<Semaphore>,
}

impl Shared {
    fn new(reads: Reads, tail_bytes: usize) -> Shared {
        Shared {
            reads,
            tail: Mutex::new(Tail::new(tail_bytes)),
            streams: Mutex::default(),
        }
    }

    /// After a transaction, before its answers: who hears of a sequence finds its block.
    pub fn publish<'a>(
        &self,
        appended: impl Iterator<Item = Arc<Block>>,
        removed: impl Iterator<Item = (Arc<str>, Seq)>,
        heads: impl Iterator<Item = (&'a Arc<str>, Seq)>,
    ) {
        let mut tail = lock(&self.tail);
        appended.for_each(|block| tail.push(block));
        removed.for_each(|(stream, first_seq)| tail.remove(&stream, first_seq));
        drop(tail);
        for (stream, next) in heads {
            self.channels(stream)
                .head
                .send_if_modified(|head| std::mem::replace(head, next) != next);
        }
    }

    pub fn set_full(&self, stream: &str, full: bool) {
        self.channels(stream).full.send_replace(full);
    }

    /// Reading ends with writing: its connections would keep the file open.
    pub fn retire_readers(&self) {
        self.reads.retire();
    }

    /// The first cause stands.
    pub fn close(&self, cause: StoreError) {
        self.reads.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(cause);
            first
        });
        self.reads.retire();
        for channels in lock(&self.streams).values() {
            channels.room.close();
        }
    }

    fn channels(&self, stream: &str) -> Channels {
        let mut streams = lock(&self.streams);
        if let Some(channels) = streams.get(stream) {
            return channels.clone();
        }
        let room = Arc::new(Semaphore::new(limits::APPEND_QUEUE));
        let channels = Channels {
            head: watch::Sender::new(1),
            full: watch::Sender::new(false),
            room,
        };
        streams.insert(stream.into(), channels.clone());
        channels
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
