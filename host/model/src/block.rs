//! Blocks: consecutive events of one stream, in columns.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::event::{EventView, FeedKind, Head};
use crate::{Millis, Seq, SeqRange};

/// A block is closed at this many events …
pub const BLOCK_EVENTS: usize = 512;
/// … or at this many bytes of payload, whichever comes first. A larger event is a block of its own.
pub const BLOCK_BYTES: usize = 768 * 1024;

/// Many short texts in one buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    pub bytes: String,
    /// End of each text in `bytes`.
    pub ends: Vec<u32>,
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len() as u32);
    }

    pub fn at(&self, index: usize) -> &str {
        &self.bytes[self.start(index)..self.ends[index] as usize]
    }

    /// Length of a text in bytes.
    pub fn len_at(&self, index: usize) -> usize {
        self.ends[index] as usize - self.start(index)
    }

    fn start(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        }
    }

    /// Whether every end is a valid position in `bytes`. A decoder must check this before it uses
    /// foreign bytes.
    pub fn is_well_formed(&self) -> bool {
        self.ends.is_sorted()
            && self.ends.last().copied().unwrap_or(0) as usize == self.bytes.len()
            && self
                .ends
                .iter()
                .all(|&end| self.bytes.is_char_boundary(end as usize))
    }
}

/// A column with few distinct texts: each value once, and for each event the index of its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dictionary {
    pub values: Texts,
    pub rows: Vec<u32>,
}

impl Dictionary {
    pub fn at(&self, row: usize) -> &str {
        self.values.at(self.rows[row] as usize)
    }
}

/// The columns of a block, all of the same length, as the store writes and reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockParts {
    pub types: Dictionary,
    pub codes: Dictionary,
    /// Session ids; empty if an event has none.
    pub sessions: Dictionary,
    pub times: Vec<Millis>,
    pub indexes: Vec<i64>,
    pub keys: Texts,
    /// JSON texts; empty for the events in `raw`.
    pub payloads: Texts,
    /// The original bytes of events that could not be converted to JSON, by row. Every pipeline
    /// dead-letters them.
    pub raw: BTreeMap<u32, Vec<u8>>,
}

/// Consecutive events of one stream, which are appended, cached and read together. Immutable,
/// shared by `Arc`.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Name of the stream, such as `teleport/audit`.
    pub stream: Arc<str>,
    pub feed: FeedKind,
    pub first_seq: Seq,
    /// When the events were read from Teleport.
    pub read_at: Millis,
    parts: BlockParts,
}

impl Block {
    /// Panics if the columns differ in length. A decoder must check first.
    pub fn new(
        stream: Arc<str>,
        feed: FeedKind,
        first_seq: Seq,
        read_at: Millis,
        parts: BlockParts,
    ) -> Block {
        let rows = parts.times.len();
        assert!(
            parts.types.rows.len() == rows
                && parts.codes.rows.len() == rows
                && parts.sessions.rows.len() == rows
                && parts.indexes.len() == rows
                && parts.keys.len() == rows
                && parts.payloads.len() == rows,
            "a block's columns have one length"
        );
        Block {
            stream,
            feed,
            first_seq,
            read_at,
            parts,
        }
    }

    pub fn len(&self) -> usize {
        self.parts.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sequences of its events.
    pub fn range(&self) -> SeqRange {
        self.first_seq..self.first_seq + self.len() as u64
    }

    pub fn parts(&self) -> &BlockParts {
        &self.parts
    }

    /// Approximate memory use, in bytes.
    pub fn memory(&self) -> usize {
        self.parts.payloads.bytes.len() + self.parts.keys.bytes.len() + self.len() * 40 + 512
    }

    pub fn view(&self, row: usize) -> EventView<'_> {
        EventView {
            key: self.parts.keys.at(row),
            event_type: self.parts.types.at(row),
            code: self.parts.codes.at(row),
            time: self.parts.times[row],
            index: self.parts.indexes[row],
            feed: self.feed,
            session: Some(self.session(row)).filter(|session| !session.is_empty()),
            payload: self.parts.payloads.at(row),
        }
    }

    pub fn event_type(&self, row: usize) -> &str {
        self.parts.types.at(row)
    }

    pub fn time(&self, row: usize) -> Millis {
        self.parts.times[row]
    }

    /// The JSON text of an event; empty if it could not be converted.
    pub fn payload(&self, row: usize) -> &str {
        self.parts.payloads.at(row)
    }

    /// The session id of an event of either feed; empty if it belongs to no session.
    pub fn session(&self, row: usize) -> &str {
        self.parts.sessions.at(row)
    }

    /// The original bytes of an event that could not be converted to JSON.
    pub fn raw(&self, row: usize) -> Option<&[u8]> {
        // Hardly any block has one.
        if self.parts.raw.is_empty() {
            return None;
        }
        self.parts.raw.get(&(row as u32)).map(Vec::as_slice)
    }

    /// A block of these rows alone.
    fn copy_of(&self, rows: Range<usize>) -> Block {
        let first_seq = self.first_seq + rows.start as Seq;
        let mut builder = BlockBuilder::new();
        for row in rows {
            let head = Head {
                key: self.parts.keys.at(row),
                event_type: self.parts.types.at(row),
                code: self.parts.codes.at(row),
                time: self.parts.times[row],
                index: self.parts.indexes[row],
                session: self.parts.sessions.at(row),
            };
            match self.raw(row) {
                Some(bytes) => builder.push_raw(head, bytes),
                None => builder.push(head, self.payload(row)),
            }
        }
        Block {
            stream: self.stream.clone(),
            feed: self.feed,
            first_seq,
            read_at: self.read_at,
            parts: builder.into_parts(),
        }
    }

    /// Size of an event's payload in bytes, JSON or raw.
    pub fn payload_len(&self, row: usize) -> usize {
        self.raw(row)
            .map_or_else(|| self.parts.payloads.len_at(row), <[u8]>::len)
    }
}

/// Collects events into the columns of a block. A payload is written in place, without a copy:
/// [`text`](Self::text), then either [`finish`](Self::finish) or [`abandon`](Self::abandon).
#[derive(Debug, Default)]
pub struct BlockBuilder {
    parts: BlockParts,
    raw_bytes: usize,
    types: Interner,
    codes: Interner,
    sessions: Interner,
}

/// Finds the values of a [`Dictionary`]: an open hash table of their indexes, each plus one. 0 is
/// free. A block is small, so that keys chosen to collide cost little.
#[derive(Debug, Default)]
struct Interner {
    slots: Vec<u32>,
}

impl BlockBuilder {
    pub fn new() -> BlockBuilder {
        BlockBuilder::default()
    }

    pub fn len(&self) -> usize {
        self.parts.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of payload so far.
    pub fn bytes(&self) -> usize {
        self.parts.payloads.bytes.len() + self.raw_bytes
    }

    pub fn is_full(&self) -> bool {
        self.len() >= BLOCK_EVENTS || self.bytes() >= BLOCK_BYTES
    }

    /// The buffer to which to append the next event's JSON text. Its content must not be changed.
    pub fn text(&mut self) -> &mut String {
        &mut self.parts.payloads.bytes
    }

    /// The text written to [`text`](Self::text) since the last event.
    pub fn pending(&self) -> &str {
        &self.parts.payloads.bytes[self.start()..]
    }

    /// Discards the text written since the last event.
    pub fn abandon(&mut self) {
        let start = self.start();
        self.parts.payloads.bytes.truncate(start);
    }

    /// Makes an event of the text written since the last one.
    pub fn finish(&mut self, head: Head<'_>) {
        let end = self.parts.payloads.bytes.len() as u32;
        self.parts.payloads.ends.push(end);
        self.columns(head);
    }

    pub fn push(&mut self, head: Head<'_>, payload: &str) {
        self.abandon();
        self.text().push_str(payload);
        self.finish(head);
    }

    /// Adds an event that could not be converted to JSON.
    pub fn push_raw(&mut self, head: Head<'_>, bytes: &[u8]) {
        self.abandon();
        self.raw_bytes += bytes.len();
        self.parts.raw.insert(self.len() as u32, bytes.to_vec());
        self.finish(head);
    }

    /// Returns the finished columns and leaves the builder empty for the next block.
    ///
    /// The next block is probably as large as this one, so its buffers start at that size instead
    /// of growing to it.
    pub fn take(&mut self) -> BlockParts {
        self.abandon();
        let parts = std::mem::take(&mut self.parts);
        self.raw_bytes = 0;
        for interner in [&mut self.types, &mut self.codes, &mut self.sessions] {
            interner.slots.fill(0);
        }
        self.parts
            .payloads
            .bytes
            .reserve(parts.payloads.bytes.len() * 9 / 8);
        self.parts.keys.bytes.reserve(parts.keys.bytes.len());
        parts
    }

    /// The finished columns of the last block.
    fn into_parts(mut self) -> BlockParts {
        self.abandon();
        self.parts
    }

    fn start(&self) -> usize {
        self.parts.payloads.ends.last().copied().unwrap_or(0) as usize
    }

    fn columns(&mut self, head: Head<'_>) {
        self.types.intern(&mut self.parts.types, head.event_type);
        self.codes.intern(&mut self.parts.codes, head.code);
        self.sessions.intern(&mut self.parts.sessions, head.session);
        self.parts.times.push(head.time);
        self.parts.indexes.push(head.index);
        self.parts.keys.push(head.key);
    }
}

impl Interner {
    /// Appends a row with this value.
    fn intern(&mut self, column: &mut Dictionary, text: &str) {
        if self.slots.len() < 2 * (column.values.len() + 1) {
            self.grow(&column.values);
        }
        let slot = self.slot(&column.values, text);
        let row = match self.slots[slot] {
            0 => {
                column.values.push(text);
                let row = column.values.len() as u32;
                self.slots[slot] = row;
                row
            }
            row => row,
        };
        column.rows.push(row - 1);
    }

    /// The slot of a text, or the free one where it belongs.
    fn slot(&self, values: &Texts, text: &str) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(text) & mask;
        while self.slots[slot] != 0 && values.at(self.slots[slot] as usize - 1) != text {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self, values: &Texts) {
        let size = (2 * self.slots.len()).max(64);
        self.slots.clear();
        self.slots.resize(size, 0);
        for row in 0..values.len() {
            let slot = self.slot(values, values.at(row));
            self.slots[slot] = row as u32 + 1;
        }
    }
}

/// Of its ends and its length: enough to distinguish types, codes and ids.
fn hash(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (start, end) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(start), Some(end)) => (u64::from_le_bytes(*start), u64::from_le_bytes(*end)),
        _ => (
            bytes
                .iter()
                .fold(0, |start, &byte| start << 8 | u64::from(byte)),
            0,
        ),
    };
    let mixed = start ^ end.rotate_left(29) ^ bytes.len() as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// Some consecutive events of one block.
#[derive(Clone, Debug)]
pub struct Slice {
    pub block: Arc<Block>,
    pub rows: Range<usize>,
}

/// Consecutive events of one stream that a pipeline processes together, as views into blocks.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub slices: Vec<Slice>,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.rows.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.slices.iter().all(|slice| slice.rows.is_empty())
    }

    /// The sequence of each event, in order.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> {
        self.rows().map(|(block, row)| block.first_seq + row as u64)
    }

    /// From its first sequence to its last. If entries in between are final already, or were
    /// never dead letters, it has gaps.
    pub fn range(&self) -> SeqRange {
        let seq = |slice: &Slice, row: usize| slice.block.first_seq + row as Seq;
        match (self.slices.first(), self.slices.last()) {
            (Some(first), Some(last)) => seq(first, first.rows.start)..seq(last, last.rows.end),
            _ => 0..0,
        }
    }

    /// Each event as (block, row), in order.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<Block>, usize)> {
        self.slices
            .iter()
            .flat_map(|slice| slice.rows.clone().map(move |row| (&slice.block, row)))
    }

    pub fn views(&self) -> impl Iterator<Item = EventView<'_>> {
        self.rows().map(|(block, row)| block.view(row))
    }

    /// Bytes of payload, JSON or raw.
    pub fn payload_bytes(&self) -> usize {
        self.rows().map(|(block, row)| block.payload_len(row)).sum()
    }

    /// Copies the events that `keep` names out of their blocks, so that the blocks can go.
    pub fn copy_of(&self, keep: impl Fn(Seq) -> bool) -> Batch {
        let mut slices = Vec::new();
        for Slice { block, rows } in &self.slices {
            let kept: Vec<usize> = rows
                .clone()
                .filter(|&row| keep(block.first_seq + row as Seq))
                .collect();
            for run in kept.chunk_by(|&row, &next| row + 1 == next) {
                let block = Arc::new(block.copy_of(run[0]..run[0] + run.len()));
                let rows = 0..block.len();
                slices.push(Slice { block, rows });
            }
        }
        Batch { slices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(key: &'a str, event_type: &'a str, session: &'a str) -> Head<'a> {
        Head {
            key,
            event_type,
            code: "T1",
            time: 5,
            index: 1,
            session,
        }
    }

    #[test]
    fn each_value_of_a_column_is_kept_once() {
        let mut builder = BlockBuilder::new();
        for block in 0..2 {
            for number in 0..1000 {
                let session = format!("s-{}", (number * 7 + block) % 300);
                builder.push(head("k", "", &session), "{}");
            }
            let parts = builder.take();
            assert_eq!(
                (parts.types.values.len(), parts.sessions.values.len()),
                (1, 300)
            );
            for number in 0..1000 {
                let session = format!("s-{}", (number * 7 + block) % 300);
                assert_eq!(parts.sessions.at(number), session);
            }
        }
    }

    #[test]
    fn a_block_returns_the_events_as_pushed() {
        let mut builder = BlockBuilder::new();
        builder.push(head("k1", "user.login", ""), r#"{"a":1}"#);
        builder.text().push_str("half an ev");
        builder.abandon();
        builder.push_raw(head("k2", "odd", "s-1"), b"\xff\x00");
        builder.text().push_str(r#"{"b":2}"#);
        assert_eq!(builder.pending(), r#"{"b":2}"#);
        builder.finish(head("k3", "user.login", "s-1"));
        let parts = builder.take();
        assert!(builder.is_empty());
        assert!(parts.keys.is_well_formed() && parts.payloads.is_well_formed());

        let block = Arc::new(Block::new(
            "teleport/audit".into(),
            FeedKind::Audit,
            10,
            1,
            parts,
        ));
        assert_eq!(block.range(), 10..13);
        assert_eq!(block.view(0).payload, r#"{"a":1}"#);
        assert_eq!(
            (block.view(1).payload, block.raw(1)),
            ("", Some(&b"\xff\x00"[..]))
        );
        assert_eq!(
            (block.view(2).event_type, block.session(2)),
            ("user.login", "s-1")
        );
        assert_eq!(block.parts().types.values.len(), 2);

        let batch = Batch {
            slices: vec![Slice { block, rows: 1..3 }],
        };
        assert_eq!((batch.len(), batch.range()), (2, 11..13));
        assert_eq!(
            batch.views().map(|event| event.key).collect::<Vec<_>>(),
            ["k2", "k3"]
        );
    }

    #[test]
    fn a_copy_has_the_same_events_with_the_same_sequences() {
        let mut builder = BlockBuilder::new();
        for number in 0..8 {
            let key = format!("k{number}");
            let (event_type, session) = (format!("t{}", number % 3), format!("s{}", number % 2));
            let head = head(&key, &event_type, &session);
            match number {
                5 => builder.push_raw(head, b"\xff"),
                _ => builder.push(head, &format!(r#"{{"n":{number}}}"#)),
            }
        }
        let stream = "teleport/audit".into();
        let block = Arc::new(Block::new(stream, FeedKind::Audit, 10, 1, builder.take()));
        let batch = Batch {
            slices: vec![
                Slice {
                    block: block.clone(),
                    rows: 0..3,
                },
                Slice {
                    block: block.clone(),
                    rows: 4..8,
                },
            ],
        };
        let kept = [11, 12, 13, 15, 17];
        let copy = batch.copy_of(|seq| kept.contains(&seq));
        let seqs: Vec<Seq> = copy.seqs().collect();
        assert_eq!(seqs, [11, 12, 15, 17], "13 is not in the batch");
        for (copied, row) in copy.rows() {
            let original = (copied.first_seq + row as Seq - 10) as usize;
            assert_eq!(
                (copied.view(row), copied.raw(row)),
                (block.view(original), block.raw(original))
            );
        }
        assert_eq!(copy.payload_bytes(), 7 + 7 + 1 + 7);
    }
}
