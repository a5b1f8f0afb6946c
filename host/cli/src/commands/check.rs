use std::path::PathBuf;

use lockgate_observe::Masks;

use crate::args::Check;
use crate::failure::Failure;
use crate::print;
use crate::setup;

/// Everything that `start` would refuse, at once: syntax, values, secrets, plugins and what they
/// say of their own tables.
pub(crate) fn run(command: Check, masks: &Masks) -> Result<(), Failure> {
    let files: Vec<PathBuf> = command.config.map_or(command.files, |file| vec![file]);
    let mut broken = 0;
    let tokio = super::tokio_runtime()?;
    for file in &files {
        let checked = setup::load(file, masks).and_then(|config| {
            tokio.block_on(setup::dry_run(file, &config, masks))?;
            Ok(config)
        });
        match checked {
            Ok(config) => {
                let pipelines = config.pipelines.len();
                print::data(&format!(
                    "{}: correct, {pipelines} pipeline{}.\n",
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
        _ => Err(Failure::usage(format!(
            "{broken} of {} configuration file{} cannot be used.",
            files.len(),
            if files.len() == 1 { "" } else { "s" }
        ))),
    }
}
