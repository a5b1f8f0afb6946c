//! Reads a file as a whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lockgate_stamps::Stamp;

use crate::error::DatabaseFault;

/// The content. Fails if the file changes while it is read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DatabaseFault> {
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
    if before == after && content.len() as u64 == before.bytes() {
        Ok(content)
    } else {
        Err(DatabaseFault::Unstable)
    }
}
