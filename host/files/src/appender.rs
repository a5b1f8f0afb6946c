//! The file that is being written: opening, appending, rotation.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use lockgate_model::{Millis, PathTemplate};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::FileError;
use crate::names::{next, sync_directory};

/// At a reload, the pipeline before may not have let go of the file yet.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// When a file is closed and another begins. By default, only when its path changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// The most bytes in a file, unless one request alone is larger.
    pub bytes: Option<u64>,
    /// The age of a file at which it is closed.
    pub age: Option<Duration>,
}

/// Appends to the file that a template names at the time.
pub(crate) struct Appender {
    template: PathTemplate,
    rotation: Rotation,
    open: Option<OpenFile>,
    /// A file was closed since [`take_closed`](Self::take_closed) asked.
    has_closed: bool,
}

struct OpenFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// When the file was made.
    began: Millis,
}

impl Appender {
    pub(crate) fn new(template: PathTemplate, rotation: Rotation) -> Appender {
        Appender {
            template,
            rotation,
            open: None,
            has_closed: false,
        }
    }

    /// Appends a body, with a line break at its end. Returns where it begins: it is on disk. After
    /// an error, nothing of it is left in the file.
    pub(crate) fn append(&mut self, body: &[u8], now: Millis) -> Result<(PathBuf, u64), FileError> {
        self.close_if_due(body.len() as u64, now)?;
        let path = self.template.at(now);
        if self.open.as_ref().is_some_and(|open| !open.is_at_path()) {
            // Somebody has moved or removed it.
            self.open = None;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open(path, &self.template.constant_directory(), now)?,
        };
        let begin = open.len;
        open.write(body)?;
        let place = (open.path.clone(), begin);
        self.open = Some(open);
        Ok(place)
    }

    /// Whether there is a closed file since this was asked before.
    pub(crate) fn take_closed(&mut self) -> bool {
        std::mem::take(&mut self.has_closed)
    }

    /// Closes the file if its time is over, or if it has no room for so many bytes more.
    pub(crate) fn close_if_due(&mut self, more: u64, now: Millis) -> Result<(), FileError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        if open.path != self.template.at(now) {
            self.close();
            return Ok(());
        }
        let Rotation { bytes, age } = self.rotation;
        let is_full = bytes.is_some_and(|bytes| open.len.saturating_add(more) > bytes);
        let is_old = age.is_some_and(|age| now.saturating_sub(open.began) >= millis(age));
        if open.len == 0 || !is_full && !is_old || !open.is_at_path() {
            return Ok(());
        }
        let path = open.path.clone();
        let failed = |error: io::Error| FileError::io(&path, "rotated", &error);
        let rename = || fs::rename(&path, next(&path)?);
        rename().map_err(failed)?;
        // Also if its new name is not on disk yet.
        self.close();
        sync_directory(&path).map_err(failed)
    }

    fn close(&mut self) {
        self.open = None;
        self.has_closed = true;
    }
}

impl OpenFile {
    fn is_at_path(&self) -> bool {
        is_same(&self.path, &self.file)
    }

    fn write(&mut self, body: &[u8]) -> Result<(), FileError> {
        let newline: &[u8] = if body.ends_with(b"\n") { b"" } else { b"\n" };
        let write = |mut file: &File| {
            file.write_all(body)?;
            file.write_all(newline)
        };
        let written = write(&self.file).map_err(|error| ("written to", error));
        let synced = written.and_then(|()| {
            let synced = self.file.sync_data();
            synced.map_err(|error| ("synchronised with the disk", error))
        });
        if let Err((action, error)) = synced {
            // If this fails too, the next one who opens the file cuts off the line that is left.
            let _ = self.file.set_len(self.len);
            return Err(FileError::io(&self.path, action, &error));
        }
        self.len += (body.len() + newline.len()) as u64;
        Ok(())
    }
}

/// Opens a file to append to it, locks it, and cuts off the rest of a line at its end. Directories
/// below `constant` are made.
fn open(path: PathBuf, constant: &Path, now: Millis) -> Result<OpenFile, FileError> {
    let failed = |action| {
        let path = &path;
        move |error: io::Error| FileError::io(path, action, &error)
    };
    make_directories(&path, constant, sync_directory)?;
    let mut attempts = 0;
    let file = loop {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(&path)
            .map_err(failed("opened"))?;
        if !file.metadata().map_err(failed("opened"))?.is_file() {
            return Err(FileError::NotAFile(path));
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_same(&path, &file) => break file,
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) if attempts < LOCK_ATTEMPTS => thread::sleep(LOCK_WAIT),
            Err(Errno::WOULDBLOCK) => return Err(FileError::InUse(path)),
            Err(error) => return Err(failed("locked")(error.into())),
        }
        attempts += 1;
    };
    let metadata = file.metadata().map_err(failed("opened"))?;
    let whole = end_of_lines(&file, metadata.len()).map_err(failed("read"))?;
    if whole < metadata.len() {
        let cut = || {
            file.set_len(whole)?;
            file.sync_data()
        };
        cut().map_err(failed("cut"))?;
        tracing::warn!(
            file = %path.display(),
            bytes = metadata.len() - whole,
            "the last line was incomplete, as after a crash, and was cut off; its events are \
             sent again"
        );
    }
    if metadata.len() == 0 {
        sync_directory(&path).map_err(failed("made"))?;
    }
    let made = metadata.created().ok().filter(|_| whole > 0);
    Ok(OpenFile {
        len: whole,
        began: made.map_or(now, since_epoch),
        file,
        path,
    })
}

/// Makes the directories of a file that are below `constant`. `sync` gets each whose name is to
/// survive a power failure.
fn make_directories(
    of: &Path,
    constant: &Path,
    sync: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), FileError> {
    let mut directories: Vec<&Path> = of.ancestors().skip(1).collect();
    directories.retain(|directory| directory.starts_with(constant) && *directory != constant);
    for directory in directories.into_iter().rev() {
        let failed = |error: io::Error| FileError::io(directory, "made", &error);
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => sync(directory).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // An earlier attempt may have ended between the two. Where this is not allowed,
                // somebody else has made the directory.
                let _ = sync(directory);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The bytes up to the last line break.
fn end_of_lines(file: &File, len: u64) -> io::Result<u64> {
    let mut chunk = vec![0; 64 * 1024];
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let chunk = &mut chunk[..(end - start) as usize];
        file.read_exact_at(chunk, start)?;
        if let Some(at) = chunk.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Whether the path leads to this file.
pub(crate) fn is_same(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
        _ => false,
    }
}

fn since_epoch(time: SystemTime) -> Millis {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

fn millis(duration: Duration) -> Millis {
    duration.as_millis().try_into().unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// The file's own directory was synchronised, and not the one that names it: a power failure
    /// could lose both.
    #[test]
    fn the_name_of_each_new_directory_is_on_disk() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("2026-01-05/08/a");
        let synced = RefCell::new(Vec::new());
        let make = |error: Option<io::ErrorKind>| {
            make_directories(&path, root.path(), |directory| {
                assert!(directory.is_dir(), "{} is made before", directory.display());
                let name = directory.strip_prefix(root.path()).unwrap();
                synced.borrow_mut().push(name.display().to_string());
                error.map_or(Ok(()), |kind| Err(kind.into()))
            })
        };
        let full = make(Some(io::ErrorKind::StorageFull));
        assert!(matches!(full, Err(FileError::Io { action: "made", .. })));
        make(None).unwrap();
        assert_eq!(
            *synced.borrow(),
            ["2026-01-05", "2026-01-05", "2026-01-05/08"]
        );
        // Of another user.
        make(Some(io::ErrorKind::PermissionDenied)).unwrap();
    }
}
