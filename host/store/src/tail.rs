//! Recent blocks in memory: a pipeline that keeps up does not read from disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lockgate_model::{Block, Seq};

#[derive(Default)]
pub struct Tail {
    blocks: BTreeMap<(Arc<str>, Seq), Arc<Block>>,
    /// Oldest first, over all streams.
    order: VecDeque<(Arc<str>, Seq)>,
    bytes: usize,
    limit: usize,
}

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
            self.bytes -= self
                .blocks
                .remove(&oldest)
                .map_or(0, |block| block.memory());
        }
    }

    pub fn at(&self, stream: &str, seq: Seq) -> Option<Arc<Block>> {
        let key = (Arc::from(stream), seq);
        let ((name, _), block) = self.blocks.range(..=key).next_back()?;
        (**name == *stream && block.range().contains(&seq)).then(|| block.clone())
    }

    /// Forgets what retention removed.
    pub fn remove(&mut self, stream: &Arc<str>, first_seq: Seq) {
        let key = (stream.clone(), first_seq);
        if let Some(block) = self.blocks.remove(&key) {
            self.bytes -= block.memory();
            self.order.retain(|other| *other != key);
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
}
