//! Batches out of a ledger's blocks.

use std::sync::Arc;

use lockgate_ledger::{Ledger, LedgerError};
use lockgate_model::{Batch, Block, SeqRange, Slice};

/// The next batch out of `within`, ranges without finished entries. Stops early if the stream
/// ends. `bytes`: of payload; a single larger event is a batch of its own.
pub(crate) async fn batch<L: Ledger>(
    ledger: &L,
    stream: &str,
    within: Vec<SeqRange>,
    events: usize,
    bytes: usize,
) -> Result<Batch, LedgerError> {
    let mut collected = Collected::default();
    for range in within {
        let mut seq = range.start;
        while seq < range.end {
            let block = match ledger.cached(stream, seq) {
                Some(block) => Some(block),
                None => match ledger.block_at(stream, seq).await {
                    // What is before a damaged block goes on; the next call begins with it.
                    Err(LedgerError::Damaged(_)) if collected.events > 0 => {
                        return Ok(collected.batch);
                    }
                    block => block?,
                },
            };
            let Some(block) = block else {
                return Ok(collected.batch);
            };
            let end = block.range().end.min(range.end);
            let taken = collected.take(block, seq..end, events, bytes);
            seq += taken;
            if seq < end {
                return Ok(collected.batch);
            }
        }
    }
    Ok(collected.batch)
}

#[derive(Default)]
struct Collected {
    batch: Batch,
    events: usize,
    bytes: usize,
}

impl Collected {
    /// Takes what fits of a block's events in `range`. Gives their number.
    fn take(&mut self, block: Arc<Block>, range: SeqRange, events: usize, bytes: usize) -> u64 {
        let first = (range.start - block.first_seq) as usize;
        let last = (range.end - block.first_seq) as usize;
        let mut row = first;
        while row < last && self.events < events {
            let size = block.payload_len(row);
            if self.events > 0 && self.bytes + size > bytes {
                break;
            }
            self.bytes += size;
            self.events += 1;
            row += 1;
        }
        if row > first {
            self.batch.slices.push(Slice {
                rows: first..row,
                block,
            });
        }
        (row - first) as u64
    }
}

#[cfg(test)]
mod tests {
    use lockgate_ledger::memory::MemoryLedger;
    use lockgate_model::{Append, BlockBuilder, FeedKind, Head, Seq};

    use super::*;

    async fn ledger(sizes: &[&[usize]]) -> MemoryLedger {
        let ledger = MemoryLedger::default();
        for sizes in sizes {
            let mut builder = BlockBuilder::new();
            for &size in *sizes {
                let head = Head {
                    key: "k",
                    event_type: "t",
                    code: "",
                    time: 0,
                    index: 0,
                    session: "",
                };
                builder.push(head, &"x".repeat(size));
            }
            let append = Append {
                source: "teleport".into(),
                feed: FeedKind::Audit,
                read_at: 0,
                events: builder.take(),
                cursors: Vec::new(),
                gaps: Vec::new(),
                duplicates: 0,
            };
            ledger.append(append).await.unwrap();
        }
        ledger
    }

    #[tokio::test]
    async fn batches_close_by_events_bytes_and_the_end_of_the_range() {
        let ledger = ledger(&[&[10, 10, 10], &[10, 500, 10], &[10]]).await;
        for (within, events, bytes, expected) in [
            (1..Seq::MAX, 5, 10_000, 1..6),
            (1..Seq::MAX, 100, 10_000, 1..8),
            (2..5, 100, 10_000, 2..5),
            (1..Seq::MAX, 100, 45, 1..5),
            // An event over the limit goes alone.
            (5..Seq::MAX, 100, 45, 5..6),
            // Nothing is there yet.
            (8..Seq::MAX, 100, 45, 0..0),
        ] {
            let ranges = vec![within.clone()];
            let collected = batch(&ledger, "teleport/audit", ranges, events, bytes);
            assert_eq!(collected.await.unwrap().range(), expected, "{within:?}");
        }
        let ranges = vec![2..3, 5..6, 7..Seq::MAX];
        let collected = batch(&ledger, "teleport/audit", ranges, 100, 10_000);
        let seqs: Vec<Seq> = collected.await.unwrap().seqs().collect();
        assert_eq!(seqs, [2, 5, 7], "entries in between are left out");
    }
}
