//! The ledger in memory as plain data, which can crash between any two operations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lockgate_model::{
    Append, Block, BlockParts, Books, Commit, Entries, FeedKind, Generation, Seq,
};

use super::epoch::{Epoch, Recorded};
use crate::{Committed, LedgerError, Progress, Registration, check_commit, check_streams};

/// All that a ledger keeps, as plain data: what is in it survives a crash, and nothing else does.
///
/// A clone is an independent ledger. To crash before an operation, do not call it; to crash after
/// it but before its answer, call it and forget the answer.
#[derive(Clone, Debug, Default)]
pub struct MemoryCore {
    /// Bytes of payload of each stream. Beyond that the oldest blocks go, if no pipeline needs
    /// them; else appends have no room.
    pub(super) retention: Option<u64>,
    pub(super) streams: BTreeMap<Arc<str>, Stream>,
    pub(super) pipelines: BTreeMap<Arc<str>, Pipeline>,
    /// The streams that pipelines are configured to read and have not begun: they hold every event
    /// there.
    pub(super) holders: BTreeMap<String, BTreeSet<String>>,
    pub(super) letters: u64,
    cursors: BTreeMap<String, BTreeMap<String, String>>,
    digests: BTreeMap<String, [u8; 32]>,
}

/// The answer of [`MemoryCore::append`].
#[derive(Clone, Debug)]
pub enum Appended {
    Done(Option<Arc<Block>>),
    /// The stream is at its retention limit, and a pipeline needs its oldest block: given back as
    /// it came.
    NoRoom(Box<Append>),
}

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) feed: FeedKind,
    pub(super) next: Seq,
    pub(super) blocks: VecDeque<Arc<Block>>,
    pub(super) bytes: u64,
}

impl Stream {
    fn new(feed: FeedKind) -> Stream {
        Stream {
            feed,
            next: 1,
            blocks: VecDeque::new(),
            bytes: 0,
        }
    }

    fn oldest(&self) -> Seq {
        self.blocks
            .front()
            .map_or(self.next, |block| block.first_seq)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pipeline {
    pub(super) epoch: u32,
    pub(super) generations: Vec<String>,
    pub(super) generation: u32,
    /// That of the latest commit.
    last_generation: Option<u32>,
    pub(super) epochs: BTreeMap<Arc<str>, Epoch>,
    state: BTreeMap<String, BTreeMap<String, String>>,
    brake: String,
}

impl Pipeline {
    pub(super) fn dead_bytes(&self) -> u64 {
        self.epochs.values().map(|epoch| epoch.dead_bytes).sum()
    }
}

impl MemoryCore {
    /// `retention`: bytes of payload that each stream keeps at most; `None`: without a limit.
    pub fn new(retention: Option<u64>) -> MemoryCore {
        MemoryCore {
            retention,
            ..MemoryCore::default()
        }
    }

    /// See [`Ledger::append`](crate::Ledger::append).
    pub fn append(&mut self, append: Append) -> Appended {
        let name: Arc<str> = append.stream().into();
        let bytes = bytes_of(&append.events);
        let stream = self.stream(&name, append.feed);
        if !append.events.times.is_empty() && !self.make_room(&stream, bytes) {
            return Appended::NoRoom(Box::new(append));
        }
        let cursors = self.cursors.entry(append.source.to_string()).or_default();
        for cursor in append.cursors {
            match cursor.value {
                Some(value) => drop(cursors.insert(cursor.key, value)),
                None => drop(cursors.remove(&cursor.key)),
            }
        }
        let Some(stream) = self
            .streams
            .get_mut(&stream)
            .filter(|_| !append.events.times.is_empty())
        else {
            return Appended::Done(None);
        };
        let first_seq = stream.next;
        let block = Block::new(name, append.feed, first_seq, append.read_at, append.events);
        let block = Arc::new(block);
        stream.next = block.range().end;
        stream.bytes += bytes;
        stream.blocks.push_back(block.clone());
        Appended::Done(Some(block))
    }

    /// See [`Ledger::commit`](crate::Ledger::commit).
    pub fn commit(&mut self, mut commit: Commit) -> Result<Committed, LedgerError> {
        commit.dead.sort_by_key(|letter| letter.seq);
        check_commit(&commit)?;
        let name = commit.pipeline.clone();
        let next = self.next(&commit.stream);
        let pipeline = self.pipelines.get_mut(&commit.pipeline);
        let Some(pipeline) = pipeline else {
            return Err(LedgerError::Conflict(format!("`{name}` is not registered")));
        };
        if pipeline.epoch != commit.epoch
            || !(1..=pipeline.generations.len()).contains(&(commit.generation as usize))
        {
            return Err(LedgerError::Conflict(format!(
                "`{name}` has no epoch {} and generation {}",
                commit.epoch, commit.generation
            )));
        }
        let Some(epoch) = pipeline.epochs.get_mut(&commit.stream) else {
            return Err(LedgerError::Conflict(format!(
                "`{name}` is not registered on `{}`",
                commit.stream
            )));
        };
        match &commit.entries {
            Entries::Range(range) if range.end > next || epoch.progress.touches(range) => {
                return Err(LedgerError::Conflict(format!(
                    "of the entries {range:?}, some have an outcome or do not exist"
                )));
            }
            Entries::Range(_) => {}
            Entries::Redriven(seqs) => epoch.check_waiting(seqs)?,
        }
        epoch.record(&commit, &mut self.letters);
        for write in commit.state {
            let state = pipeline.state.entry(write.owner.to_string()).or_default();
            match write.value {
                Some(value) => drop(state.insert(write.key, value)),
                None => drop(state.remove(&write.key)),
            }
        }
        pipeline.state.retain(|_, state| !state.is_empty());
        pipeline.brake = commit.brake;
        pipeline.last_generation = Some(commit.generation);
        let dead_bytes = pipeline.dead_bytes();
        self.remove_old_blocks();
        Ok(Committed { dead_bytes })
    }

    /// See [`Ledger::register`](crate::Ledger::register).
    pub fn register(
        &mut self,
        generation: Generation,
        streams: &[String],
    ) -> Result<Registration, LedgerError> {
        let feeds = check_streams(&generation.pipeline, streams)?;
        let mut begins = Vec::new();
        for (name, feed) in streams.iter().zip(feeds) {
            let name = self.stream(&Arc::from(name.as_str()), feed);
            let begin = self.streams.get(&name).map_or(1, Stream::oldest);
            begins.push((name, begin));
        }
        self.holders.remove(&*generation.pipeline);
        let pipeline = self.pipelines.entry(generation.pipeline).or_default();
        pipeline.epoch = 1;
        let known = pipeline
            .generations
            .iter()
            .position(|known| *known == generation.description);
        let index = known.unwrap_or_else(|| {
            pipeline.generations.push(generation.description);
            pipeline.generations.len() - 1
        });
        pipeline.generation = index as u32 + 1;
        for epoch in pipeline.epochs.values_mut() {
            epoch.active = false;
        }
        let mut progress: Vec<Progress> = Vec::new();
        for (name, begin) in begins {
            let epoch = Epoch::new(&name, begin);
            let epoch = pipeline.epochs.entry(name).or_insert(epoch);
            epoch.active = true;
            progress.push(epoch.progress.clone());
        }
        Ok(Registration {
            epoch: pipeline.epoch,
            generation: pipeline.generation,
            last_description: pipeline
                .last_generation
                .map(|last| pipeline.generations[last as usize - 1].clone()),
            streams: progress,
            state: pipeline.state.clone(),
            brake: pipeline.brake.clone(),
            dead_bytes: pipeline.dead_bytes(),
        })
    }

    /// See [`Ledger::keep_only`](crate::Ledger::keep_only).
    pub fn keep_only(&mut self, configured: &BTreeMap<String, Vec<String>>) {
        for (name, pipeline) in &mut self.pipelines {
            let streams = configured.get(&**name).map_or(&[][..], Vec::as_slice);
            for (stream, epoch) in &mut pipeline.epochs {
                epoch.active = streams.iter().any(|read| **read == **stream);
            }
        }
        let has_begun = |pipeline: &str, stream: &str| {
            let pipeline = self.pipelines.get(pipeline);
            pipeline.is_some_and(|pipeline| pipeline.epochs.contains_key(stream))
        };
        let holders = configured.iter().map(|(pipeline, streams)| {
            let ahead = streams.iter().filter(|name| !has_begun(pipeline, name));
            (pipeline.clone(), ahead.cloned().collect())
        });
        self.holders = holders.collect();
        self.remove_old_blocks();
    }

    pub fn block_at(&self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        let blocks = &self.streams.get(stream)?.blocks;
        let at = blocks.partition_point(|block| block.range().end <= seq);
        blocks
            .get(at)
            .filter(|block| block.first_seq <= seq)
            .cloned()
    }

    /// The sequence that the stream's next event will get.
    pub fn next(&self, stream: &str) -> Seq {
        self.streams.get(stream).map_or(1, |stream| stream.next)
    }

    pub fn cursors(&self, source: &str) -> BTreeMap<String, String> {
        self.cursors.get(source).cloned().unwrap_or_default()
    }

    pub fn code_digest(&self, key: &str) -> Option<[u8; 32]> {
        self.digests.get(key).copied()
    }

    pub fn keep_code_digest(&mut self, key: &str, digest: [u8; 32]) {
        self.digests.insert(key.to_owned(), digest);
    }

    /// The four figures of each of the pipeline's streams, counted again: outcomes from what is
    /// recorded of each entry, waiting entries from the progress and from the letters.
    pub fn books(&self, pipeline: &str) -> Vec<(String, Books)> {
        let epochs = self
            .pipelines
            .get(pipeline)
            .map(|pipeline| &pipeline.epochs);
        epochs
            .into_iter()
            .flatten()
            .map(|(stream, epoch)| (stream.to_string(), epoch.books(self.next(stream))))
            .collect()
    }

    /// All that was ever recorded of an entry, oldest first; empty if it waits for its first
    /// outcome.
    pub fn outcomes(&self, pipeline: &str, stream: &str, seq: Seq) -> &[Recorded] {
        let pipeline = self.pipelines.get(pipeline);
        let epoch = pipeline.and_then(|pipeline| pipeline.epochs.get(stream));
        epoch.map_or(&[], |epoch| epoch.recorded(seq))
    }

    pub(super) fn stream_names(&self) -> impl Iterator<Item = (&Arc<str>, Seq)> {
        self.streams
            .iter()
            .map(|(name, stream)| (name, stream.next))
    }

    fn stream(&mut self, name: &Arc<str>, feed: FeedKind) -> Arc<str> {
        self.streams
            .entry(name.clone())
            .or_insert_with(|| Stream::new(feed));
        name.clone()
    }
}

pub(super) fn bytes_of(parts: &BlockParts) -> u64 {
    (parts.payloads.bytes.len() + parts.raw.values().map(Vec::len).sum::<usize>()) as u64
}
