//! The store's directory, and the lock that one process holds on it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_model::{Day, Millis};

use crate::error::is_full;
use crate::limits;
use crate::open::free_bytes;
use crate::schema::PAGE_SIZE;
use crate::writer::{Fault, Writer};
use crate::{OpenError, check};

pub const DATABASE: &str = "store.db";
const LOCK: &str = "lock";
/// Changes that somebody else made to the files of an open store, until it is opened again.
const CHANGED_FILES: &str = "changed-files";

/// Held until the last clone is dropped. The kernel releases it when the process ends, however it
/// ends.
#[derive(Clone, Debug)]
pub struct DirectoryLock {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    directory: File,
    file: Option<File>,
}

impl Drop for Held {
    /// Not only by closing: a process that another thread is just starting has the files open, too.
    fn drop(&mut self) {
        for file in self.file.iter().chain([&self.directory]) {
            let _ = file.unlock();
        }
    }
}

impl DirectoryLock {
    /// Makes the directory if it does not exist, and takes its lock or says who has it.
    pub fn take(directory: &Path, now: Millis) -> Result<DirectoryLock, OpenError> {
        prepare(directory)?;
        lock(directory, now)
    }
}

/// The files of an open store. What is written after they were removed, replaced or truncated would
/// be lost.
///
/// `store.db` and `store.db-shm` are never opened here: closing any handle of a file releases all
/// locks that SQLite holds on it in this process.
#[derive(Debug)]
pub struct Files {
    /// By device and inode.
    found: Vec<(PathBuf, (u64, u64))>,
    database: PathBuf,
    log: PathBuf,
    /// Bytes that `store.db` has at least, until a transaction makes the database smaller.
    least: u64,
    /// Bytes of all pages, at the last look.
    pages: u64,
}

impl Files {
    /// As they are now; the store is open.
    pub fn of(directory: &Path) -> Files {
        let database = database(directory);
        let paths = ["", "-wal", "-shm"].map(|suffix| sibling(&database, suffix));
        let found = paths.into_iter().filter_map(|path| {
            let identity = identity(&path).ok()?;
            Some((path, identity))
        });
        Files {
            found: found.collect(),
            log: sibling(&database, "-wal"),
            database,
            least: 0,
            pages: u64::MAX,
        }
    }

    /// Whether each is still there, as far as can be told without opening it.
    pub fn check_places(&self) -> Result<(), Fault> {
        for (path, before) in &self.found {
            match identity(path) {
                Ok(found) if found == *before => {}
                Ok(_) => return Err(Fault::Gone(path.clone())),
                Err(error) => return Err(unreachable_file(path, error)),
            }
        }
        Ok(())
    }

    /// Whether somebody else removed, replaced, truncated or overwrote one of them; between
    /// transactions.
    ///
    /// Checkpoints do not trigger it, whichever process runs them: the log still holds what its
    /// index counts, and `store.db` becomes shorter only if the database has become smaller.
    pub fn check(&mut self, writer: &Writer) -> Result<(), Fault> {
        self.check_places()?;
        let frames = writer.log_frames();
        // A checkpoint that empties the log changes the index first.
        if !check::is_log_whole(&self.log, frames) && writer.log_frames() == frames {
            return Err(Fault::Overwritten(self.log.clone()));
        }
        let pages = writer.pages()? * u64::from(PAGE_SIZE);
        let len = match fs::metadata(&self.database) {
            Ok(file) => file.len(),
            Err(error) => return Err(unreachable_file(&self.database, error)),
        };
        if len < self.least.min(pages) {
            return Err(Fault::Overwritten(self.database.clone()));
        }
        // A checkpoint of another process may be about to cut it to the pages of the last look.
        self.least = len.min(pages).min(self.pages);
        self.pages = pages;
        Ok(())
    }
}

/// Whether a store can be kept in this directory: it can be made, or files can be made in it.
/// Leaves everything as it is, so that several may ask at the same time, and while a host starts.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    let ancestors = directory.ancestors();
    for path in ancestors.map(|path| if path == "" { Path::new(".") } else { path }) {
        match fs::metadata(path) {
            Ok(_) => return check_writable(path),
            // A link that leads nowhere is there, and no directory can be made in its place.
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::NotFound.into())
}

/// The free bytes of the disk of this directory, if a store that closed for want of room would not
/// be opened again with so few. `None` if there is room, as far as the disk says. The directory may
/// be missing. Writes nothing.
pub fn too_few_free_bytes(directory: &Path) -> Option<u64> {
    let ancestors = directory.ancestors();
    let mut ancestors = ancestors.map(|path| if path == "" { Path::new(".") } else { path });
    let there = ancestors.find(|path| path.exists())?;
    free_bytes(there).filter(|&free| free < limits::ROOM_TO_REOPEN as u64)
}

/// Makes a file without a name, which ends with this function.
fn check_writable(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, open};
    let system = rustix::fs::statvfs(directory)?;
    if system.f_blocks == 0 && system.f_files == 0 {
        // One of the kernel's own, such as `/proc`: nobody makes files there.
        return Err(rustix::io::Errno::ROFS.into());
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Ok(()),
        // Not every file system has such files.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            let wanted = Access::WRITE_OK | Access::EXEC_OK;
            Ok(accessat(CWD, directory, wanted, AtFlags::EACCESS)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether what there is of a store in this directory can be read and written, and is a store as
/// far as its first bytes say.
///
/// Not while this process has the store open: closing any handle of a file releases all locks that
/// SQLite holds on it in this process.
pub fn check_store(directory: &Path) -> Result<(), OpenError> {
    check_files(directory)?;
    let database = database(directory);
    match database.exists() {
        true => check::before_open(&database),
        false => Ok(()),
    }
}

/// The same of reading and writing alone.
pub fn check_files(directory: &Path) -> Result<(), OpenError> {
    let database = database(directory);
    // Not the index: SQLite's locks of readers in this process are on it.
    let files = ["", "-wal"].map(|suffix| sibling(&database, suffix));
    for path in files.into_iter().chain([directory.join(LOCK)]) {
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => {
                return Err(OpenError::Io {
                    doing: "open for writing",
                    path,
                    source,
                });
            }
        }
    }
    Ok(())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// A file that cannot be looked at was not necessarily removed: the store must not be replaced by a
/// backup because of a permission.
fn unreachable_file(path: &Path, error: io::Error) -> Fault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Fault::Gone(path.to_owned()),
        _ => Fault::Unreachable(path.to_owned(), error),
    }
}

/// Creates the directory. Makes it private unless it already holds files.
fn prepare(directory: &Path) -> Result<(), OpenError> {
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
            tracing::warn!(directory = %directory.display(), "other users can look into the store's directory (mode {mode:04o}); `chmod 700` prevents that");
        }
    }
    Ok(())
}

/// The lock is on the directory, which nobody removes by mistake, and on the file in it, which
/// earlier versions lock and which says who holds it.
fn lock(directory: &Path, now: Millis) -> Result<DirectoryLock, OpenError> {
    let path = directory.join(LOCK);
    let opened = File::open(directory).map_err(|source| OpenError::Io {
        doing: "open the directory",
        path: directory.to_owned(),
        source,
    })?;
    let mut is_free = try_lock(&opened, directory)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = match file {
        Ok(file) => Some(file),
        // The directory is locked. A full disk must not keep a store from opening.
        Err(error) if is_full(&error) => None,
        Err(source) => {
            return Err(OpenError::Io {
                doing: "open the lock",
                path,
                source,
            });
        }
    };
    if let Some(file) = &file {
        is_free = is_free && try_lock(file, &path)?;
    }
    if !is_free {
        let mut holder = String::new();
        // It is empty if the file was removed, or its holder was stopped before it wrote.
        let _ = file.map(|mut file| file.read_to_string(&mut holder));
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
    let written = file.as_mut().map(|file| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", holder(now))
    });
    // The lock counts, its text is for people.
    if let Some(Err(error)) = written {
        tracing::warn!(lock = %path.display(), %error, "cannot write into the lock file which \
                                                        process holds it");
    }
    Ok(DirectoryLock {
        _held: Arc::new(Held {
            directory: opened,
            file,
        }),
    })
}

/// False if another process has it.
fn try_lock(file: &File, path: &Path) -> Result<bool, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            doing: "lock",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Keeps what happened to the files of the open store for whoever opens it next.
pub fn keep_change(directory: &Path, change: &str) {
    // It was logged. The directory itself may be gone.
    let path = directory.join(CHANGED_FILES);
    let _ = fs::remove_file(&path);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let _ = file.and_then(|mut file| file.write_all(change.as_bytes()));
}

/// The change that [`keep_change`] kept.
pub fn take_change(directory: &Path) -> Option<String> {
    let path = directory.join(CHANGED_FILES);
    let change = fs::read_to_string(&path).ok()?;
    let _ = fs::remove_file(&path);
    Some(change)
}

pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}

pub fn sibling(database: &Path, suffix: &str) -> PathBuf {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_checked_and_nothing_is_made_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let left = || fs::read_dir(dir.path()).unwrap().count();
        let changed = || fs::metadata(dir.path()).unwrap().modified().unwrap();
        let before = changed();
        assert!(check_directory(&dir.path().join("a/b/store")).is_ok());
        assert!(check_directory(dir.path()).is_ok());
        assert_eq!((left(), changed()), (0, before));
        fs::write(dir.path().join("file"), "").unwrap();
        for path in ["file", "file/store"] {
            let error = check_directory(&dir.path().join(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotADirectory, "{path}");
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [link.clone(), link.join("store")] {
            let error = check_directory(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display());
        }
        assert_eq!(left(), 2);
        assert!(check_directory(Path::new("/proc/lockgate/store")).is_err());
    }

    #[test]
    fn what_is_not_a_store_or_cannot_be_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_store(dir.path()).is_ok(), "there is none yet");
        let path = dir.path().join(DATABASE);
        fs::write(&path, "notes").unwrap();
        let damaged = check_store(dir.path()).unwrap_err();
        assert!(matches!(damaged, OpenError::Damaged { .. }), "{damaged}");
        fs::remove_file(&path).unwrap();
        for name in [LOCK, DATABASE, "store.db-wal"] {
            // Permissions do not stop root, but nobody writes into a directory.
            fs::create_dir(dir.path().join(name)).unwrap();
            let refused = check_store(dir.path()).unwrap_err().to_string();
            assert!(refused.starts_with("cannot open for writing"), "{refused}");
            assert!(refused.contains(name), "{refused}");
            fs::remove_dir(dir.path().join(name)).unwrap();
        }
    }

    #[test]
    fn a_file_that_may_not_be_looked_at_was_not_removed() {
        let fault = |kind: ErrorKind| unreachable_file(Path::new("store.db"), kind.into());
        assert!(matches!(fault(ErrorKind::NotFound), Fault::Gone(_)));
        assert!(matches!(fault(ErrorKind::NotADirectory), Fault::Gone(_)));
        for kind in [
            ErrorKind::PermissionDenied,
            ErrorKind::StaleNetworkFileHandle,
        ] {
            assert!(matches!(fault(kind), Fault::Unreachable(..)), "{kind}");
        }
    }
}
