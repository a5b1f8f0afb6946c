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
use crate::names::{PART, next, number, sync_directory, with_suffix, without_suffix};

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

/// A file that nobody writes to any more.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ClosedFile {
    path: PathBuf,
    /// What rotation has put at the end of its name, such as `.7`.
    number: Option<String>,
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
        for file in self.closed(&current) {
            if let Err(error) = self.compress(&file) {
                result = result.and(Err(FileError::io(&file.path, "compressed", &error)));
            }
        }
        result
    }

    fn closed(&self, current: &Path) -> Vec<ClosedFile> {
        let Some((name, directories)) = self.template.components().split_last() else {
            return Vec::new();
        };
        let mut found = vec![PathBuf::from("/")];
        for component in directories {
            found = below(&found, component);
        }
        let mut closed = Vec::new();
        for (path, rest) in found.iter().flat_map(|it| matches(it, name)) {
            let is_rotated = rest
                .strip_prefix('.')
                .is_some_and(|it| number(it).is_some());
            let is_of_before = || path != current && self.template.has_placeholders();
            if is_rotated || rest.is_empty() && is_of_before() {
                let number = is_rotated.then_some(rest);
                closed.push(ClosedFile { path, number });
            }
        }
        closed.sort();
        closed
    }

    /// Leaves a file alone that somebody writes to.
    fn compress(&self, ClosedFile { path, number }: &ClosedFile) -> io::Result<()> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(path);
        let file = match opened {
            // The thread of before a reload has compressed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
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
            let plain = match number {
                Some(number) => without_suffix(path, number),
                None => path.clone(),
            };
            target = with_suffix(&next(&plain)?, suffix);
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

#[cfg(test)]
mod tests {
    use lockgate_model::FileTarget;

    use super::*;

    /// 2026-01-05T08:30:00Z.
    const MORNING: Millis = 1_767_601_800_000;

    fn archive(directory: &Path, name: &str) -> Archive {
        let url = format!("file://{}/{name}", directory.display());
        let Some(Ok(FileTarget::Path(template))) = FileTarget::parse(&url) else {
            panic!("{url}");
        };
        Archive {
            template,
            compression: Compression::Gzip,
            clock: || MORNING,
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// The hour was taken for the number of a rotated file.
    #[test]
    fn a_time_at_the_end_of_a_name_is_not_a_number() {
        let root = tempfile::tempdir().unwrap();
        let archive = archive(root.path(), "{date}.{hour}");
        for (name, again) in [
            ("2026-01-04.13", "2026-01-04.13.1.gz"),
            ("2026-01-04.14.2", "2026-01-04.14.3.gz"),
        ] {
            let compressed = format!("{name}.gz");
            fs::write(root.path().join(name), "later").unwrap();
            fs::write(root.path().join(&compressed), "before").unwrap();
            archive.pass(MORNING).unwrap();
            let mut expected = [again, &compressed];
            expected.sort();
            assert_eq!(names(root.path()), expected);
            for name in expected {
                fs::remove_file(root.path().join(name)).unwrap();
            }
        }
    }

    /// At a reload there are two threads for a while.
    #[test]
    fn a_file_that_another_thread_has_compressed_is_done() {
        let root = tempfile::tempdir().unwrap();
        let archive = archive(root.path(), "{date}");
        let path = root.path().join("2026-01-04");
        fs::write(&path, "text").unwrap();
        let listed = archive.closed(&root.path().join("2026-01-05"));
        fs::remove_file(&path).unwrap();
        assert_eq!(listed.len(), 1);
        archive.compress(&listed[0]).unwrap();
        assert_eq!(names(root.path()), [""; 0]);
    }
}
