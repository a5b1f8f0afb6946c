use std::sync::Arc;

use lockgate_model::{Batch, Block, Seq, SeqRange, Slice};

/// When a batch is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    /// Events.
    pub(crate) events: usize,
    /// Bytes of payload. A single larger event makes a batch of its own.
    pub(crate) bytes: usize,
}

/// Collects the next batch out of `within`, a range without finished entries. Stops early where the
/// stream ends. `block_at` gives the block that holds a sequence.
pub(crate) fn collect<E>(
    within: SeqRange,
    limits: BatchLimits,
    mut block_at: impl FnMut(Seq) -> Result<Option<Arc<Block>>, E>,
) -> Result<Batch, E> {
    let mut batch = Batch::default();
    let (mut seq, mut events, mut bytes) = (within.start, 0, 0);
    while seq < within.end && events < limits.events {
        let Some(block) = block_at(seq)? else { break };
        let first = (seq - block.first_seq) as usize;
        let last = block.len().min((within.end - block.first_seq) as usize);
        let mut row = first;
        while row < last && events < limits.events {
            let size = block.payload_len(row);
            if events > 0 && bytes + size > limits.bytes {
                break;
            }
            bytes += size;
            events += 1;
            row += 1;
        }
        let full = row < last;
        seq = block.first_seq + row as u64;
        if row > first {
            batch.slices.push(Slice {
                block,
                rows: first..row,
            });
        }
        if full {
            break;
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use lockgate_model::{BlockBuilder, FeedKind, Head};

    use super::*;

    fn blocks(sizes: &[&[usize]]) -> Vec<Arc<Block>> {
        let mut seq = 1;
        sizes
            .iter()
            .map(|sizes| {
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
                let block = Block::new(
                    "teleport/audit".into(),
                    FeedKind::Audit,
                    seq,
                    0,
                    builder.take(),
                );
                seq = block.range().end;
                Arc::new(block)
            })
            .collect()
    }

    #[test]
    fn batches_close_by_events_bytes_and_the_end_of_the_gap() {
        let blocks = blocks(&[&[10, 10, 10], &[10, 500, 10], &[10]]);
        let take = |within: SeqRange, events, bytes| {
            let batch = collect::<Infallible>(within, BatchLimits { events, bytes }, |seq| {
                Ok(blocks
                    .iter()
                    .find(|block| block.range().contains(&seq))
                    .cloned())
            });
            batch.unwrap_or_default().range()
        };
        assert_eq!(take(1..Seq::MAX, 5, 10_000), 1..6);
        assert_eq!(take(1..Seq::MAX, 100, 10_000), 1..8);
        assert_eq!(take(2..5, 100, 10_000), 2..5);
        assert_eq!(take(1..Seq::MAX, 100, 45), 1..5);
        assert_eq!(
            take(5..Seq::MAX, 100, 45),
            5..6,
            "an event over the limit goes alone"
        );
        assert_eq!(take(8..Seq::MAX, 100, 45), 0..0, "nothing there yet");
    }
}
