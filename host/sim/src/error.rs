//! Why a simulator did not start.

use std::io;
use std::path::PathBuf;

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address is in use, not local or invalid.
    #[error("cannot listen on `{listen}`: {source}.")]
    Bind { listen: String, source: io::Error },
    /// A file in the output directory cannot be read or written.
    #[error("cannot use `{}`: {source}.", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// `sim auth` and `sim receiver` use the same directory.
    #[error("`{}` contains the files of another simulator; use a separate directory for each.", .0.display())]
    Shared(PathBuf),
    /// The directory's files do not belong together.
    #[error("the certificates in `{}` cannot be used: {reason}. Remove the directory to get new ones.", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// A certificate could not be created.
    #[error("cannot create a certificate: {0}.")]
    Certificate(String),
}

impl From<rcgen::Error> for SimError {
    fn from(error: rcgen::Error) -> SimError {
        SimError::Certificate(error.to_string())
    }
}
