//! `lockgate check`: a configuration's problems, without starting anything.

use std::path::PathBuf;

use lockgate_config::{Config, Issues};
use lockgate_observe::Masks;

use crate::args::Check;
use crate::failure::Failure;
use crate::print;
use crate::setup;

/// Reports at once everything that `start` would refuse: syntax, values, secrets, plugins, and the
/// problems that plugins find in their own tables; and what would fail later, such as a certificate
/// that has expired.
pub(crate) fn run(command: Check, masks: &Masks) -> Result<(), Failure> {
    let files: Vec<PathBuf> = command.config.map_or(command.files, |file| vec![file]);
    let runtime = super::tokio_runtime()?;
    let mut broken = 0;
    for file in &files {
        match checked(file, masks, &runtime) {
            Ok((config, report)) => {
                let pipelines = match config.pipelines.len() {
                    1 => "1 pipeline".to_owned(),
                    count => format!("{count} pipelines"),
                };
                let mut found = "no problems".to_owned();
                if !report.is_empty() {
                    print::problem(&report.render(print::to_terminal()));
                    found += &report.remarks();
                }
                if let Some(handler) = &config.event_handler {
                    print::data(&format!(
                        "# {} is a configuration of Teleport's Event Handler. It becomes:\n{}\n",
                        file.display(),
                        handler.shown
                    ))?;
                }
                print::data(&format!("{}: {found}, {}.\n", file.display(), pipelines))?;
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
) -> Result<(Config, Issues), Failure> {
    let config = setup::load(file, masks)?;
    let report = runtime.block_on(setup::dry_run(file, &config, masks))?;
    Ok((config, report))
}
