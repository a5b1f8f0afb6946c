//! One thread that writes. What is queued while it writes becomes the next transaction: under load
//! many operations share one sync.

mod report;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use tokio::sync::oneshot;

use crate::directory::{DirectoryLock, Files};
use crate::operation::{LettersAction, Operation, Queued, QueuedAppend, Replies};
use crate::store::Shared;
use crate::writer::{Appended, EpochKey, Fault, Writer};
use crate::{LedgerError, limits};

pub struct Committer {
    pub writer: Writer,
    pub files: Files,
    pub queue: Receiver<Queued>,
    pub shared: Arc<Shared>,
    pub lock: DirectoryLock,
    pub log_limit: u64,
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
        // Also if this thread panics, so that no caller waits for ever.
        let _close = CloseOnDrop(shared.clone());
        let mut group = Group {
            writer,
            files,
            waiting: HashMap::new(),
            warned: HashMap::new(),
            warned_unfinished: HashSet::new(),
            shared: shared.clone(),
            log_limit,
        };
        let end = group.serve(&queue);
        let Group {
            writer,
            files,
            waiting,
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
                let fault = files.check_places().err().unwrap_or(fault);
                let cause = writer.closed_by(fault);
                drop(writer);
                if cause.is_full() {
                    // The host says that, once, and opens the store again.
                    tracing::debug!(error = %cause, "the store has closed itself");
                } else {
                    tracing::error!(error = %cause, "the store has closed itself");
                }
                (cause, None)
            }
        };
        drop(lock);
        shared.close(cause);
        // Last: whoever learns of it may open the store again at once.
        drop((waiting, queue));
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }
}

struct Group {
    writer: Writer,
    files: Files,
    /// Appends that wait for room in their stream, in their order.
    waiting: HashMap<Arc<str>, VecDeque<QueuedAppend>>,
    /// Streams whose full state has been reported.
    warned: HashMap<Arc<str>, bool>,
    /// Whose unfinished events retention removes, if that has been reported.
    warned_unfinished: HashSet<EpochKey>,
    shared: Arc<Shared>,
    /// Bytes of the log beyond which a reader that pins it is reported.
    log_limit: u64,
}

impl Group {
    /// Until it is closed, or a write fails.
    fn serve(&mut self, queue: &Receiver<Queued>) -> Result<Option<oneshot::Sender<()>>, Fault> {
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
        first: Queued,
        queue: &Receiver<Queued>,
    ) -> Result<Option<oneshot::Sender<()>>, Fault> {
        let mut replies = Replies::default();
        let mut close = None;
        let (mut operations, mut bytes) = (0, 0);
        let mut next = Some(first);
        self.writer.begin()?;
        while let Some(operation) = next.take() {
            match operation {
                Queued::Close { reply } => {
                    close = Some(reply);
                    break;
                }
                Queued::Operation(operation) => bytes += self.apply(operation, &mut replies)?,
            }
            operations += 1;
            if operations < limits::GROUP_OPERATIONS && bytes < limits::GROUP_BYTES {
                next = queue.try_recv().ok();
            }
        }
        self.admit_waiting(&mut replies)?;
        if self.writer.anything_due() {
            self.writer.remove_old_blocks()?;
        }
        if self.writer.is_fold_due(limits::FOLD_BLOCKS) {
            self.writer.fold()?;
        }
        self.finish(replies)?;
        Ok(close)
    }

    /// Retention, folding, vacuum, and filters of old blocks. True if there is more to do.
    fn run_retention(&mut self) -> Result<bool, Fault> {
        let mut more = false;
        let waits_in_vain = self.writer.waits_in_vain() && !self.waiting.is_empty();
        if waits_in_vain || self.writer.anything_due() || self.writer.is_fold_due(1) {
            self.writer.begin()?;
            more = self.writer.remove_old_blocks()?;
            more |= self.writer.fold()?;
            let mut replies = Replies::default();
            self.admit_waiting(&mut replies)?;
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
                    .waiting
                    .get_mut(&append.args.stream)
                    .filter(|line| !line.is_empty());
                match line {
                    // Appends to one stream keep their order: a cursor must not pass events that
                    // still wait.
                    Some(line) => line.push_back(append),
                    None => {
                        if let Some(append) = self.append(append, replies)? {
                            self.waiting
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
                replies.add(reply, result);
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
                replies.add(reply, result);
                Ok(0)
            }
            Operation::KeepOnly { configured, reply } => {
                self.writer.keep_only(&configured)?;
                replies.add(reply, ());
                Ok(0)
            }
            Operation::Retain { streams, reply } => {
                self.writer.retain(streams);
                replies.add(reply, ());
                Ok(0)
            }
            Operation::LimitLag { limits, reply } => {
                self.writer.limit_lag(limits);
                replies.add(reply, ());
                Ok(0)
            }
            Operation::GiveUp { pipeline, reply } => {
                let given_up = self.writer.give_up(&pipeline)?;
                replies.add(reply, given_up);
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
                replies.add(reply, value);
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
                replies.add(reply, value);
                Ok(bytes)
            }
            Operation::Restore {
                stream,
                seq,
                events,
                reply,
            } => {
                let value = self.writer.restore(&stream, seq, &events)?;
                replies.add(reply, value);
                Ok(events.memory())
            }
            Operation::Mend { stream, seq, reply } => {
                let value = Ok(self.writer.mend(&stream, seq)?);
                replies.add(reply, value);
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
                replies.add(reply, value);
                Ok(bytes)
            }
            Operation::KeepCodeDigest {
                key,
                digest,
                at,
                reply,
            } => {
                self.writer.keep_code_digest(&key, &digest, at)?;
                replies.add(reply, ());
                Ok(0)
            }
        }
    }

    /// Gives it back if there is no room.
    fn append(
        &mut self,
        append: QueuedAppend,
        replies: &mut Replies,
    ) -> Result<Option<QueuedAppend>, Fault> {
        let QueuedAppend { args, reply, _room } = append;
        match self.writer.append(args)? {
            Appended::Done(block) => {
                replies.appended.extend(block.clone());
                replies.add(reply, block);
                Ok(None)
            }
            Appended::NoRoom(args) => Ok(Some(QueuedAppend { args, reply, _room })),
        }
    }

    /// Carries out appends that waited for room, as far as there is some now.
    fn admit_waiting(&mut self, replies: &mut Replies) -> Result<(), Fault> {
        let mut waiting = std::mem::take(&mut self.waiting);
        for line in waiting.values_mut() {
            while let Some(append) = line.pop_front() {
                if let Some(append) = self.append(append, replies)? {
                    line.push_front(append);
                    break;
                }
            }
        }
        self.waiting = waiting;
        Ok(())
    }

    fn finish(&mut self, mut replies: Replies) -> Result<(), Fault> {
        self.writer.finish()?;
        let appended = std::mem::take(&mut replies.appended).into_iter();
        let removed = std::mem::take(&mut self.writer.removed);
        self.shared
            .publish(appended, removed.into_iter(), self.writer.heads());
        self.shared.publish_retries(self.writer.retries());
        self.shared.publish_room_wanted(self.writer.room_wanted());
        self.shared.publish_dead_bytes(self.writer.dead_bytes());
        self.report_full();
        self.report_unfinished();
        replies.give();
        Ok(())
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
