//! Prepares a host from a configuration file, for `start`, `check` and `demo`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_config::{Config, Issue, ProcessEnvironment, Report};
use lockgate_model::{FeedKind, Millis};
use lockgate_observe::Masks;
use lockgate_runtime::{ChildCompiler, CompileLimits, Compiler};
use lockgate_service::{HostOptions, PipelineBuilder, Reader, Unbuilt};
use lockgate_store::{Inspector, Options, Retention, Store};

use crate::failure::Failure;
use crate::print;

/// Loads and checks the configuration, and masks the values of its references from now on.
pub(crate) fn load(file: &Path, masks: &Masks) -> Result<Config, Failure> {
    let config = lockgate_config::load(file, &ProcessEnvironment)
        .map_err(|report| Failure::report(report.render(print::to_terminal())))?;
    for secret in config.secrets() {
        masks.add(secret.expose());
    }
    Ok(config)
}

/// The directory of the store. Reading it does not require the secrets of the configuration.
pub(crate) fn store_path(file: &Path) -> Result<PathBuf, Failure> {
    lockgate_config::store_path(file, &ProcessEnvironment)
        .map_err(|report| Failure::report(report.render(print::to_terminal())))
}

/// The names of the configured pipelines. `None`: the file has no `[pipelines]`.
pub(crate) fn pipeline_names(file: &Path) -> Result<Option<BTreeSet<String>>, Failure> {
    lockgate_config::pipeline_names(file, &ProcessEnvironment)
        .map_err(|report| Failure::report(report.render(print::to_terminal())))
}

/// Builds every pipeline, loads every credential and discards them, to find problems that the text
/// does not show.
pub(crate) async fn dry_run(file: &Path, config: &Config, masks: &Masks) -> Result<(), Failure> {
    let mut report = config.report();
    let builder = builder(file, config, masks, None, &mut report)?;
    for pipeline in &config.pipelines {
        if let Err(Unbuilt::NoRoom(why)) = builder.build(pipeline, &mut report, || {}).await {
            // No other pipeline takes any: its own components keep each other out.
            report.push(Issue::new(
                pipeline.span.clone(),
                format!("This pipeline cannot start: {why}."),
                "its components",
                "raise `memory` in `[limits]`, or remove `reuse` from its plugins",
            ));
        }
    }
    let store = &config.store;
    if store.path.exists() && !store.path.is_dir() {
        report.push(Issue::new(
            store.path_span.clone(),
            format!("`{}` is not a directory.", store.path.display()),
            "the directory of the store",
            "name a directory: `start` makes it where it does not exist",
        ));
    }
    for source in &config.sources {
        if source.start_time.is_some_and(|start| start > now()) {
            report.push(Issue::new(
                source.start_time_span.clone(),
                "This time is in the future: no event would be read until then.",
                "the time of the first event",
                "leave out `start-time` to begin with the first start, or name a time of the past",
            ));
        }
        if let Err(message) = Reader::new(source, false).check() {
            let hint = "`tctl auth sign --user=lockgate --out=identity` writes an identity file, \
                        and so does Machine ID";
            report.push(Issue::new(
                source.credentials_span.clone(),
                message,
                "the credentials of this source",
                hint,
            ));
        }
    }
    if report.is_empty() {
        Ok(())
    } else {
        Err(Failure::report(report.render(print::to_terminal())))
    }
}

/// The plan that `start` runs. A pipeline whose plugin refuses its configuration does not start,
/// and its problem is shown; the others run.
pub(crate) fn plan(
    file: &Path,
    config: &Config,
    masks: &Masks,
    store: &Store,
    exit_on_last_event: bool,
) -> Result<HostOptions, Failure> {
    let mut report = config.report();
    let builder = builder(file, config, masks, Some(store), &mut report)?;
    let show = |report: &Report| print::problem(&report.render(print::to_terminal()));
    if !report.is_empty() {
        show(&report);
    }
    let readers = config.sources.iter().map(|source| {
        let wants = |feed| {
            let mut inputs = config.pipelines.iter().flat_map(|pipeline| &pipeline.from);
            inputs.any(|input| input.source == source.name && input.feed == feed)
        };
        Reader::new(source, wants(FeedKind::Sessions))
    });
    Ok(HostOptions {
        readers: readers.collect(),
        builder,
        pipelines: config.pipelines.clone(),
        report: config.report(),
        show: Box::new(show),
        exit_on_last_event,
    })
}

/// Builds pipelines that are not run, beside a host or without one.
pub(crate) fn builder_beside_host(
    file: &Path,
    config: &Config,
    masks: &Masks,
    store: Arc<Inspector>,
    report: &mut Report,
) -> Result<PipelineBuilder, Failure> {
    let mut builder = PipelineBuilder::beside_host(
        file.parent().unwrap_or(Path::new("")),
        compiler(config.limits.compile)?,
        config.limits.memory,
        masks.clone(),
        store,
        &config.store.path.join("code"),
    )
    .map_err(Failure::failed)?;
    builder.grant(&config.lookup, report);
    Ok(builder)
}

fn builder(
    file: &Path,
    config: &Config,
    masks: &Masks,
    store: Option<&Store>,
    report: &mut Report,
) -> Result<PipelineBuilder, Failure> {
    let mut builder = PipelineBuilder::new(
        file.parent().unwrap_or(Path::new("")),
        compiler(config.limits.compile)?,
        config.limits.memory,
        masks.clone(),
        store,
        &config.store.path.join("code"),
    )
    .map_err(Failure::failed)?;
    builder.grant(&config.lookup, report);
    Ok(builder)
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
    let retention = |kept: lockgate_config::Retention| Retention {
        age: Some(kept.age),
        bytes: Some(kept.bytes),
    };
    let streams: BTreeMap<_, _> = config
        .sources
        .iter()
        .flat_map(|source| {
            [
                (FeedKind::Audit, config.store.audit),
                (FeedKind::Sessions, config.store.sessions),
            ]
            .map(|(feed, kept)| (format!("{}/{}", source.name, feed.name()), retention(kept)))
        })
        .collect();
    Options {
        streams,
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
