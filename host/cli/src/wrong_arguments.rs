//! Arguments that are refused: what is shown, to people or as a record of the log.

use std::process::exit;

use clap::{CommandFactory, ValueEnum};
use lockgate_observe::{Format, Masks};

use crate::args::{Arguments, LogFormat};
use crate::failure::Failure;

/// Shows what is wrong, or the help that was asked for, and ends the process.
pub(crate) fn end(error: &clap::Error) -> ! {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    #[allow(
        clippy::disallowed_methods,
        reason = "the arguments could not be parsed, so clap has not read it either"
    )]
    let variable = std::env::var("LOCKGATE_LOG_FORMAT").ok();
    if !error.use_stderr() || !wants_records(&arguments, variable.as_deref()) {
        error.exit()
    }
    // The failure is logged whatever the filter.
    let _ = lockgate_observe::init_logging(Format::Json, "", Masks::default());
    let failure = failure(&error.render().to_string());
    failure.show(Format::Json);
    exit(failure.exit_code().into())
}

/// Whether a host was to be started whose log is JSON: its other failures are records, too.
fn wants_records(arguments: &[String], variable: Option<&str>) -> bool {
    let (mut given, mut is_next) = (None, false);
    for argument in arguments {
        if is_next {
            given = Some(argument.as_str());
        } else if let Some(value) = argument.strip_prefix("--log-format=") {
            given = Some(value);
        }
        is_next = argument == "--log-format";
    }
    let is_json = |text| LogFormat::from_str(text, false).is_ok_and(|it| it == LogFormat::Json);
    is_start(arguments) && given.or(variable).is_some_and(is_json)
}

fn is_start(arguments: &[String]) -> bool {
    let root = Arguments::command();
    let mut commands = arguments
        .iter()
        .filter_map(|argument| root.find_subcommand(argument));
    commands
        .next()
        .is_some_and(|command| command.get_name() == "start")
}

/// Of what clap says: the first paragraph is the message, and the others help.
fn failure(rendered: &str) -> Failure {
    let text = rendered.trim_start_matches("error: ").trim();
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let on_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let failure = Failure::usage(on_one_line(message));
    match on_one_line(rest) {
        rest if rest.is_empty() => failure,
        rest => failure.hint(rest.trim_start_matches("tip: ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_for_a_host_whose_log_is_json() {
        for (line, variable, expected) in [
            ("--log-format json start --no-such", None, true),
            ("start --log-format=json --no-such", None, true),
            ("start --no-such", Some("json"), true),
            ("start --no-such", None, false),
            ("start --no-such", Some("text"), false),
            ("--log-format text start --no-such", Some("json"), false),
            ("--log-format xml start", None, false),
            ("--log-format json status --no-such", None, false),
        ] {
            let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(wants_records(&arguments, variable), expected, "{line}");
        }
    }

    #[test]
    fn the_help_of_an_error_is_its_hint() {
        let rendered = "error: unexpected argument '--confg' found\n\n  tip: a similar argument \
                        exists: '--config'\n\nUsage: lockgate start\n";
        let failure = failure(rendered);
        assert_eq!(
            failure.message,
            "error: Unexpected argument '--confg' found."
        );
        assert_eq!(
            failure.hints,
            ["a similar argument exists: '--config' Usage: lockgate start"]
        );
        assert_eq!(failure.exit_code(), 2);
    }
}
