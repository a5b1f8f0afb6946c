//! Refuses, before anything is written, a file that is not a store, of a newer format, or damaged.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::Connection;

use crate::directory::sibling;
use crate::error::ReadError;
use crate::schema::{APPLICATION_ID, FORMAT, PAGE_SIZE};
use crate::{OpenError, blocks, gaps, limits, rows, schema};

/// How often a database that seems to be too short is looked at.
const LOOKS: usize = 5;

/// Reads the first page's header (SQLite's file format 1.3) and the length, without SQLite.
///
/// A host may fold its log into the database meanwhile: then the length is that of before, and the
/// log that of after. What is missing is missing at each look.
pub fn before_open(database: &Path) -> Result<(), OpenError> {
    let mut looked = look(database);
    for _ in 1..LOOKS {
        if !matches!(looked, Err(OpenError::Damaged { .. })) {
            break;
        }
        looked = look(database);
    }
    looked
}

fn look(database: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        doing: "read",
        path: database.to_owned(),
        source,
    };
    let damaged = |what: String| {
        Err(OpenError::Damaged {
            path: database.to_owned(),
            what,
        })
    };
    let mut file = File::open(database).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut header = [0; 100];
    if let Err(error) = file.read_exact(&mut header) {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            damaged(format!("it has {len} bytes"))
        } else {
            Err(io(error))
        };
    }
    let int = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if !header.starts_with(b"SQLite format 3\0") {
        return damaged("it is not a SQLite database".to_owned());
    }
    if i64::from(int(68)) != APPLICATION_ID {
        return damaged("it is a SQLite database, but not one of Lockgate's".to_owned());
    }
    if i64::from(int(60)) > FORMAT {
        return Err(OpenError::Newer {
            path: database.to_owned(),
            found: int(60).into(),
            known: FORMAT,
        });
    }
    if u32::from(u16::from_be_bytes([header[16], header[17]])) != PAGE_SIZE {
        return damaged(format!("its pages do not have {PAGE_SIZE} bytes"));
    }
    // The header counts pages only if both change counters agree.
    let (pages, there) = (u64::from(int(28)), len / u64::from(PAGE_SIZE));
    if int(24) == int(92) && pages > there {
        let log = log_pages(&sibling(database, "-wal")).map_err(io)?;
        // A kill in the middle of a checkpoint leaves a short file; what it lacks still stands in
        // the log.
        if (there + 1..=pages).any(|page| !log.contains(&(page as u32))) {
            return damaged(format!("it has {there} of {pages} pages"));
        }
    }
    Ok(())
}

/// Bytes of the header of a write-ahead log, and of a frame in it.
const LOG_HEADER: u64 = 32;
const LOG_FRAME: u64 = 24 + PAGE_SIZE as u64;

/// The pages in a write-ahead log (SQLite's file format 4.1).
fn log_pages(log: &Path) -> io::Result<HashSet<u32>> {
    let mut pages = HashSet::new();
    let file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pages),
        file => file?,
    };
    let len = file.metadata()?.len();
    let mut file = BufReader::with_capacity(32, file);
    let mut at = LOG_HEADER;
    while at + LOG_FRAME <= len {
        file.seek(SeekFrom::Start(at))?;
        let mut page = [0; 4];
        match file.read_exact(&mut page) {
            // A host has begun it anew, or cut it back.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        pages.insert(u32::from_be_bytes(page));
        at += LOG_FRAME;
    }
    Ok(pages)
}

/// Whether a write-ahead log has the frames that its index counts, and the last is of the log that
/// its header begins. True if the log cannot be read.
pub fn is_log_whole(log: &Path, frames: u64) -> bool {
    let Some(before) = frames.checked_sub(1) else {
        return true;
    };
    let last = LOG_HEADER + before * LOG_FRAME;
    let is_whole = || -> io::Result<bool> {
        let file = File::open(log)?;
        if file.metadata()?.len() < last + LOG_FRAME {
            return Ok(false);
        }
        let (mut of_log, mut of_frame) = ([0; 8], [0; 8]);
        file.read_exact_at(&mut of_log, 16)?;
        file.read_exact_at(&mut of_frame, last + 8)?;
        Ok(of_log == of_frame)
    };
    is_whole().unwrap_or(true)
}

/// The same through SQLite, so that the log counts: format, structure, the rows that guard
/// themselves, and the newest blocks.
///
/// The whole structure up to `full` bytes; beyond that it would keep a host from starting for too
/// long.
///
/// A block that cannot be read does not make the store one that cannot be opened: it concerns who
/// needs its events. Answers what is wrong with such blocks.
pub fn after_open(
    connection: &Connection,
    database: &Path,
    full: u64,
) -> Result<Vec<String>, OpenError> {
    let check = || -> Result<Vec<String>, Refusal> {
        // One snapshot: a host may be writing meanwhile.
        let _snapshot = connection.unchecked_transaction()?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if format > FORMAT {
            return Err(Refusal::Newer(format));
        }
        if format == FORMAT
            && let Some(column) = schema::missing_column(connection)?
        {
            return Err(Refusal::Damaged(format!("it has no `{column}`")));
        }
        let pages: u64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let small = pages * u64::from(PAGE_SIZE) <= full;
        if small {
            let verdict: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(Refusal::Damaged(verdict));
            }
        }
        let mut sources = connection.prepare("SELECT DISTINCT source FROM cursors")?;
        for source in sources.query_map([], |row| row.get::<_, String>(0))? {
            rows::cursors(connection, &source?)?;
        }
        if format == FORMAT {
            gaps::all(connection)?;
        }
        let mut damaged = Vec::new();
        for stream in rows::streams(connection)? {
            let mut seq = stream.next.saturating_sub(1);
            for _ in 0..limits::NEWEST_CHECKED {
                let block = match blocks::at(connection, &stream, seq) {
                    Ok(Some(block)) => block,
                    Ok(None) => break,
                    Err(ReadError::Damaged(what)) => {
                        damaged.push(what);
                        break;
                    }
                    Err(error) => return Err(error.into()),
                };
                match block.verify(&stream) {
                    Ok(_) => {}
                    Err(ReadError::Damaged(what)) => damaged.push(what),
                    Err(error) => return Err(error.into()),
                }
                seq = block.first_seq.saturating_sub(1);
            }
        }
        Ok(damaged)
    };
    check().map_err(|refusal| refusal.of(database))
}

/// Whether what says how far each pipeline and each source is can be trusted. An audit names each
/// row that cannot.
pub fn progress(connection: &Connection, database: &Path) -> Result<(), OpenError> {
    let check = || -> Result<(), Refusal> {
        let _snapshot = connection.unchecked_transaction()?;
        if let Some(what) = rows::cursor_problems(connection)?.into_iter().next() {
            return Err(Refusal::Damaged(what));
        }
        rows::epochs(connection)?;
        if let Some((name, what)) = rows::pipeline_problems(connection)?.into_iter().next() {
            return Err(Refusal::Damaged(format!(
                "the row of pipeline `{name}`: {what}"
            )));
        }
        let mut orphans = rows::orphans(connection)?.into_iter();
        match orphans.find(|orphan| orphan.is_certain) {
            Some(orphan) => Err(Refusal::Damaged(format!(
                "{}: {}",
                orphan.place, orphan.what
            ))),
            None => Ok(()),
        }
    };
    check().map_err(|refusal| refusal.of(database))
}

enum Refusal {
    Newer(i64),
    Damaged(String),
    Failed(String),
}

impl Refusal {
    fn of(self, database: &Path) -> OpenError {
        let path = database.to_owned();
        match self {
            Refusal::Newer(found) => OpenError::Newer {
                path,
                found,
                known: FORMAT,
            },
            Refusal::Damaged(what) => OpenError::Damaged { path, what },
            Refusal::Failed(cause) => OpenError::Failed {
                path,
                cause,
                full: false,
            },
        }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        ReadError::from(error).into()
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        match error {
            ReadError::Damaged(what) => Refusal::Damaged(what),
            ReadError::Failed(cause) | ReadError::Unknown(cause) => Refusal::Failed(cause),
        }
    }
}
