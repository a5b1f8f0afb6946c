//! Blocks as rows: read, and held against their checksums.

use lockgate_model::{Block, BlockParts, Millis, Seq, SeqRange};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::encoded::{block_checksum, content_digest};
use crate::error::ReadError;
use crate::rows::Stream;
use crate::schema::Checksum;
use crate::{Heads, codec};

/// A block's row, its columns still encoded.
pub struct StoredBlock {
    /// The row's number, of no meaning otherwise.
    pub id: i64,
    pub first_seq: Seq,
    pub count: u64,
    pub read_at: Millis,
    pub times: (Millis, Millis),
    pub bytes: u64,
    codec: i64,
    pub checksum: Checksum,
    heads: Vec<u8>,
    payload: Vec<u8>,
}

const COLUMNS: &str =
    "first_seq, count, read_at, min_time, max_time, bytes, codec, checksum, heads, payload, id";

impl StoredBlock {
    pub fn end(&self) -> Seq {
        self.first_seq.saturating_add(self.count)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<StoredBlock> {
        Ok(StoredBlock {
            first_seq: unsigned(row, 0)?,
            count: unsigned(row, 1)?,
            read_at: row.get(2)?,
            times: (row.get(3)?, row.get(4)?),
            bytes: unsigned(row, 5)?,
            codec: row.get(6)?,
            checksum: checksum(row, 7)?,
            heads: row.get(8)?,
            payload: row.get(9)?,
            id: row.get(10)?,
        })
    }

    /// The checksum, computed again; an error if it is not the one written.
    pub fn verify(&self, stream: &Stream) -> Result<Checksum, ReadError> {
        let content = content_digest(&self.heads, &self.payload);
        let found = block_checksum(
            &stream.name,
            self.first_seq,
            self.count,
            self.read_at,
            self.times,
            self.codec,
            &content,
        );
        if found != self.checksum || self.bytes != (self.heads.len() + self.payload.len()) as u64 {
            return Err(self.damaged(stream, "its checksum differs"));
        }
        Ok(found)
    }

    pub fn heads(&self, stream: &Stream) -> Result<Heads, ReadError> {
        self.verify(stream)?;
        self.known(stream)?;
        let heads =
            codec::decode_heads(&self.heads).map_err(|error| self.damaged(stream, error))?;
        if heads.len() as u64 == self.count {
            Ok(heads)
        } else {
            Err(self.damaged(stream, "its count differs"))
        }
    }

    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The readable part of a damaged block.
    pub fn damaged_heads(&self) -> Option<Heads> {
        codec::decode_heads(&self.heads).ok()
    }

    /// The same of heads and payload together.
    pub fn damaged_parts(&self) -> Option<BlockParts> {
        codec::decode(&self.heads, &self.payload).ok()
    }

    pub fn content_digest(&self) -> Checksum {
        content_digest(&self.heads, &self.payload)
    }

    pub fn encoded_heads(&self) -> &[u8] {
        &self.heads
    }

    pub fn encoded_payload(&self) -> &[u8] {
        &self.payload
    }

    pub fn block(&self, stream: &Stream) -> Result<Block, ReadError> {
        self.verify(stream)?;
        self.known(stream)?;
        let parts = codec::decode(&self.heads, &self.payload)
            .map_err(|error| self.damaged(stream, error))?;
        if parts.times.len() as u64 != self.count {
            return Err(self.damaged(stream, "its count differs"));
        }
        Ok(Block::new(
            stream.name.clone(),
            stream.feed,
            self.first_seq,
            self.read_at,
            parts,
        ))
    }

    fn known(&self, stream: &Stream) -> Result<(), ReadError> {
        if self.codec == codec::VERSION {
            Ok(())
        } else {
            Err(self.damaged(stream, format_args!("its codec {} is unknown", self.codec)))
        }
    }

    fn damaged(&self, stream: &Stream, what: impl std::fmt::Display) -> ReadError {
        ReadError::Damaged(format!(
            "block {}..{} of `{}`: {what}",
            self.first_seq,
            self.end(),
            stream.name
        ))
    }
}

/// The block that holds a sequence.
pub fn at(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
) -> Result<Option<StoredBlock>, ReadError> {
    if seq < stream.oldest || seq >= stream.next {
        return Ok(None);
    }
    let found = before(connection, stream, seq)?;
    match found.filter(|block| seq < block.end()) {
        Some(block) => Ok(Some(block)),
        // Sequences have no gaps between the oldest and the next.
        None => Err(ReadError::Damaged(format!(
            "entry {seq} of `{}` is missing",
            stream.name
        ))),
    }
}

/// The newest block that begins at or before a sequence.
pub fn before(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
) -> Result<Option<StoredBlock>, ReadError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM blocks WHERE stream_id = ?1 AND first_seq <= ?2 ORDER BY first_seq \
         DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((stream.id, seq))?;
    Ok(rows.next()?.map(StoredBlock::read).transpose()?)
}

/// The oldest block that begins behind a sequence.
pub fn after(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
) -> Result<Option<StoredBlock>, ReadError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM blocks WHERE stream_id = ?1 AND first_seq > ?2 ORDER BY first_seq \
         LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((stream.id, seq))?;
    Ok(rows.next()?.map(StoredBlock::read).transpose()?)
}

/// The block in a row.
pub fn in_row(connection: &Connection, id: i64) -> Result<Option<StoredBlock>, ReadError> {
    let sql = format!("SELECT {COLUMNS} FROM blocks WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id])?;
    Ok(rows.next()?.map(StoredBlock::read).transpose()?)
}

/// The newest blocks that begin before a sequence, newest first.
pub fn newest_before(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
    max: usize,
) -> Result<Vec<StoredBlock>, ReadError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM blocks WHERE stream_id = ?1 AND first_seq < ?2 ORDER BY first_seq \
         DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map((stream.id, seq, max), StoredBlock::read)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The filter of a block. `None`: it has none.
pub fn filter(
    connection: &Connection,
    stream_id: i64,
    first_seq: Seq,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT filter FROM block_filters WHERE stream_id = ?1 AND first_seq = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let filter = statement.query_row((stream_id, first_seq), |row| row.get(0));
    filter.optional()
}

/// Where the blocks begin that have a filter, of those that begin in a range.
pub fn filtered(
    connection: &Connection,
    stream_id: i64,
    entries: &SeqRange,
) -> rusqlite::Result<Vec<Seq>> {
    let sql = "SELECT first_seq FROM block_filters WHERE stream_id = ?1 AND first_seq >= ?2 AND \
               first_seq < ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map((stream_id, entries.start, entries.end), |row| row.get(0))?;
    found.collect()
}

/// Where a block lies and when it was read: what can be known without touching its columns.
#[derive(Clone, Copy)]
pub struct Extent {
    pub first_seq: Seq,
    pub count: u64,
    pub read_at: Millis,
    pub times: (Millis, Millis),
    pub bytes: u64,
    pub checksum: Checksum,
}

impl Extent {
    pub fn end(&self) -> Seq {
        self.first_seq.saturating_add(self.count)
    }
}

/// The blocks that hold a part of `start..end`, oldest first, as far as they are kept.
pub fn extents(
    connection: &Connection,
    stream_id: i64,
    start: Seq,
    end: Seq,
) -> rusqlite::Result<Vec<Extent>> {
    first_extents(connection, stream_id, start, end, usize::MAX)
}

/// The first of them, at most `max`.
pub fn first_extents(
    connection: &Connection,
    stream_id: i64,
    start: Seq,
    end: Seq,
    max: usize,
) -> rusqlite::Result<Vec<Extent>> {
    let sql = "SELECT first_seq, count, read_at, min_time, max_time, bytes, checksum FROM blocks \
               WHERE stream_id = ?1 AND first_seq > 0 AND first_seq < ?3 AND first_seq >= (SELECT \
               coalesce(max(first_seq), 0) FROM blocks WHERE stream_id = ?1 AND first_seq <= ?2) \
               ORDER BY first_seq";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_map((stream_id, start, end), extent)?
        .filter(|row| row.as_ref().map_or(true, |row| row.end() > start))
        .take(max);
    found.collect()
}

/// The blocks that may hold events with times in `from..=to`: the earliest time of each, and its
/// first sequence. Earliest first.
pub fn between(
    connection: &Connection,
    stream_id: i64,
    from: Millis,
    to: Millis,
) -> rusqlite::Result<Vec<(Millis, Seq)>> {
    let sql = "SELECT min_time, first_seq FROM blocks WHERE stream_id = ?1 AND max_time >= ?2 AND \
               min_time <= ?3 AND first_seq > 0 ORDER BY min_time";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map((stream_id, from, to), |row| Ok((row.get(0)?, row.get(1)?)))?;
    found.collect()
}

/// The earliest and the latest time of each of the newest blocks, newest block first.
pub fn recent_times(
    connection: &Connection,
    stream_id: i64,
    max: usize,
) -> rusqlite::Result<Vec<(Millis, Millis)>> {
    let sql = "SELECT min_time, max_time FROM blocks WHERE stream_id = ?1 ORDER BY first_seq DESC \
               LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map((stream_id, max), |row| Ok((row.get(0)?, row.get(1)?)))?;
    found.collect()
}

/// The latest time of the blocks that have no event after `until`.
pub fn latest_time(
    connection: &Connection,
    stream_id: i64,
    until: Millis,
) -> rusqlite::Result<Option<Millis>> {
    let sql = "SELECT max(max_time) FROM blocks WHERE stream_id = ?1 AND max_time <= ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row((stream_id, until), |row| row.get(0))
}

pub fn oldest(connection: &Connection, stream_id: i64) -> rusqlite::Result<Option<Extent>> {
    let sql = "SELECT first_seq, count, read_at, min_time, max_time, bytes, checksum FROM blocks \
               WHERE stream_id = ?1 AND first_seq > 0 ORDER BY first_seq LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([stream_id])?;
    rows.next()?.map(extent).transpose()
}

fn extent(row: &Row<'_>) -> rusqlite::Result<Extent> {
    Ok(Extent {
        first_seq: unsigned(row, 0)?,
        count: unsigned(row, 1)?,
        read_at: row.get(2)?,
        times: (row.get(3)?, row.get(4)?),
        bytes: unsigned(row, 5)?,
        checksum: checksum(row, 6)?,
    })
}

/// A negative number was never written. The block's checksum shows the damage; what is
/// sound next to it can be read.
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// Of another length, it is that of no block.
fn checksum(row: &Row<'_>, column: usize) -> rusqlite::Result<Checksum> {
    Ok(row
        .get::<_, Vec<u8>>(column)?
        .try_into()
        .unwrap_or_default())
}
