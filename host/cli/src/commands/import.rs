//! `lockgate import`: from Teleport's Event Handler to Lockgate.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lockgate_config::{Config, EventHandler, ProcessEnvironment, STORE_IN_STATE};
use lockgate_observe::Masks;
use lockgate_service::{
    describe_position, handler_position, sends_recordings, stored_cursors, take_over,
};
use lockgate_store::{DirectoryLock, Ledger, Options, Store};

use super::start::not_taken_over;
use crate::args::Import;
use crate::config_file::ConfigFile;
use crate::failure::Failure;
use crate::place::not_opened;
use crate::print;
use crate::setup;

const DEFAULT: &str = "teleport-event-handler.toml";
const KEPT: &str = "The store has a position already, which was kept.";

pub(crate) fn run(command: &Import, masks: &Masks) -> Result<(), Failure> {
    let file = ConfigFile::new(command.config.as_deref(), &command.handler, DEFAULT);
    let config = file
        .load(masks, &ProcessEnvironment)
        .map_err(Failure::issues)?;
    let Some(handler) = &config.event_handler else {
        let message = format!(
            "`{}` is not a file of the Event Handler.",
            file.path().display()
        );
        return Err(Failure::usage(message).hint("it is one of Lockgate's: use it as it is"));
    };
    if handler.dry_run {
        return Err(
            Failure::usage("A dry run has no position that could be taken over.")
                .hint("set `dry-run` to `false`"),
        );
    }
    let warnings = config.warnings();
    if !warnings.is_empty() {
        print::problem(&warnings.render(print::to_terminal()));
    }
    if command.out.exists() {
        return Err(exists(&command.out));
    }
    let state = state(command, handler)?;
    let store = state.join(STORE_IN_STATE);
    let position = handler_position(&state).map_err(not_taken_over)?;
    let has_begun = config
        .sources
        .iter()
        .all(|source| !stored_cursors(&store, &source.name).is_empty());
    let taken = match &position {
        _ if has_begun => KEPT.to_owned(),
        None => format!("`{}` has no position: ", state.display()) + &begins(handler),
        Some(position) => {
            let runtime = super::tokio_runtime()?;
            let directory = &store;
            runtime.block_on(async {
                let lock = DirectoryLock::take(directory, setup::now()).map_err(not_opened)?;
                let options = Options {
                    path: directory.clone(),
                    ..setup::store_options(&config)
                };
                let store = Store::open_locked(options, lock).map_err(not_opened)?;
                let taken = taken(&config, position, &store).await;
                let closed = store.close().await;
                taken.and_then(|taken| closed.map(|()| taken).map_err(Failure::failed))
            })?
        }
    };
    // Once it has begun, `start-time` was taken out if the Event Handler had begun before.
    let is_out = config
        .sources
        .iter()
        .all(|source| source.start_time.is_none());
    let begun = position.is_some_and(|position| position.start.is_some()) || has_begun && is_out;
    let text = format!(
        "# From {}, a configuration of Teleport's Event Handler.\n{}",
        match file.path().as_os_str().is_empty() {
            true => "the options and variables".into(),
            false => file.path().display().to_string(),
        },
        handler.written(&store, !begun)
    );
    write(&command.out, &text)?;
    let mut start = format!("lockgate start --config {}", command.out.display());
    if handler.exit_on_last_event {
        start += " --exit-on-last-event";
    }
    if handler.debug {
        start += " --log debug";
    }
    print::data(&format!(
        "Wrote `{}`.\n{taken}\nStart it with `{start}`.\n",
        command.out.display()
    ))
}

async fn taken(
    config: &Config,
    position: &lockgate_service::HandlerPosition,
    store: &Store,
) -> Result<String, Failure> {
    for source in &config.sources {
        let taken = take_over(&source.name, position, store, setup::now()).await;
        if !taken.map_err(not_taken_over)? {
            return Ok(KEPT.to_owned());
        }
    }
    let position = describe_position(position, sends_recordings(config));
    Ok(format!(
        "Took over the position of the Event Handler: {position}."
    ))
}

fn begins(handler: &EventHandler) -> String {
    match handler.start_time {
        Some(_) => "reading begins at `start-time`.".to_owned(),
        None => "reading begins with Teleport's newest event.".to_owned(),
    }
}

/// The directory of the address, also if the one above it is named.
fn state(command: &Import, handler: &EventHandler) -> Result<PathBuf, Failure> {
    let Some(named) = &command.state else {
        return Ok(handler.state.clone());
    };
    let named = std::path::absolute(named).map_err(Failure::failed)?;
    let inside = handler.state.file_name().map(|name| named.join(name));
    let state = inside.filter(|inside| inside.is_dir()).unwrap_or(named);
    if state.is_dir() {
        return Ok(state);
    }
    let message = format!("`{}` is not a directory.", state.display());
    Err(Failure::usage(message).hint("`--state` names the Event Handler's state directory"))
}

/// The file may hold a password.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => Failure::failed(format!("`{}` cannot be written: {error}", path.display())),
    })
}

fn exists(path: &Path) -> Failure {
    Failure::usage(format!("`{}` exists already.", path.display()))
        .hint("name another file with `--out`, or remove this one")
}
