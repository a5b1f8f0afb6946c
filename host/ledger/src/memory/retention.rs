//! Retention of the ledger in memory.

use std::sync::Arc;

use super::core::{MemoryCore, bytes_of};

impl MemoryCore {
    /// Makes room for a block, as far as that is allowed. An empty stream takes a block of any
    /// size.
    pub(super) fn make_room(&mut self, stream: &Arc<str>, bytes: u64) -> bool {
        while self.exceeds(stream, bytes) {
            if !self.evict(stream) {
                return false;
            }
        }
        true
    }

    /// Removes what is too much now.
    pub(super) fn remove_old_blocks(&mut self) {
        let streams: Vec<Arc<str>> = self.streams.keys().cloned().collect();
        for stream in streams {
            while self.exceeds(&stream, 0) && self.evict(&stream) {}
        }
    }

    fn exceeds(&self, stream: &Arc<str>, more: u64) -> bool {
        match (self.retention, self.streams.get(stream)) {
            (Some(limit), Some(stream)) => stream.bytes > 0 && stream.bytes + more > limit,
            _ => false,
        }
    }

    /// Removes the oldest block, if no configured pipeline needs it.
    fn evict(&mut self, name: &Arc<str>) -> bool {
        let Some(stream) = self.streams.get_mut(name) else {
            return false;
        };
        let Some(end) = stream.blocks.front().map(|block| block.range().end) else {
            return false;
        };
        let mut epochs: Vec<_> = self
            .pipelines
            .values_mut()
            .filter_map(|pipeline| pipeline.epochs.get_mut(name))
            .filter(|epoch| epoch.progress.watermark < end)
            .collect();
        let is_held = self.holders.values().any(|held| held.contains(&**name));
        if is_held || epochs.iter().any(|epoch| epoch.active) {
            return false;
        }
        epochs
            .iter_mut()
            .for_each(|epoch| epoch.drop_unfinished(end));
        if let Some(block) = stream.blocks.pop_front() {
            stream.bytes -= bytes_of(block.parts());
        }
        true
    }
}
