//! The store's directory, and the lock that one process holds on it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lockgate_model::{Day, Millis};

use crate::OpenError;

pub const DATABASE: &str = "store.db";
const LOCK: &str = "lock";

/// Held for as long as it lives. The kernel releases it when the process ends, however it ends.
pub struct DirectoryLock {
    _file: File,
}

/// Creates the directory. Makes it private unless it already holds files.
pub fn prepare(directory: &Path) -> Result<(), OpenError> {
    let io = |doing| {
        move |source| OpenError::Io {
            doing,
            path: directory.to_owned(),
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io("make the directory"))?;
    let mode = fs::metadata(directory)
        .map_err(io("look at the directory"))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        if fs::read_dir(directory)
            .map_err(io("look into the directory"))?
            .next()
            .is_none()
        {
            fs::set_permissions(directory, Permissions::from_mode(0o700))
                .map_err(io("restrict the mode of the directory"))?;
        } else {
            // Others may need what else is in it. The store's own files are 0600 in any case.
            tracing::warn!(directory = %directory.display(), "other users may look into the store's directory (mode {mode:04o}); `chmod 700` prevents that");
        }
    }
    Ok(())
}

/// Takes the lock, or says who has it.
pub fn lock(directory: &Path, now: Millis) -> Result<DirectoryLock, OpenError> {
    let path = directory.join(LOCK);
    let io = |doing, source| OpenError::Io {
        doing,
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| io("open the lock", source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // A holder that was stopped between locking and writing leaves nothing to read.
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() {
                "another process".to_owned()
            } else {
                holder.trim().to_owned()
            };
            return Err(OpenError::Held {
                directory: directory.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(source)) => return Err(io("lock", source)),
    }
    // The lock counts, its text is for people: a full disk must not keep a store from opening.
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", holder(now)));
    if let Err(error) = written {
        tracing::warn!(lock = %path.display(), %error, "the lock does not say who holds it");
    }
    Ok(DirectoryLock { _file: file })
}

pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}

pub fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn holder(now: Millis) -> String {
    let command = std::env::args_os()
        .map(|arg| arg.to_string_lossy().escape_debug().to_string())
        .collect::<Vec<_>>()
        .join(" ");
    let command: String = command.chars().take(200).collect();
    let seconds = now.rem_euclid(Day::MILLIS) / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "process {} (`{command}`) since {}T{hours:02}:{minutes:02}:{seconds:02}Z",
        std::process::id(),
        Day::of(now)
    )
}
