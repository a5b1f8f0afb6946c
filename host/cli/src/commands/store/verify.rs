//! `lockgate store verify`.

use clap::Args;

use super::{checked, problems};
use crate::failure::Failure;
use crate::place::Place;
use crate::print;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(command: &Verify) -> Result<(), Failure> {
    let inspector = command.place.auditor()?;
    let integrity = inspector.integrity().map_err(Failure::failed)?;
    // `repair` helps with blocks and their filters, and with nothing else.
    let is_of_blocks = !integrity.damaged.is_empty() || !integrity.damaged_filters.is_empty();
    let hint = match is_of_blocks {
        true => {
            "pipelines that need a damaged block hold there. Stop the host, then run `lockgate \
             store repair`, which reads the events of damaged blocks from Teleport again; or \
             restore a backup"
        }
        false => super::BACKUP_HINT,
    };
    problems("The store", &integrity, hint)?;
    print::data(&format!("The store is sound: {}.\n", checked(&integrity)))
}
