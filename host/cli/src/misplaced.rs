//! A configuration file that was named without `--config`.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Arguments;

/// Adds how to name the file, if a command that takes `--config` was given a bare argument.
pub(crate) fn with_hint(mut error: clap::Error) -> clap::Error {
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if error.kind() == ErrorKind::UnknownArgument => given,
        _ => return error,
    };
    if given.starts_with('-') || !takes_config(std::env::args()) {
        return error;
    }
    let hint = format!("to name the configuration file, write `--config {given}`");
    let hint = ContextValue::StyledStrs(vec![hint.into()]);
    error.insert(ContextKind::Suggested, hint);
    error
}

/// Whether the command among the arguments has the option `--config`.
fn takes_config(arguments: impl Iterator<Item = String>) -> bool {
    let root = Arguments::command();
    let mut command = &root;
    for argument in arguments.skip(1) {
        command = command.find_subcommand(&argument).unwrap_or(command);
    }
    command
        .get_arguments()
        .any(|argument| argument.get_long() == Some("config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_read_a_configuration_are_known() {
        for (line, expected) in [
            ("lockgate start file.toml", true),
            ("lockgate --log debug status file.toml", true),
            ("lockgate store verify file.toml", true),
            ("lockgate version file.toml", false),
            ("lockgate sim auth file.toml", false),
        ] {
            let arguments = line.split(' ').map(str::to_owned);
            assert_eq!(takes_config(arguments), expected, "{line}");
        }
    }
}
