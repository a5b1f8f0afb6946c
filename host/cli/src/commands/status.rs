//! `lockgate status`: figures from the store, and the state of the running host.

mod report;
mod table;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::args::Status;
use crate::failure::Failure;
use crate::{print, setup};
use report::StatusView;
pub(super) use report::gap_rows;

pub(crate) fn run(command: &Status) -> Result<(), Failure> {
    let target = Target::of(command)?;
    if command.watch {
        return watch::run(&target);
    }
    let now = setup::now();
    let report = StatusView::of(&target, now)?;
    if command.json {
        let text = serde_json::to_string(&report).map_err(Failure::failed)?;
        return print::data(&format!("{text}\n"));
    }
    print::data(&table::table(&report, now))
}

/// Where a status is read.
struct Target {
    store: PathBuf,
    /// The configuration file has these pipelines. `None` if there is no file, or it cannot be
    /// read: `start` says why.
    configured: Option<BTreeSet<String>>,
}

impl Target {
    fn of(command: &Status) -> Result<Target, Failure> {
        Ok(match &command.place.store {
            Some(directory) => Target {
                store: directory.clone(),
                configured: None,
            },
            None => Target {
                store: setup::store_path(&command.place.config)?,
                configured: setup::pipeline_names(&command.place.config).unwrap_or_default(),
            },
        })
    }
}
