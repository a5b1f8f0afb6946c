//! The writing half: one connection, and in memory what decides whether an operation may happen.
//!
//! Everything is checked before the first byte is written, so a refused operation changes nothing
//! in the transaction it shares with others, and an error of SQLite's own means that the whole
//! store has failed.

mod append;
mod commit;
mod damaged;
mod filters;
mod fold;
mod letters;
mod register;
mod restore;
pub mod retention;
mod write_off;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockgate_ledger::START_ANEW;
use lockgate_model::{FeedKind, Millis, Seq};
use rusqlite::{Connection, ErrorCode, params};

pub use append::{AppendArgs, Appended};

use crate::blocks::{self, Extent};
use crate::error::ReadError;
use crate::links::Link;
use crate::options::Elapsed;
use crate::schema::{Checksum, PAGE_SIZE};
use crate::shown_time::{self, NewestBlocks, ShownTime};
use crate::tallies::{self, Columns, Counts};
use crate::{
    Clock, LagLimit, LedgerError, Options, Retention, anchors, directory, open, progress, rows,
};
use fold::Folding;

/// Why the store has to close.
pub enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(String),
    /// A file of the store was removed or replaced.
    Gone(PathBuf),
    /// Whether a file of the store is still there cannot be told.
    Unreachable(PathBuf, io::Error),
    /// A file of the store was truncated or overwritten.
    Overwritten(PathBuf),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Fault {
        LedgerError::from(error).into()
    }
}

impl From<LedgerError> for Fault {
    fn from(error: LedgerError) -> Fault {
        Fault::Damaged(error.to_string())
    }
}

pub struct Writer {
    connection: Connection,
    directory: PathBuf,
    clock: Clock,
    elapsed: Elapsed,
    shown_time: ShownTime,
    has_warned_of_clock: bool,
    options: Options,
    streams: Vec<Stream>,
    by_name: HashMap<Arc<str>, usize>,
    epochs: Vec<Epoch>,
    /// The current epoch of each pipeline and stream.
    current: HashMap<EpochKey, usize>,
    pipelines: HashMap<Arc<str>, Pipeline>,
    /// The streams that configured pipelines have not begun to read: retention waits for them
    /// there. `None`: in every stream, because what is configured now has not been said yet.
    not_begun: BTreeMap<String, Option<BTreeSet<String>>>,
    /// Pipelines that have started since the store was opened.
    registered: BTreeSet<Arc<str>>,
    /// Retention may begin: what is configured has been said, or somebody works without saying it.
    is_configured: bool,
    generations: HashMap<(Arc<str>, u32), Checksum>,
    /// Blocks that retention removed in this transaction.
    pub removed: Vec<(Arc<str>, Seq)>,
    /// Entries that retention removed since the last report, by pipelines that had not finished
    /// them.
    pub unfinished: BTreeMap<EpochKey, Unfinished>,
    /// By the names of pipelines.
    lag_limits: BTreeMap<String, LagLimit>,
    /// Entries that were given up since the last report, because their pipeline had reached its lag
    /// limit.
    pub given_up: BTreeMap<EpochKey, u64>,
    /// Running pipelines that retention has asked to give up their oldest events.
    asked: HashMap<Arc<str>, Asked>,
    /// How often each has been asked.
    room_wanted: HashMap<Arc<str>, u64>,
    /// How often entries of each pipeline were sent back since the store was opened.
    retries: HashMap<Arc<str>, u64>,
    /// Additions of this transaction to the tallies, by the id of the pass.
    tallies: BTreeMap<i64, Counts>,
    folding: Folding,
    /// The ids that the next commit and the next operation on dead letters get. None is used twice,
    /// also when the rows are gone.
    next_commit: i64,
    next_operation: i64,
}

/// The pipeline and the stream of an epoch.
pub type EpochKey = (Arc<str>, Arc<str>);

/// Retention has asked a pipeline for room.
struct Asked {
    at: Duration,
    /// In these streams. Up to which sequence it gives up their events, once that has begun.
    streams: BTreeMap<usize, Option<Seq>>,
}

/// Events that a pipeline had not finished when retention removed them.
pub struct Unfinished {
    pub events: u64,
    /// The key in `retain` whose limit they had reached.
    pub key: &'static str,
}

struct Stream {
    row: rows::Stream,
    limit: Retention,
    /// The oldest block kept.
    front: Option<Extent>,
    newest: NewestBlocks,
    /// Blocks from here on have their filters.
    filtered_from: Seq,
    /// Where the block begins that retention was last found unable to remove, because it is
    /// damaged.
    damaged_block: Option<Seq>,
    dirty: bool,
}

struct Epoch {
    row: rows::Epoch,
    /// Index into `Writer::streams`.
    stream: usize,
    dirty: bool,
}

struct Pipeline {
    epoch: u32,
    generation: u32,
    dead_bytes: u64,
    brake: String,
    dirty: bool,
}

impl Writer {
    pub fn load(connection: Connection, options: &Options) -> Result<Writer, ReadError> {
        let mut writer = Writer {
            connection,
            directory: options.path.clone(),
            clock: options.clock.clone(),
            elapsed: options.elapsed.clone(),
            shown_time: ShownTime::default(),
            has_warned_of_clock: false,
            options: options.clone(),
            streams: Vec::new(),
            by_name: HashMap::new(),
            epochs: Vec::new(),
            current: HashMap::new(),
            pipelines: HashMap::new(),
            not_begun: BTreeMap::new(),
            registered: BTreeSet::new(),
            is_configured: false,
            generations: HashMap::new(),
            removed: Vec::new(),
            unfinished: BTreeMap::new(),
            lag_limits: BTreeMap::new(),
            given_up: BTreeMap::new(),
            asked: HashMap::new(),
            room_wanted: HashMap::new(),
            retries: HashMap::new(),
            tallies: BTreeMap::new(),
            folding: Folding::default(),
            next_commit: 1,
            next_operation: 1,
        };
        for row in rows::streams(&writer.connection)? {
            writer.add_stream(row)?;
        }
        for row in rows::epochs(&writer.connection)? {
            writer.add_epoch(row);
        }
        writer.load_pipelines()?;
        let (commit, operation) = anchors::last_ids(&writer.connection)?;
        let last = |sql, folded: i64| -> rusqlite::Result<i64> {
            let kept: i64 = writer.connection.query_row(sql, [], |row| row.get(0))?;
            Ok(kept.max(folded) + 1)
        };
        let next_commit = last("SELECT coalesce(max(id), 0) FROM commits", commit)?;
        let sql = "SELECT coalesce(max(id), 0) FROM letter_operations";
        writer.next_operation = last(sql, operation)?;
        writer.next_commit = next_commit;
        Ok(writer)
    }

    fn load_pipelines(&mut self) -> Result<(), ReadError> {
        let mut statement = self
            .connection
            .prepare("SELECT name, epoch, generation, dead_bytes, brake FROM pipelines")?;
        let pipelines = statement.query_map([], |row| {
            let pipeline = Pipeline {
                epoch: row.get(1)?,
                generation: row.get(2)?,
                dead_bytes: row.get(3)?,
                brake: row.get(4)?,
                dirty: false,
            };
            Ok((row.get::<_, String>(0)?, pipeline))
        })?;
        for pipeline in pipelines {
            let (name, pipeline) = pipeline?;
            self.pipelines.insert(name.into(), pipeline);
        }
        let mut statement = self.connection.prepare("SELECT pipeline FROM holders")?;
        self.not_begun = statement
            .query_map([], |row| Ok((row.get(0)?, None)))?
            .collect::<Result<_, _>>()?;
        let mut statement = self
            .connection
            .prepare("SELECT pipeline, generation FROM generations")?;
        let known = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        for known in known {
            let (pipeline, generation): (String, u32) = known?;
            if let Some(digest) = rows::generation(&self.connection, &pipeline, generation)? {
                self.generations
                    .insert((pipeline.into(), generation), digest);
            }
        }
        Ok(())
    }

    /// Name and next sequence of each stream.
    pub fn heads(&self) -> impl Iterator<Item = (&Arc<str>, Seq)> {
        self.streams
            .iter()
            .map(|stream| (&stream.row.name, stream.row.next))
    }

    /// How often each running pipeline has been asked to give up its oldest events.
    pub fn room_wanted(&self) -> HashMap<Arc<str>, u64> {
        self.room_wanted.clone()
    }

    /// How often entries of each pipeline were sent back.
    pub fn retries(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.retries
            .iter()
            .map(|(pipeline, &count)| (pipeline, count))
    }

    /// Bytes of the letters that each pipeline keeps.
    pub fn dead_bytes(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.pipelines
            .iter()
            .map(|(name, pipeline)| (name, pipeline.dead_bytes))
    }

    /// How many frames the log's index counts. 0 if it is not known.
    pub fn log_frames(&self) -> u64 {
        let count = || -> rusqlite::Result<i64> {
            let sql = "PRAGMA wal_checkpoint(NOOP)";
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row([], |row| row.get(1))
        };
        count().map_or(0, |frames| frames.max(0) as u64)
    }

    /// Bytes of the log, and whether all of it is folded into the file.
    pub fn log(&self) -> (u64, bool) {
        let count = || -> rusqlite::Result<(i64, i64)> {
            let sql = "PRAGMA wal_checkpoint(NOOP)";
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
        };
        let (frames, folded) = count().unwrap_or_default();
        let bytes = frames.max(0) as u64 * u64::from(PAGE_SIZE);
        (bytes, folded >= frames)
    }

    /// How many pages the database has, in file and log together.
    pub fn pages(&self) -> Result<u64, Fault> {
        let mut statement = self.connection.prepare_cached("PRAGMA page_count")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    pub fn begin(&mut self) -> Result<(), Fault> {
        self.connection
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute([])?;
        Ok(())
    }

    /// Keeps what compiled code must hash to.
    pub fn keep_code_digest(&self, key: &str, digest: &Checksum, at: Millis) -> Result<(), Fault> {
        let sql = "INSERT INTO compiled_code (key, sha256, at) VALUES (?1, ?2, ?3) ON CONFLICT DO \
                   UPDATE SET sha256 = ?2, at = ?3";
        self.connection.execute(sql, params![key, digest, at])?;
        Ok(())
    }

    /// Writes the rows that changed in memory, and makes the transaction durable.
    pub fn finish(&mut self) -> Result<(), Fault> {
        for stream in self.streams.iter_mut().filter(|stream| stream.dirty) {
            let row = &stream.row;
            self.connection
                .prepare_cached(
                    "UPDATE streams SET next_seq = ?2, oldest_seq = ?3, bytes = ?4, duplicates = \
                     ?5, checksum = ?6 WHERE id = ?1",
                )?
                .execute(params![
                    row.id,
                    row.next,
                    row.oldest,
                    row.bytes,
                    row.duplicates,
                    row.checksum()
                ])?;
            stream.dirty = false;
        }
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.dirty) {
            let row = &epoch.row;
            let done = progress::done_text(&row.progress);
            self.connection
                .prepare_cached(
                    "UPDATE epochs SET watermark = ?2, done = ?3, chain = ?4, active = ?5, \
                     checksum = ?6 WHERE id = ?1",
                )?
                .execute(params![
                    row.id,
                    row.progress.watermark,
                    done,
                    row.chain,
                    row.active,
                    row.checksum(&done)
                ])?;
            epoch.dirty = false;
        }
        for (name, pipeline) in self.pipelines.iter_mut().filter(|(_, found)| found.dirty) {
            self.connection
                .prepare_cached("UPDATE pipelines SET dead_bytes = ?2, brake = ?3 WHERE name = ?1")?
                .execute(params![name, pipeline.dead_bytes, pipeline.brake])?;
            pipeline.dirty = false;
        }
        self.write_tallies()?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn write_tallies(&mut self) -> Result<(), Fault> {
        for (epoch_id, counts) in std::mem::take(&mut self.tallies) {
            tallies::add(&self.connection, epoch_id, &counts, Columns::Count)?;
        }
        Ok(())
    }

    /// Counts a link that this transaction writes.
    fn tally(&mut self, epoch_id: i64, link: &Link) -> Result<(), Fault> {
        let counts = self.tallies.entry(epoch_id).or_default();
        link.tally(counts).map_err(Fault::Damaged)
    }

    /// The answer to all who wait. The store is not written to any more.
    pub fn closed_by(&self, fault: Fault) -> LedgerError {
        match fault {
            Fault::Sqlite(error) => {
                let full = open::is_disk_full(&error, &self.directory);
                let cause = match error.sqlite_error_code() {
                    _ if full => format!("there is no room on the disk ({error})"),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
                        "another program has a write lock on `store.db` ({error}). End it, then \
                         start again"
                    ),
                    _ => format!("a write failed ({error})"),
                };
                LedgerError::Closed { cause, full }
            }
            Fault::Damaged(cause) => LedgerError::Closed { cause, full: false },
            Fault::Gone(path) => self.closed_by_others(
                &path,
                "removed or replaced",
                "If it was moved, move the whole store back and start again; if not, put",
            ),
            Fault::Unreachable(path, error) => self.closed_unreachable(&path, &error),
            Fault::Overwritten(path) => {
                self.closed_by_others(&path, "truncated or overwritten", "Put")
            }
        }
    }

    fn closed_unreachable(&self, path: &Path, error: &io::Error) -> LedgerError {
        let way_out = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "Give the user that Lockgate runs as access to `{}` again, such as with `chmod \
                 700`",
                self.directory.display()
            ),
            _ => "Remove the cause".to_owned(),
        };
        LedgerError::Closed {
            cause: format!(
                "`{}` cannot be reached any more ({error}), so nothing more is written. {way_out}, \
                 then start again",
                path.display()
            ),
            full: false,
        }
    }

    /// `put` is how the sentence begins that says what to do.
    fn closed_by_others(&self, path: &Path, harm: &str, put: &str) -> LedgerError {
        let change = format!("`{}` was {harm}", path.display());
        directory::keep_change(&self.directory, &change);
        LedgerError::Closed {
            cause: format!(
                "{change} while the store was open, so nothing more is written, and what was \
                 written shortly before may be gone. {put} the whole store back from a backup. \
                 {START_ANEW}"
            ),
            full: false,
        }
    }

    pub fn close(self) -> rusqlite::Result<()> {
        open::close_writer(self.connection)
    }

    fn stream(&mut self, name: &Arc<str>, feed: FeedKind) -> Result<usize, Fault> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(index);
        }
        let mut row = rows::Stream {
            id: 0,
            name: name.clone(),
            feed,
            next: 1,
            oldest: 1,
            bytes: 0,
            duplicates: 0,
        };
        self.connection.execute(
            "INSERT INTO streams (name, feed, next_seq, oldest_seq, bytes, duplicates, checksum) \
             VALUES (?1, ?2, 1, 1, 0, 0, x'')",
            params![name, feed.name()],
        )?;
        row.id = self.connection.last_insert_rowid();
        let index = self.add_stream(row)?;
        self.streams[index].dirty = true;
        Ok(index)
    }

    fn add_stream(&mut self, row: rows::Stream) -> rusqlite::Result<usize> {
        let limit = self.options.retention_of(&row.name);
        let front = blocks::oldest(&self.connection, row.id)?;
        let newest = blocks::recent_times(&self.connection, row.id, shown_time::BLOCKS)?;
        let newest = NewestBlocks::new(newest.into_iter().map(|(earliest, _)| earliest));
        self.shown_time.note(&newest, (self.elapsed)());
        self.by_name.insert(row.name.clone(), self.streams.len());
        let sql = "SELECT min(first_seq) FROM block_filters WHERE stream_id = ?1";
        let filtered: Option<Seq> = self.connection.query_row(sql, [row.id], |row| row.get(0))?;
        self.streams.push(Stream {
            filtered_from: filtered.unwrap_or(row.next),
            damaged_block: None,
            row,
            limit,
            front,
            newest,
            dirty: false,
        });
        Ok(self.streams.len() - 1)
    }

    fn add_epoch(&mut self, row: rows::Epoch) {
        // `rows::epochs` joins the stream, so it is there.
        let Some(stream) = self
            .streams
            .iter()
            .position(|stream| stream.row.id == row.stream_id)
        else {
            return;
        };
        let key = (row.pipeline.clone(), self.streams[stream].row.name.clone());
        self.current.insert(key, self.epochs.len());
        self.epochs.push(Epoch {
            row,
            stream,
            dirty: false,
        });
    }
}
