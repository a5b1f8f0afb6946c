//! Why nothing was written, in words for the operator.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// Why a body was not appended. All of it can be appended again: nothing of it is left in the file,
/// or what is left of its last line will be cut off.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FileError {
    #[error("`{}` cannot be {action}: {reason}", .path.display())]
    Io {
        path: PathBuf,
        /// Such as `opened`.
        action: &'static str,
        kind: ErrorKind,
        reason: String,
    },
    #[error("`{}` is not an ordinary file", .0.display())]
    NotAFile(PathBuf),
    #[error("`{}` is being written to by another pipeline or another process", .0.display())]
    InUse(PathBuf),
    #[error("standard output cannot be written to: {0}")]
    StandardOutput(String),
    #[error("{what} did not take the request within {} s", .timeout.as_secs_f64())]
    Slow { what: String, timeout: Duration },
    #[error("no thread can be started to write to {what}: {reason}")]
    Thread { what: String, reason: String },
}

impl FileError {
    pub(crate) fn io(path: &Path, action: &'static str, error: &io::Error) -> FileError {
        match error.kind() {
            ErrorKind::IsADirectory => FileError::NotAFile(path.to_owned()),
            kind => FileError::Io {
                path: path.to_owned(),
                action,
                kind,
                reason: error.to_string(),
            },
        }
    }

    /// Whether somebody has to change a setting or a permission first.
    pub fn needs_operator(&self) -> bool {
        match self {
            FileError::Io { kind, .. } => matches!(
                kind,
                ErrorKind::NotFound
                    | ErrorKind::NotADirectory
                    | ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
            ),
            FileError::NotAFile(_) | FileError::InUse(_) => true,
            FileError::StandardOutput(_) | FileError::Slow { .. } | FileError::Thread { .. } => {
                false
            }
        }
    }

    /// The way out for an operator.
    pub fn hint(&self) -> Option<&'static str> {
        let hint = match self {
            FileError::Io { kind, .. } => match kind {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {
                    "make the directory, and let the user that the host runs as write there: \
                     Lockgate makes only directories that have a placeholder in their path"
                }
                ErrorKind::PermissionDenied => {
                    "let the user that the host runs as write to the file and to its directory"
                }
                ErrorKind::ReadOnlyFilesystem => {
                    "under systemd, name the directory in `ReadWritePaths=` of the unit"
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "free space there: the events wait in the store"
                }
                ErrorKind::FileTooLarge => {
                    "set `rotate = { bytes = \"…\" }` to less than the limit"
                }
                _ => return None,
            },
            FileError::NotAFile(_) => "name a file, or write `url = \"-\"` for standard output",
            FileError::InUse(_) => "give each pipeline a file of its own",
            FileError::Slow { .. } => {
                "look at the disk, or raise `timeout` of the sink if it is always as slow"
            }
            FileError::StandardOutput(_) | FileError::Thread { .. } => return None,
        };
        Some(hint)
    }
}
