//! Rows of `dead_letters`, dead or waiting again.

use lockgate_ledger::{KeptLetter, LetterId, LetterQuery};
use lockgate_model::{Block, DeadLetter, FeedKind, Millis, Redrive, Seq};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::blocks;
use crate::encoded::{is_letter, letter_checksum};
use crate::error::ReadError;
use crate::rows::{self, Stream};
use crate::schema::Checksum;

/// The columns of a letter itself: what [`read`] takes.
pub const COLUMNS: &str = "d.seq, d.key, d.event_type, d.code, d.time, d.event_index, d.session, \
                           d.read_at, d.cause, d.reason, d.payload, d.raw";
/// How many they are.
pub const COUNT: usize = 12;

/// A letter from the columns of [`COLUMNS`], from the first on.
pub fn read(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        seq: row.get(0)?,
        key: row.get(1)?,
        event_type: row.get(2)?,
        code: row.get(3)?,
        time: row.get(4)?,
        index: row.get(5)?,
        session: row.get(6)?,
        read_at: row.get(7)?,
        cause: row.get(8)?,
        reason: row.get(9)?,
        payload: row.get(10)?,
        raw: row.get(11)?,
    })
}

pub fn insert(
    connection: &Connection,
    epoch_id: i64,
    generation: u32,
    at: Millis,
    letter: &DeadLetter,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO dead_letters (epoch_id, seq, at, generation, key, event_type, time, \
               cause, reason, payload, checksum, code, event_index, session, read_at, raw) VALUES \
               (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    connection.prepare_cached(sql)?.execute(params![
        epoch_id,
        letter.seq,
        at,
        generation,
        letter.key,
        letter.event_type,
        letter.time,
        letter.cause,
        letter.reason,
        letter.payload,
        letter_checksum(letter),
        letter.code,
        letter.index,
        letter.session,
        letter.read_at,
        letter.raw
    ])?;
    Ok(())
}

/// The part of a letter that an operation on it needs.
pub struct Extract {
    /// It waits again; else it is dead.
    pub waits: bool,
    pub time: Millis,
    pub bytes: u64,
    pub checksum: Checksum,
}

pub fn extract(
    connection: &Connection,
    epoch_id: i64,
    seq: Seq,
) -> rusqlite::Result<Option<Extract>> {
    let sql = "SELECT redrive > 0, time, length(payload), checksum FROM dead_letters WHERE \
               epoch_id = ?1 AND seq = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let extract = statement.query_row(params![epoch_id, seq], |row| {
        Ok(Extract {
            waits: row.get(0)?,
            time: row.get(1)?,
            bytes: row.get(2)?,
            checksum: row.get(3)?,
        })
    });
    extract.optional()
}

/// The oldest dead letters of an epoch that died before a time, ascending by sequence. None that
/// was read later than that, or whose entry became final later: nothing guards the column that says
/// when it died.
pub fn older(
    connection: &Connection,
    epoch_id: i64,
    before: Millis,
    max: usize,
) -> rusqlite::Result<Vec<Seq>> {
    let sql = "SELECT seq FROM dead_letters d WHERE epoch_id = ?1 AND redrive = 0 AND at < ?2 AND \
               read_at < ?2 AND NOT EXISTS (SELECT 1 FROM commits c WHERE c.epoch_id = d.epoch_id \
               AND c.end_seq > d.seq AND c.at >= ?2 AND c.first_seq = (SELECT max(first_seq) FROM \
               commits WHERE epoch_id = d.epoch_id AND first_seq <= d.seq)) ORDER BY at, rowid \
               LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(params![epoch_id, before, max], |row| row.get(0))?;
    let mut seqs: Vec<Seq> = found.collect::<Result<_, _>>()?;
    seqs.sort_unstable();
    Ok(seqs)
}

/// A letter that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedLetter {
    pub id: LetterId,
    pub pipeline: String,
    pub stream: String,
    pub seq: Seq,
}

/// Dead letters, newest first.
pub fn query(connection: &Connection, query: &LetterQuery) -> Result<Vec<KeptLetter>, ReadError> {
    let found = query_all(connection, query)?.into_iter();
    found
        .map(|found| found.map_err(|damaged| damaged.into()))
        .collect()
}

/// The same, with those that are damaged.
pub fn query_all(
    connection: &Connection,
    query: &LetterQuery,
) -> Result<Vec<Result<KeptLetter, DamagedLetter>>, ReadError> {
    let sql = kept(
        "d.redrive = 0 AND (?1 IS NULL OR e.pipeline = ?1) AND (?2 IS NULL OR s.name = ?2) AND (?3 \
         IS NULL OR instr(d.cause, ?3) OR instr(d.reason, ?3)) AND (?4 IS NULL OR d.event_type = \
         ?4) AND (?5 IS NULL OR d.at >= ?5) AND (?6 IS NULL OR d.at < ?6) AND (?7 IS NULL OR \
         d.rowid < ?7) ORDER BY d.rowid DESC LIMIT ?8",
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![
        query.pipeline,
        query.stream,
        query.cause,
        query.event_type,
        query.since,
        query.until,
        query.before.map(|before| int(before.0)),
        int(query.limit as u64)
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(checked_letter(row)?);
    }
    Ok(found)
}

/// The dead letter of one entry in the pipeline's current epoch.
pub fn one(
    connection: &Connection,
    pipeline: &str,
    stream: &str,
    seq: Seq,
) -> Result<Option<KeptLetter>, ReadError> {
    let sql = kept(
        "d.redrive = 0 AND d.seq = ?3 AND e.pipeline = ?1 AND s.name = ?2 \
         AND e.epoch = (SELECT epoch FROM pipelines WHERE name = ?1)",
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![pipeline, stream, seq])?;
    rows.next()?.map(kept_letter).transpose()
}

/// The letters of all pipelines with an event's key, dead or waiting again.
pub fn with_key(connection: &Connection, key: &str) -> Result<Vec<KeptLetter>, ReadError> {
    let mut statement = connection.prepare_cached(&kept("d.key = ?1"))?;
    let mut rows = statement.query([key])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(kept_letter(row)?);
    }
    Ok(found)
}

/// The letters of one entry in all pipelines.
pub fn of_entry(
    connection: &Connection,
    stream: &str,
    seq: Seq,
) -> Result<Vec<KeptLetter>, ReadError> {
    let mut statement = connection.prepare_cached(&kept("s.name = ?1 AND d.seq = ?2"))?;
    let mut rows = statement.query(params![stream, seq])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(kept_letter(row)?);
    }
    Ok(found)
}

/// The letter of one entry in a pass of a pipeline, dead or waiting again.
pub fn of_epoch(
    connection: &Connection,
    epoch_id: i64,
    seq: Seq,
) -> Result<Option<KeptLetter>, ReadError> {
    let mut statement = connection.prepare_cached(&kept("d.epoch_id = ?1 AND d.seq = ?2"))?;
    let mut rows = statement.query(params![epoch_id, seq])?;
    rows.next()?.map(kept_letter).transpose()
}

/// How many entries of a pass wait again and stand before one.
pub fn waiting_before(connection: &Connection, epoch_id: i64, seq: Seq) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM dead_letters WHERE epoch_id = ?1 AND redrive > 0 AND seq < ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(params![epoch_id, seq], |row| row.get(0))
}

/// The first entries that wait again.
pub fn redrive(
    connection: &Connection,
    pipeline: &str,
    stream: &str,
    events: usize,
    bytes: usize,
) -> Result<Option<Redrive>, ReadError> {
    let epochs = match rows::current_epochs_of(connection, pipeline) {
        Err(ReadError::Unknown(_)) => return Ok(None),
        epochs => epochs?,
    };
    let (Some(epoch), Some(row)) = (
        epochs.iter().find(|epoch| epoch.progress.stream == stream),
        rows::stream(connection, stream)?,
    ) else {
        return Ok(None);
    };
    let sql = format!(
        "SELECT {COLUMNS}, d.checksum FROM dead_letters d WHERE d.epoch_id = ?1 AND d.redrive > 0 \
         ORDER BY d.seq LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut waiting = statement.query(params![epoch.id, events.max(1).min(i64::MAX as usize)])?;
    let (mut letters, mut size) = (Vec::new(), 0usize);
    let mut block = None;
    while let Some(found) = waiting.next()? {
        let mut letter = checked(read(found)?, &found.get::<_, Checksum>(COUNT)?)?;
        if letter.raw && letter.payload.is_empty() {
            restore(connection, &row, &mut block, &mut letter)?;
        }
        size = size.saturating_add(letter.payload.len());
        if size > bytes && !letters.is_empty() {
            break;
        }
        letters.push(letter);
    }
    Ok((!letters.is_empty()).then(|| Redrive {
        pipeline: epoch.pipeline.clone(),
        stream: row.name.clone(),
        epoch: epoch.epoch,
        batch: DeadLetter::batch(&row.name, row.feed, &letters),
    }))
}

/// Gives a letter that was written off its event back, if the block has been repaired since.
/// `last`: the block of the letter before.
fn restore(
    connection: &Connection,
    stream: &Stream,
    last: &mut Option<Block>,
    letter: &mut DeadLetter,
) -> Result<(), ReadError> {
    let has_it = |block: &Block| block.range().contains(&letter.seq);
    if !last.as_ref().is_some_and(has_it) {
        let stored = blocks::at(connection, stream, letter.seq);
        *last = match stored.and_then(|found| found.map(|found| found.block(stream)).transpose()) {
            Err(ReadError::Damaged(_)) => None,
            found => found?.filter(has_it),
        };
    }
    if let Some(block) = last {
        let row = (letter.seq - block.first_seq) as usize;
        let found = DeadLetter::new(block, row, String::new(), String::new());
        // The books count the letter on the day of its own time.
        letter.payload = found.payload;
        letter.raw = found.raw;
        letter.key = found.key;
        letter.event_type = found.event_type;
        letter.code = found.code;
        letter.session = found.session;
        letter.index = found.index;
    }
    Ok(())
}

/// How many entries of an epoch wait again.
pub fn waiting_count(connection: &Connection, epoch_id: i64) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM dead_letters WHERE epoch_id = ?1 AND redrive > 0";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([epoch_id], |row| row.get(0))
}

/// The event times of the entries of an epoch that wait again.
pub fn waiting_times(connection: &Connection, epoch_id: i64) -> rusqlite::Result<Vec<Millis>> {
    let sql = "SELECT time FROM dead_letters WHERE epoch_id = ?1 AND redrive > 0";
    let mut statement = connection.prepare_cached(sql)?;
    let times = statement.query_map([epoch_id], |row| row.get(0))?;
    times.collect()
}

/// When the oldest of the entries of an epoch that wait again was read.
pub fn waiting_since(connection: &Connection, epoch_id: i64) -> rusqlite::Result<Option<Millis>> {
    let sql = "SELECT min(read_at) FROM dead_letters WHERE epoch_id = ?1 AND redrive > 0";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([epoch_id], |row| row.get(0))
}

fn kept(filter: &str) -> String {
    format!(
        "SELECT {COLUMNS}, d.checksum, d.rowid, e.pipeline, s.name, s.feed, e.epoch, d.generation, \
         d.at FROM dead_letters d JOIN epochs e ON e.id = d.epoch_id JOIN streams s ON s.id = \
         e.stream_id WHERE {filter}"
    )
}

fn kept_letter(row: &Row<'_>) -> Result<KeptLetter, ReadError> {
    checked_letter(row)?.map_err(ReadError::from)
}

fn checked_letter(row: &Row<'_>) -> Result<Result<KeptLetter, DamagedLetter>, ReadError> {
    let feed: String = row.get(COUNT + 4)?;
    let kept = KeptLetter {
        letter: read(row)?,
        id: LetterId(row.get(COUNT + 1)?),
        pipeline: row.get(COUNT + 2)?,
        stream: row.get(COUNT + 3)?,
        feed: if feed == FeedKind::Sessions.name() {
            FeedKind::Sessions
        } else {
            FeedKind::Audit
        },
        epoch: row.get(COUNT + 5)?,
        generation: row.get(COUNT + 6)?,
        at: row.get(COUNT + 7)?,
    };
    if is_letter(&kept.letter, &row.get::<_, Vec<u8>>(COUNT)?) {
        return Ok(Ok(kept));
    }
    Ok(Err(DamagedLetter {
        id: kept.id,
        pipeline: kept.pipeline,
        stream: kept.stream,
        seq: kept.letter.seq,
    }))
}

impl From<DamagedLetter> for ReadError {
    fn from(damaged: DamagedLetter) -> ReadError {
        let DamagedLetter {
            pipeline,
            stream,
            seq,
            ..
        } = damaged;
        ReadError::Damaged(format!(
            "the dead letter `{pipeline}/{stream}/{seq}` is not what was written"
        ))
    }
}

fn checked(letter: DeadLetter, checksum: &Checksum) -> Result<DeadLetter, ReadError> {
    if is_letter(&letter, checksum) {
        Ok(letter)
    } else {
        Err(ReadError::Damaged(format!(
            "the dead letter of entry {} (`{}`) is not what was written",
            letter.seq, letter.key
        )))
    }
}
