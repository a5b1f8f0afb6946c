//! Rows of the small tables as values, each with the checksum that guards it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_model::{FeedKind, Millis, Seq};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::ReadError;
use crate::schema::{Checksum, row_checksum};
use crate::{Progress, progress};

/// Key-value state by owner.
pub type State = BTreeMap<String, BTreeMap<String, String>>;

pub struct Stream {
    pub id: i64,
    pub name: Arc<str>,
    pub feed: FeedKind,
    pub next: Seq,
    pub oldest: Seq,
    pub bytes: u64,
    pub duplicates: u64,
}

impl Stream {
    pub fn checksum(&self) -> [u8; 16] {
        row_checksum([
            self.id.into(),
            (&*self.name).into(),
            self.feed.name().into(),
            self.next.into(),
            self.oldest.into(),
            self.bytes.into(),
            self.duplicates.into(),
        ])
    }

    fn read(row: &Row<'_>) -> Result<Stream, ReadError> {
        let name: String = row.get(1)?;
        let feed: String = row.get(2)?;
        let damaged = || {
            ReadError::Damaged(format!(
                "the row of stream `{name}` is not what was written"
            ))
        };
        let feed = [FeedKind::Audit, FeedKind::Sessions]
            .into_iter()
            .find(|kind| kind.name() == feed)
            .ok_or_else(damaged)?;
        let stream = Stream {
            id: row.get(0)?,
            name: name.as_str().into(),
            feed,
            next: row.get(3)?,
            oldest: row.get(4)?,
            bytes: row.get(5)?,
            duplicates: row.get(6)?,
        };
        if row.get::<_, Vec<u8>>(7)? == stream.checksum() {
            Ok(stream)
        } else {
            Err(damaged())
        }
    }
}

pub fn streams(connection: &Connection) -> Result<Vec<Stream>, ReadError> {
    let sql = "SELECT id, name, feed, next_seq, oldest_seq, bytes, duplicates, checksum FROM \
               streams ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        streams.push(Stream::read(row)?);
    }
    Ok(streams)
}

pub fn stream(connection: &Connection, name: &str) -> Result<Option<Stream>, ReadError> {
    let sql = "SELECT id, name, feed, next_seq, oldest_seq, bytes, duplicates, checksum FROM \
               streams WHERE name = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(Stream::read).transpose()
}

/// One pass of a pipeline over a stream.
pub struct Epoch {
    pub id: i64,
    pub pipeline: Arc<str>,
    pub stream_id: i64,
    pub epoch: u32,
    pub since: Millis,
    pub progress: Progress,
    pub chain: Checksum,
    pub active: bool,
}

impl Epoch {
    pub fn checksum(&self, done: &str) -> [u8; 16] {
        row_checksum([
            self.id.into(),
            (&*self.pipeline).into(),
            self.stream_id.into(),
            self.epoch.into(),
            self.since.into(),
            self.progress.begin.into(),
            self.progress.watermark.into(),
            done.into(),
            self.chain.as_slice().into(),
            i64::from(self.active).into(),
        ])
    }

    fn read(row: &Row<'_>) -> Result<Epoch, ReadError> {
        let pipeline: String = row.get(1)?;
        let stream: String = row.get(11)?;
        let done: String = row.get(7)?;
        let damaged = || {
            ReadError::Damaged(format!(
                "the row of pipeline `{pipeline}` on `{stream}` is not what was written"
            ))
        };
        let epoch = Epoch {
            id: row.get(0)?,
            pipeline: pipeline.as_str().into(),
            stream_id: row.get(2)?,
            epoch: row.get(3)?,
            since: row.get(4)?,
            progress: progress::parse(&stream, row.get(5)?, row.get(6)?, &done)
                .ok_or_else(damaged)?,
            chain: row.get(8)?,
            active: row.get(9)?,
        };
        if row.get::<_, Vec<u8>>(10)? == epoch.checksum(&done) {
            Ok(epoch)
        } else {
            Err(damaged())
        }
    }
}

const EPOCHS: &str = "SELECT e.id, e.pipeline, e.stream_id, e.epoch, e.since, e.begin_seq, \
                      e.watermark, e.done, e.chain, e.active, e.checksum, s.name FROM epochs e \
                      JOIN streams s ON s.id = e.stream_id";

/// The current epoch of each pipeline over each of its streams.
pub fn epochs(connection: &Connection) -> Result<Vec<Epoch>, ReadError> {
    let sql = format!(
        "{EPOCHS} JOIN pipelines p ON p.name = e.pipeline AND p.epoch = e.epoch ORDER BY e.id"
    );
    collect(connection, &sql, None)
}

/// All passes of one pipeline, in the order of its chains. A row that is damaged gives an error in
/// its place.
pub fn epochs_of(
    connection: &Connection,
    pipeline: &str,
) -> rusqlite::Result<Vec<Result<Epoch, ReadError>>> {
    let sql = format!("{EPOCHS} WHERE e.pipeline = ?1 ORDER BY s.name, e.epoch");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([pipeline])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        epochs.push(Epoch::read(row));
    }
    Ok(epochs)
}

/// The current epoch of one pipeline over each of its streams.
pub fn current_epochs_of(connection: &Connection, pipeline: &str) -> Result<Vec<Epoch>, ReadError> {
    let sql = format!(
        "{EPOCHS} JOIN pipelines p ON p.name = e.pipeline AND p.epoch = e.epoch WHERE e.pipeline = \
         ?1 ORDER BY s.name"
    );
    let epochs = collect(connection, &sql, Some(pipeline))?;
    if epochs.is_empty() {
        Err(ReadError::Unknown(format!("pipeline `{pipeline}`")))
    } else {
        Ok(epochs)
    }
}

fn collect(
    connection: &Connection,
    sql: &str,
    pipeline: Option<&str>,
) -> Result<Vec<Epoch>, ReadError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = match pipeline {
        Some(pipeline) => statement.query([pipeline])?,
        None => statement.query([])?,
    };
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        epochs.push(Epoch::read(row)?);
    }
    Ok(epochs)
}

/// Pipelines whose row is gone or does not go with their passes: the name, and what is wrong. From
/// such a row, a start would send every event again.
///
/// These rows have no checksum of their own. `epoch` and `generation` are compared with the rows
/// that they name, which have; an audit compares `dead_bytes` with the letters; and what cannot be
/// read of `brake` makes the brake count anew.
pub fn pipeline_problems(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT n.pipeline, p.epoch, (SELECT max(e.epoch) FROM epochs e WHERE e.pipeline = \
               n.pipeline), p.generation, (SELECT max(g.generation) FROM generations g WHERE \
               g.pipeline = n.pipeline) FROM (SELECT name AS pipeline FROM pipelines UNION SELECT \
               pipeline FROM epochs UNION SELECT pipeline FROM generations) n LEFT JOIN pipelines \
               p ON p.name = n.pipeline ORDER BY n.pipeline";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut problems = Vec::new();
    while let Some(row) = rows.next()? {
        let (epoch, newest): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let (generation, last): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        let what = match (epoch, generation) {
            (Some(epoch), _) if Some(epoch) != newest => match newest {
                Some(newest) => format!("it says epoch {epoch}, and the newest is {newest}"),
                None => format!("it says epoch {epoch}, and that is gone"),
            },
            (_, Some(generation))
                if last.is_none_or(|last| generation < 1 || generation > last) =>
            {
                format!("it says generation {generation}, and that is gone")
            }
            (None, _) => "it is gone, and its commits are there".to_owned(),
            _ => continue,
        };
        let name = row.get_ref(0)?.as_bytes().unwrap_or_default();
        problems.push((String::from_utf8_lossy(name).into_owned(), what));
    }
    Ok(problems)
}

/// A pass or a stream whose row is gone while other tables have rows of it.
pub struct Orphan {
    /// Such as `the stream with the id 1`.
    pub place: String,
    pub what: String,
    /// Several tables say so. Else a row of the one table may be what is damaged.
    pub is_certain: bool,
}

/// The passes and streams whose rows are gone. From such a store, a start would send every event of
/// a stream again.
pub fn orphans(connection: &Connection) -> rusqlite::Result<Vec<Orphan>> {
    // Each begins with the column in an index, so that only distinct values are looked at. Not
    // `blocks`: a block of another stream is damaged, and can be repaired.
    const REFERENCES: [(&str, &str, &str); 6] = [
        ("commits", "epoch_id", "epochs"),
        ("anchors", "epoch_id", "epochs"),
        ("tallies", "epoch_id", "epochs"),
        ("dead_letters", "epoch_id", "epochs"),
        ("epochs", "stream_id", "streams"),
        ("stream_days", "stream_id", "streams"),
    ];
    let mut gone: BTreeMap<(&str, i64), Vec<&str>> = BTreeMap::new();
    for (table, column, parent) in REFERENCES {
        // A store of an earlier format does not have all of them.
        if !connection.table_exists(None, table)? {
            continue;
        }
        let sql = format!(
            "WITH RECURSIVE ids(id) AS (SELECT min({column}) FROM {table} UNION ALL SELECT (SELECT \
             min({column}) FROM {table} WHERE {column} > ids.id) FROM ids WHERE ids.id IS NOT NULL) \
             SELECT id FROM ids WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM {parent})"
        );
        let mut statement = connection.prepare(&sql)?;
        for id in statement.query_map([], |row| row.get(0))? {
            gone.entry((parent, id?)).or_default().push(table);
        }
    }
    let orphans = gone.into_iter().map(|((parent, id), tables)| {
        let what = match parent {
            "epochs" => "the pass of a pipeline",
            _ => "the stream",
        };
        let is_certain = tables.len() > 1;
        let have = if tables.len() == 1 { "has" } else { "have" };
        let tables = tables.join("`, `");
        Orphan {
            place: format!("{what} with the id {id}"),
            what: format!("its row in `{parent}` is gone, and `{tables}` {have} rows of it"),
            is_certain,
        }
    });
    Ok(orphans.collect())
}

/// What [`has_lost_its_cursors`] means.
pub const NO_CURSOR: &str = "its source has no cursor, so it would be read from its start again, \
                             and its events sent once more";

/// Whether the stream has events, and its source no cursor: each append of events moves one.
pub fn has_lost_its_cursors(connection: &Connection, stream: &Stream) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM cursors WHERE source = ?1)";
    let mut statement = connection.prepare_cached(sql)?;
    let source = stream
        .name
        .rsplit_once('/')
        .map_or("", |(source, _)| source);
    Ok(stream.next > 1 && statement.query_row([source], |row| row.get(0))?)
}

/// A sentence for each stream that [has lost its cursors](has_lost_its_cursors).
pub fn cursor_problems(connection: &Connection) -> Result<Vec<String>, ReadError> {
    let mut problems = Vec::new();
    for stream in streams(connection)? {
        if has_lost_its_cursors(connection, &stream)? {
            problems.push(format!(
                "the stream `{}` has events, and {NO_CURSOR}",
                stream.name
            ));
        }
    }
    Ok(problems)
}

pub fn cursor_checksum(source: &str, key: &str, value: &str) -> [u8; 16] {
    row_checksum([source.into(), key.into(), value.into()])
}

pub fn cursors(
    connection: &Connection,
    source: &str,
) -> Result<BTreeMap<String, String>, ReadError> {
    let mut statement =
        connection.prepare_cached("SELECT key, value, checksum FROM cursors WHERE source = ?1")?;
    let mut rows = statement.query([source])?;
    let mut cursors = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        if row.get::<_, Vec<u8>>(2)? != cursor_checksum(source, &key, &value) {
            return Err(ReadError::Damaged(format!(
                "the cursor `{key}` of `{source}` is not what was written"
            )));
        }
        cursors.insert(key, value);
    }
    Ok(cursors)
}

pub fn state_checksum(pipeline: &str, owner: &str, key: &str, value: &str) -> [u8; 16] {
    row_checksum([pipeline.into(), owner.into(), key.into(), value.into()])
}

/// The description of the generation in which a pipeline last finished entries, if a commit is
/// kept that says so.
pub fn last_description(
    connection: &Connection,
    pipeline: &str,
) -> Result<Option<String>, rusqlite::Error> {
    // The latest of each stream is the one with the latest entries, but for what was held up.
    let sql = "SELECT g.description FROM epochs e JOIN commits c ON c.id = (SELECT id FROM commits \
               WHERE epoch_id = e.id ORDER BY first_seq DESC LIMIT 1) JOIN generations g ON \
               g.pipeline = e.pipeline AND g.generation = c.generation WHERE e.pipeline = ?1 ORDER \
               BY c.id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([pipeline], |row| row.get(0)).optional()
}

/// All state that a pipeline keeps.
pub fn state(connection: &Connection, pipeline: &str) -> Result<State, ReadError> {
    let mut statement = connection
        .prepare_cached("SELECT owner, key, value, checksum FROM state WHERE pipeline = ?1")?;
    let mut rows = statement.query([pipeline])?;
    let mut state = State::new();
    while let Some(row) = rows.next()? {
        let owner: String = row.get(0)?;
        let (key, value): (String, String) = (row.get(1)?, row.get(2)?);
        if row.get::<_, Vec<u8>>(3)? != state_checksum(pipeline, &owner, &key, &value) {
            return Err(ReadError::Damaged(format!(
                "the state `{key}` of `{owner}` in `{pipeline}` is not what was written"
            )));
        }
        state.entry(owner).or_default().insert(key, value);
    }
    Ok(state)
}

/// SHA-256 of what the generation's number stands for; part of every commit's hash.
pub fn generation(
    connection: &Connection,
    pipeline: &str,
    generation: u32,
) -> Result<Option<Checksum>, ReadError> {
    let sql = "SELECT description FROM generations WHERE pipeline = ?1 AND generation = ?2";
    let description: Option<String> = connection
        .prepare_cached(sql)?
        .query_row(params![pipeline, generation], |row| row.get(0))
        .optional()?;
    Ok(description.map(|text| crate::schema::digest([text.as_str().into()])))
}
