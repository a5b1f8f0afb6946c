//! `lockgate store repair`.

use clap::Args;
use lockgate_store::{Ledger, OpenError, Options, Retention, Store};

use super::Place;
use crate::failure::Failure;
use crate::{commands, print, setup};

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Make dead letters of the events in damaged blocks, in every pipeline that has not finished
    /// them. They are on the books, with the reason; the events themselves are lost to these
    /// pipelines.
    #[arg(long, required = true)]
    write_off: bool,

    #[command(flatten)]
    place: Place,
}

/// Holds the store itself, because a running pipeline has its progress in memory.
pub(super) fn run(command: &Repair) -> Result<(), Failure> {
    debug_assert!(command.write_off, "required");
    // Only what the configuration says may remove events, and it is not read here.
    let retention = Retention {
        age: None,
        bytes: None,
    };
    let store = Store::open(Options {
        retention,
        ..Options::new(command.place.directory()?)
    });
    let store = store.map_err(|error| match error {
        OpenError::Held { .. } => Failure::failed(error).hint("stop the host first"),
        error => Failure::failed(error),
    })?;
    let runtime = commands::tokio_runtime()?;
    let integrity = store.reads().integrity().map_err(Failure::failed)?;
    if integrity.damaged.is_empty() {
        print::problem("No block is damaged.");
    }
    for block in &integrity.damaged {
        let (stream, entries) = (&block.stream, &block.entries);
        let written_off = store.write_off(stream, entries.start, setup::now());
        let count = runtime.block_on(written_off).map_err(Failure::failed)?;
        let (first, last) = (entries.start, entries.end - 1);
        let letters = match count {
            0 => "no pipeline needs it any more".to_owned(),
            1 => "1 dead letter".to_owned(),
            _ => format!("{count} dead letters"),
        };
        print::data(&format!(
            "Entries {first} to {last} of `{stream}`: {letters}.\n"
        ))?;
    }
    runtime.block_on(store.close()).map_err(Failure::failed)
}
