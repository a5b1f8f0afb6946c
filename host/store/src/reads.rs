//! Everything that can be read, by the host's [`Store`](crate::Store) and by an
//! [`Inspector`](crate::Inspector) alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_model::{
    Block, Books, Day, FeedKind, Gap, KnownEvents, KnownEventsBuilder, Millis, Redrive, Seq,
};
use rusqlite::{Connection, OptionalExtension};
use rustix::io::Errno;
use tokio::sync::watch;

use crate::audit::{self, Audit, AuditQuery};
use crate::blocks::{self, StoredBlock};
use crate::books;
use crate::chain::ChainHead;
use crate::error::ReadError;
use crate::find::{self, Coverage, EntryQuery, Search};
use crate::gaps;
use crate::history::{self, EntryHistory};
use crate::letters::DamagedLetter;
use crate::report::{self, AuditReport, Comparison, ReportError};
use crate::{
    Heads, KeptLetter, LedgerError, LetterCounts, LetterQuery, Progress, letters, limits, open,
    rows,
};

/// A stream as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    pub name: String,
    pub feed: FeedKind,
    /// The sequence that the next event gets.
    pub next: Seq,
    /// The oldest event kept; equal to `next` if none is.
    pub oldest: Seq,
    /// Of compressed blocks kept.
    pub bytes: u64,
    /// Events left out because they had been read before.
    pub duplicates: u64,
}

/// A pipeline as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStatus {
    pub name: String,
    pub epoch: u32,
    pub generation: u32,
    /// The generation's digests and tables, as JSON.
    pub description: String,
    /// How far it is in each stream it ever read; false if it is not configured to read it any
    /// more.
    pub streams: Vec<(Progress, bool)>,
}

/// Reads from disk; every call blocks for as long as that takes. Each sees one moment of the store.
pub struct Reads {
    database: PathBuf,
    idle: Mutex<Vec<Connection>>,
    pub(crate) closed: watch::Sender<Option<LedgerError>>,
}

impl Reads {
    pub(crate) fn new(database: PathBuf) -> Reads {
        Reads {
            database,
            idle: Mutex::default(),
            closed: watch::Sender::new(None),
        }
    }

    /// The gaps of all sources, each with the name of its source, in the order of their times.
    pub fn gaps(&self) -> Result<Vec<(String, Gap)>, LedgerError> {
        self.read(gaps::all)
    }

    /// The source's cursors, as the last appends left them.
    pub fn cursors(&self, source: &str) -> Result<BTreeMap<String, String>, LedgerError> {
        self.read(|connection| rows::cursors(connection, source))
    }

    /// The block that holds a sequence. `None`: not appended yet, or removed by retention.
    pub fn block_at(&self, stream: &str, seq: Seq) -> Result<Option<Arc<Block>>, LedgerError> {
        let found = self.stored(stream, seq)?;
        found
            .map(|(stream, stored)| Ok(stored.block(&stream).map(Arc::new)?))
            .transpose()
    }

    /// The column `payload` of the block that holds a sequence, as it stands in the file.
    #[doc(hidden)]
    pub fn stored_payload(&self, stream: &str, seq: Seq) -> Result<Option<Vec<u8>>, LedgerError> {
        let found = self.stored(stream, seq)?;
        Ok(found.map(|(_, stored)| stored.into_payload()))
    }

    /// The first sequence of the block that holds `seq`, and its columns but for the payloads,
    /// which are not decompressed.
    pub fn heads_at(&self, stream: &str, seq: Seq) -> Result<Option<(Seq, Heads)>, LedgerError> {
        let found = self.stored(stream, seq)?;
        found
            .map(|(stream, stored)| Ok((stored.first_seq, stored.heads(&stream)?)))
            .transpose()
    }

    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// Bytes of the database and of its log, as far as they can be found.
    pub fn file_bytes(&self) -> u64 {
        let mut log = self.database.clone().into_os_string();
        log.push("-wal");
        let files = [self.database.clone(), log.into()];
        let bytes = |file: &PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
        files.iter().map(bytes).sum()
    }

    /// When the event was read, and its own time; of a damaged block, the time of its earliest
    /// event.
    pub fn times_at(
        &self,
        stream: &str,
        seq: Seq,
    ) -> Result<Option<(Millis, Millis)>, LedgerError> {
        match self.sound_times_at(stream, seq) {
            Err(LedgerError::Damaged(_)) => self.read(|connection| {
                let Some(stream) = rows::stream(connection, stream)? else {
                    return Ok(None);
                };
                let end = seq.saturating_add(1);
                let extents = blocks::extents(connection, stream.id, seq, end)?;
                Ok(extents.first().map(|block| (block.read_at, block.times.0)))
            }),
            times => times,
        }
    }

    /// The latest time of a stream's events, apart from blocks with an event after `until`.
    pub fn latest_time(&self, stream: &str, until: Millis) -> Result<Option<Millis>, LedgerError> {
        self.read(|connection| {
            let Some(stream) = rows::stream(connection, stream)? else {
                return Ok(None);
            };
            Ok(blocks::latest_time(connection, stream.id, until)?)
        })
    }

    fn sound_times_at(
        &self,
        stream: &str,
        seq: Seq,
    ) -> Result<Option<(Millis, Millis)>, LedgerError> {
        let Some((stream, stored)) = self.stored(stream, seq)? else {
            return Ok(None);
        };
        let row = seq.saturating_sub(stored.first_seq) as usize;
        let time = stored.heads(&stream)?.times.get(row).copied();
        Ok(time.map(|time| (stored.read_at, time)))
    }

    /// A stream's events with times in `from..=to`. If there are more than `max`, the range ends
    /// earlier: see [`KnownEvents`].
    pub fn known_events(
        &self,
        stream: &str,
        from: Millis,
        to: Millis,
        max: usize,
    ) -> Result<KnownEvents, LedgerError> {
        self.read(|connection| {
            let mut known = KnownEventsBuilder::new(from, to, max);
            let Some(stream) = rows::stream(connection, stream)? else {
                return Ok(known.finish(true));
            };
            let mut is_readable = true;
            for (min_time, first_seq) in blocks::between(connection, stream.id, from, to)? {
                if min_time > known.until() {
                    break;
                }
                let stored = blocks::at(connection, &stream, first_seq);
                match stored.and_then(|stored| stored.map(|row| row.block(&stream)).transpose()) {
                    Ok(block) => block.iter().for_each(|block| known.add(block)),
                    // A reader goes on: its events may be read once more.
                    Err(ReadError::Damaged(_)) => is_readable = false,
                    Err(error) => return Err(error),
                }
            }
            let (first, last) = (Day::of(from), Day::of(known.until()));
            let sql = "SELECT EXISTS (SELECT 1 FROM stream_days WHERE stream_id = ?1 AND day \
                       BETWEEN ?2 AND ?3 AND removed > 0)";
            let mut statement = connection.prepare_cached(sql)?;
            let is_removed: bool =
                statement.query_row((stream.id, first.0, last.0), |row| row.get(0))?;
            Ok(known.finish(!is_removed && is_readable))
        })
    }

    /// The times of the earliest and of the latest event of the newest blocks of a stream, newest
    /// block first, at most `max`.
    pub fn recent_times(
        &self,
        stream: &str,
        max: usize,
    ) -> Result<Vec<(Millis, Millis)>, LedgerError> {
        self.read(|connection| {
            let Some(stream) = rows::stream(connection, stream)? else {
                return Ok(Vec::new());
            };
            Ok(blocks::recent_times(connection, stream.id, max)?)
        })
    }

    pub fn streams(&self) -> Result<Vec<StreamStatus>, LedgerError> {
        self.read(|connection| Ok(rows::streams(connection)?.iter().map(status).collect()))
    }

    /// Every pipeline that ever ran, by name.
    pub fn pipelines(&self) -> Result<Vec<PipelineStatus>, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT p.name, p.epoch, p.generation, g.description FROM pipelines p JOIN \
                       generations g ON g.pipeline = p.name AND g.generation = p.generation ORDER \
                       BY p.name";
            let mut statement = connection.prepare_cached(sql)?;
            let pipelines = statement.query_map([], |row| {
                Ok(PipelineStatus {
                    name: row.get(0)?,
                    epoch: row.get(1)?,
                    generation: row.get(2)?,
                    description: row.get(3)?,
                    streams: Vec::new(),
                })
            })?;
            let mut pipelines = pipelines.collect::<Result<Vec<_>, _>>()?;
            for pipeline in &mut pipelines {
                let epochs = rows::current_epochs_of(connection, &pipeline.name)?;
                pipeline.streams = epochs
                    .into_iter()
                    .map(|epoch| (epoch.progress, epoch.active))
                    .collect();
            }
            Ok(pipelines)
        })
    }

    /// Configured pipelines that have not begun to read all of their streams, by name.
    pub fn not_begun(&self) -> Result<Vec<String>, LedgerError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT pipeline FROM holders ORDER BY pipeline")?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
    }

    /// The four figures of the pipeline's current epoch for each stream, counted.
    pub fn books(&self, pipeline: &str) -> Result<Vec<(String, Books)>, LedgerError> {
        self.read(|connection| books::books(connection, pipeline))
    }

    /// The four figures by UTC day of the event's time, over all streams of the pipeline.
    pub fn days(&self, pipeline: &str) -> Result<Vec<(Day, Books)>, LedgerError> {
        self.read(|connection| books::days(connection, pipeline))
    }

    /// Of the dropped: events that retention removed before the pipeline had finished them.
    pub fn removed_unfinished(&self, pipeline: &str) -> Result<u64, LedgerError> {
        self.read(|connection| Ok(books::letters(connection, pipeline)?.1.removed))
    }

    /// Of the dropped: events that were given up because the pipeline had reached its lag limit.
    pub fn given_up(&self, pipeline: &str) -> Result<u64, LedgerError> {
        self.read(|connection| Ok(books::letters(connection, pipeline)?.1.given_up))
    }

    /// See [`DeadLetters::letter_counts`](crate::DeadLetters::letter_counts).
    pub fn letter_counts(&self, pipeline: &str) -> Result<LetterCounts, LedgerError> {
        self.read(|connection| Ok(books::letters(connection, pipeline)?.0))
    }

    /// When the oldest of the pipeline's entries that wait again was read.
    pub fn redriven_since(&self, pipeline: &str) -> Result<Option<Millis>, LedgerError> {
        self.read(|connection| {
            let mut oldest: Option<Millis> = None;
            for epoch in rows::current_epochs_of(connection, pipeline)? {
                let since = letters::waiting_since(connection, epoch.id)?;
                oldest = oldest.into_iter().chain(since).min();
            }
            Ok(oldest)
        })
    }

    /// Finds entries, at most `max`.
    pub fn find(&self, query: &EntryQuery, max: usize) -> Result<Search, LedgerError> {
        self.read(|connection| find::find(connection, query, max))
    }

    /// The part of each stream that is kept.
    pub fn coverage(&self) -> Result<Vec<Coverage>, LedgerError> {
        self.read(find::coverage)
    }

    /// What became of an entry in each pipeline that ever read its stream, by name; also after
    /// retention has removed its event.
    pub fn history(&self, stream: &str, seq: Seq) -> Result<Vec<EntryHistory>, LedgerError> {
        self.read(|connection| history::of_entry(connection, stream, seq))
    }

    /// See [`DeadLetters::dead_letters`](crate::DeadLetters::dead_letters).
    pub fn dead_letters(&self, query: &LetterQuery) -> Result<Vec<KeptLetter>, LedgerError> {
        self.read(|connection| letters::query(connection, query))
    }

    /// The same, with those that are not what was written.
    pub fn all_dead_letters(
        &self,
        query: &LetterQuery,
    ) -> Result<Vec<Result<KeptLetter, DamagedLetter>>, LedgerError> {
        self.read(|connection| letters::query_all(connection, query))
    }

    /// See [`DeadLetters::dead_letter`](crate::DeadLetters::dead_letter).
    pub fn dead_letter(
        &self,
        pipeline: &str,
        stream: &str,
        seq: Seq,
    ) -> Result<Option<KeptLetter>, LedgerError> {
        self.read(|connection| letters::one(connection, pipeline, stream, seq))
    }

    /// See [`Ledger::redrive`](crate::Ledger::redrive).
    pub fn redrive(
        &self,
        pipeline: &str,
        stream: &str,
        events: usize,
        bytes: usize,
    ) -> Result<Option<Redrive>, LedgerError> {
        self.read(|connection| letters::redrive(connection, pipeline, stream, events, bytes))
    }

    /// All key-value state that a pipeline keeps, by owner.
    pub fn state(
        &self,
        pipeline: &str,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, LedgerError> {
        self.read(|connection| rows::state(connection, pipeline))
    }

    /// See [`CodeDigests::code_digest`](crate::CodeDigests::code_digest).
    pub fn code_digest(&self, key: &str) -> Result<Option<[u8; 32]>, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT sha256 FROM compiled_code WHERE key = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let digest = statement.query_row([key], |row| row.get(0)).optional()?;
            Ok(digest)
        })
    }

    /// Recounts the books from events and outcomes, and verifies chains and blocks. Goes on after
    /// what does not hold: the answer names every place.
    ///
    /// Reads every block. Those are read a few at a time, so that no snapshot is held for long.
    pub fn audit(&self, query: &AuditQuery) -> Result<Audit, LedgerError> {
        audit::run(self, query, &audit::Marks::new())
    }

    /// The identity of this store, unlike that of any other: 16 bytes.
    pub fn identity(&self) -> Result<Vec<u8>, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT id FROM identity";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
    }

    /// The report of an audit of this store that holds, to be kept elsewhere.
    pub fn audit_report(&self, audit: &Audit, made_at: Millis) -> Result<String, LedgerError> {
        Ok(report::write(audit, &self.identity()?, made_at))
    }

    /// Audits the store and compares it with an earlier report. The inner error: it is of another
    /// store.
    pub fn compare(
        &self,
        report: &AuditReport,
    ) -> Result<Result<(Audit, Comparison), ReportError>, LedgerError> {
        report.compare(self)
    }

    /// Proves that no commit of the pipeline, and no event kept of its streams, was changed:
    /// [`audit`](Self::audit), if [`LedgerError::Damaged`] names the first place that is not
    /// what was written.
    pub fn verify_chain(&self, pipeline: &str) -> Result<Vec<ChainHead>, LedgerError> {
        let audit = self.audit(&AuditQuery {
            pipeline: Some(pipeline.to_owned()),
            day: None,
        })?;
        if let Some(finding) = audit.findings.first() {
            return Err(LedgerError::Damaged(finding.to_string()));
        }
        let epochs = audit.pipelines.into_iter().flat_map(|found| found.epochs);
        Ok(epochs.map(|epoch| epoch.chain).collect())
    }

    pub(crate) fn check_open(&self) -> Result<(), LedgerError> {
        self.closed.borrow().clone().map_or(Ok(()), Err)
    }

    pub(crate) fn cause(&self) -> LedgerError {
        let closed = self.closed.borrow().clone();
        closed.unwrap_or_else(|| LedgerError::Closed {
            cause: "it is closing".to_owned(),
            full: false,
        })
    }

    pub(crate) fn retire(&self) {
        self.idle().clear();
    }

    fn stored(
        &self,
        stream: &str,
        seq: Seq,
    ) -> Result<Option<(rows::Stream, StoredBlock)>, LedgerError> {
        self.read(|connection| {
            let Some(stream) = rows::stream(connection, stream)? else {
                return Ok(None);
            };
            Ok(blocks::at(connection, &stream, seq)?.map(|block| (stream, block)))
        })
    }

    /// Without a snapshot, on a connection of its own.
    pub(crate) fn alone<T>(&self, f: impl FnOnce(&Connection) -> T) -> Result<T, LedgerError> {
        self.check_open()?;
        let connection = open::reader(&self.database).map_err(ReadError::from)?;
        Ok(f(&connection))
    }

    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, LedgerError> {
        self.check_open()?;
        let connection = self.connection()?;
        let result = match connection.unchecked_transaction() {
            Ok(_snapshot) => f(&connection),
            Err(error) => Err(error.into()),
        };
        let mut idle = self.idle();
        if result.is_ok() && idle.len() < limits::IDLE_READERS && self.closed.borrow().is_none() {
            idle.push(connection);
        }
        result.map_err(LedgerError::from)
    }

    /// If the process has no file descriptor left, this waits for those of other readers, or until
    /// something else is closed.
    fn connection(&self) -> Result<Connection, LedgerError> {
        let mut waits = 0;
        loop {
            if let Some(connection) = self.idle().pop() {
                return Ok(connection);
            }
            match open::reader(&self.database) {
                Ok(connection) => return Ok(connection),
                Err(_) if waits < limits::DESCRIPTOR_WAITS && lacks_descriptors(&self.database) => {
                    if waits == 0 {
                        tracing::warn!(
                            "no file descriptor is left to read the store; waiting until others \
                             are closed. Raise the limit of open files (`ulimit -n`, \
                             `LimitNOFILE` in systemd)"
                        );
                    }
                    waits += 1;
                    std::thread::sleep(limits::DESCRIPTOR_WAIT);
                    self.check_open()?;
                }
                Err(error) => return Err(ReadError::from(error).into()),
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SQLite does not say why it cannot open a file.
fn lacks_descriptors(database: &Path) -> bool {
    let lack = [Errno::MFILE, Errno::NFILE];
    let opened = std::fs::File::open(database);
    opened.is_err_and(|error| Errno::from_io_error(&error).is_some_and(|no| lack.contains(&no)))
}

fn status(stream: &rows::Stream) -> StreamStatus {
    StreamStatus {
        name: stream.name.to_string(),
        feed: stream.feed,
        next: stream.next,
        oldest: stream.oldest,
        bytes: stream.bytes,
        duplicates: stream.duplicates,
    }
}
