//! Files of compiled code. They are checked for who may write them, and nothing vouches for their
//! content here: the digest that does must not stand where the code stands.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use thiserror::Error;
use tracing::{debug, warn};

use crate::digest::Digest;

/// A folder of compiled code, made by this host for itself. Several threads and processes may use
/// it at once.
#[derive(Debug)]
pub struct CodeStore {
    folder: PathBuf,
    /// Bytes of all files together.
    capacity: u64,
    /// The user that this process writes files as.
    owner: u32,
}

/// Why the folder is not used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It could not be made, or nothing can be written there.
    #[error("The folder for compiled code `{folder}` cannot be used: {source}.")]
    Io { folder: PathBuf, source: io::Error },
    /// Others may put files there.
    #[error(
        "Other users may write to the folder for compiled code `{folder}` (mode {mode:04o}).\nhint: `chmod 700 {folder}`"
    )]
    Mode { folder: PathBuf, mode: u32 },
    /// It is another user's.
    #[error(
        "The folder for compiled code `{folder}` belongs to another user (uid {owner}).\nhint: remove it, and it is made anew"
    )]
    Owner { folder: PathBuf, owner: u32 },
}

/// Why a file was not handed out. The component is compiled again.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// A link, folder or device.
    #[error("it is not a plain file")]
    Kind,
    /// Written by another user.
    #[error("it belongs to another user (uid {0})")]
    Owner(u32),
    /// Others may write it.
    #[error("other users may write it (mode {0:04o})")]
    Mode(u32),
    /// This host wrote nothing that large.
    #[error("it is larger than everything that may be kept")]
    Size,
    /// The system refused it.
    #[error("it cannot be read: {0}")]
    Read(String),
}

/// Why compiled code was not kept. The host goes on without.
#[derive(Debug, Error)]
pub enum SaveError {
    /// Larger than everything that may be kept.
    #[error("compiled code of {size} bytes does not fit into a cache of {capacity} bytes")]
    Capacity { size: u64, capacity: u64 },
    /// The system refused it.
    #[error("compiled code cannot be written to `{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Makes names of temporary files unique in this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl CodeStore {
    /// Opens the folder, and makes it, mode 0700, where it is missing. `capacity` is in bytes, over
    /// all files.
    ///
    /// # Errors
    /// The folder cannot be made or written, or others may write it.
    pub fn open(folder: &Path, capacity: u64) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io {
            folder: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let found = fs::metadata(folder).map_err(failed)?;
        if found.mode() & 0o022 != 0 {
            return Err(OpenError::Mode {
                folder: folder.to_owned(),
                mode: found.mode() & 0o7777,
            });
        }
        // The user of this process, without asking the system for more than a file.
        let probe = temporary(folder, "open");
        let owner = write(&probe, &[])
            .and_then(|()| fs::metadata(&probe))
            .map_err(failed)?
            .uid();
        fs::remove_file(&probe).map_err(failed)?;
        if found.uid() != owner {
            return Err(OpenError::Owner {
                folder: folder.to_owned(),
                owner: found.uid(),
            });
        }
        if found.mode() & 0o7777 != 0o700 {
            fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            capacity,
            owner,
        })
    }

    /// What is kept under `key`, if it is there and nobody else may write it. A file that is not is
    /// logged and left for the next save to replace. The caller checks the content.
    pub fn load(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.read(key);
        if let Err(refusal) = &found {
            warn!(file = %self.path(key).display(), "Compiled code is not used: {refusal}. The component is compiled again.");
        }
        found.ok().flatten()
    }

    /// As [`CodeStore::load`], with the reason.
    ///
    /// # Errors
    /// There is a file, and it is refused.
    pub fn read(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let path = self.path(key);
        let failed = |error: io::Error| Refusal::Read(error.to_string());
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found
                .map_err(failed)?
                .is_file()
                .then_some(())
                .ok_or(Refusal::Kind)?,
        }
        let file = File::open(&path).map_err(failed)?;
        // Of the opened file, so that what is checked is what is read.
        let found = file.metadata().map_err(failed)?;
        if found.uid() != self.owner {
            return Err(Refusal::Owner(found.uid()));
        }
        if found.mode() & 0o022 != 0 {
            return Err(Refusal::Mode(found.mode() & 0o7777));
        }
        if found.len() > self.capacity {
            return Err(Refusal::Size);
        }
        let mut bytes = Vec::new();
        (&file)
            .take(self.capacity)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        // The least recently used goes first. A read-only file system does not keep the code from
        // being used.
        #[allow(
            clippy::disallowed_methods,
            reason = "the time of a file, in its own clock"
        )]
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(bytes))
    }

    /// Keeps `content` under `key` and removes the files that were not used for longest, until all
    /// fit.
    ///
    /// # Errors
    /// It is too large, or the system refused to write.
    pub fn save(&self, key: &str, content: &[u8]) -> Result<(), SaveError> {
        let size = content.len() as u64;
        if size > self.capacity {
            return Err(SaveError::Capacity {
                size,
                capacity: self.capacity,
            });
        }
        let path = self.path(key);
        let partial = temporary(&self.folder, "save");
        let written = write(&partial, content).and_then(|()| fs::rename(&partial, &path));
        if let Err(source) = written {
            // Where even this fails, the file is the oldest one day.
            let _ = fs::remove_file(&partial);
            return Err(SaveError::Io { path, source });
        }
        self.trim(&path);
        Ok(())
    }

    /// A key may be long and hold anything, so the name is its digest.
    fn path(&self, key: &str) -> PathBuf {
        let digest = Digest::of(key.as_bytes()).to_string();
        self.folder
            .join(digest.replace("sha256:", ""))
            .with_extension("code")
    }

    fn trim(&self, newest: &Path) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let found = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files.iter().filter(|(_, _, path)| path != newest) {
            if total <= self.capacity {
                break;
            }
            match fs::remove_file(path) {
                Ok(()) => {
                    debug!(file = %path.display(), "Compiled code that was not used for longest is removed.")
                }
                // Another process was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(file = %path.display(), "Old compiled code cannot be removed: {error}.");
                    continue;
                }
            }
            total -= size;
        }
    }
}

fn temporary(folder: &Path, purpose: &str) -> PathBuf {
    folder.join(format!(
        "{purpose}-{}-{}.tmp",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A file of a process that died with the same id is no reason to fail.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

#[cfg(test)]
mod tests;
