//! Why a store cannot be opened or read.

use std::io;
use std::path::PathBuf;

use lockgate_ledger::{LedgerError, START_ANEW};
use thiserror::Error;

/// Why a store was not opened. Whatever was there is as it was.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store `{}` is in use by {holder}. Stop that process, or give this one a directory of \
         its own with `path` in `[store]`",
        directory.display()
    )]
    Held { directory: PathBuf, holder: String },
    /// A later release wrote it.
    #[error(
        "the store `{}` has format {found}; this release knows formats up to {known}. Start the \
         release that wrote it or a newer one, or give this one another directory with `path` in \
         `[store]`",
        path.display()
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    /// An earlier release wrote it, and only a store that may write can bring it up to date.
    #[error(
        "the store `{}` has format {found}; this release reads format {known}. `lockgate start` \
         brings it up to date",
        path.display()
    )]
    Older {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    /// It cannot be trusted.
    #[error(
        "the store `{}` is damaged: {what}. Nothing was written to it. Restore a backup. \
         {START_ANEW}",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    /// There is no store to look into.
    #[error(
        "there is no store at `{}`; `path` in `[store]` says where it is. If it was moved, move it \
         back: `lockgate start` makes a new one, which reads events from Teleport again from \
         `start-time` on, or from the present if that is not set, and sends them again",
        path.display()
    )]
    Missing { path: PathBuf },
    /// The directory or a file in it cannot be used.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// SQLite could not open it, for a reason other than damage.
    #[error("cannot open the store `{}`: {cause}{}", path.display(), if *full { ". The disk is full: free some space" } else { "" })]
    Failed {
        path: PathBuf,
        cause: String,
        full: bool,
    },
}

impl OpenError {
    /// True if there is no room on the disk: wait, then open again.
    pub fn is_full(&self) -> bool {
        match self {
            OpenError::Failed { full, .. } => *full,
            OpenError::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Why something could not be read: what goes wrong below [`LedgerError`], if nothing is refused
/// and nothing closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    Damaged(String),
    Failed(String),
    Unknown(String),
}

impl ReadError {
    /// Its words, without its kind.
    pub(crate) fn what(self) -> String {
        match self {
            ReadError::Damaged(what) | ReadError::Failed(what) | ReadError::Unknown(what) => what,
        }
    }
}

impl From<ReadError> for LedgerError {
    fn from(error: ReadError) -> LedgerError {
        match error {
            ReadError::Damaged(what) => LedgerError::Damaged(what),
            ReadError::Failed(cause) => LedgerError::Read(cause),
            ReadError::Unknown(what) => LedgerError::Unknown(what),
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> ReadError {
        if is_damage(&error) {
            ReadError::Damaged(error.to_string())
        } else {
            ReadError::Failed(error.to_string())
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
