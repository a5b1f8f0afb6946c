//! Batches for the crate's own tests.

use std::sync::Arc;

use lockgate_model::contract::BatchInfo;
use lockgate_model::{Batch, Block, BlockBuilder, FeedKind, Head, Slice};

use crate::documents::Documents;

/// One event for each key, sequences from 1.
pub(crate) fn documents(keys: &[&str]) -> Documents {
    let mut builder = BlockBuilder::new();
    for key in keys {
        let head = Head {
            key,
            event_type: "t",
            code: "",
            time: 0,
            index: 0,
            session: "",
        };
        builder.push(head, "{}");
    }
    let block = Block::new(
        "teleport/audit".into(),
        FeedKind::Audit,
        1,
        0,
        builder.take(),
    );
    let batch = Batch {
        slices: vec![Slice {
            rows: 0..block.len(),
            block: Arc::new(block),
        }],
    };
    let info = BatchInfo {
        id: "p/teleport/audit/1".into(),
        pipeline: "p".into(),
        source: "teleport".into(),
        read_at: 0,
    };
    Documents::new(info, batch)
}
