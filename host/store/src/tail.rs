//! Blocks in memory. Half of the room is for the newest ones, so that a pipeline that keeps up does
//! not read from disk. The other half is for older ones that nobody has read yet: a pipeline that
//! falls behind needs those first. Blocks that are not kept are shared by those who still use them,
//! so that each is in memory once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use lockgate_model::{Block, Seq};

type Key = (Arc<str>, Seq);

#[derive(Default)]
pub struct Tail {
    /// Of both halves.
    blocks: BTreeMap<Key, Kept>,
    /// The newest, oldest first, over all streams.
    order: VecDeque<Key>,
    newest: usize,
    unread: usize,
    /// Bytes of each half.
    half: usize,
    /// Blocks that are not kept, as long as a batch holds them.
    in_use: BTreeMap<Key, Weak<Block>>,
    /// At this many the unused ones are removed from `in_use`.
    sweep_at: usize,
}

struct Kept {
    block: Arc<Block>,
    /// Among the newest.
    is_new: bool,
    is_read: bool,
}

/// Fewest blocks in use at which the unused ones are looked for.
const SWEEP_MIN: usize = 64;

impl Tail {
    /// `limit`: bytes.
    pub fn new(limit: usize) -> Tail {
        Tail {
            half: limit / 2,
            ..Tail::default()
        }
    }

    pub fn push(&mut self, block: Arc<Block>) {
        let key = (block.stream.clone(), block.first_seq);
        self.newest += block.memory();
        self.order.push_back(key.clone());
        let kept = Kept {
            block,
            is_new: true,
            is_read: false,
        };
        self.blocks.insert(key, kept);
        while self.newest > self.half
            && let Some(oldest) = self.order.pop_front()
        {
            self.age(&oldest);
        }
    }

    /// A block is no longer among the newest.
    fn age(&mut self, key: &Key) {
        let Some(kept) = self.blocks.get_mut(key) else {
            return;
        };
        let bytes = kept.block.memory();
        self.newest -= bytes;
        kept.is_new = false;
        if !kept.is_read && self.unread + bytes <= self.half {
            self.unread += bytes;
        } else if let Some(kept) = self.blocks.remove(key) {
            self.note(&kept.block);
        }
    }

    /// The same block as all others use who have read it. It is not kept for that.
    pub fn share(&mut self, block: Arc<Block>) -> Arc<Block> {
        if let Some(other) = self.at(&block.stream, block.first_seq) {
            return other;
        }
        self.note(&block);
        block
    }

    /// Remembers a block that is not kept for as long as it is in use.
    fn note(&mut self, block: &Arc<Block>) {
        if self.in_use.len() >= self.sweep_at {
            self.in_use.retain(|_, block| block.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(2 * self.in_use.len());
        }
        let key = (block.stream.clone(), block.first_seq);
        self.in_use.insert(key, Arc::downgrade(block));
    }

    /// The block that holds a sequence, for a reader.
    pub fn at(&mut self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        let key = (Arc::from(stream), seq);
        let is_it = |block: &Arc<Block>| *block.stream == *stream && block.range().contains(&seq);
        let kept = self.blocks.range_mut(..=&key).next_back();
        let Some((found, kept)) = kept.filter(|(_, kept)| is_it(&kept.block)) else {
            let (_, block) = self.in_use.range(..=&key).next_back()?;
            return block.upgrade().filter(is_it);
        };
        kept.is_read = true;
        let block = kept.block.clone();
        if !kept.is_new {
            // Its room is for the next one that nobody has read.
            let found = found.clone();
            self.forget(&found);
            self.note(&block);
        }
        Some(block)
    }

    /// Forgets what retention removed.
    pub fn remove(&mut self, stream: &Arc<str>, first_seq: Seq) {
        let key = (stream.clone(), first_seq);
        self.forget(&key);
        self.in_use.remove(&key);
    }

    fn forget(&mut self, key: &Key) {
        let Some(kept) = self.blocks.remove(key) else {
            return;
        };
        if kept.is_new {
            self.newest -= kept.block.memory();
            self.order.retain(|other| other != key);
        } else {
            self.unread -= kept.block.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use lockgate_model::{BlockBuilder, FeedKind, Head};

    use super::*;

    fn block(stream: &str, first_seq: Seq) -> Arc<Block> {
        let mut builder = BlockBuilder::new();
        for _ in 0..10 {
            builder.push(
                Head {
                    key: "k",
                    event_type: "t",
                    code: "c",
                    time: 1,
                    index: 1,
                    session: "",
                },
                "{}",
            );
        }
        Arc::new(Block::new(
            stream.into(),
            FeedKind::Audit,
            first_seq,
            0,
            builder.take(),
        ))
    }

    #[test]
    fn the_oldest_go_first_and_streams_do_not_mix() {
        let size = block("a", 1).memory();
        let mut tail = Tail::new(size * 6);
        for (stream, first) in [("a", 1), ("b", 1), ("a", 11), ("a", 21)] {
            tail.push(block(stream, first));
            assert!(tail.at(stream, first).is_some());
        }
        assert_eq!(tail.at("a", 5), None);
        assert_eq!(tail.at("b", 10).unwrap().first_seq, 1);
        assert_eq!(tail.at("b", 11), None);
        assert_eq!(tail.at("a", 20).unwrap().first_seq, 11);
        assert_eq!(tail.at("a", 31), None);
        assert_eq!(tail.at("aa", 11), None);
        tail.remove(&"a".into(), 11);
        tail.remove(&"a".into(), 11);
        assert_eq!(tail.at("a", 20), None);
        assert_eq!(tail.newest, size * 2);
    }

    #[test]
    fn a_pipeline_that_falls_behind_finds_what_nobody_has_read() {
        let size = block("a", 1).memory();
        let mut tail = Tail::new(size * 4);
        for first in [1, 11, 21, 31, 41] {
            tail.push(block("a", first));
        }
        assert_eq!(
            tail.at("a", 21),
            None,
            "there is room for two and the newest two"
        );
        assert!(tail.at("a", 31).is_some() && tail.at("a", 41).is_some());
        assert!(tail.at("a", 1).is_some());
        assert_eq!(tail.at("a", 1), None, "it has been read");
        tail.push(block("a", 51));
        tail.push(block("a", 61));
        tail.push(block("a", 71));
        assert_eq!(tail.at("a", 41), None, "it has been read");
        assert!(
            tail.at("a", 51).is_some(),
            "it is kept in the room of the first"
        );
        assert_eq!(tail.unread, size);
        tail.remove(&"a".into(), 11);
        assert_eq!((tail.unread, tail.at("a", 11)), (0, None));
    }

    #[test]
    fn a_block_that_is_in_use_is_in_memory_once() {
        let mut tail = Tail::new(block("a", 1).memory() * 2);
        tail.push(block("a", 1));
        let held = tail.at("a", 5).unwrap();
        tail.push(block("a", 11));
        let again = tail.at("a", 5).expect("a batch holds it");
        assert!(Arc::ptr_eq(&held, &again));
        // Somebody read it from disk at the same time.
        assert!(Arc::ptr_eq(&held, &tail.share(block("a", 1))));
        drop((held, again));
        assert_eq!(tail.at("a", 5), None);

        let read = tail.share(block("a", 1));
        assert!(Arc::ptr_eq(&read, &tail.at("a", 10).unwrap()));
        drop(read);
        for number in 0..1000 {
            let _ = tail.share(block("b", 1 + number * 10));
        }
        assert!(tail.in_use.len() <= SWEEP_MIN, "{}", tail.in_use.len());
    }
}
