//! Compresses files that are closed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use flate2::write::GzEncoder;
use lockgate_model::{Component, Millis, PathTemplate};
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::FileError;
use crate::appender::is_same;
use crate::names::{PART, next, number, sync_directory, with_suffix};

/// After a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// How closed files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `NAME.gz`.
    Gzip,
    /// `NAME.zst`.
    Zstd,
}

/// The closed files of a template.
pub(crate) struct Archive {
    pub(crate) template: PathTemplate,
    pub(crate) compression: Compression,
    pub(crate) clock: fn() -> Millis,
}

impl Archive {
    /// Compresses what is closed each time that it is told to, until nobody can tell it any more.
    pub(crate) fn run(self, closed: &Receiver<()>) {
        let mut failure = None;
        loop {
            let told = match failure {
                None => closed.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => closed.recv_timeout(AGAIN_AFTER),
            };
            if told == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            // One pass finds all that was closed.
            while closed.try_recv().is_ok() {}
            let error = self.pass((self.clock)()).err();
            if let Some(error) = &error
                && failure.as_ref() != Some(error)
            {
                tracing::warn!("a closed file is not compressed yet: {error}");
            }
            failure = error;
        }
    }

    /// Compresses all closed files: also those that an earlier process left behind. The error is
    /// the first of them; the others are compressed.
    pub(crate) fn pass(&self, now: Millis) -> Result<(), FileError> {
        let current = self.template.at(now);
        let mut result = Ok(());
        for path in self.closed(&current) {
            if let Err(error) = self.compress(&path) {
                result = result.and(Err(FileError::io(&path, "compressed", &error)));
            }
        }
        result
    }

    fn closed(&self, current: &Path) -> Vec<PathBuf> {
        let Some((name, directories)) = self.template.components().split_last() else {
            return Vec::new();
        };
        let mut found = vec![PathBuf::from("/")];
        for component in directories {
            found = below(&found, component);
        }
        let mut closed = Vec::new();
        for (path, rest) in found.iter().flat_map(|it| matches(it, name)) {
            let is_closed = match rest.strip_prefix('.') {
                Some(rest) => number(rest).is_some(),
                None => rest.is_empty() && path != current && self.template.has_placeholders(),
            };
            if is_closed {
                closed.push(path);
            }
        }
        closed.sort();
        closed
    }

    /// Leaves a file alone that somebody writes to.
    fn compress(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(path)?;
        let metadata = file.metadata()?;
        let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !metadata.is_file() || !is_free || !is_same(path, &file) {
            return Ok(());
        }
        let suffix = match self.compression {
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        let mut target = with_suffix(path, suffix);
        if target.symlink_metadata().is_ok() {
            // The file was opened again after it had been compressed, or this is a rotated one that
            // was compressed before a crash, and not removed. Both are kept.
            target = with_suffix(&next(&unnumbered(path))?, suffix);
        }
        let part = with_suffix(&target, PART);
        // Left behind by a crash, perhaps, and perhaps with another mode.
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        let written = self.encode(&file, written)?;
        written.set_modified(metadata.modified()?)?;
        written.sync_all()?;
        fs::rename(&part, &target)?;
        sync_directory(path)?;
        fs::remove_file(path)?;
        sync_directory(path)
    }

    fn encode(&self, from: &File, to: File) -> io::Result<File> {
        let mut from = BufReader::with_capacity(64 * 1024, from);
        let to = BufWriter::new(to);
        let to = match self.compression {
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(to, flate2::Compression::default());
                io::copy(&mut from, &mut encoder)?;
                encoder.finish()?
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(to, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                io::copy(&mut from, &mut encoder)?;
                encoder.finish()?
            }
        };
        to.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// The directories that a component names in any of these.
fn below(directories: &[PathBuf], component: &Component) -> Vec<PathBuf> {
    if component.is_constant() {
        let name = component.at(0);
        return directories.iter().map(|it| it.join(&name)).collect();
    }
    let found = directories.iter().flat_map(|it| matches(it, component));
    let whole = found.filter(|(path, rest)| rest.is_empty() && path.is_dir());
    whole.map(|(path, _)| path).collect()
}

/// What is in a directory whose name begins as the component says, and how its name goes on. A
/// directory that cannot be read has nothing: writing to it shows why.
fn matches(directory: &Path, component: &Component) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let entries = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let rest = component.match_start(name.to_str()?)?.to_owned();
        Some((directory.join(&name), rest))
    });
    entries.collect()
}

/// `path` without its number, if it has one.
fn unnumbered(path: &Path) -> PathBuf {
    let is_numbered = path
        .extension()
        .and_then(|it| it.to_str())
        .is_some_and(|it| number(it).is_some());
    match is_numbered {
        true => path.with_extension(""),
        false => path.to_owned(),
    }
}
