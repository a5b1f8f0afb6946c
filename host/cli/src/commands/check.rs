//! `lockgate check`: a configuration's problems, without starting anything.

use std::path::PathBuf;

use lockgate_observe::Masks;

use crate::args::Check;
use crate::failure::Failure;
use crate::print;
use crate::setup;

/// Reports at once everything that `start` would refuse: syntax, values, secrets, plugins, and the
/// problems that plugins find in their own tables.
pub(crate) fn run(command: Check, masks: &Masks) -> Result<(), Failure> {
    let files: Vec<PathBuf> = command.config.map_or(command.files, |file| vec![file]);
    let runtime = super::tokio_runtime()?;
    let mut broken = 0;
    for file in &files {
        match checked(file, masks, &runtime) {
            Ok(config) => {
                let pipelines = config.pipelines.len();
                print::data(&format!(
                    "{}: no problems, {pipelines} pipeline{}.\n",
                    file.display(),
                    if pipelines == 1 { "" } else { "s" }
                ))?;
            }
            Err(failure) => {
                broken += 1;
                print::problem(&format!("{failure}\n"));
            }
        }
    }
    match broken {
        0 => Ok(()),
        _ => Err(Failure::usage(match files.len() {
            1 => "The configuration cannot be used.".to_owned(),
            count => format!("{broken} of {count} configurations cannot be used."),
        })),
    }
}

fn checked(
    file: &std::path::Path,
    masks: &Masks,
    runtime: &tokio::runtime::Runtime,
) -> Result<lockgate_config::Config, Failure> {
    let config = setup::load(file, masks)?;
    runtime.block_on(setup::dry_run(file, &config, masks))?;
    Ok(config)
}
