//! The store that a command works on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use lockgate_store::{Inspector, OpenError};

use crate::config_file::default_file;
use crate::failure::Failure;
use crate::setup;

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The configuration file, which says where the store is.
    #[arg(
        short,
        long,
        default_value = default_file(),
        env = "LOCKGATE_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,

    /// The store's directory, instead of a configuration file.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
}

impl Place {
    /// The store's directory.
    pub(crate) fn directory(&self) -> Result<PathBuf, Failure> {
        match &self.store {
            Some(directory) => Ok(directory.clone()),
            None => setup::store_path(&self.config),
        }
    }

    /// The failure of a command that asks the host, if none runs on this directory.
    pub(crate) fn no_host(&self, directory: &Path) -> Failure {
        let message = format!("No host is running on the store `{}`.", directory.display());
        let failure = Failure::failed(message);
        match self.store {
            Some(_) => failure.hint("start it with `lockgate start`"),
            // Whoever starts a second host on an empty store sends everything again.
            None => failure
                .hint(
                    "if `path` in `[store]` was changed while a host was running, that host is \
                     still on the earlier store: change `path` back, or ask it with `--store \
                     OLD`; to move the store, stop the host first",
                )
                .hint(
                    "only if none is running, start it with `lockgate start`: a second host, on \
                     another store, reads and sends everything again",
                ),
        }
    }

    pub(crate) fn inspector(&self) -> Result<Inspector, Failure> {
        Inspector::open(self.directory()?).map_err(not_opened)
    }

    /// For commands that name everything in the store that is not what was written.
    pub(crate) fn auditor(&self) -> Result<Inspector, Failure> {
        Inspector::open_to_audit(self.directory()?).map_err(not_opened)
    }
}

/// The failure of a command that cannot open the store.
pub(crate) fn not_opened(error: OpenError) -> Failure {
    let is_refused = match &error {
        OpenError::Io { source, .. } => source.kind() == ErrorKind::PermissionDenied,
        _ => false,
    };
    let failure = Failure::failed(error);
    if is_refused {
        return failure.hint("run this command as the user that the host runs as");
    }
    failure
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use lockgate_store::OpenError;

    use super::not_opened;

    #[test]
    fn a_store_that_this_user_may_not_open_gets_a_hint() {
        for (kind, hints) in [
            (
                ErrorKind::PermissionDenied,
                &["run this command as the user that the host runs as"][..],
            ),
            (ErrorKind::NotADirectory, &[]),
        ] {
            let error = OpenError::Io {
                doing: "open",
                path: "store/store.db".into(),
                source: Error::from(kind),
            };
            assert_eq!(not_opened(error).hints, hints, "{kind}");
        }
    }
}
