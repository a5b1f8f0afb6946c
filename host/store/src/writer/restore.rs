//! Puts a damaged block back as it was: its row, from what is sound of it, or its events, which
//! were read from the source again.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use lockgate_model::{Block, BlockBuilder, BlockParts, Head, Millis, Seq};
use rusqlite::params;

use super::damaged::{Damaged, refusal};
use super::{Fault, Writer};
use crate::blocks::StoredBlock;
use crate::damage::{self, DamagedPart};
use crate::encoded::{EncodedBlock, block_checksum};
use crate::error::ReadError;
use crate::rows::Stream;
use crate::schema::Checksum;
use crate::{Heads, LedgerError, blocks, codec, filter, limits};

impl Writer {
    /// Corrects what a block's row says besides its events, if these are as they were: most of it
    /// follows from the events, and the checksum shows whether it is right. The same for the
    /// block's filter. False if the events themselves are damaged.
    pub fn mend(&mut self, stream: &str, seq: Seq) -> Result<bool, Fault> {
        let Some(&index) = self.by_name.get(stream) else {
            return Ok(false);
        };
        let row = &self.streams[index].row;
        if !(row.oldest..row.next).contains(&seq) {
            return Ok(false);
        }
        let part = match damage::at(&self.connection, row, seq) {
            // Of the file, which is not a matter of rows.
            Err(ReadError::Damaged(_)) => return Ok(false),
            part => part?,
        };
        let Some(part) = part else {
            return self.mend_filter(index, seq);
        };
        let ids = match part.row {
            Some(id) => vec![id],
            None => self.misplaced_rows(&part)?,
        };
        for id in ids {
            let Some(stored) = blocks::in_row(&self.connection, id)? else {
                continue;
            };
            let row = &self.streams[index].row;
            if let Some(found) = self.mended(row, &part, &stored)? {
                let heads = stored.damaged_heads().unwrap_or_default();
                self.write_row(index, &part, Some(id), &found, &filter::of_heads(&heads))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Only if the block is then, bit by bit, what its checksum was taken of: so the chains that
    /// name the checksum stay as they are. If the row is gone and no commit names its checksum,
    /// the source must have as many events of its time as are missing, and no others, or the
    /// block's filter tells which they are. The inner error: refused, nothing was written.
    pub fn restore(
        &mut self,
        stream: &str,
        seq: Seq,
        events: &Block,
    ) -> Result<Result<(), LedgerError>, Fault> {
        let Damaged {
            stream: index,
            part,
            stored,
        } = match self.damaged(stream, seq)? {
            Ok(damaged) => damaged,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let row = &self.streams[index].row;
        let count = (part.entries.end - part.entries.start) as usize;
        let by_heads = stored
            .as_ref()
            .and_then(StoredBlock::damaged_heads)
            .filter(|heads| heads.len() == count)
            .and_then(|heads| in_order_of(&heads, events));
        let others = self.others(row, events)?;
        let as_read = self.likely(row, &part, events, &others)?;
        let as_read = as_read.into_iter().map(|at| {
            let rows = others[at..at + count].iter().copied();
            of_rows(events, rows)
        });
        for parts in by_heads.into_iter().chain(as_read) {
            let Some(block) = EncodedBlock::new(parts)? else {
                continue;
            };
            let content = Content {
                count: block.count(),
                times: (block.min_time, block.max_time),
                digest: block.content,
            };
            let row = &self.streams[index].row;
            let Some((read_at, checksum)) = self.identify(row, &part, stored.as_ref(), &content)?
            else {
                continue;
            };
            let found = FoundBlock {
                read_at,
                checksum,
                content,
                heads: &block.heads,
                payload: &block.payload,
            };
            self.write_row(index, &part, part.row, &found, &block.filter)?;
            return Ok(Ok(()));
        }
        let there = others.len();
        let what = match there.cmp(&count) {
            Ordering::Less => format!(
                "had {count} events, and of those that no other block has the source has {there} \
                 now"
            ),
            Ordering::Equal => "had other events than those that the source has now".to_owned(),
            Ordering::Greater => format!(
                "had {count} events, and nothing says which of the {there} that the source has \
                 now and no other block has"
            ),
        };
        Ok(Err(refusal(stream, seq, &what)))
    }

    /// Where in `others` the events of a block are likely to begin: where its filter says, where
    /// they lie in the log if all that are missing are there.
    fn likely(
        &self,
        row: &Stream,
        part: &DamagedPart,
        events: &Block,
        others: &[usize],
    ) -> Result<Vec<usize>, Fault> {
        let first = part.entries.start;
        let count = (part.entries.end - first) as usize;
        let Some(last) = others.len().checked_sub(count) else {
            return Ok(Vec::new());
        };
        if last == 0 {
            return Ok(vec![0]);
        }
        if let Some(wanted) = blocks::filter(&self.connection, row.id, first)? {
            let may_hold = |at: usize| {
                let key = events.view(others[at]).key;
                filter::may_hold(&wanted, filter::IdHash::of(key))
            };
            // The ends first: a filter is made of every id.
            let mut found = (0..=last).filter(|&at| {
                may_hold(at)
                    && may_hold(at + count - 1)
                    && filter::of_rows(events, &others[at..at + count]) == wanted
            });
            return Ok(found.next().into_iter().collect());
        }
        let missing: u64 = damage::missing_days(&self.connection, row)?.values().sum();
        let before = damage::missing_before(&self.connection, row, first)? as usize;
        let named = damage::named_checksums(&self.connection, row, &(first..first + 1))?;
        let mut likely = Vec::new();
        if before <= last && (missing == others.len() as u64 || !named.is_empty()) {
            likely.push(before);
        }
        Ok(likely)
    }

    fn mend_filter(&mut self, index: usize, seq: Seq) -> Result<bool, Fault> {
        let row = &self.streams[index].row;
        let Some(block) = blocks::at(&self.connection, row, seq)? else {
            return Ok(false);
        };
        let filter = filter::of_heads(&block.heads(row)?);
        let found = blocks::filter(&self.connection, row.id, block.first_seq)?;
        if found.is_none_or(|found| found == filter) {
            return Ok(false);
        }
        self.insert_filter(row.id, block.first_seq, &filter)?;
        Ok(true)
    }

    /// Damaged rows that lie where no entry is missing, and may belong here.
    fn misplaced_rows(&self, part: &DamagedPart) -> Result<Vec<i64>, Fault> {
        let mut ids = Vec::new();
        let sql = "SELECT id FROM blocks WHERE stream_id NOT IN (SELECT id FROM streams)";
        let mut statement = self.connection.prepare(sql)?;
        for id in statement.query_map([], |row| row.get(0))? {
            ids.push(id?);
        }
        for stream in &self.streams {
            let row = &stream.row;
            for id in damage::misplaced(&self.connection, row)? {
                ids.push(id);
            }
        }
        let count = part.entries.end - part.entries.start;
        let mut fitting = Vec::new();
        for id in ids {
            let stored = blocks::in_row(&self.connection, id)?;
            let heads = stored.and_then(|stored| stored.damaged_heads());
            if heads.is_some_and(|heads| heads.len() as u64 == count) {
                fitting.push(id);
            }
        }
        Ok(fitting)
    }

    fn mended<'a>(
        &self,
        row: &Stream,
        part: &DamagedPart,
        stored: &'a StoredBlock,
    ) -> Result<Option<FoundBlock<'a>>, Fault> {
        let Some(parts) = stored.damaged_parts() else {
            return Ok(None);
        };
        let Some(times) = damage::times_of(&parts.times) else {
            return Ok(None);
        };
        let content = Content {
            count: parts.times.len() as u64,
            times,
            digest: stored.content_digest(),
        };
        if content.count != part.entries.end - part.entries.start {
            return Ok(None);
        }
        let found = self.identify(row, part, Some(stored), &content)?;
        Ok(found.map(|(read_at, checksum)| FoundBlock {
            read_at,
            checksum,
            content,
            heads: stored.encoded_heads(),
            payload: stored.encoded_payload(),
        }))
    }

    /// When the block was read, and its checksum, if these can be its columns.
    fn identify(
        &self,
        row: &Stream,
        part: &DamagedPart,
        stored: Option<&StoredBlock>,
        content: &Content,
    ) -> Result<Option<(Millis, Checksum)>, Fault> {
        let first = part.entries.start;
        let checksum_at = |read_at: Millis| {
            let (count, times) = (content.count, content.times);
            let digest = &content.digest;
            block_checksum(
                &row.name,
                first,
                count,
                read_at,
                times,
                codec::VERSION,
                digest,
            )
        };
        let named = damage::named_checksums(&self.connection, row, &(first..first + 1))?;
        let mut known: HashSet<Checksum> = named.into_iter().map(|(_, found)| found).collect();
        let read_at = |block: Option<StoredBlock>| block.map(|block| block.read_at);
        let before = match first.checked_sub(1) {
            Some(seq) => read_at(blocks::before(&self.connection, row, seq)?),
            None => None,
        };
        let after = read_at(blocks::after(&self.connection, row, first)?);
        let between = before.or(after).unwrap_or(content.times.1);
        if stored.is_none() && known.is_empty() {
            return Ok(Some((between, checksum_at(between))));
        }
        let mut likely = Vec::new();
        if let Some(stored) = stored {
            known.insert(stored.checksum);
            let found = checksum_at(stored.read_at);
            if distance(&found, &stored.checksum) <= limits::CHECKSUM_BITS {
                return Ok(Some((stored.read_at, found)));
            }
            likely.push(stored.read_at);
            likely.extend((0..64).map(|bit| stored.read_at ^ (1 << bit)));
        }
        let last = after
            .unwrap_or(between)
            .min(between.saturating_add(limits::READ_AT_TRIED));
        // Recordings are read side by side, and one that began earlier may be stored later.
        let earlier = between.saturating_sub(limits::READ_AT_OUT_OF_ORDER)..between;
        let later = last..=last.saturating_add(limits::READ_AT_OUT_OF_ORDER);
        let found = likely.into_iter().chain(between..=last);
        let found = found.chain(earlier.rev()).chain(later);
        let mut found = found.map(|read_at| (read_at, checksum_at(read_at)));
        Ok(found.find(|(_, checksum)| known.contains(checksum)))
    }

    /// The rows of `events` that no sound block of the stream has.
    fn others(&self, row: &Stream, events: &Block) -> Result<Vec<usize>, Fault> {
        let times: Vec<Millis> = (0..events.len()).map(|at| events.view(at).time).collect();
        let Some((from, to)) = damage::times_of(&times) else {
            return Ok(Vec::new());
        };
        let mut known: HashSet<(String, i64)> = HashSet::new();
        for (_, first) in blocks::between(&self.connection, row.id, from, to)? {
            let stored = blocks::before(&self.connection, row, first)?;
            let Some(heads) = stored.and_then(|stored| stored.heads(row).ok()) else {
                continue;
            };
            let keys = (0..heads.len()).map(|at| (heads.keys.at(at).to_owned(), heads.indexes[at]));
            known.extend(keys);
        }
        // Teleport may return an event twice.
        let is_new = |&at: &usize| {
            let event = events.view(at);
            known.insert((event.key.to_owned(), event.index))
        };
        Ok((0..events.len()).filter(is_new).collect())
    }

    /// Writes every column, and reads the block back.
    fn write_row(
        &mut self,
        index: usize,
        part: &DamagedPart,
        id: Option<i64>,
        found: &FoundBlock<'_>,
        filter: &[u8],
    ) -> Result<(), Fault> {
        let stream_id = self.streams[index].row.id;
        let bytes = (found.heads.len() + found.payload.len()) as u64;
        let sql = "INSERT OR REPLACE INTO blocks (id, stream_id, first_seq, count, read_at, \
                   min_time, max_time, codec, bytes, checksum, heads, payload) VALUES (?1, ?2, ?3, \
                   ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        self.connection.execute(
            sql,
            params![
                id,
                stream_id,
                part.entries.start,
                found.content.count,
                found.read_at,
                found.content.times.0,
                found.content.times.1,
                codec::VERSION,
                bytes,
                found.checksum,
                found.heads,
                found.payload
            ],
        )?;
        self.insert_filter(stream_id, part.entries.start, filter)?;
        let sql = "SELECT coalesce(sum(bytes), 0) FROM blocks WHERE stream_id = ?1";
        let kept: i64 = self
            .connection
            .query_row(sql, [stream_id], |row| row.get(0))?;
        let front = blocks::oldest(&self.connection, stream_id)?;
        let stream = &mut self.streams[index];
        stream.row.bytes = kept.max(0).cast_unsigned();
        stream.front = front;
        stream.damaged_block = None;
        stream.dirty = true;
        let row = &self.streams[index].row;
        let written = blocks::at(&self.connection, row, part.entries.start)?;
        match written {
            Some(block) if block.end() == part.entries.end => {
                block.block(row)?;
                Ok(())
            }
            _ => Err(Fault::Damaged(format!(
                "entries {}..{} of `{}` cannot be read after they were restored",
                part.entries.start, part.entries.end, row.name
            ))),
        }
    }
}

/// The data that the checksum of a block covers, except the time at which it was read.
struct Content {
    count: u64,
    times: (Millis, Millis),
    digest: Checksum,
}

struct FoundBlock<'a> {
    read_at: Millis,
    checksum: Checksum,
    content: Content,
    heads: &'a [u8],
    payload: &'a [u8],
}

/// How many bits differ.
fn distance(one: &Checksum, other: &Checksum) -> u32 {
    let bits = one
        .iter()
        .zip(other)
        .map(|(one, other)| (one ^ other).count_ones());
    bits.sum()
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
