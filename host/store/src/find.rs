//! Finds entries by the id of their event, by session, or by sequence.

use std::collections::BTreeMap;

use lockgate_ledger::KeptLetter;
use lockgate_model::{Block, FeedKind, Millis, Seq, SeqRange};
use rusqlite::{Connection, params};

use crate::error::ReadError;
use crate::filter::{self, IdHash};
use crate::{blocks, letters, rows};

/// A search for entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryQuery {
    /// The key of an event; of an event in a recording also without the session's id.
    Id(String),
    /// Events of a session, in both feeds; `index`: Teleport's `ei`.
    Session { id: String, index: Option<i64> },
    /// One entry.
    Entry { stream: String, seq: Seq },
}

/// An entry whose event is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEntry {
    pub stream: String,
    pub feed: FeedKind,
    pub seq: Seq,
    pub key: String,
    pub event_type: String,
    pub code: String,
    pub time: Millis,
    /// Teleport's `ei`.
    pub index: i64,
    /// Empty if the event belongs to no session.
    pub session: String,
    /// When it was read from the source.
    pub read_at: Millis,
    /// JSON text, or the original bytes if `raw`.
    pub payload: Vec<u8>,
    /// The event could not be converted to JSON.
    pub raw: bool,
    /// The sequences of its block. `None`: retention has removed it, and a dead letter has the
    /// event.
    pub block: Option<SeqRange>,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    /// In the order of streams and sequences.
    pub found: Vec<FoundEntry>,
    /// There are more than were asked for.
    pub more: bool,
    /// Why blocks could not be searched: one text for each.
    pub unreadable: Vec<String>,
    /// Blocks in the store.
    pub blocks: u64,
    /// Blocks that were read because their filter let them through, or they have none.
    pub read: u64,
    /// Blocks without a filter.
    pub without_filter: u64,
}

/// The part of a stream that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub stream: String,
    /// The oldest entry kept, and the one that comes next; equal if none is kept.
    pub entries: SeqRange,
    /// Events that retention has removed.
    pub removed: u64,
    /// The earliest and the latest time of the events kept.
    pub times: Option<(Millis, Millis)>,
    /// When the oldest event kept was read, and the newest.
    pub read_at: Option<(Millis, Millis)>,
}

/// Entries, at most `max`.
pub fn find(connection: &Connection, query: &EntryQuery, max: usize) -> Result<Search, ReadError> {
    let mut search = Search::default();
    for stream in rows::streams(connection)? {
        match query {
            EntryQuery::Entry { stream: name, seq } => {
                if *stream.name == **name && (stream.oldest..stream.next).contains(seq) {
                    let place = format!("block of entry {seq} of `{name}`");
                    let is_it = |event: &Event<'_>| event.seq == *seq;
                    search.read_block(connection, &stream, *seq, max, &place, is_it)?;
                }
            }
            EntryQuery::Id(id) => {
                let is_it = |event: &Event<'_>| event.has_key(id);
                search.stream(connection, &stream, id, max, is_it)?;
            }
            EntryQuery::Session { id, index } => {
                let is_it = |event: &Event<'_>| {
                    event.session == id && index.is_none_or(|index| event.index == index)
                };
                search.stream(connection, &stream, id, max, is_it)?;
            }
        }
    }
    search.removed(connection, query, max)?;
    Ok(search)
}

/// An event in a search.
struct Event<'a> {
    feed: FeedKind,
    seq: Seq,
    key: &'a str,
    session: &'a str,
    index: i64,
}

impl Event<'_> {
    fn has_key(&self, id: &str) -> bool {
        let is_of_recording = || {
            let session = self.key.strip_suffix(id);
            self.feed == FeedKind::Sessions && session.is_some_and(|rest| rest.ends_with('/'))
        };
        self.key == id || is_of_recording()
    }
}

impl Search {
    /// Reads every block of a stream that may hold the id.
    fn stream(
        &mut self,
        connection: &Connection,
        stream: &rows::Stream,
        id: &str,
        max: usize,
        is_it: impl Fn(&Event<'_>) -> bool,
    ) -> Result<(), ReadError> {
        let hash = IdHash::of(id);
        // Only the sequences of the blocks are read, from their index: the rows are large.
        let sql = "SELECT b.first_seq, f.filter, f.checksum FROM blocks b LEFT JOIN block_filters \
                   f ON f.stream_id = b.stream_id AND f.first_seq = b.first_seq WHERE b.stream_id \
                   = ?1 ORDER BY b.first_seq";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([stream.id])?;
        while let Some(row) = rows.next()? {
            let first_seq: Seq = row.get(0)?;
            self.blocks += 1;
            let filter = row.get_ref(1)?.as_blob_or_null();
            let checksum = row.get_ref(2)?.as_blob_or_null();
            let filter = filter.ok().flatten().filter(|filter| {
                let expected = filter::checksum(stream.id, first_seq, filter);
                matches!(checksum, Ok(Some(found)) if *found == expected)
            });
            match filter {
                Some(filter) if !filter::may_hold(filter, hash) => continue,
                Some(_) => {}
                None => self.without_filter += 1,
            }
            let place = format!("block {first_seq} of `{}`", stream.name);
            self.read_block(connection, stream, first_seq, max, &place, &is_it)?;
        }
        Ok(())
    }

    /// The events of a block that are asked for. A block that cannot be read is noted.
    fn read_block(
        &mut self,
        connection: &Connection,
        stream: &rows::Stream,
        seq: Seq,
        max: usize,
        place: &str,
        is_it: impl Fn(&Event<'_>) -> bool,
    ) -> Result<(), ReadError> {
        self.read += 1;
        let matching = || -> Result<Option<(Block, Vec<usize>)>, ReadError> {
            let Some(stored) = blocks::at(connection, stream, seq)? else {
                return Ok(None);
            };
            let heads = stored.heads(stream)?;
            let event = |row: usize| Event {
                feed: stream.feed,
                seq: stored.first_seq + row as Seq,
                key: heads.keys.at(row),
                session: heads.sessions.at(row),
                index: heads.indexes[row],
            };
            let rows: Vec<usize> = (0..heads.len()).filter(|&row| is_it(&event(row))).collect();
            // The payloads of most blocks need not be decompressed.
            if rows.is_empty() {
                return Ok(None);
            }
            Ok(Some((stored.block(stream)?, rows)))
        };
        let (block, rows) = match matching() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(ReadError::Damaged(what)) => {
                self.unreadable.push(format!("{place}: {what}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for row in rows {
            if self.found.len() == max {
                self.more = true;
                return Ok(());
            }
            self.found.push(entry(&block, row));
        }
        Ok(())
    }

    /// Adds what retention has removed and a dead letter still has.
    fn removed(
        &mut self,
        connection: &Connection,
        query: &EntryQuery,
        max: usize,
    ) -> Result<(), ReadError> {
        let letters = match query {
            EntryQuery::Id(id) => letters::with_key(connection, id)?,
            EntryQuery::Entry { stream, seq } => letters::of_entry(connection, stream, *seq)?,
            EntryQuery::Session { .. } => return Ok(()),
        };
        let mut kept: BTreeMap<(String, Seq), KeptLetter> = BTreeMap::new();
        for letter in letters {
            let place = (letter.stream.clone(), letter.letter.seq);
            let is_known = |found: &FoundEntry| (&found.stream, found.seq) == (&place.0, place.1);
            if !self.found.iter().any(is_known) {
                kept.insert(place, letter);
            }
        }
        for kept in kept.into_values() {
            if self.found.len() == max {
                self.more = true;
                return Ok(());
            }
            let letter = kept.letter;
            self.found.push(FoundEntry {
                stream: kept.stream,
                feed: kept.feed,
                seq: letter.seq,
                key: letter.key,
                event_type: letter.event_type,
                code: letter.code,
                time: letter.time,
                index: letter.index,
                session: letter.session,
                read_at: letter.read_at,
                payload: letter.payload,
                raw: letter.raw,
                block: None,
            });
        }
        Ok(())
    }
}

fn entry(block: &Block, row: usize) -> FoundEntry {
    let event = block.view(row);
    let raw = block.raw(row);
    FoundEntry {
        stream: block.stream.to_string(),
        feed: block.feed,
        seq: block.first_seq + row as Seq,
        key: event.key.to_owned(),
        event_type: event.event_type.to_owned(),
        code: event.code.to_owned(),
        time: event.time,
        index: event.index,
        session: block.session(row).to_owned(),
        read_at: block.read_at,
        payload: raw.unwrap_or(event.payload.as_bytes()).to_vec(),
        raw: raw.is_some(),
        block: Some(block.range()),
    }
}

/// The part of each stream that is kept.
pub fn coverage(connection: &Connection) -> Result<Vec<Coverage>, ReadError> {
    let mut all = Vec::new();
    for stream in rows::streams(connection)? {
        let one = |sql: &str| -> rusqlite::Result<Option<i64>> {
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_row(params![stream.id], |row| row.get(0))
        };
        let times = (
            one("SELECT min(min_time) FROM blocks WHERE stream_id = ?1")?,
            one("SELECT max(max_time) FROM blocks WHERE stream_id = ?1")?,
        );
        let removed = one("SELECT sum(removed) FROM stream_days WHERE stream_id = ?1")?;
        let oldest = blocks::oldest(connection, stream.id)?;
        let newest = blocks::extents(connection, stream.id, stream.next - 1, stream.next)?;
        all.push(Coverage {
            stream: stream.name.to_string(),
            entries: stream.oldest..stream.next,
            removed: removed.unwrap_or(0) as u64,
            times: times.0.zip(times.1),
            read_at: oldest
                .zip(newest.last())
                .map(|(oldest, newest)| (oldest.read_at, newest.read_at)),
        });
    }
    Ok(all)
}
