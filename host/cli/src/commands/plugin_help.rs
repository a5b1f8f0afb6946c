//! `lockgate plugin help`: the documentation of a built-in plugin.

use lockgate_registry::builtin;

use crate::args::PluginHelp;
use crate::failure::Failure;
use crate::print;

pub(crate) fn run(command: &PluginHelp) -> Result<(), Failure> {
    let name = &command.name;
    let name = name.strip_prefix("builtin:").unwrap_or(name);
    let found = builtin(name).map_err(|error| {
        let failure = Failure::usage(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    print::data(found.readme)
}
