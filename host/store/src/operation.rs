//! Operations that the handles of a store queue for its committer, and the replies.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::{Block, Generation, Millis, Seq};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::encoded::EncodedCommit;
use crate::writer::AppendArgs;
use crate::writer::retention::Yielded;
use crate::{Committed, LagLimit, LedgerError, Registration, Retention};

/// An item of the committer's queue.
pub enum Queued {
    Operation(Operation),
    /// Nothing after it is carried out.
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// A reply that is dropped shows its waiter that the store has closed; `Shared` has the reason.
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
        configured: BTreeMap<String, Vec<String>>,
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
    /// Gives up some of the events past a pipeline's lag limit that it has not finished.
    GiveUp {
        pipeline: String,
        reply: oneshot::Sender<Yielded>,
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

/// Replies that wait for the transaction to be durable.
#[derive(Default)]
pub struct Replies {
    /// The blocks that were appended, to be published before anybody hears of them.
    pub appended: Vec<Arc<Block>>,
    waiting: Vec<Box<dyn FnOnce()>>,
}

impl Replies {
    pub fn add<T: 'static>(&mut self, reply: oneshot::Sender<T>, value: T) {
        self.waiting.push(Box::new(move || {
            // The caller may have gone.
            let _ = reply.send(value);
        }));
    }

    pub fn give(self) {
        self.waiting.into_iter().for_each(|give| give());
    }
}
