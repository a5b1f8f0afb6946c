use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a store was not opened. Whatever was there is as it was.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store `{}` is in use by {holder}. Stop that process, or give this one a folder of its own with `path` in `[store]`",
        folder.display()
    )]
    Held { folder: PathBuf, holder: String },
    /// A later release wrote it.
    #[error(
        "the store `{}` has format {found}; this release knows formats up to {known}. Start the release that wrote it or a newer one, \
         or give this one another folder with `path` in `[store]`",
        path.display()
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    /// It cannot be trusted.
    #[error(
        "the store `{}` is damaged: {what}. Nothing was written to it. Restore a backup; or move `store.db`, `store.db-wal` and \
         `store.db-shm` aside and start anew: events are then read from Teleport again, from `start-time` on",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    /// There is no store to look into.
    #[error("there is no store at `{}`. `lockgate start` makes one; `path` in `[store]` says where", path.display())]
    Missing { path: PathBuf },
    /// The folder or a file in it cannot be used.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// SQLite could not open it, for a reason other than damage.
    #[error("cannot open the store `{}`: {cause}{}", path.display(), if *full { ". Make room on the disk and start again: nothing is lost" } else { "" })]
    Failed {
        path: PathBuf,
        cause: String,
        full: bool,
    },
}

impl OpenError {
    /// True where there is no room on the disk: wait, then open again.
    pub fn is_full(&self) -> bool {
        match self {
            OpenError::Failed { full, .. } => *full,
            OpenError::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Why an operation on an open store failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// A write failed, or the store was closed. This operation and all later ones did not happen;
    /// what was acknowledged is on disk. Never retried: open the store again (when `full`, once
    /// there is room).
    #[error("the store is closed: {cause}")]
    Closed { cause: String, full: bool },
    /// The commit contradicts what is in the store. It changed nothing; the store goes on.
    #[error("the commit was refused: {0}")]
    Conflict(String),
    /// The argument contradicts itself. It changed nothing; the store goes on.
    #[error("not written: {0}")]
    Invalid(String),
    /// What was read is not what was written.
    #[error(
        "the store is damaged: {0}. Stop Lockgate, then restore a backup; or move `store.db`, `store.db-wal` and `store.db-shm` aside and \
         start anew: events are then read from Teleport again, from `start-time` on"
    )]
    Damaged(String),
    /// Reading failed for another reason.
    #[error("cannot read the store: {0}")]
    Read(String),
    /// No such pipeline or stream was ever registered.
    #[error("the store knows no {0}")]
    Unknown(String),
}

impl StoreError {
    /// True where the store closed because there is no room on the disk: wait, then open it again.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Closed { full: true, .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        if is_damage(&error) {
            StoreError::Damaged(error.to_string())
        } else {
            StoreError::Read(error.to_string())
        }
    }
}

/// SQLite's own words for a file that is not what it wrote, or values that no column of ours holds.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::{Error, ErrorCode};
    match error {
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
        ),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..)
        | Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
