//! The writing half: one connection, and in memory what decides whether an operation may happen.
//!
//! Everything is checked before the first byte is written, so a refused operation changes nothing
//! in the transaction it shares with others, and an error of SQLite's own means that the whole
//! store has failed.

mod append;
mod commit;
mod register;
pub mod retention;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use lockgate_model::{FeedKind, Seq};
use rusqlite::{Connection, params};

pub use append::{AppendArgs, Appended};

use crate::blocks::{self, Extent};
use crate::schema::Checksum;
use crate::{Clock, Options, Retention, StoreError, open, rows};

/// Why the store has to close.
pub enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Damaged(error.to_string())
    }
}

pub struct Writer {
    connection: Connection,
    folder: PathBuf,
    clock: Clock,
    options: Options,
    streams: Vec<Stream>,
    by_name: HashMap<Arc<str>, usize>,
    epochs: Vec<Epoch>,
    by_lane: HashMap<(Arc<str>, Arc<str>), usize>,
    pipelines: HashMap<Arc<str>, Pipeline>,
    generations: HashMap<(Arc<str>, u32), Checksum>,
    /// Blocks that retention removed in this transaction.
    pub removed: Vec<(Arc<str>, Seq)>,
}

struct Stream {
    row: rows::Stream,
    limit: Retention,
    /// The oldest block kept.
    front: Option<Extent>,
    dirty: bool,
}

struct Epoch {
    row: rows::Epoch,
    /// Index into `Writer::streams`.
    stream: usize,
    dirty: bool,
}

#[derive(Clone, Copy)]
struct Pipeline {
    epoch: u32,
    generation: u32,
}

impl Writer {
    pub fn load(connection: Connection, options: &Options) -> Result<Writer, StoreError> {
        let mut writer = Writer {
            connection,
            folder: options.path.clone(),
            clock: options.clock.clone(),
            options: options.clone(),
            streams: Vec::new(),
            by_name: HashMap::new(),
            epochs: Vec::new(),
            by_lane: HashMap::new(),
            pipelines: HashMap::new(),
            generations: HashMap::new(),
            removed: Vec::new(),
        };
        for row in rows::streams(&writer.connection)? {
            writer.add_stream(row)?;
        }
        for row in rows::epochs(&writer.connection)? {
            writer.add_epoch(row);
        }
        writer.load_pipelines()?;
        Ok(writer)
    }

    fn load_pipelines(&mut self) -> Result<(), StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT name, epoch, generation FROM pipelines")?;
        let pipelines = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?;
        for pipeline in pipelines {
            let (name, epoch, generation) = pipeline?;
            self.pipelines
                .insert(name.into(), Pipeline { epoch, generation });
        }
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

    pub fn begin(&mut self) -> Result<(), Fault> {
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Writes the rows that changed in memory, and makes the transaction durable.
    pub fn finish(&mut self) -> Result<(), Fault> {
        for stream in self.streams.iter_mut().filter(|stream| stream.dirty) {
            let row = &stream.row;
            self.connection
                .prepare_cached(
                    "UPDATE streams SET next_seq = ?2, oldest_seq = ?3, bytes = ?4, duplicates = ?5, checksum = ?6 WHERE id = ?1",
                )?
                .execute(params![row.id, row.next, row.oldest, row.bytes, row.duplicates, row.checksum()])?;
            stream.dirty = false;
        }
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.dirty) {
            let row = &epoch.row;
            let done = row.progress.done_text();
            self.connection
                .prepare_cached("UPDATE epochs SET watermark = ?2, done = ?3, chain = ?4, active = ?5, checksum = ?6 WHERE id = ?1")?
                .execute(params![row.id, row.progress.watermark, done, row.chain, row.active, row.checksum(&done)])?;
            epoch.dirty = false;
        }
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    /// What everybody who waits is told. The store is not written to any more.
    pub fn closed_by(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Sqlite(error) => {
                let full = open::is_disk_full(&error, &self.folder);
                let cause = if full {
                    format!("there is no room on the disk ({error})")
                } else {
                    format!("a write failed ({error})")
                };
                StoreError::Closed { cause, full }
            }
            Fault::Damaged(cause) => StoreError::Closed { cause, full: false },
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
            "INSERT INTO streams (name, feed, next_seq, oldest_seq, bytes, duplicates, checksum) VALUES (?1, ?2, 1, 1, 0, 0, x'')",
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
        self.by_name.insert(row.name.clone(), self.streams.len());
        self.streams.push(Stream {
            row,
            limit,
            front,
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
        let lane = (row.pipeline.clone(), self.streams[stream].row.name.clone());
        self.by_lane.insert(lane, self.epochs.len());
        self.epochs.push(Epoch {
            row,
            stream,
            dirty: false,
        });
    }
}
