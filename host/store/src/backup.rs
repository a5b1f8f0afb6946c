//! A consistent copy of a store, also while a host runs on it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use crate::directory::sibling;
use crate::integrity::Integrity;
use crate::reads::Reads;
use crate::{Inspector, LedgerError};

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error("`{}` exists; a backup never overwrites a file", .0.display())]
    Exists(PathBuf),
    #[error(
        "`{}` exists: another backup is being written, or one was interrupted; remove that file if \
         none is running",
        .0.display()
    )]
    Unfinished(PathBuf),
    #[error("`{}` is in the directory of the store; a backup belongs elsewhere", .0.display())]
    InStore(PathBuf),
    #[error("cannot write `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the store cannot be copied to `{}`: {cause}", path.display())]
    Copy { path: PathBuf, cause: String },
    #[error(transparent)]
    Store(#[from] LedgerError),
}

impl Inspector {
    /// Writes the store as it is at one moment to a new file, and checks that copy as
    /// [`Reads::integrity`] does. The file has its name only once it is complete.
    ///
    /// Until the copy is written, the log of a running host grows.
    pub fn backup(&self, file: &Path) -> Result<Integrity, BackupError> {
        let io = |source| BackupError::Io {
            path: file.to_owned(),
            source,
        };
        if file.try_exists().map_err(io)? {
            return Err(BackupError::Exists(file.to_owned()));
        }
        if self.contains(file) {
            return Err(BackupError::InStore(file.to_owned()));
        }
        let new = sibling(file, ".new");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&new).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Unfinished(new.clone()),
            _ => BackupError::Io {
                path: new.clone(),
                source,
            },
        })?;
        let written = self.write(&new).and_then(|integrity| {
            // Unlike renaming, this fails if somebody has made the file meanwhile.
            fs::hard_link(&new, file).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => BackupError::Exists(file.to_owned()),
                _ => io(source),
            })?;
            let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
            let directory = File::open(directory.unwrap_or(Path::new(".")));
            directory.and_then(|file| file.sync_all()).map_err(io)?;
            Ok(integrity)
        });
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // Some were never there.
            let _ = fs::remove_file(sibling(&new, suffix));
        }
        written
    }

    /// Whether the file would be in the directory of the store, or below it.
    fn contains(&self, file: &Path) -> bool {
        let directory = self.database().parent().map(Path::canonicalize);
        let target = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.canonicalize(),
            _ => Path::new(".").canonicalize(),
        };
        // Writing tells better what is wrong with a path that cannot be resolved.
        matches!((target, directory), (Ok(target), Some(Ok(directory))) if target.starts_with(&directory))
    }

    fn write(&self, new: &Path) -> Result<Integrity, BackupError> {
        let failed = |error: &dyn std::fmt::Display| BackupError::Copy {
            path: new.to_owned(),
            cause: error.to_string(),
        };
        let path = new
            .to_str()
            .ok_or_else(|| failed(&"its name is not UTF-8"))?;
        let copied = self.alone(|connection| connection.execute("VACUUM INTO ?1", [path]));
        copied?.map_err(|error| failed(&error))?;
        let finish = || -> rusqlite::Result<()> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let copy = Connection::open_with_flags(new, flags)?;
            copy.pragma_update(None, "journal_mode", "wal")?;
            copy.close().map_err(|(_, error)| error)
        };
        finish().map_err(|error| failed(&error))?;
        File::open(new)
            .and_then(|file| file.sync_all())
            .map_err(|error| failed(&error))?;
        Ok(Reads::new(new.to_owned()).integrity()?)
    }
}
