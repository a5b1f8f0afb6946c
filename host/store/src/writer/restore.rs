//! Puts events that were read from the source again into a damaged block.

use std::collections::HashMap;

use lockgate_model::{Block, BlockBuilder, BlockParts, Head, Seq};
use rusqlite::params;

use super::{Fault, Writer};
use crate::encoded::EncodedBlock;
use crate::{Heads, LedgerError, blocks};

impl Writer {
    /// Only where the block is then, bit by bit, what its checksum was taken of: so the chains that
    /// name the checksum stay as they are. The inner error: refused, nothing was written.
    pub fn restore(
        &mut self,
        stream: &str,
        seq: Seq,
        events: &Block,
    ) -> Result<Result<(), LedgerError>, Fault> {
        let refused = |what: &str| {
            let refusal = format!("the block of entry {seq} of `{stream}` {what}");
            Ok(Err(LedgerError::Conflict(refusal)))
        };
        let Some(&index) = self.by_name.get(stream) else {
            return refused("is not there");
        };
        let row = &self.streams[index].row;
        let Ok(Some(stored)) = blocks::at(&self.connection, row, seq) else {
            return refused("cannot be written to");
        };
        if stored.block(row).is_ok() {
            return refused("is not damaged");
        }
        let by_heads = stored
            .damaged_heads()
            .and_then(|heads| in_order_of(&heads, events));
        let is_all = events.len() as u64 == stored.count;
        let as_read = is_all.then(|| of_rows(events, 0..events.len()));
        for parts in [by_heads, as_read].into_iter().flatten() {
            let Some(block) = EncodedBlock::new(parts)? else {
                continue;
            };
            let checksum = block.checksum(&row.name, stored.first_seq, stored.read_at);
            if checksum != stored.checksum {
                continue;
            }
            let (stream_id, first_seq) = (row.id, stored.first_seq);
            let sql = "UPDATE blocks SET heads = ?3, payload = ?4, bytes = ?5, count = ?6, min_time = ?7, max_time = ?8 \
                       WHERE stream_id = ?1 AND first_seq = ?2";
            self.connection.execute(
                sql,
                params![
                    stream_id,
                    first_seq,
                    block.heads,
                    block.payload,
                    block.bytes(),
                    block.count(),
                    block.min_time,
                    block.max_time
                ],
            )?;
            self.insert_filter(stream_id, first_seq, &block.filter)?;
            return Ok(Ok(()));
        }
        refused("had other events than those that the source has now")
    }
}

/// The events that a block had, as far as its columns can still be read.
fn in_order_of(heads: &Heads, events: &Block) -> Option<BlockParts> {
    let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
    for row in (0..events.len()).rev() {
        by_key.entry(events.view(row).key).or_default().push(row);
    }
    let rows: Option<Vec<usize>> = (0..heads.len())
        .map(|row| {
            let found = by_key.get_mut(heads.keys.at(row))?;
            let is_it = |&other: &usize| {
                let event = events.view(other);
                event.time == heads.times[row]
                    && event.index == heads.indexes[row]
                    && event.event_type == heads.types.at(row)
                    && events.payload_len(other) == heads.payload_len(row) as usize
            };
            // The last in the list is the first that was read.
            let at = found.iter().rposition(is_it)?;
            Some(found.remove(at))
        })
        .collect();
    Some(of_rows(events, rows?.into_iter()))
}

fn of_rows(events: &Block, rows: impl Iterator<Item = usize>) -> BlockParts {
    let mut builder = BlockBuilder::new();
    for row in rows {
        let event = events.view(row);
        let head = Head {
            key: event.key,
            event_type: event.event_type,
            code: event.code,
            time: event.time,
            index: event.index,
            session: events.session(row),
        };
        match events.raw(row) {
            Some(raw) => builder.push_raw(head, raw),
            None => builder.push(head, event.payload),
        }
    }
    builder.take()
}
