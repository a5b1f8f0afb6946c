//! What the committer and all handles of the store share, and how they hear of changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::{Block, Millis, Seq};
use tokio::sync::{Semaphore, watch};

use crate::reads::Reads;
use crate::tail::Tail;
use crate::{LedgerError, limits};

/// A write-ahead log that grows, because another process reads from the store and does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedLog {
    pub bytes: u64,
    /// Since when it is larger than it should be. Milliseconds.
    pub since: Millis,
}

/// State that the committer shares with all handles.
pub struct Shared {
    pub(super) reads: Reads,
    pub(super) tail: Mutex<Tail>,
    pub(super) streams: Mutex<HashMap<Arc<str>, Channels>>,
    pub(super) retries: Mutex<HashMap<Arc<str>, watch::Sender<u64>>>,
    /// See [`super::Store::room_wanted`].
    pub(super) room_wanted: Mutex<HashMap<Arc<str>, watch::Sender<u64>>>,
    pub(super) dead_bytes: Mutex<HashMap<Arc<str>, watch::Sender<u64>>>,
    pub(super) pinned_log: Mutex<Option<PinnedLog>>,
    /// What [`crate::Ledger::keep_only`] said last.
    pub(super) configured: Mutex<BTreeMap<String, Vec<String>>>,
}

#[derive(Clone)]
pub(super) struct Channels {
    pub(super) head: watch::Sender<Seq>,
    pub(super) full: watch::Sender<bool>,
    /// Bytes that may still be queued. Of its own for each stream: if one waits for room,
    /// others do not.
    pub(super) room: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(reads: Reads, tail_bytes: usize) -> Shared {
        Shared {
            reads,
            tail: Mutex::new(Tail::new(tail_bytes)),
            streams: Mutex::default(),
            retries: Mutex::default(),
            room_wanted: Mutex::default(),
            dead_bytes: Mutex::default(),
            pinned_log: Mutex::default(),
            configured: Mutex::default(),
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

    /// How often retention has asked each running pipeline for room.
    pub fn publish_room_wanted(&self, counts: HashMap<Arc<str>, u64>) {
        let mut channels = lock(&self.room_wanted);
        for (pipeline, count) in counts {
            let channel = channels.entry(pipeline).or_default();
            channel.send_if_modified(|before| std::mem::replace(before, count) != count);
        }
    }

    /// How often entries of each pipeline were sent back.
    pub fn publish_retries<'a>(&self, counts: impl Iterator<Item = (&'a Arc<str>, u64)>) {
        let mut channels = lock(&self.retries);
        for (pipeline, now) in counts {
            let channel = match channels.get(pipeline) {
                Some(channel) => channel,
                None => channels.entry(pipeline.clone()).or_default(),
            };
            channel.send_if_modified(|count| std::mem::replace(count, now) != now);
        }
    }

    /// Bytes of the letters that each pipeline keeps.
    pub fn publish_dead_bytes<'a>(&self, bytes: impl Iterator<Item = (&'a Arc<str>, u64)>) {
        let mut channels = lock(&self.dead_bytes);
        for (pipeline, now) in bytes {
            let channel = match channels.get(pipeline) {
                Some(channel) => channel,
                None => channels.entry(pipeline.clone()).or_default(),
            };
            channel.send_if_modified(|bytes| std::mem::replace(bytes, now) != now);
        }
    }

    pub fn pinned_log(&self) -> Option<PinnedLog> {
        *lock(&self.pinned_log)
    }

    pub fn set_pinned_log(&self, pinned: Option<PinnedLog>) {
        *lock(&self.pinned_log) = pinned;
    }

    pub fn set_full(&self, stream: &str, full: bool) {
        self.channels(stream).full.send_replace(full);
    }

    /// Reading ends with writing: its connections would keep the file open.
    pub fn retire_readers(&self) {
        self.reads.retire();
    }

    /// The first cause stands.
    pub fn close(&self, cause: LedgerError) {
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

    pub(super) fn channels(&self, stream: &str) -> Channels {
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
