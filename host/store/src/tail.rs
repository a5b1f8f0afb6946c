//! Blocks in memory. Recent ones are kept, so that a pipeline that keeps up does not read from disk.
//! Older ones are shared by those who still use them, so that each is in memory once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use lockgate_model::{Block, Seq};

#[derive(Default)]
pub struct Tail {
    blocks: BTreeMap<(Arc<str>, Seq), Arc<Block>>,
    /// Oldest first, over all streams.
    order: VecDeque<(Arc<str>, Seq)>,
    bytes: usize,
    limit: usize,
    /// Blocks that are not kept, as long as a batch holds them.
    in_use: BTreeMap<(Arc<str>, Seq), Weak<Block>>,
    /// At this many the unused ones are removed from `in_use`.
    sweep_at: usize,
}

/// Fewest blocks in use at which the unused ones are looked for.
const SWEEP_MIN: usize = 64;

impl Tail {
    pub fn new(limit: usize) -> Tail {
        Tail {
            limit,
            ..Tail::default()
        }
    }

    pub fn push(&mut self, block: Arc<Block>) {
        let key = (block.stream.clone(), block.first_seq);
        self.bytes += block.memory();
        self.order.push_back(key.clone());
        self.blocks.insert(key, block);
        while self.bytes > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(block) = self.blocks.remove(&oldest) {
                self.bytes -= block.memory();
                self.share(block);
            }
        }
    }

    /// The same block as all others use who have read it. It is not kept for that.
    pub fn share(&mut self, block: Arc<Block>) -> Arc<Block> {
        if let Some(other) = self.at(&block.stream, block.first_seq) {
            return other;
        }
        if self.in_use.len() >= self.sweep_at {
            self.in_use.retain(|_, block| block.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(2 * self.in_use.len());
        }
        let key = (block.stream.clone(), block.first_seq);
        self.in_use.insert(key, Arc::downgrade(&block));
        block
    }

    pub fn at(&self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        let key = (Arc::from(stream), seq);
        let is_it = |block: &Arc<Block>| *block.stream == *stream && block.range().contains(&seq);
        let kept = self.blocks.range(..=&key).next_back();
        let kept = kept.map(|(_, block)| block.clone()).filter(is_it);
        kept.or_else(|| {
            let (_, block) = self.in_use.range(..=&key).next_back()?;
            block.upgrade().filter(is_it)
        })
    }

    /// Forgets what retention removed.
    pub fn remove(&mut self, stream: &Arc<str>, first_seq: Seq) {
        let key = (stream.clone(), first_seq);
        if let Some(block) = self.blocks.remove(&key) {
            self.bytes -= block.memory();
            self.order.retain(|other| *other != key);
        }
        self.in_use.remove(&key);
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
        let mut tail = Tail::new(size * 3);
        for (stream, first) in [("a", 1), ("b", 1), ("a", 11), ("a", 21)] {
            tail.push(block(stream, first));
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
        assert_eq!(tail.bytes, size * 2);
    }

    #[test]
    fn a_block_that_is_in_use_is_in_memory_once() {
        let mut tail = Tail::new(block("a", 1).memory());
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
