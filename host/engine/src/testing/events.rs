//! Events of an audit stream.

use std::sync::Arc;

use lockgate_model::contract::BatchInfo;
use lockgate_model::{Batch, Block, BlockBuilder, FeedKind, Head, Seq, Slice};

use crate::documents::Documents;

/// One event for each key, sequences from 1.
pub(crate) fn documents(keys: &[&str]) -> Documents {
    let block = block(1, keys.iter().map(|&key| (key, "")));
    let batch = Batch {
        slices: vec![Slice {
            rows: 0..block.len(),
            block,
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

/// Events by key and session.
pub(super) fn block<'a>(
    first: Seq,
    events: impl Iterator<Item = (&'a str, &'a str)>,
) -> Arc<Block> {
    let mut builder = BlockBuilder::new();
    for (key, session) in events {
        let head = Head {
            key,
            event_type: "t",
            code: "",
            time: 0,
            index: 0,
            session,
        };
        builder.push(head, "{}");
    }
    let parts = builder.take();
    let stream = "teleport/audit".into();
    Arc::new(Block::new(stream, FeedKind::Audit, first, 0, parts))
}
