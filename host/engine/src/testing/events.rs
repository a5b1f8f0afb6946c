//! Events of an audit stream.

use std::sync::Arc;

use lockgate_model::contract::BatchContext;
use lockgate_model::{Batch, Block, BlockBuilder, FeedKind, Head, Seq, Slice};

use crate::documents::Documents;

/// One event for each key, sequences from 1.
pub(crate) fn documents(keys: &[&str]) -> Documents {
    of_block(block(1, keys.iter().map(|&key| (key, ""))))
}

/// One event for each of these bytes, none of which is JSON.
pub(crate) fn raw_documents(events: &[&[u8]]) -> Documents {
    let mut builder = BlockBuilder::new();
    for event in events {
        builder.push_raw(head("k", ""), event);
    }
    of_block(built(1, &mut builder))
}

fn of_block(block: Arc<Block>) -> Documents {
    let batch = Batch {
        slices: vec![Slice {
            rows: 0..block.len(),
            block,
        }],
    };
    let context = BatchContext {
        id: "p/teleport/audit/1".into(),
        pipeline: "p".into(),
        source: "teleport".into(),
        read_at: 0,
    };
    Documents::new(context, batch)
}

/// Events by key and session.
pub(super) fn block<'a>(
    first: Seq,
    events: impl Iterator<Item = (&'a str, &'a str)>,
) -> Arc<Block> {
    let mut builder = BlockBuilder::new();
    for (key, session) in events {
        builder.push(head(key, session), "{}");
    }
    built(first, &mut builder)
}

fn head<'a>(key: &'a str, session: &'a str) -> Head<'a> {
    Head {
        key,
        event_type: "t",
        code: "",
        time: 0,
        index: 0,
        session,
    }
}

fn built(first: Seq, builder: &mut BlockBuilder) -> Arc<Block> {
    let parts = builder.take();
    let stream = "teleport/audit".into();
    Arc::new(Block::new(stream, FeedKind::Audit, first, 0, parts))
}
