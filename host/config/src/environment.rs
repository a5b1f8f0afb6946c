//! Variables and files that a configuration refers to.

use std::env::VarError;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The largest file read: a configuration, or the value of a `${file:…}`. Bytes.
const FILE_BYTES: u64 = 4 << 20;

/// Everything outside the TOML text that a configuration may refer to.
pub trait Environment {
    /// The value of an environment variable, for `${env:NAME}`.
    fn variable(&self, name: &str) -> Result<String, VarError>;

    /// The bytes of a file: the configuration itself, or the value of a `${file:PATH}`.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Where relative paths of the Event Handler's configuration begin.
    fn working_directory(&self) -> PathBuf {
        PathBuf::new()
    }
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the trait's one implementation"
    )]
    fn variable(&self, name: &str) -> Result<String, VarError> {
        std::env::var(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        if is_named_pipe(path)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a named pipe",
            ));
        }
        let mut bytes = Vec::new();
        // Read one byte more than allowed: that shows that there is more, even for a device without
        // an end.
        std::fs::File::open(path)?
            .take(FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the file is larger than 4 MiB",
            ));
        }
        Ok(bytes)
    }

    fn working_directory(&self) -> PathBuf {
        // If it was removed, no relative path can be opened anyway.
        std::env::current_dir().unwrap_or_default()
    }
}

/// Opening one waits until somebody writes to it, and a reload reads the file again. A pipe without
/// a name, such as `/dev/stdin` may be, has its writer.
fn is_named_pipe(path: &Path) -> io::Result<bool> {
    let is_pipe = std::fs::metadata(path)?.file_type().is_fifo();
    Ok(is_pipe && path.canonicalize().is_ok())
}

/// Why a file could not be read, as the end of a sentence.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}
