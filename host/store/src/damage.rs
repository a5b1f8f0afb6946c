//! Parts of a stream whose events cannot be read: what lies between the blocks that are as they
//! were written. Nothing that a damaged row says is believed if a sound one says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use lockgate_model::{Day, Millis, Seq, SeqRange};
use rusqlite::Connection;

use crate::blocks::{self, StoredBlock};
use crate::encoded::count_days;
use crate::error::ReadError;
use crate::rows::Stream;
use crate::schema::Checksum;

/// Consecutive entries that were one block, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPart {
    pub entries: SeqRange,
    /// `blocks.id` of the row that has them. `None`: it is gone.
    pub row: Option<i64>,
    /// No event of them was earlier or later.
    pub times: (Millis, Millis),
}

/// The damaged parts between the sound blocks around an entry, in their order. None if its
/// block is sound.
pub fn around(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
) -> Result<Vec<DamagedPart>, ReadError> {
    let (mut gap, mut rows) = (stream.oldest..stream.next, Vec::new());
    let mut at = seq;
    while let Some(block) = blocks::before(connection, stream, at)? {
        if !(stream.oldest..stream.next).contains(&block.first_seq) {
            break;
        }
        if is_sound(&block, stream)? {
            gap.start = block.end();
            break;
        }
        at = block.first_seq - 1;
        rows.push(DamagedRow::of(&block));
    }
    if gap.start > seq {
        return Ok(Vec::new());
    }
    rows.reverse();
    let mut at = seq;
    while let Some(block) = blocks::after(connection, stream, at)? {
        if block.first_seq >= stream.next {
            break;
        }
        if is_sound(&block, stream)? {
            gap.end = block.first_seq;
            break;
        }
        at = block.first_seq;
        rows.push(DamagedRow::of(&block));
    }
    rows.retain(|row| gap.contains(&row.first_seq));
    let mut parts = Vec::new();
    for part in split(&gap, &rows) {
        match part.row {
            Some(_) => parts.push(part),
            None => parts.extend(holes(connection, stream, &part.entries)?),
        }
    }
    Ok(parts)
}

/// The damaged part that holds an entry.
pub fn at(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
) -> Result<Option<DamagedPart>, ReadError> {
    let mut parts = around(connection, stream, seq)?.into_iter();
    Ok(parts.find(|part| part.entries.contains(&seq)))
}

/// The checksums that commits name of the block that begins at a sequence.
pub fn named_checksums(
    connection: &Connection,
    stream: &Stream,
    entries: &SeqRange,
) -> Result<BTreeSet<(Seq, Checksum)>, ReadError> {
    let sql = "SELECT c.blocks FROM epochs e JOIN commits c ON c.epoch_id = e.id \
               WHERE e.stream_id = ?1 AND c.first_seq < ?3 AND c.end_seq > ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query((stream.id, entries.start, entries.end))?;
    let mut named = BTreeSet::new();
    while let Some(row) = found.next()? {
        let blocks: Vec<u8> = row.get(0)?;
        for entry in blocks.as_chunks::<40>().0 {
            let (Some(first), Some(checksum)) =
                (entry.first_chunk::<8>(), entry.last_chunk::<32>())
            else {
                continue;
            };
            let first = Seq::from_be_bytes(*first);
            if entries.contains(&first) {
                named.insert((first, *checksum));
            }
        }
    }
    Ok(named)
}

/// How many events each day lacks: those that were appended and not removed, and are in no row.
/// The events of a block whose row is gone.
pub fn missing_days(
    connection: &Connection,
    stream: &Stream,
) -> Result<BTreeMap<Day, u64>, ReadError> {
    let sql = "SELECT day, appended - removed FROM stream_days WHERE stream_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let days = statement.query_map([stream.id], |row| {
        Ok((Day(row.get(0)?), row.get::<_, i64>(1)?))
    })?;
    let mut missing: BTreeMap<Day, i64> = days.collect::<Result<_, _>>()?;
    let extents = blocks::extents(connection, stream.id, stream.oldest, stream.next)?;
    for (nth, extent) in extents.iter().enumerate() {
        let (first, last) = (Day::of(extent.times.0), Day::of(extent.times.1));
        if first == last {
            let next = extents
                .get(nth + 1)
                .map_or(stream.next, |next| next.first_seq);
            let count = extent.count.min(next - extent.first_seq);
            *missing.entry(first).or_default() -= count.cast_signed();
            continue;
        }
        let stored = blocks::before(connection, stream, extent.first_seq)?;
        let heads = stored.and_then(|stored| stored.damaged_heads());
        for (day, count) in count_days(&heads.unwrap_or_default().times) {
            *missing.entry(day).or_default() -= count.cast_signed();
        }
    }
    let missing = missing.into_iter();
    let missing = missing.filter_map(|(day, count)| Some((day, u64::try_from(count).ok()?)));
    Ok(missing.filter(|&(_, count)| count > 0).collect())
}

/// How many entries before a sequence are in no row.
pub fn missing_before(
    connection: &Connection,
    stream: &Stream,
    seq: Seq,
) -> Result<u64, ReadError> {
    let before = blocks::extents(connection, stream.id, stream.oldest, seq)?;
    let there: u64 = before
        .iter()
        .map(|extent| extent.end().min(seq).saturating_sub(extent.first_seq))
        .sum();
    Ok((seq - stream.oldest).saturating_sub(there))
}

/// `blocks.id` of the rows of a stream that lie outside of it, or begin in the middle of a sound
/// block.
pub fn misplaced(connection: &Connection, stream: &Stream) -> Result<Vec<i64>, ReadError> {
    let sql = "SELECT id, first_seq, count FROM blocks WHERE stream_id = ?1 ORDER BY first_seq";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([stream.id])?;
    let mut extents: Vec<(i64, Seq, u64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, first, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        extents.push((id, first.cast_unsigned(), count.cast_unsigned()));
    }
    let mut next = stream.oldest;
    let is_whole = extents.iter().all(|&(_, first, count)| {
        let follows = first == next;
        next = first.saturating_add(count);
        follows
    });
    let (mut found, mut covered) = (Vec::new(), stream.oldest);
    if is_whole && next == stream.next {
        return Ok(found);
    }
    for (id, first, count) in extents {
        if !(covered..stream.next).contains(&first) {
            found.push(id);
            continue;
        }
        // A damaged row covers nothing, whatever it says.
        let stored = blocks::in_row(connection, id)?;
        if let Some(stored) = stored.filter(|_| first.saturating_add(count) <= stream.next)
            && is_sound(&stored, stream)?
        {
            covered = stored.end();
        }
    }
    Ok(found)
}

/// The earliest and the latest.
pub fn times_of(times: &[Millis]) -> Option<(Millis, Millis)> {
    Some((*times.iter().min()?, *times.iter().max()?))
}

pub fn is_sound(block: &StoredBlock, stream: &Stream) -> Result<bool, ReadError> {
    match block.block(stream) {
        Ok(_) => Ok(true),
        Err(ReadError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

struct DamagedRow {
    id: i64,
    first_seq: Seq,
    /// By its heads, or if they cannot be read by its column.
    count: u64,
    times: (Millis, Millis),
}

impl DamagedRow {
    fn of(block: &StoredBlock) -> DamagedRow {
        let heads = block.damaged_heads().filter(|heads| !heads.is_empty());
        let times = heads.as_ref().and_then(|heads| times_of(&heads.times));
        DamagedRow {
            id: block.id,
            first_seq: block.first_seq,
            count: heads.map_or(block.count, |heads| heads.len() as u64),
            times: times.unwrap_or(block.times),
        }
    }
}

/// Gives each row the entries that it can have had.
fn split(gap: &SeqRange, rows: &[DamagedRow]) -> Vec<DamagedPart> {
    let (mut parts, mut next) = (Vec::new(), gap.start);
    let hole = |entries: SeqRange| DamagedPart {
        entries,
        row: None,
        times: (0, 0),
    };
    for (nth, row) in rows.iter().enumerate() {
        let limit = rows.get(nth + 1).map_or(gap.end, |row| row.first_seq);
        // A row that fits in if it does not say that it is, is there.
        let fits = next.saturating_add(row.count) == limit;
        let first = if fits { next } else { row.first_seq.max(next) };
        if first > next {
            parts.push(hole(next..first));
        }
        next = match row.count {
            0 => limit,
            count => first.saturating_add(count).min(limit),
        };
        if next > first {
            parts.push(DamagedPart {
                entries: first..next,
                row: Some(row.id),
                times: row.times,
            });
        }
    }
    if gap.end > next {
        parts.push(hole(next..gap.end));
    }
    parts
}

/// Entries without a row, block by block as far as commits and filters name them.
fn holes(
    connection: &Connection,
    stream: &Stream,
    entries: &SeqRange,
) -> Result<Vec<DamagedPart>, ReadError> {
    let named = named_checksums(connection, stream, entries)?;
    let mut starts: BTreeSet<Seq> = named.into_iter().map(|(first, _)| first).collect();
    starts.insert(entries.start);
    starts.extend(blocks::filtered(connection, stream.id, entries)?);
    let missing = missing_days(connection, stream)?;
    let first = missing.first_key_value().map_or(0, |(day, _)| day.start());
    let last = missing.last_key_value();
    let last = last.map_or(i64::MAX, |(day, _)| day.start() + Day::MILLIS - 1);
    let ends = starts.iter().skip(1).copied().chain([entries.end]);
    let parts = starts.iter().zip(ends).map(|(&start, end)| DamagedPart {
        entries: start..end,
        row: None,
        times: (first, last),
    });
    Ok(parts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_row_has_the_entries_that_its_neighbours_leave() {
        let parts = |gap: SeqRange, rows: &[(Seq, u64)]| -> Vec<(Seq, Seq, bool)> {
            let rows: Vec<DamagedRow> = rows
                .iter()
                .map(|&(first_seq, count)| DamagedRow {
                    id: 1,
                    first_seq,
                    count,
                    times: (0, 0),
                })
                .collect();
            let parts = split(&gap, &rows).into_iter();
            parts
                .map(|part| (part.entries.start, part.entries.end, part.row.is_some()))
                .collect()
        };
        assert_eq!(parts(1..51, &[(1, 50)]), [(1, 51, true)]);
        // A count that reaches into the next block, or beyond every number.
        assert_eq!(parts(1..51, &[(1, 306)]), [(1, 51, true)]);
        assert_eq!(parts(1..51, &[(1, u64::MAX)]), [(1, 51, true)]);
        // It says that it begins elsewhere, and fits in.
        assert_eq!(parts(1..51, &[(2, 50)]), [(1, 51, true)]);
        assert_eq!(
            parts(1..101, &[(7, 50), (51, 50)]),
            [(1, 51, true), (51, 101, true)],
        );
        // The row of a neighbour is gone.
        assert_eq!(
            parts(1..101, &[(51, 50)]),
            [(1, 51, false), (51, 101, true)]
        );
        assert_eq!(parts(1..101, &[(1, 50)]), [(1, 51, true), (51, 101, false)]);
        assert_eq!(parts(1..101, &[]), [(1, 101, false)]);
    }
}
