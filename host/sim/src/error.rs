use std::io;
use std::path::PathBuf;

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address is taken, foreign or no address at all.
    #[error("cannot listen on `{listen}`: {source}.")]
    Bind { listen: String, source: io::Error },
    /// A file of the output folder could not be read or written.
    #[error("cannot use `{}`: {source}.", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// `sim auth` and `sim receiver` were given the same folder.
    #[error("`{}` holds the files of another simulator; give each simulator a folder of its own.", .0.display())]
    Shared(PathBuf),
    /// The folder's files do not belong together.
    #[error("the certificates in `{}` cannot be used: {reason}. Remove the folder to have new ones made.", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}.")]
    Certificate(String),
}

impl From<rcgen::Error> for SimError {
    fn from(error: rcgen::Error) -> SimError {
        SimError::Certificate(error.to_string())
    }
}
