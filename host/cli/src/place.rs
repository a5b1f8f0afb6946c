//! The store that a command works on.

use std::path::PathBuf;

use clap::Args;
use lockgate_store::Inspector;

use crate::failure::Failure;
use crate::setup;

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The configuration file, which says where the store is.
    #[arg(
        short,
        long,
        default_value = "lockgate.toml",
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

    pub(crate) fn inspector(&self) -> Result<Inspector, Failure> {
        Inspector::open(self.directory()?).map_err(Failure::failed)
    }
}
