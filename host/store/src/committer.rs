//! One thread that writes. What is queued while it writes becomes the next transaction: under load
//! many operations share one sync.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use lockgate_model::{Block, Generation, Millis, Seq};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::directory::{DirectoryLock, Files};
use crate::encoded::EncodedCommit;
use crate::store::{PinnedLog, Shared};
use crate::writer::{AppendArgs, Appended, EpochKey, Fault, Writer};
use crate::{Committed, LagLimit, LedgerError, Registration, Retention, limits};

/// Dropping a reply tells its waiter that the store has closed; why, stands in `Shared`.
pub enum Operation {
    Append(QueuedAppend),
    Commit {
        encoded: Box<EncodedCommit>,
        reply: oneshot::Sender<Result<Committed, LedgerError>>,
        _room: OwnedSemaphorePermit,
    },
    Register {
        generation: Generation,
        streams: Vec<String>,
        at: Millis,
        reply: oneshot::Sender<Result<Registration, LedgerError>>,
    },
    KeepOnly {
        pipelines: Vec<String>,
        reply: oneshot::Sender<()>,
    },
    Retain {
        streams: BTreeMap<String, Retention>,
        reply: oneshot::Sender<()>,
    },
    /// See [`Store::limit_lag`](crate::Store::limit_lag).
    LimitLag {
        limits: BTreeMap<String, LagLimit>,
        reply: oneshot::Sender<()>,
    },
    /// What a pipeline has not finished past its lag limit.
    GiveUp {
        pipeline: String,
        reply: oneshot::Sender<()>,
    },
    /// An operator's action on dead letters.
    Letters {
        action: LettersAction,
        pipeline: String,
        stream: String,
        seqs: Vec<Seq>,
        at: Millis,
        reply: oneshot::Sender<Result<(), LedgerError>>,
    },
    ExpireLetters {
        pipeline: String,
        before: Millis,
        at: Millis,
        reply: oneshot::Sender<Result<u64, LedgerError>>,
    },
    Restore {
        stream: String,
        seq: Seq,
        events: Box<Block>,
        reply: oneshot::Sender<Result<(), LedgerError>>,
    },
    /// See [`Store::mend`](crate::Store::mend).
    Mend {
        stream: String,
        seq: Seq,
        reply: oneshot::Sender<Result<bool, LedgerError>>,
    },
    WriteOff {
        stream: String,
        seq: Seq,
        at: Millis,
        reply: oneshot::Sender<Result<u64, LedgerError>>,
    },
    KeepCodeDigest {
        key: String,
        digest: [u8; 32],
        at: Millis,
        reply: oneshot::Sender<()>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LettersAction {
    Retry,
    Drop,
}

pub struct QueuedAppend {
    pub args: AppendArgs,
    pub reply: oneshot::Sender<Option<Arc<Block>>>,
    /// Its part of the queue, given back when it is done.
    pub _room: OwnedSemaphorePermit,
}

pub struct Committer {
    pub writer: Writer,
    pub files: Files,
    pub queue: Receiver<Operation>,
    pub shared: Arc<Shared>,
    pub lock: DirectoryLock,
    pub log_limit: u64,
}

/// Replies that wait for the transaction to be durable.
#[derive(Default)]
struct Replies {
    appends: Vec<Reply<Option<Arc<Block>>>>,
    commits: Vec<Reply<Result<Committed, LedgerError>>>,
    letters: Vec<Reply<Result<(), LedgerError>>>,
    expired: Vec<Reply<Result<u64, LedgerError>>>,
    mended: Vec<Reply<Result<bool, LedgerError>>>,
    registrations: Vec<Reply<Result<Registration, LedgerError>>>,
    others: Vec<Reply<()>>,
}

struct Reply<T> {
    reply: oneshot::Sender<T>,
    value: T,
}

impl<T> Reply<T> {
    fn give(self) {
        // The caller may have gone.
        let _ = self.reply.send(self.value);
    }
}

impl Committer {
    pub fn run(self) {
        let Committer {
            writer,
            files,
            queue,
            shared,
            lock,
            log_limit,
        } = self;
        // Also where this thread panics, so that no caller waits for ever.
        let _close = CloseOnDrop(shared.clone());
        let mut group = Group {
            writer,
            files,
            parked: HashMap::new(),
            warned: HashMap::new(),
            warned_unfinished: HashSet::new(),
            shared: shared.clone(),
            log_limit,
        };
        let end = group.serve(&queue);
        let Group {
            writer,
            files,
            parked,
            ..
        } = group;
        shared.retire_readers();
        let (cause, reply) = match end {
            Ok(reply) => {
                if let Err(error) = writer.close() {
                    // Nothing is lost: the log is read when the store is opened again.
                    tracing::warn!(%error, "the store's log was not folded into its file");
                }
                (
                    LedgerError::Closed {
                        cause: "it was closed".to_owned(),
                        full: false,
                    },
                    reply,
                )
            }
            Err(fault) => {
                // SQLite's own message would not say so.
                let gone = files.missing().map(|path| Fault::Gone(path.to_owned()));
                let cause = writer.closed_by(gone.unwrap_or(fault));
                drop(writer);
                tracing::error!(error = %cause, "the store has closed itself");
                (cause, None)
            }
        };
        drop(lock);
        shared.close(cause);
        // Last: whoever learns of it may open the store again at once.
        drop((parked, queue));
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }
}

struct Group {
    writer: Writer,
    files: Files,
    /// Appends that wait for room in their stream, in their order.
    parked: HashMap<Arc<str>, VecDeque<QueuedAppend>>,
    /// Streams whose full state has been reported.
    warned: HashMap<Arc<str>, bool>,
    /// Whose unfinished events retention removes, where that has been reported.
    warned_unfinished: HashSet<EpochKey>,
    shared: Arc<Shared>,
    /// Bytes of the log beyond which a reader that pins it is reported.
    log_limit: u64,
}

impl Group {
    /// Until it is closed, or a write fails.
    fn serve(&mut self, queue: &Receiver<Operation>) -> Result<Option<oneshot::Sender<()>>, Fault> {
        let mut again = true;
        loop {
            let first = if again {
                queue.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            } else {
                queue.recv_timeout(limits::TICK)
            };
            // Before anything else is acknowledged: nobody would find it again.
            self.files.check(&self.writer)?;
            self.report_log();
            again = match first {
                Ok(first) => match self.group(first, queue)? {
                    Some(close) => return Ok(Some(close)),
                    // The space that it freed is given back in a moment without work.
                    None => true,
                },
                Err(RecvTimeoutError::Timeout) => self.run_retention()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            };
        }
    }

    fn group(
        &mut self,
        first: Operation,
        queue: &Receiver<Operation>,
    ) -> Result<Option<oneshot::Sender<()>>, Fault> {
        let mut replies = Replies::default();
        let mut close = None;
        let (mut operations, mut bytes) = (0, 0);
        let mut next = Some(first);
        self.writer.begin()?;
        while let Some(operation) = next.take() {
            match operation {
                Operation::Close { reply } => {
                    close = Some(reply);
                    break;
                }
                operation => bytes += self.apply(operation, &mut replies)?,
            }
            operations += 1;
            if operations < limits::GROUP_OPERATIONS && bytes < limits::GROUP_BYTES {
                next = queue.try_recv().ok();
            }
        }
        self.unpark(&mut replies)?;
        if self.writer.anything_due() {
            self.writer.remove_old_blocks()?;
        }
        if self.writer.is_fold_due(limits::FOLD_BLOCKS) {
            self.writer.fold()?;
        }
        self.finish(replies)?;
        Ok(close)
    }

    /// Retention, folding, vacuum, and filters of old blocks. True where there is more to do.
    fn run_retention(&mut self) -> Result<bool, Fault> {
        let mut more = false;
        let waits_in_vain = self.writer.waits_in_vain() && !self.parked.is_empty();
        if waits_in_vain || self.writer.anything_due() || self.writer.is_fold_due(1) {
            self.writer.begin()?;
            more = self.writer.remove_old_blocks()?;
            more |= self.writer.fold()?;
            let mut replies = Replies::default();
            self.unpark(&mut replies)?;
            self.finish(replies)?;
        }
        let vacuums = self.writer.vacuum()?;
        Ok(self.writer.make_filters()? || vacuums || more)
    }

    /// Bytes that the operation adds to the transaction, about.
    fn apply(&mut self, operation: Operation, replies: &mut Replies) -> Result<usize, Fault> {
        match operation {
            Operation::Append(append) => {
                let bytes = append
                    .args
                    .block
                    .as_ref()
                    .map_or(0, |block| block.bytes() as usize);
                let line = self
                    .parked
                    .get_mut(&append.args.stream)
                    .filter(|line| !line.is_empty());
                match line {
                    // Appends to one stream keep their order: a cursor must not pass events that
                    // still wait.
                    Some(line) => line.push_back(append),
                    None => {
                        if let Some(append) = self.append(append, replies)? {
                            self.parked
                                .entry(append.args.stream.clone())
                                .or_default()
                                .push_back(append);
                        }
                    }
                }
                Ok(bytes)
            }
            Operation::Commit { encoded, reply, .. } => {
                let result = self.writer.commit(&encoded)?;
                replies.commits.push(Reply {
                    reply,
                    value: result,
                });
                Ok(encoded.bytes())
            }
            Operation::Register {
                generation,
                streams,
                at,
                reply,
            } => {
                let result = self.writer.register(&generation, &streams, at)?;
                self.warned_unfinished
                    .retain(|(pipeline, _)| *pipeline != generation.pipeline);
                replies.registrations.push(Reply {
                    reply,
                    value: result,
                });
                Ok(0)
            }
            Operation::KeepOnly { pipelines, reply } => {
                self.writer.keep_only(&pipelines)?;
                replies.others.push(Reply { reply, value: () });
                Ok(0)
            }
            Operation::Retain { streams, reply } => {
                self.writer.retain(streams);
                replies.others.push(Reply { reply, value: () });
                Ok(0)
            }
            Operation::LimitLag { limits, reply } => {
                self.writer.limit_lag(limits);
                replies.others.push(Reply { reply, value: () });
                Ok(0)
            }
            Operation::GiveUp { pipeline, reply } => {
                self.writer.give_up(&pipeline)?;
                replies.others.push(Reply { reply, value: () });
                Ok(0)
            }
            Operation::Letters {
                action,
                pipeline,
                stream,
                seqs,
                at,
                reply,
            } => {
                let value = match action {
                    LettersAction::Retry => self.writer.retry(&pipeline, &stream, &seqs, at)?,
                    LettersAction::Drop => {
                        self.writer.drop_letters(&pipeline, &stream, &seqs, at)?
                    }
                };
                replies.letters.push(Reply { reply, value });
                Ok(seqs.len() * 100)
            }
            Operation::ExpireLetters {
                pipeline,
                before,
                at,
                reply,
            } => {
                let value = self.writer.expire_letters(&pipeline, before, at)?;
                let bytes = value.as_ref().map_or(0, |expired| *expired as usize * 100);
                replies.expired.push(Reply { reply, value });
                Ok(bytes)
            }
            Operation::Restore {
                stream,
                seq,
                events,
                reply,
            } => {
                let value = self.writer.restore(&stream, seq, &events)?;
                replies.letters.push(Reply { reply, value });
                Ok(events.memory())
            }
            Operation::Mend { stream, seq, reply } => {
                let value = Ok(self.writer.mend(&stream, seq)?);
                replies.mended.push(Reply { reply, value });
                Ok(0)
            }
            Operation::WriteOff {
                stream,
                seq,
                at,
                reply,
            } => {
                let value = self.writer.write_off(&stream, seq, at)?;
                let bytes = value.as_ref().map_or(0, |letters| *letters as usize * 200);
                replies.expired.push(Reply { reply, value });
                Ok(bytes)
            }
            Operation::KeepCodeDigest {
                key,
                digest,
                at,
                reply,
            } => {
                self.writer.keep_code_digest(&key, &digest, at)?;
                replies.others.push(Reply { reply, value: () });
                Ok(0)
            }
            Operation::Close { reply } => {
                replies.others.push(Reply { reply, value: () });
                Ok(0)
            }
        }
    }

    /// Gives it back where there is no room.
    fn append(
        &mut self,
        append: QueuedAppend,
        replies: &mut Replies,
    ) -> Result<Option<QueuedAppend>, Fault> {
        let QueuedAppend { args, reply, _room } = append;
        match self.writer.append(args)? {
            Appended::Done(block) => {
                replies.appends.push(Reply {
                    reply,
                    value: block,
                });
                Ok(None)
            }
            Appended::NoRoom(args) => Ok(Some(QueuedAppend { args, reply, _room })),
        }
    }

    /// Lets in what waited, as far as commits have made room.
    fn unpark(&mut self, replies: &mut Replies) -> Result<(), Fault> {
        let mut parked = std::mem::take(&mut self.parked);
        for line in parked.values_mut() {
            while let Some(append) = line.pop_front() {
                if let Some(append) = self.append(append, replies)? {
                    line.push_front(append);
                    break;
                }
            }
        }
        self.parked = parked;
        Ok(())
    }

    fn finish(&mut self, replies: Replies) -> Result<(), Fault> {
        self.writer.finish()?;
        let appended = replies
            .appends
            .iter()
            .filter_map(|answer| answer.value.clone());
        let removed = std::mem::take(&mut self.writer.removed);
        self.shared
            .publish(appended, removed.into_iter(), self.writer.heads());
        self.shared.publish_redriven(self.writer.redriven());
        self.shared.publish_room_wanted(self.writer.room_wanted());
        self.shared.publish_dead_bytes(self.writer.dead_bytes());
        self.report_full();
        self.report_unfinished();
        replies.appends.into_iter().for_each(Reply::give);
        replies.commits.into_iter().for_each(Reply::give);
        replies.letters.into_iter().for_each(Reply::give);
        replies.expired.into_iter().for_each(Reply::give);
        replies.mended.into_iter().for_each(Reply::give);
        replies.registrations.into_iter().for_each(Reply::give);
        replies.others.into_iter().for_each(Reply::give);
        Ok(())
    }

    /// Once for each pipeline and stream, when retention has removed all that was due, until the
    /// pipeline runs again.
    fn report_unfinished(&mut self) {
        if self.writer.anything_due() {
            return;
        }
        for (key, removed) in std::mem::take(&mut self.writer.unfinished) {
            let (pipeline, stream) = &key;
            if !self.warned_unfinished.contains(&key) {
                tracing::warn!(
                    %pipeline, %stream, events = removed.events,
                    "retention removed events that this pipeline had not finished, because no pipeline of this name is configured to \
                     read the stream any more. They count as dropped, and `lockgate status` says how many there are. More will be \
                     removed until such a pipeline is configured again; a larger `{}` in `retain` of `[store]` keeps them for longer",
                    removed.key
                );
                self.warned_unfinished.insert(key);
            }
        }
        for (key, events) in std::mem::take(&mut self.writer.given_up) {
            let (pipeline, stream) = &key;
            if !self.warned_unfinished.contains(&key) {
                tracing::warn!(
                    %pipeline, %stream, events,
                    "retention removed events that this pipeline had not finished, because it has \
                     reached its `lag-limit`. They count as dropped, with the reason `lag-limit`, and \
                     `lockgate status` says how many there are. More will be given up until the \
                     pipeline has caught up"
                );
                self.warned_unfinished.insert(key);
            }
        }
    }

    /// Once when a reader begins to keep the log from being folded into the file, and once when that
    /// ends.
    fn report_log(&mut self) {
        let (bytes, is_folded) = self.writer.log();
        let is_pinned = bytes >= self.log_limit && !is_folded;
        let since = self.shared.pinned_log().map(|pinned| pinned.since);
        match (since, is_pinned) {
            (None, true) => tracing::warn!(
                bytes,
                "a process has been reading from the store for so long that its log `store.db-wal` \
                 cannot be folded into `store.db`, and grows: end long queries of other programs on \
                 `store.db`, or let them read a copy"
            ),
            (Some(_), false) => {
                tracing::info!("the log of the store was folded into its file again");
            }
            _ => {}
        }
        if is_pinned || since.is_some() {
            let since = since.unwrap_or_else(|| self.writer.now());
            self.shared
                .set_pinned_log(is_pinned.then_some(PinnedLog { bytes, since }));
        }
    }

    fn report_full(&mut self) {
        for (stream, line) in &self.parked {
            let full = !line.is_empty();
            let before = self.warned.insert(stream.clone(), full).unwrap_or(false);
            if full == before {
                continue;
            }
            self.shared.set_full(stream, full);
            if full {
                tracing::warn!(
                    %stream, pipelines = %self.writer.holders_of(stream).join(", "),
                    "the stream is at its retention limit, and these pipelines have not finished its oldest events: reading waits. \
                     Repair them, or raise `bytes` in `retain` of `[store]`"
                );
            } else {
                tracing::info!(%stream, "there is room in the stream again: reading goes on");
            }
        }
    }
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(LedgerError::Closed {
            cause: "its thread stopped".to_owned(),
            full: false,
        });
    }
}
