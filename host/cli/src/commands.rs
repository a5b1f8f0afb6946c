//! One file per command.

pub(crate) mod assets;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod configure;
pub(crate) mod demo;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod import;
pub(crate) mod plugin_help;
pub(crate) mod plugin_run;
pub(crate) mod reload;
pub(crate) mod sim;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod version;

use crate::failure::Failure;

/// The tokio runtime of commands that use sockets.
pub(crate) fn tokio_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("Starting threads failed: {error}.")))
}
