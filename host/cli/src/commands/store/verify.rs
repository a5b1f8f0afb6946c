//! `lockgate store verify`.

use clap::Args;

use super::{Place, checked, problems};
use crate::failure::Failure;
use crate::print;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(command: &Verify) -> Result<(), Failure> {
    let inspector = command.place.inspector()?;
    let integrity = inspector.integrity().map_err(Failure::failed)?;
    let hint = "pipelines that need a damaged block hold there. Stop the host, then run `lockgate \
                store repair`, which reads the events of damaged blocks from Teleport again; or \
                restore a backup";
    problems("The store", &integrity, hint)?;
    print::data(&format!("The store is sound: {}.\n", checked(&integrity)))
}
