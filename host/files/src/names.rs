//! Names of rotated files: `NAME.1`, `NAME.2`, and so on. A higher number is a later file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is being compressed has this at the end of its name.
pub(crate) const PART: &str = ".part";

/// `path` with more at its end.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `path` without what is at its end.
pub(crate) fn without_suffix(path: &Path, suffix: &str) -> PathBuf {
    let name = path.as_os_str().as_encoded_bytes();
    let name = name.strip_suffix(suffix.as_bytes()).unwrap_or(name);
    OsStr::from_bytes(name).into()
}

/// `path` with the number after the highest that is in use, whatever follows it, such as `.gz`.
pub(crate) fn next(path: &Path) -> io::Result<PathBuf> {
    let own = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let mut highest = 0;
    for entry in fs::read_dir(directory(path))? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(own)?.strip_prefix('.'))
            .and_then(|rest| number(rest.split('.').next()?));
        highest = highest.max(number.unwrap_or(0));
    }
    Ok(with_suffix(path, &format!(".{}", highest + 1)))
}

/// A number as [`next`] writes it.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A new name, or the loss of one, survives a power failure from here on.
pub(crate) fn sync_directory(of: &Path) -> io::Result<()> {
    File::open(directory(of))?.sync_all()
}
