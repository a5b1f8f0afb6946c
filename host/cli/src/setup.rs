//! Prepares a host from a configuration file, for `start`, `check` and `demo`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_config::{Config, Environment, Issue, Issues, ProcessEnvironment};
use lockgate_model::Millis;
use lockgate_observe::{Format, Masks};
use lockgate_runtime::{ChildCompiler, CompileLimits, Compiler};
use lockgate_service::{
    HostOptions, LoadConfig, PipelineBuilder, Unbuilt, check_credentials, check_endpoint,
    check_position, check_source, open_databases, retention,
};
use lockgate_store::{Inspector, Options, Store};

use crate::config_file::{ConfigFile, file_or_none};
use crate::failure::Failure;
use crate::place::not_opened;
use crate::print;

/// Loads and checks the configuration, and masks the values of its references from now on.
pub(crate) fn load(file: &Path, masks: &Masks) -> Result<Config, Failure> {
    load_with(file, masks, &ProcessEnvironment).map_err(Failure::issues)
}

/// The same, with the environment that the references of the file are read from.
pub(crate) fn load_with(
    file: &Path,
    masks: &Masks,
    environment: &dyn Environment,
) -> Result<Config, Issues> {
    ConfigFile::named(file).load(masks, environment)
}

/// The directory of the store. Reading it does not require the secrets of the configuration.
pub(crate) fn store_path(file: &Path) -> Result<PathBuf, Failure> {
    lockgate_config::store_path(file_or_none(file), &ProcessEnvironment).map_err(|issues| {
        Failure::issues(issues)
            .hint("`--store DIR` works without the file: DIR is the store, `path` in `[store]`")
    })
}

/// The names of the configured pipelines. `None`: the file has no `[pipelines]`.
pub(crate) fn pipeline_names(file: &Path) -> Result<Option<BTreeSet<String>>, Failure> {
    lockgate_config::pipeline_names(file_or_none(file), &ProcessEnvironment)
        .map_err(Failure::issues)
}

/// Builds every pipeline, loads every credential and discards them, to find problems that the text
/// does not show. What is left are warnings and notes.
pub(crate) async fn dry_run(
    file: &Path,
    config: &Config,
    masks: &Masks,
) -> Result<Issues, Failure> {
    let mut report = config.remarks();
    build(file, config, masks, &mut report, true).await?;
    let store = &config.store;
    if let Err(error) = lockgate_store::check_directory(&store.path) {
        let path = store.path.display();
        let message = match store.path.exists() && !store.path.is_dir() {
            true => format!("`{path}` is not a directory."),
            false => format!("The store cannot be kept in `{path}`: {error}."),
        };
        report.push(Issue::new(
            store.path_span.clone(),
            message,
            "the directory of the store",
            "name a directory that this user may write to: `start` creates it if it does not exist; or \
             run this command as the user that the host runs as",
        ));
    } else if let Err(error) = lockgate_store::check_store(&store.path) {
        let failure = not_opened(error);
        report.push(Issue::new(
            store.path_span.clone(),
            failure.message.trim_start_matches("error: "),
            "the store",
            match &failure.hints[..] {
                [] => {
                    "name another directory, or put a store there that `start` can open".to_owned()
                }
                hints => hints.join("; "),
            },
        ));
    } else if let Some(free) = lockgate_store::too_few_free_bytes(&store.path) {
        report.push(Issue::warning(
            store.path_span.clone(),
            format!(
                "The disk of `{}` is full: {} of the 32 MiB that a store needs are free.",
                store.path.display(),
                mib(free)
            ),
            "the directory of the store",
            "free some disk space, or name a directory on another disk",
        ));
    }
    for source in &config.sources {
        check_source(source, &mut report);
        check_credentials(source, &mut report);
        check_position(source, config, &mut report);
    }
    for pipeline in &config.pipelines {
        check_endpoint(pipeline, masks, &mut report);
    }
    if report.has_problems() {
        Err(Failure::issues(report))
    } else {
        Ok(report)
    }
}

/// `0 MiB`.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// What is wrong with the file, its plugins and databases: all that [`dry_run`] finds, but for
/// what `doctor` looks at more closely.
pub(crate) async fn examine(
    file: &Path,
    config: &Config,
    masks: &Masks,
) -> Result<Issues, Failure> {
    let mut report = config.remarks();
    build(file, config, masks, &mut report, false).await?;
    for source in &config.sources {
        check_source(source, &mut report);
    }
    Ok(report)
}

/// Builds every pipeline and discards it. `of_endpoints`: also reports files of its endpoint alone.
async fn build(
    file: &Path,
    config: &Config,
    masks: &Masks,
    report: &mut Issues,
    of_endpoints: bool,
) -> Result<(), Failure> {
    let builder = builder(file, config, masks, None)?;
    let can_look_up = open_databases(&config.lookup, report).is_some();
    for pipeline in &config.pipelines {
        let mut found = report.clone();
        let built = builder.build(pipeline, can_look_up, &mut found, |_| {});
        match built.await {
            Err(Unbuilt::Files(_)) if !of_endpoints => continue,
            Err(Unbuilt::NoRoom(why)) => {
                // No other pipeline takes any: its own components keep each other out.
                found.push(Issue::new(
                    pipeline.span.clone(),
                    format!("This pipeline cannot start: {why}."),
                    "its components",
                    "raise `memory` in `[limits]`, or remove `reuse` from its plugins",
                ));
            }
            _ => {}
        }
        *report = found;
    }
    Ok(())
}

/// The plan that `start` runs. A pipeline whose plugin refuses its configuration does not start,
/// and its problem is shown; the others run. `load` reads the file again for a reload.
pub(crate) fn plan(
    file: &Path,
    config: &Config,
    masks: &Masks,
    store: &Store,
    load: LoadConfig,
    exit_on_last_event: bool,
    format: Format,
) -> Result<HostOptions, Failure> {
    let mut report = config.warnings();
    let builder = builder(file, config, masks, Some(store))?;
    let databases = open_databases(&config.lookup, &mut report);
    for pipeline in &config.pipelines {
        check_endpoint(pipeline, masks, &mut report);
    }
    let show = move |report: &Issues| print::issues(report, format);
    if !report.is_empty() {
        show(&report);
    }
    Ok(HostOptions {
        config: config.clone(),
        builder,
        databases,
        show: Arc::new(show),
        load,
        observer: None,
        exit_on_last_event,
    })
}

/// Builds pipelines that are not run, whether or not a host runs.
pub(crate) fn replay_builder(
    file: &Path,
    config: &Config,
    masks: &Masks,
    store: Arc<Inspector>,
) -> Result<PipelineBuilder, Failure> {
    PipelineBuilder::for_replay(
        file.parent().unwrap_or(Path::new("")),
        compiler(config.limits.compile)?,
        config.limits.memory,
        masks.clone(),
        store,
        &config.store.path.join("code"),
    )
    .map_err(Failure::failed)
}

fn builder(
    file: &Path,
    config: &Config,
    masks: &Masks,
    store: Option<&Store>,
) -> Result<PipelineBuilder, Failure> {
    PipelineBuilder::new(
        file.parent().unwrap_or(Path::new("")),
        compiler(config.limits.compile)?,
        config.limits.memory,
        masks.clone(),
        store,
        &config.store.path.join("code"),
    )
    .map_err(Failure::failed)
}

/// Components are compiled in child processes of this binary.
pub(crate) fn compiler(limits: lockgate_config::CompileLimits) -> Result<Compiler, Failure> {
    // The running binary, even if an upgrade has replaced its file.
    let running = Path::new("/proc/self/exe");
    let program = if running.exists() {
        running.to_owned()
    } else {
        std::env::current_exe().map_err(|error| {
            Failure::failed(format!(
                "The path of this program cannot be found: {error}."
            ))
        })?
    };
    Ok(Compiler::Child(ChildCompiler {
        program,
        limits: CompileLimits {
            memory: limits.memory,
            time: limits.time,
        },
    }))
}

pub(crate) fn store_options(config: &Config) -> Options {
    Options {
        streams: retention(config),
        ..Options::new(&config.store.path)
    }
}

/// The only clock of the commands.
#[allow(
    clippy::disallowed_methods,
    reason = "the only place in the commands that reads the system clock"
)]
pub(crate) fn now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Millis)
}
