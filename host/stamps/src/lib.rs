//! Notices that files have changed, without reading them.
//!
//! Files are looked at again and again, since notifications of a kernel do not reach every mount.
//! Links are followed: Kubernetes replaces a secret by making a link point elsewhere.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Distinguishes contents of a file: which file it is, its length, and its times. A copy may keep
/// the length and the time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The stamps of some files. `None` for a file that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

/// Files that may change, and what they were when their content was taken.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    taken: Stamps,
    /// Other stamps, which the last look found.
    pending: Option<Stamps>,
}

/// What a look at files finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    Unchanged,
    /// They have changed since the last look, so somebody may still be writing them.
    Changing,
    /// They differ from what was taken, and two looks in a row have found the same.
    Changed(Stamps),
}

impl Stamp {
    pub fn of(path: &Path) -> io::Result<Stamp> {
        std::fs::metadata(path).map(|metadata| Stamp::from(&metadata))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamps {
    pub fn of<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Stamps {
        let mut stamps = Stamps::default();
        for path in paths {
            stamps.add(path.into());
        }
        stamps
    }

    /// As if none of the files had been there: each that is there is a change.
    pub fn unknown<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Stamps {
        Stamps(paths.into_iter().map(|path| (path.into(), None)).collect())
    }

    /// Looks at one more file, unless it is one of them already.
    pub fn add(&mut self, path: PathBuf) {
        self.0
            .entry(path)
            .or_insert_with_key(|path| Stamp::of(path).ok());
    }

    pub fn remove(&mut self, path: &Path) {
        self.0.remove(path);
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Those of the same files, now.
    pub fn again(&self) -> Stamps {
        Stamps::of(self.0.keys())
    }
}

impl Watched {
    /// The content of these files, as they were, has been taken.
    pub fn new(taken: Stamps) -> Watched {
        Watched {
            taken,
            pending: None,
        }
    }

    /// What was taken last.
    pub fn taken(&self) -> &Stamps {
        &self.taken
    }

    /// Looks at the files. A change goes on being found until it is [taken](Self::take).
    pub fn look(&mut self) -> Look {
        let now = self.taken.again();
        if now == self.taken {
            self.pending = None;
            return Look::Unchanged;
        }
        if self.pending.as_ref() == Some(&now) {
            return Look::Changed(now);
        }
        self.pending = Some(now);
        Look::Changing
    }

    /// This content has been taken, or refused: only another one is a change.
    pub fn take(&mut self, stamps: Stamps) {
        self.taken = stamps;
        self.pending = None;
    }

    /// The next look is the first at this change.
    pub fn begin_again(&mut self) {
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_counts_once_two_looks_find_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mut watched = Watched::new(Stamps::of([&path]));
        assert_eq!(watched.look(), Look::Unchanged, "it is missing as before");
        fs::write(&path, "first").unwrap();
        assert_eq!(watched.look(), Look::Changing);
        fs::write(&path, "longer").unwrap();
        assert_eq!(watched.look(), Look::Changing);
        let Look::Changed(stamps) = watched.look() else {
            panic!("the file is still being written");
        };
        assert_eq!(watched.look(), Look::Changed(stamps.clone()));
        watched.take(stamps);
        assert_eq!(watched.look(), Look::Unchanged);
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.look(), Look::Changing);
        watched.begin_again();
        assert_eq!(watched.look(), Look::Changing);
    }

    #[test]
    fn a_link_that_points_elsewhere_and_a_copy_of_the_same_length_are_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("token"), version).unwrap();
        }
        symlink("1", path("..data")).unwrap();
        symlink("..data/token", path("token")).unwrap();
        let before = Stamps::of([path("token")]);
        assert_eq!(before, before.again());
        symlink("2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        let linked = before.again();
        assert_ne!(before, linked);

        let times = fs::metadata(path("token")).unwrap().modified().unwrap();
        fs::write(path("2/copy"), "3").unwrap();
        let copy = fs::File::options()
            .write(true)
            .open(path("2/copy"))
            .unwrap();
        copy.set_modified(times).unwrap();
        fs::rename(path("2/copy"), path("2/token")).unwrap();
        assert_ne!(linked, linked.again());
    }
}
