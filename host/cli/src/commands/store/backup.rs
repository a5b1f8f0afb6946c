//! `lockgate store backup`.

use std::path::PathBuf;

use clap::Args;
use lockgate_store::BackupError;

use super::{checked, problems};
use crate::failure::Failure;
use crate::place::Place;
use crate::print;

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The new file. It is never overwritten. To restore it, put it into an empty directory as
    /// `store.db`, and name that directory with `path` in `[store]`.
    file: PathBuf,

    #[command(flatten)]
    place: Place,
}

pub(super) fn run(command: &Backup) -> Result<(), Failure> {
    let inspector = command.place.inspector()?;
    let file = command.file.display();
    let integrity = inspector.backup(&command.file).map_err(|error| {
        let failure = Failure::failed(format!("{error}."));
        match error {
            BackupError::Exists(_) => failure.hint("name a file that does not exist"),
            _ => failure,
        }
    })?;
    let hint = "the copy is complete, and has the damage of the store: keep older backups";
    problems(&format!("`{file}`"), &integrity, hint)?;
    print::data(&format!(
        "`{file}` is a sound copy of the store: {}.\n",
        checked(&integrity)
    ))
}
