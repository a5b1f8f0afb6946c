//! A cache of compiled code in files. It checks who may write the files, but not their content: the
//! caller compares it with a digest, which must not be stored next to the code.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use thiserror::Error;
use tracing::{debug, warn};

use crate::digest::Digest;

/// A directory of compiled code that this host writes for itself. Several threads and processes may
/// use it at the same time.
#[derive(Debug)]
pub struct CodeDir {
    dir: PathBuf,
    /// Most bytes of all files together.
    capacity: u64,
    /// The user as whom this process writes files.
    owner: u32,
}

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum CodeDirError {
    /// It cannot be created or written.
    #[error("The directory for compiled code `{dir}` cannot be used: {source}.")]
    Io { dir: PathBuf, source: io::Error },
    /// Other users may write files there.
    #[error(
        "Other users may write to the directory for compiled code `{dir}` (mode \
         {mode:04o}).\nhint: `chmod 700 {dir}`"
    )]
    Mode { dir: PathBuf, mode: u32 },
    /// It belongs to another user.
    #[error(
        "The directory for compiled code `{dir}` belongs to another user (uid {owner}).\nhint: \
         remove the directory; it will be created again"
    )]
    Owner { dir: PathBuf, owner: u32 },
}

/// Why a file is not used. The component is compiled again.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodeReadError {
    /// A link, a directory or a device.
    #[error("it is not a plain file")]
    Kind,
    /// The owner is another user.
    #[error("it belongs to another user (uid {0})")]
    Owner(u32),
    /// Other users may write it.
    #[error("other users may write it (mode {0:04o})")]
    Mode(u32),
    /// Larger than any file that this host writes.
    #[error("it is larger than the whole cache")]
    Size,
    /// The operating system reports an error.
    #[error("it cannot be read: {0}")]
    Read(String),
}

/// Why compiled code was not saved. The host works without it.
#[derive(Debug, Error)]
pub enum CodeSaveError {
    /// Larger than the whole cache.
    #[error("compiled code of {size} bytes does not fit into a cache of {capacity} bytes")]
    Capacity { size: u64, capacity: u64 },
    /// The operating system reports an error.
    #[error("compiled code cannot be written to `{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Makes names of temporary files unique in this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl CodeDir {
    /// Opens the directory, or creates it with mode 0700. `capacity` is in bytes, over all files.
    ///
    /// # Errors
    /// The directory cannot be created or written, or other users may write it.
    pub fn open(dir: &Path, capacity: u64) -> Result<Self, CodeDirError> {
        let failed = |source| CodeDirError::Io {
            dir: dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let found = fs::metadata(dir).map_err(failed)?;
        if found.mode() & 0o022 != 0 {
            return Err(CodeDirError::Mode {
                dir: dir.to_owned(),
                mode: found.mode() & 0o7777,
            });
        }
        // A new file shows the user of this process, without another system call.
        let probe = temporary(dir, "open");
        let owner = write(&probe, &[])
            .and_then(|()| fs::metadata(&probe))
            .map_err(failed)?
            .uid();
        fs::remove_file(&probe).map_err(failed)?;
        if found.uid() != owner {
            return Err(CodeDirError::Owner {
                dir: dir.to_owned(),
                owner: found.uid(),
            });
        }
        if found.mode() & 0o7777 != 0o700 {
            fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            capacity,
            owner,
        })
    }

    /// The code under `key`, if it exists and nobody else may write it. A file that others may
    /// write is logged, and the next save replaces it. The caller checks the content.
    pub fn load(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.read(key);
        if let Err(error) = &found {
            warn!(file = %self.path(key).display(), "Compiled code is not used: {error}. The \
                                                     component is compiled again.");
        }
        found.ok().flatten()
    }

    /// Like [`CodeDir::load`], but returns the reason.
    ///
    /// # Errors
    /// The file exists but cannot be used.
    pub fn read(&self, key: &str) -> Result<Option<Vec<u8>>, CodeReadError> {
        let path = self.path(key);
        let failed = |error: io::Error| CodeReadError::Read(error.to_string());
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found
                .map_err(failed)?
                .is_file()
                .then_some(())
                .ok_or(CodeReadError::Kind)?,
        }
        let file = File::open(&path).map_err(failed)?;
        // Metadata of the open file, so that the file that is checked is the one that is read.
        let found = file.metadata().map_err(failed)?;
        if found.uid() != self.owner {
            return Err(CodeReadError::Owner(found.uid()));
        }
        if found.mode() & 0o022 != 0 {
            return Err(CodeReadError::Mode(found.mode() & 0o7777));
        }
        if found.len() > self.capacity {
            return Err(CodeReadError::Size);
        }
        let mut bytes = Vec::new();
        (&file)
            .take(self.capacity)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        // Marks the file as used, because the least recently used one is removed first. This may
        // fail on a read-only file system, where the code can still be used.
        #[allow(
            clippy::disallowed_methods,
            reason = "the time of a file, in its own clock"
        )]
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(bytes))
    }

    /// Saves `content` under `key` and removes the least recently used files until all fit.
    ///
    /// # Errors
    /// The content is too large, or writing failed.
    pub fn save(&self, key: &str, content: &[u8]) -> Result<(), CodeSaveError> {
        let size = content.len() as u64;
        if size > self.capacity {
            return Err(CodeSaveError::Capacity {
                size,
                capacity: self.capacity,
            });
        }
        let path = self.path(key);
        let partial = temporary(&self.dir, "save");
        let written = write(&partial, content).and_then(|()| fs::rename(&partial, &path));
        if let Err(source) = written {
            // If this fails, too, the file is removed when it is the oldest.
            let _ = fs::remove_file(&partial);
            return Err(CodeSaveError::Io { path, source });
        }
        self.trim(&path);
        Ok(())
    }

    /// A key may be long and contain any character, so the file name is its digest.
    fn path(&self, key: &str) -> PathBuf {
        let digest = Digest::of(key.as_bytes()).to_string();
        self.dir
            .join(digest.replace("sha256:", ""))
            .with_extension("code")
    }

    fn trim(&self, newest: &Path) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
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
                    debug!(file = %path.display(), "Removed the least recently used compiled code.")
                }
                // Another process removed it first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(file = %path.display(), "Removing old compiled code failed: {error}.");
                    continue;
                }
            }
            total -= size;
        }
    }
}

fn temporary(dir: &Path, purpose: &str) -> PathBuf {
    dir.join(format!(
        "{purpose}-{}-{}.tmp",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Removes the file of an earlier process with the same id.
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
