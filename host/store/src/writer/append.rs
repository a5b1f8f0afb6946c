//! Appends blocks, moves source cursors and notes gaps, in one transaction.

use std::sync::Arc;

use lockgate_model::{Block, CursorUpdate, FeedKind, Gap, Millis};
use rusqlite::params;

use super::{Fault, Writer};
use crate::blocks::Extent;
use crate::encoded::EncodedBlock;
use crate::{codec, gaps, rows};

pub struct AppendArgs {
    pub source: Arc<str>,
    pub stream: Arc<str>,
    pub feed: FeedKind,
    pub read_at: Millis,
    pub block: Option<Box<EncodedBlock>>,
    pub cursors: Vec<CursorUpdate>,
    pub gaps: Vec<Gap>,
    pub duplicates: u64,
}

pub enum Appended {
    Done(Option<Arc<Block>>),
    /// The stream is at its limit: given back as it came.
    NoRoom(AppendArgs),
}

impl Writer {
    pub fn append(&mut self, args: AppendArgs) -> Result<Appended, Fault> {
        self.is_configured = true;
        let index = self.stream(&args.stream, args.feed)?;
        if let Some(block) = &args.block
            && !self.make_room(index, block.bytes())?
        {
            return Ok(Appended::NoRoom(args));
        }
        for cursor in &args.cursors {
            match &cursor.value {
                Some(value) => {
                    let checksum = rows::cursor_checksum(&args.source, &cursor.key, value);
                    let sql = "INSERT INTO cursors (source, key, value, checksum) VALUES (?1, ?2, \
                               ?3, ?4) ON CONFLICT DO UPDATE SET value = ?3, checksum = ?4";
                    self.connection.prepare_cached(sql)?.execute(params![
                        args.source,
                        cursor.key,
                        value,
                        checksum
                    ])?;
                }
                None => {
                    let sql = "DELETE FROM cursors WHERE source = ?1 AND key = ?2";
                    self.connection
                        .prepare_cached(sql)?
                        .execute(params![args.source, cursor.key])?;
                }
            }
        }
        for gap in &args.gaps {
            gaps::put(&self.connection, &args.source, gap)?;
        }
        if args.duplicates > 0 {
            self.streams[index].row.duplicates += args.duplicates;
            self.streams[index].dirty = true;
        }
        let block = args
            .block
            .map(|block| self.insert(index, args.feed, args.read_at, *block))
            .transpose()?;
        Ok(Appended::Done(block))
    }

    fn insert(
        &mut self,
        index: usize,
        feed: FeedKind,
        read_at: Millis,
        block: EncodedBlock,
    ) -> Result<Arc<Block>, Fault> {
        let stream = &self.streams[index];
        let (id, first_seq) = (stream.row.id, stream.row.next);
        let checksum = block.checksum(&stream.row.name, first_seq, read_at);
        let sql = "INSERT INTO blocks (stream_id, first_seq, count, read_at, min_time, max_time, \
                   codec, bytes, checksum, heads, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, \
                   ?9, ?10, ?11)";
        let (count, bytes) = (block.count(), block.bytes());
        self.connection.prepare_cached(sql)?.execute(params![
            id,
            first_seq,
            count,
            read_at,
            block.min_time,
            block.max_time,
            codec::VERSION,
            bytes,
            checksum,
            block.heads,
            block.payload
        ])?;
        self.insert_filter(id, first_seq, &block.filter)?;
        for (day, count) in &block.days {
            let sql = "INSERT INTO stream_days (stream_id, day, appended, removed) VALUES (?1, ?2, \
                       ?3, 0) ON CONFLICT DO UPDATE SET appended = appended + ?3";
            self.connection
                .prepare_cached(sql)?
                .execute(params![id, day.0, count])?;
        }
        let stream = &mut self.streams[index];
        stream.row.next += count;
        stream.row.bytes += bytes;
        let times = (block.min_time, block.max_time);
        stream.newest.push(block.min_time);
        self.shown_time.note(&stream.newest, (self.elapsed)());
        stream.front.get_or_insert(Extent {
            first_seq,
            count,
            read_at,
            times,
            bytes,
            checksum,
        });
        stream.dirty = true;
        Ok(Arc::new(Block::new(
            stream.row.name.clone(),
            feed,
            first_seq,
            read_at,
            block.parts,
        )))
    }
}
