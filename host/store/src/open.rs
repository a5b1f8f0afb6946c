//! Connections: made, checked, set up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::directory::{self, sibling};
use crate::error::{ReadError, is_damage, is_full};
use crate::schema::{APPLICATION_ID, FORMAT, IDENTIFY, PAGE_SIZE, TABLES};
use crate::{OpenError, check, limits, migrate};

/// Opens the store in the directory for writing, or creates it. The caller holds the lock of the
/// directory.
pub fn writer(directory: &Path, size_max: Option<u64>) -> Result<Connection, OpenError> {
    let database = directory::database(directory);
    if !database.try_exists().map_err(|source| OpenError::Io {
        doing: "look at",
        path: database.clone(),
        source,
    })? {
        if let Some(damaged) = left_log(&database) {
            return Err(damaged);
        }
        create(directory, &database)?;
    }
    // SQLite removes both when it closes the store. A kill leaves both.
    let [log, index] = ["-wal", "-shm"].map(|suffix| sibling(&database, suffix));
    if index.exists() && !log.exists() {
        tracing::error!(
            log = %log.display(),
            "the log of the store was removed after a host was killed: what it held is lost. \
             Events that were acknowledged only there are read from Teleport again, and events \
             whose outcomes were recorded only there are delivered again"
        );
    }
    check::before_open(&database)?;
    // SQLite would open them to read only, and fail at the first write.
    directory::check_files(directory)?;
    // Checked through a connection that cannot write, so that a refusal leaves every byte as it
    // was.
    let connection = reader(&database).map_err(|error| failed(&database, &error))?;
    let checked =
        check::after_open(&connection, &database, limits::FULL_CHECK).and_then(|damaged| {
            check::progress(&connection, &database)?;
            Ok(damaged)
        });
    let damaged = checked.map_err(|error| match error {
        // Even a reader needs room, for the log's index.
        OpenError::Failed { path, cause, .. } => OpenError::Failed {
            path,
            cause,
            full: no_room(directory),
        },
        other => other,
    })?;
    for what in damaged {
        tracing::error!(
            "the store is damaged: {what}. Pipelines that need these events hold there, the others \
             go on; `lockgate store verify` checks everything"
        );
    }
    drop(connection);
    let writer = open_writer(&database, size_max).map_err(|error| failed(&database, &error))?;
    migrate::up_to_date(&writer).map_err(|error| unreadable(directory, error))?;
    Ok(writer)
}

/// A log without its database is what is left of a store: not a place for a new one.
pub fn left_log(database: &Path) -> Option<OpenError> {
    has_log(database).then(|| OpenError::Damaged {
        path: database.to_owned(),
        what: "it is gone, and its log `store.db-wal` is still there".to_owned(),
    })
}

fn has_log(database: &Path) -> bool {
    let log = fs::metadata(sibling(database, "-wal"));
    log.is_ok_and(|log| log.len() > 0)
}

/// A connection that cannot write. It leaves the log alone when it closes.
pub fn reader(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        database,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    keep_log(&connection)?;
    keep_plans(&connection)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// The same, and makes no file. Without a log there is nothing to share with a writer. A log
/// without an index is what a killed host leaves, or a copy: SQLite would make an index, so it is
/// told that nobody else is there, and keeps one in memory.
pub fn glance(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if has_log(database) {
        if sibling(database, "-shm").exists() {
            return reader(database);
        }
        // Without locks, which a connection that cannot write could not take.
        let connection = Connection::open_with_flags_and_vfs(database, flags, c"unix-none")?;
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        keep_log(&connection)?;
        return Ok(connection);
    }
    let path = database.as_os_str().as_bytes().iter();
    let path = path.map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    Connection::open_with_flags(
        format!("file:{}?immutable=1", path.collect::<String>()),
        flags | OpenFlags::SQLITE_OPEN_URI,
    )
}

/// Makes the log part of the database and lets SQLite remove it.
pub fn close_writer(connection: Connection) -> rusqlite::Result<()> {
    let done: rusqlite::Result<i64> =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.close().map_err(|(_, error)| error)?;
    done.map(drop)
}

/// Whether a failed operation failed for want of room. SQLite says so only of `ENOSPC`; a quota and
/// a limit on the size of files are faults like any other to it, so the disk is asked: can a file
/// next to the store grow as far as the store's own?
pub fn is_disk_full(error: &rusqlite::Error, directory: &Path) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => no_room(directory),
        _ => false,
    }
}

/// Whether the store could not grow.
pub fn no_room(directory: &Path) -> bool {
    probe(directory, 8 * PAGE_SIZE as usize).is_err_and(|error| is_full(&error))
}

/// Refuses a directory without room for the commits of what is sent once the store is open: a
/// store that was closed by a full disk would have it sent again and again. Blocks while it writes.
pub fn check_room(directory: &Path) -> Result<(), OpenError> {
    let bytes = limits::ROOM_TO_REOPEN;
    // Others may need what little is left: a probe that would take all of it is not tried.
    let room = match free_bytes(directory) {
        Some(free) if free < bytes as u64 => Err(rustix::io::Errno::NOSPC.into()),
        _ => probe(directory, bytes),
    };
    room.map_err(|source| OpenError::Io {
        doing: "write the 32 MiB that have to be free into",
        path: directory.to_owned(),
        source,
    })
}

/// Free bytes of a file system that knows them. There may be less room for the store: a quota, or a
/// limit on the size of files.
pub fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of a store without events, about.
const NEW_STORE: u64 = 512 * 1024;

/// Writes so many bytes where the store's own files would grow, and removes them.
fn probe(directory: &Path, bytes: usize) -> io::Result<()> {
    let database = directory::database(directory);
    let len = |path: &Path| path.metadata().map_or(0, |file| file.len());
    // A new store, and the index of a log, need room before they have a length.
    let least = if database.exists() {
        32 * 1024
    } else {
        NEW_STORE
    };
    let end = len(&database)
        .max(len(&sibling(&database, "-wal")))
        .max(least);
    let path = directory.join("probe");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    // Before it is large: nothing is left of it if the process ends.
    fs::remove_file(&path)?;
    file.seek(SeekFrom::Start(end))?;
    let page = [0; PAGE_SIZE as usize];
    for _ in 0..bytes / page.len() {
        file.write_all(&page)?;
    }
    file.sync_data()
}

/// Under another name first: a file called `store.db` is a whole store from its first moment, so an
/// empty one is a damaged one.
fn create(directory: &Path, database: &Path) -> Result<(), OpenError> {
    let new = sibling(database, ".new");
    let io = |doing| {
        move |source| OpenError::Io {
            doing,
            path: directory.to_owned(),
            source,
        }
    };
    for leftover in [&new, &sibling(&new, "-journal")] {
        match fs::remove_file(leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("clear")(error));
            }
            _ => {}
        }
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(io("make a file in"))?;
    let fill = || -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(&new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.execute_batch(&format!(
            "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; \
             {TABLES} {IDENTIFY} COMMIT;"
        ))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(|error| failed_in(directory, database, &error))?;
    fs::rename(&new, database).map_err(io("name the store in"))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io("write"))
}

fn open_writer(database: &Path, size_max: Option<u64>) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        database,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    keep_log(&connection)?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "journal_size_limit", limits::WAL_KEPT)?;
    if let Some(bytes) = size_max {
        connection.pragma_update(None, "max_page_count", bytes / u64::from(PAGE_SIZE))?;
    }
    Ok(connection)
}

/// SQLite is built with `STAT4`: without this it plans a statement again each time its parameters
/// get other values.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

// Closing a store that failed must not write to it again.
fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map(drop)
}

/// Why a store that is there was not opened.
pub fn unreadable(directory: &Path, error: ReadError) -> OpenError {
    let path = directory::database(directory);
    match error {
        ReadError::Damaged(what) => OpenError::Damaged { path, what },
        ReadError::Failed(cause) | ReadError::Unknown(cause) => OpenError::Failed {
            path,
            cause,
            full: no_room(directory),
        },
    }
}

pub fn failed(database: &Path, error: &rusqlite::Error) -> OpenError {
    failed_in(database.parent().unwrap_or(database), database, error)
}

fn failed_in(directory: &Path, database: &Path, error: &rusqlite::Error) -> OpenError {
    let path = database.to_owned();
    if is_damage(error) {
        return OpenError::Damaged {
            path,
            what: error.to_string(),
        };
    }
    OpenError::Failed {
        path,
        cause: error.to_string(),
        full: is_disk_full(error, directory),
    }
}
