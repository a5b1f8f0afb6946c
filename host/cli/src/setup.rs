//! From a configuration file to what a host needs: shared by `start`, `check` and `demo`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_config::{Config, Issue, ProcessEnvironment};
use lockgate_lookup::Databases;
use lockgate_model::{FeedKind, Millis};
use lockgate_observe::Masks;
use lockgate_pipeline::{Assembly, Board, Plan, Reader, Workshop};
use lockgate_runtime::{ChildCompiler, CompileLimits, Compiler};
use lockgate_store::{Options, Retention};

use crate::failure::Failure;
use crate::print;

/// The checked configuration. What its references stand for is masked from now on.
pub(crate) fn load(file: &Path, masks: &Masks) -> Result<Config, Failure> {
    let config = lockgate_config::load(file, &ProcessEnvironment)
        .map_err(|report| Failure::report(report.render(print::to_terminal())))?;
    for secret in config.secrets() {
        masks.add(secret.expose());
    }
    Ok(config)
}

/// The folder of the store alone: looking into it needs none of the file's secrets.
pub(crate) fn store_path(file: &Path) -> Result<PathBuf, Failure> {
    lockgate_config::store_path(file, &ProcessEnvironment)
        .map_err(|report| Failure::report(report.render(print::to_terminal())))
}

/// Assembles every pipeline, loads every credential and throws them away: what `check` shows beside
/// the problems of the text.
pub(crate) async fn dry_run(file: &Path, config: &Config, masks: &Masks) -> Result<(), Failure> {
    let (_, _, mut report) = assemble(file, config, None, masks, &Board::new(now())).await?;
    for source in &config.sources {
        if let Err(message) = Reader::new(source, false).check() {
            let hint = "`tctl auth sign --user=lockgate --out=identity` writes an identity file, and so does Machine ID";
            report.push(Issue::new(
                source.span.clone(),
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

/// What `start` runs. A pipeline whose plugin refuses its configuration is left out, with its
/// problem shown; the others run.
pub(crate) async fn plan(
    file: &Path,
    config: &Config,
    masks: &Masks,
    exit_on_last_event: bool,
) -> Result<Plan, Failure> {
    let board = Board::new(now());
    let code = config.store.path.join("code");
    let (pipelines, databases, report) = assemble(file, config, Some(&code), masks, &board).await?;
    if pipelines.is_empty() {
        return Err(Failure::report(report.render(print::to_terminal())));
    }
    if !report.is_empty() {
        print::problem(&report.render(print::to_terminal()));
        for pipeline in &config.pipelines {
            if !pipelines
                .iter()
                .any(|assembly| assembly.name() == pipeline.name)
            {
                tracing::error!(
                    pipeline = pipeline.name,
                    "this pipeline does not start; the others do"
                );
            }
        }
    }
    let readers = config.sources.iter().map(|source| {
        let wants = |feed| {
            config
                .pipelines
                .iter()
                .flat_map(|pipeline| &pipeline.from)
                .any(|input| input.source == source.name && input.feed == feed)
        };
        Reader::new(source, wants(FeedKind::Sessions))
    });
    let configured = config
        .pipelines
        .iter()
        .map(|pipeline| pipeline.name.clone())
        .collect();
    Ok(Plan {
        readers: readers.collect(),
        pipelines,
        databases,
        configured,
        exit_on_last_event,
        board,
        status_file: status_file(&config.store.path),
    })
}

async fn assemble(
    file: &Path,
    config: &Config,
    code: Option<&Path>,
    masks: &Masks,
    board: &Board,
) -> Result<(Vec<Assembly>, Option<Databases>, lockgate_config::Report), Failure> {
    let base = file.parent().unwrap_or(Path::new(""));
    let mut workshop = Workshop::new(
        base,
        code,
        compiler(config.limits.compile)?,
        config.limits.memory,
        masks.clone(),
        board.clone(),
    )
    .map_err(Failure::failed)?;
    let mut report = config.report();
    workshop.grant(&config.lookup, &mut report);
    let mut pipelines = Vec::new();
    for pipeline in &config.pipelines {
        pipelines.extend(workshop.assemble(pipeline, &mut report).await);
    }
    Ok((pipelines, workshop.into_databases(), report))
}

/// Components are compiled by another process of this binary.
pub(crate) fn compiler(limits: lockgate_config::CompileLimits) -> Result<Compiler, Failure> {
    // The file that runs, although an upgrade may have put another one into its place.
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

/// Where a running host says how it is.
pub(crate) fn status_file(store: &Path) -> PathBuf {
    store.join("status.json")
}

pub(crate) fn now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Millis)
}
