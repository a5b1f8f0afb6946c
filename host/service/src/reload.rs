//! A reload: reads the configuration file again, checks it, and builds everything that is new in
//! it. Nothing that runs is touched until all of that has succeeded.

mod building;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_config::{Config, HostLimits, Issue, Issues, Pipeline, Severity, Source};
use lockgate_ledger::LedgerError;
use lockgate_lookup::Databases;
use lockgate_store::Store;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::blocking::blocking;
use crate::build::{BuiltPipeline, PipelineBuilder, check_endpoint, open_databases};
use crate::host::LoadConfig;
use crate::identity::{Difference, PipelineIdentity, SourceIdentity};
use crate::reader::{Reader, check_credentials, check_source};
use crate::status::Board;

/// The result of a reload.
#[derive(Clone, Debug)]
pub enum ReloadOutcome {
    /// The file is in force. Sentences on what changed.
    Done(String),
    /// The file has problems, and nothing was changed.
    Refused(Issues),
    /// Nothing was changed, or not everything yet, for a reason that is not in the file.
    NotNow(String),
}

/// Callers that wait for a reload. Clones are one queue.
#[derive(Clone, Default)]
pub(crate) struct ReloadQueue(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<oneshot::Sender<ReloadOutcome>>>,
    arrived: Notify,
}

impl ReloadQueue {
    /// Asks for a reload that reads the file after now. The answer may be dropped.
    pub(crate) fn ask(&self) -> oneshot::Receiver<ReloadOutcome> {
        let (reply, answer) = oneshot::channel();
        self.lock().push(reply);
        self.0.arrived.notify_one();
        answer
    }

    /// Everybody who has asked, once somebody has.
    pub(crate) async fn next(&self) -> Vec<oneshot::Sender<ReloadOutcome>> {
        loop {
            let waiting = std::mem::take(&mut *self.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            self.0.arrived.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<oneshot::Sender<ReloadOutcome>>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pipelines and sources that run when a reload begins.
pub(crate) struct Before {
    pub(crate) config: Config,
    pub(crate) sources: BTreeMap<String, SourceIdentity>,
    /// `None` for a pipeline that could not start.
    pub(crate) pipelines: BTreeMap<String, Option<PipelineIdentity>>,
    /// Of these: those that wait for memory, or for their components to be configured, and
    /// the message.
    pub(crate) waiting: BTreeMap<String, String>,
    pub(crate) can_look_up: bool,
    /// The settings that a reload cannot change.
    pub(crate) fixed: Fixed,
}

/// Settings that are in force until a restart, whatever the file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fixed {
    pub(crate) limits: HostLimits,
    pub(crate) listen: Option<SocketAddr>,
}

/// A configuration without problems, and everything that is new in it, built.
pub(crate) struct Prepared {
    pub(crate) config: Config,
    pub(crate) sources: BTreeMap<String, SourceIdentity>,
    pub(crate) pipelines: BTreeMap<String, PipelineIdentity>,
    pub(crate) source_changes: Difference,
    pub(crate) pipeline_changes: Difference,
    pub(crate) built: HashMap<String, BuiltPipeline>,
    /// In place of those that are granted.
    pub(crate) databases: Option<Databases>,
    /// Other tables and keys that are changed.
    pub(crate) others: Vec<&'static str>,
    pub(crate) needs_restart: Vec<String>,
    /// Problems of pipelines that go on as they are.
    pub(crate) warnings: Vec<String>,
}

/// Why nothing is changed.
pub(crate) enum Refusal {
    Problems(Issues),
    Ledger(LedgerError),
}

/// Reads the file, checks it, and builds what is new.
pub(crate) async fn prepare(
    before: Before,
    load: LoadConfig,
    builder: Arc<PipelineBuilder>,
    store: Store,
    board: Board,
) -> Result<Prepared, Refusal> {
    let config = blocking(move || load()).await.map_err(Refusal::Problems)?;
    let mut issues = config.no_issues();
    if config.store.path != before.config.store.path {
        issues.push(Issue::new(
            config.store.path_span.clone(),
            "A reload cannot move the store.",
            "another directory than that of the running host",
            "change it back; or stop the host, move the directory of its store there, and start it \
             again: with an empty store, it sends everything again",
        ));
    }
    let named = config.sources.iter().map(|source| {
        let identity = SourceIdentity::of(source, &config);
        (source.name.clone(), identity)
    });
    let sources: BTreeMap<_, _> = named.collect();
    let runs = before.sources.into_iter();
    let runs = runs.map(|(name, identity)| (name, Some(identity)));
    let source_changes = Difference::between(&runs.collect(), &sources);
    let (base, configured) = (builder.base().to_owned(), config.pipelines.clone());
    let pipelines = blocking(move || -> BTreeMap<_, _> {
        let identity = |pipeline: &Pipeline| {
            let identity = PipelineIdentity::of(pipeline, &base);
            (pipeline.name.clone(), identity)
        };
        configured.iter().map(identity).collect()
    })
    .await;
    let pipeline_changes = Difference::between(&before.pipelines, &pipelines);
    let new: BTreeSet<&String> = source_changes.to_build().collect();
    let new = config.sources.iter().filter(|one| new.contains(&one.name));
    let new: Vec<Source> = new.cloned().collect();
    let checked = blocking(move || {
        check_sources(&new, &store, &mut issues)?;
        Ok::<_, LedgerError>(issues)
    });
    let mut issues = checked.await.map_err(Refusal::Ledger)?;
    let mut databases = None;
    let mut can_look_up = before.can_look_up;
    if !can_look_up || config.lookup.unplaced() != before.config.lookup.unplaced() {
        let lookup = config.lookup.clone();
        let opened;
        (issues, opened) = blocking(move || {
            let opened = open_databases(&lookup, &mut issues);
            (issues, opened)
        })
        .await;
        can_look_up = opened.is_some();
        databases = opened;
    }
    let new: BTreeSet<&String> = pipeline_changes.to_build().collect();
    let pipelines_of = config.pipelines.iter();
    let (new, others): (Vec<_>, Vec<_>) =
        pipelines_of.partition(|pipeline| new.contains(&pipeline.name));
    let owned =
        |pipelines: &[&Pipeline]| -> Vec<Pipeline> { pipelines.iter().copied().cloned().collect() };
    let mut of_unchanged = config.no_issues();
    let endpoints = (owned(&new), owned(&others), builder.masks().clone());
    (issues, of_unchanged) = blocking(move || {
        let (new, others, masks) = endpoints;
        for (pipelines, issues) in [(&new, &mut issues), (&others, &mut of_unchanged)] {
            for pipeline in pipelines {
                check_endpoint(pipeline, &masks, issues);
            }
        }
        (issues, of_unchanged)
    })
    .await;
    let built =
        building::build_all(new.into_iter(), can_look_up, &builder, &board, &mut issues).await;
    if issues.has_problems() {
        return Err(Refusal::Problems(issues));
    }
    let retained = |config: &Config| (config.store.audit, config.store.sessions);
    let others = [
        (databases.is_some(), "`[lookup]`"),
        (
            retained(&config) != retained(&before.config),
            "`retain` in `[store]`",
        ),
    ];
    let others = others.into_iter().filter(|(is_changed, _)| *is_changed);
    let waiting = before.waiting.iter();
    let waiting = waiting
        .filter(|(name, _)| pipelines.contains_key(*name) && !built.contains_key(*name))
        .map(|(name, why)| format!("`{name}` has not started: {why}"))
        .collect::<Vec<_>>();
    Ok(Prepared {
        others: others.map(|(_, key)| key).collect(),
        needs_restart: needs_restart(&before.fixed, &config),
        // What runs is not stopped for them.
        warnings: problems(&of_unchanged).chain(waiting).collect(),
        sources,
        pipelines,
        source_changes,
        pipeline_changes,
        built,
        databases,
        config,
    })
}

/// Checks sources that are new or changed. Blocks while it reads files and the store.
fn check_sources(
    sources: &[Source],
    store: &Store,
    issues: &mut Issues,
) -> Result<(), LedgerError> {
    for source in sources {
        check_source(source, issues);
        check_credentials(source, issues);
        let cursors = store.reads().cursors(&source.name)?;
        if let Err(message) = Reader::new(source, false).check_resume(cursors) {
            issues.push(Issue::new(
                source.span.clone(),
                format!("This source cannot be read: {message}."),
                "this source",
                "change it back, or use a new store",
            ));
        }
    }
    Ok(())
}

/// The keys whose new values a reload does not put in force.
pub(crate) fn needs_restart(fixed: &Fixed, config: &Config) -> Vec<String> {
    let keys = [
        (
            fixed.limits.memory != config.limits.memory,
            "`memory` in `[limits]`",
        ),
        (
            fixed.limits.compile != config.limits.compile,
            "`compile` in `[limits]`",
        ),
        (fixed.listen != config.admin.listen, "`listen` in `[admin]`"),
    ];
    let changed = keys.into_iter().filter(|(is_changed, _)| *is_changed);
    changed.map(|(_, key)| key.to_owned()).collect()
}

/// Each problem with its place, in one line. Warnings are left out.
pub(crate) fn problems(issues: &Issues) -> impl Iterator<Item = String> {
    let all = issues.issues().iter();
    let problems = all.filter(|issue| issue.severity == Severity::Problem);
    problems.map(|issue| {
        let (line, column) = issues.position(issue);
        format!("{}:{line}:{column}: {}", issues.name(), issue.message)
    })
}

impl Prepared {
    /// The changes, for the operator: a line each.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!(
            "pipelines: {}\nsources: {}",
            self.pipeline_changes.describe(),
            self.source_changes.describe()
        );
        if !self.others.is_empty() {
            text += &format!("\nalso changed: {}", self.others.join(", "));
        }
        if !self.needs_restart.is_empty() {
            text += &format!("\nneeds a restart: {}", self.needs_restart.join(", "));
        }
        for warning in &self.warnings {
            text += &format!("\nwarning: {warning}");
        }
        text
    }
}

/// Tasks that end with this.
pub(crate) type Preparing = JoinSet<Result<Prepared, Refusal>>;
