//! `lockgate start`.

use std::path::Path;

use crate::lockgate;
use crate::process::{Ended, Running};

/// `lockgate start` with these further arguments.
pub fn start(config: &Path, arguments: &[&str]) -> Running {
    let mut command = lockgate();
    command.args(["start", "--config"]).arg(config);
    Running::start("start", command.args(arguments))
}

/// `lockgate start`, once it has a store of which `status` can be asked.
#[track_caller]
pub fn started(config: &Path) -> Running {
    let host = start(config, &[]);
    host.line_with("started");
    host
}

/// `lockgate start`, which delivers everything that there is to read and then exits.
#[track_caller]
pub fn start_and_finish(config: &Path) -> Ended {
    start(config, &["--exit-on-last-event"])
        .ended()
        .exits_with(0)
}
