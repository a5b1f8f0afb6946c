//! The binary `lockgate`. One file per command; no other crate prints.
//!
//! Data goes to standard output, everything else to standard error. Exit status: 0 (success), 1
//! (failure), 2 (wrong usage or configuration).

mod args;
mod commands;
mod config_file;
mod failure;
mod handler_arguments;
mod misplaced;
mod notify;
mod place;
mod print;
mod setup;
mod signals;
mod watch;
mod wrong_arguments;

use std::process::ExitCode;

use clap::Parser;
use lockgate_observe::Format;

use crate::args::{Arguments, Command, LogFormat, Plugin, Sim};
use crate::failure::Failure;
use crate::signals::EarlyHangups;

fn main() -> ExitCode {
    // First thing: a hangup from then on asks for a reload, and does not end the process.
    let hangups = signals::EarlyHangups::of_start();
    let arguments = Arguments::try_parse_from(handler_arguments::in_order(std::env::args_os()))
        .unwrap_or_else(|error| wrong_arguments::end(&misplaced::with_hint(error)));
    // Only a host is expected to write nothing but its log.
    let format = match (&arguments.command, arguments.log_format) {
        (Command::Start(_), LogFormat::Json) => Format::Json,
        _ => Format::Text,
    };
    match run(arguments, hangups) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(format);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments, hangups: Option<EarlyHangups>) -> Result<(), Failure> {
    let masks = lockgate_observe::Masks::default();
    let format = match arguments.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let filter = arguments.log_filter();
    if let Err(error) = lockgate_observe::init_logging(format, filter, masks.clone()) {
        // The failure itself may have to be logged.
        let _ = lockgate_observe::init_logging(format, "", masks);
        return Err(Failure::usage(error).hint(
            "set `--log` to a level, such as `debug`, or to directives, such as \
             `info,lockgate_teleport=debug`",
        ));
    }
    match arguments.command {
        Command::Start(command) => commands::start::run(&command, hangups, &masks, format),
        Command::Check(command) => commands::check::run(command, &masks),
        Command::Compile(command) => commands::compile::run(&command),
        Command::Import(command) => commands::import::run(&command, &masks),
        Command::Configure(command) => commands::configure::run(&command),
        Command::Demo(command) => commands::demo::run(command, &masks),
        Command::Sim(Sim::Auth(command)) => commands::sim::auth(command),
        Command::Sim(Sim::Receiver(command)) => commands::sim::receiver(command),
        Command::Doctor(command) => commands::doctor::run(&command, &masks),
        Command::Reload(command) => commands::reload::run(&command),
        Command::Status(command) => commands::status::run(&command),
        Command::Audit(command) => commands::audit::run(&command),
        Command::Explain(command) => commands::explain::run(&command, &masks),
        Command::Store(command) => commands::store::run(&command, &masks),
        Command::Dlq(command) => commands::dlq::run(&command),
        Command::Plugin(Plugin::Run(command)) => commands::plugin_run::run(&command),
        Command::Plugin(Plugin::Help(command)) => commands::plugin_help::run(&command),
        Command::Assets(command) => commands::assets::run(&command),
        Command::Version => commands::version::run(),
        Command::Completions { shell } => commands::completions::run(shell),
    }
}
