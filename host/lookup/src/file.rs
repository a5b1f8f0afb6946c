//! Reads a file, and notices when it has changed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::DatabaseFault;

/// Distinguishes versions of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Stamp> {
        std::fs::metadata(path).map(|metadata| Stamp::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The content and its stamp. Fails if the file changes while it is read.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, Stamp), DatabaseFault> {
    // First: to open a named pipe waits until somebody writes to it.
    let metadata = std::fs::metadata(path).map_err(DatabaseFault::Read)?;
    if !metadata.is_file() {
        return Err(DatabaseFault::Read(io::Error::other(
            "it is not a regular file",
        )));
    }
    let mut file = File::open(path).map_err(DatabaseFault::Read)?;
    let metadata = file.metadata().map_err(DatabaseFault::Read)?;
    let before = Stamp::from(&metadata);
    let mut content = Vec::with_capacity(metadata.len() as usize);
    file.read_to_end(&mut content)
        .map_err(DatabaseFault::Read)?;
    let after = Stamp::from(&file.metadata().map_err(DatabaseFault::Read)?);
    if before == after && content.len() as u64 == before.bytes {
        Ok((content, before))
    } else {
        Err(DatabaseFault::Unstable)
    }
}
