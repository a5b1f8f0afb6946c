//! The options of Teleport's Event Handler.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use lockgate_config::{HANDLER_OPTIONS, HandlerOption, HandlerOptions};

/// Those that were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandlerArguments(pub(crate) HandlerOptions);

/// An option that `start` has anyway.
const SHARED: &str = "exit-on-last-event";
const HEADING: &str = "Options of Teleport's Event Handler";
const NO_EFFECT: &str = "Accepted without effect";

/// The placeholder and the help of each option. No placeholder: `true` or `false`.
fn describe(name: &str) -> (&'static str, &'static str) {
    match name {
        "debug" => ("", "Log more, as with `--log debug`"),
        "fluentd-url" => ("URL", "Where events are sent"),
        "fluentd-session-url" => ("URL", "URL for session recordings; `.ID.log` is appended"),
        "fluentd-cert" => ("FILE", "Client certificate for the receiver"),
        "fluentd-key" => ("FILE", "Key of the client certificate"),
        "fluentd-ca" => ("FILE", "Authorities of the receiver's certificate"),
        "fluentd-max-connections" => ("N", "Most requests at the same time"),
        "teleport-addr" => ("ADDR", "Host and port of Teleport's proxy or Auth Service"),
        "teleport-identity" => ("FILE", "Identity file"),
        "teleport-ca" => (
            "FILE",
            "Authorities of Teleport, instead of an identity file",
        ),
        "teleport-cert" => ("FILE", "Certificate, instead of an identity file"),
        "teleport-key" => ("FILE", "Key, instead of an identity file"),
        "storage" => ("DIR", "State directory, in which the store is kept"),
        "types" => ("TYPES", "Event types to read; all if not given"),
        "skip-event-types" => ("TYPES", "Event types that are not sent"),
        "skip-session-types" => ("TYPES", "Event types of recordings that are not sent"),
        "start-time" => ("TIME", "Older events are not read"),
        "dry-run" => ("", "Read everything, but send nothing and keep nothing"),
        "concurrency" => ("N", "Session recordings downloaded at the same time"),
        "window-size" => ("DURATION", "Time range of one query"),
        "lock-enabled" => ("", "Lock users with too many failed logins"),
        "lock-failed-attempts-count" => ("N", "Failed logins that lock a user"),
        "lock-period" => ("DURATION", "Time in which they count together"),
        "lock-for" => ("DURATION", "How long a lock lasts; for ever if not given"),
        "teleport-refresh-enabled" => ("", NO_EFFECT),
        "batch" => ("N", NO_EFFECT),
        _ => ("DURATION", NO_EFFECT),
    }
}

impl Args for HandlerArguments {
    fn augment_args(command: Command) -> Command {
        let options = HANDLER_OPTIONS.iter().filter(|it| it.name != SHARED);
        command.args(options.map(|option| argument(*option)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        HandlerArguments::augment_args(command)
    }
}

fn argument(option: HandlerOption) -> Arg {
    let (placeholder, help) = describe(option.name);
    let help = format!("{help} [env: {}]", option.variable);
    let argument = Arg::new(option.name)
        .long(option.name)
        .help(help)
        .help_heading(HEADING)
        .action(ArgAction::Append);
    let argument = match option.name {
        "debug" => argument.short('d'),
        _ => argument,
    };
    match placeholder {
        // `--dry-run` and `--dry-run=true`.
        "" => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL"),
        placeholder => argument.value_name(placeholder),
    }
}

impl FromArgMatches for HandlerArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<HandlerArguments, clap::Error> {
        let mut options = HandlerOptions::default();
        for option in HANDLER_OPTIONS.iter().filter(|it| it.name != SHARED) {
            for value in matches
                .get_many::<String>(option.name)
                .into_iter()
                .flatten()
            {
                options.give(*option, value);
            }
        }
        Ok(HandlerArguments(options))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = HandlerArguments::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The Event Handler also takes `--config` and `--debug` before its command.
pub(crate) fn in_order(
    arguments: impl Iterator<Item = std::ffi::OsString>,
) -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        at += match argument {
            "-c" | "--config" => 2,
            "-d" => 1,
            it if it.starts_with("--config=") || it.starts_with("--debug") => 1,
            "start" if at > 1 => {
                arguments[1..=at].rotate_right(1);
                break;
            }
            _ => break,
        };
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn given(line: &str) -> Vec<String> {
        let words = line.split(' ').map(std::ffi::OsString::from);
        let arguments = Arguments::try_parse_from(in_order(words)).unwrap();
        let Command::Start(start) = arguments.command else {
            panic!("not `start`: {line}");
        };
        let options = &start.handler.0;
        options.names().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_accepted_as_the_event_handler_accepts_them() {
        for (line, expected) in [
            ("lockgate start", &[][..]),
            ("lockgate start --debug", &["debug"]),
            ("lockgate --debug start", &["debug"]),
            (
                "lockgate -d -c x.toml start --dry-run",
                &["debug", "dry-run"],
            ),
            (
                "lockgate --config=x.toml start --types a,b --types c",
                &["types"],
            ),
            (
                "lockgate start --config=x.toml --teleport-refresh-enabled=true",
                &["teleport-refresh-enabled"],
            ),
            (
                "lockgate start --skip-session-types=",
                &["skip-session-types"],
            ),
            ("lockgate start --exit-on-last-event=true", &[]),
        ] {
            assert_eq!(given(line), expected, "{line}");
        }
    }
}
