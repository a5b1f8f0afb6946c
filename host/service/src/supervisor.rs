//! Starts the readers and the pipelines of a host, and exchanges them at a reload.

mod exchange;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_config::{Config, Issues, Pipeline, Source};
use lockgate_lookup::{Databases, Lookups};
use lockgate_store::{Ledger, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::build::{BuiltPipeline, PipelineBuilder};
use crate::clock::now;
use crate::driver::{Driver, DriverEnd, UnfinishedPipeline, UnfinishedPipelines};
use crate::expiry;
use crate::generation::keep_current;
use crate::host::{Host, HostError, HostEvent, HostOptions, LoadConfig, Observer};
use crate::identity::{PipelineIdentity, SourceIdentity};
use crate::metrics;
use crate::reader::{self, Reader};
use crate::reload::{Fixed, Preparing, ReloadOutcome, needs_restart};
use crate::settings::lag_limits;
use crate::shutdown::{Shutdown, ShutdownTrigger};
use crate::starting::{Started, Starting, build_all};
use crate::status::{CONNECTING, ReaderFigures};
use crate::store_log;
use crate::unconfigured;

use exchange::Exchange;

/// The readers and pipelines of a host, by name.
pub(crate) type Tasks = JoinSet<Result<Ended, HostError>>;

/// Which of them has ended.
pub(crate) enum Ended {
    Source(String),
    Pipeline(String),
    /// A pipeline that has to begin again where the store says: events that it had not finished
    /// were given up.
    PastLagLimit(String),
}

/// A host that runs, until everything in it has ended.
pub(crate) struct Supervisor<'a> {
    host: &'a Host,
    store: &'a Store,
    stop: Shutdown,
    tasks: &'a mut Tasks,
    /// They end with the host; a panic of one of them ends the host, too.
    background: &'a mut JoinSet<()>,
    builder: Arc<PipelineBuilder>,
    show: Arc<dyn Fn(&Issues) + Send + Sync>,
    load: LoadConfig,
    observer: Option<Observer>,
    exit_on_last_event: bool,
    /// In force.
    config: Config,
    fixed: Fixed,
    granted: watch::Sender<Lookups>,
    can_look_up: bool,
    /// Looks for replaced databases.
    watching: Option<AbortHandle>,
    expiry: AbortHandle,
    unfinished: UnfinishedPipelines,
    /// By source: it has been read to its end. They outlive the readers.
    caught_up: BTreeMap<String, watch::Sender<bool>>,
    /// Sources to be read.
    sources: BTreeMap<String, SourceIdentity>,
    /// Sources that are being read, also those that are about to end.
    reading: BTreeMap<String, ShutdownTrigger>,
    /// What is read once the reader before has ended.
    next: BTreeMap<String, (Source, SourceIdentity)>,
    pipelines: BTreeMap<String, PipelineTask>,
    cancel_start: mpsc::UnboundedSender<String>,
    has_started_any: bool,
    reload: Option<Reload>,
    preparing: Preparing,
}

enum PipelineTask {
    /// Its components are being compiled or configured.
    Starting {
        identity: PipelineIdentity,
        unfinished: UnfinishedPipeline,
    },
    Running {
        identity: PipelineIdentity,
        stop: ShutdownTrigger,
        /// To start it again.
        built: Box<BuiltPipeline>,
    },
    /// It had finished everything, with `exit_on_last_event`.
    Ended,
    /// Its problems have been shown.
    Failed,
}

enum Reload {
    Preparing(Vec<oneshot::Sender<ReloadOutcome>>),
    Exchanging(Exchange),
}

/// Runs the host until all readers and pipelines have ended.
pub(crate) async fn run(
    host: &Host,
    options: HostOptions,
    store: &Store,
    stop: Shutdown,
    tasks: &mut Tasks,
    background: &mut JoinSet<()>,
) -> Result<(), HostError> {
    // Before anything is read: those that start later hold back retention, too.
    store.limit_lag(lag_limits(&options.config)).await?;
    store.keep_only(&streams_read(&options.config)).await?;
    let base = options.builder.base().to_owned();
    let pipelines = options.config.pipelines.clone();
    let identities = crate::blocking::blocking(move || -> Vec<(String, PipelineIdentity)> {
        let identity = |pipeline: &Pipeline| {
            let identity = PipelineIdentity::of(pipeline, &base);
            (pipeline.name.clone(), identity)
        };
        pipelines.iter().map(identity).collect()
    })
    .await;
    let (supervisor, built) =
        Supervisor::start(host, options, store, stop, tasks, background, identities);
    supervisor.supervise(built).await
}

fn names(config: &Config) -> Vec<String> {
    let names = config.pipelines.iter().map(|pipeline| &pipeline.name);
    names.cloned().collect()
}

/// The streams that each pipeline reads.
fn streams_read(config: &Config) -> BTreeMap<String, Vec<String>> {
    let streams = |pipeline: &Pipeline| pipeline.from.iter().map(ToString::to_string).collect();
    let pipelines = config.pipelines.iter();
    pipelines
        .map(|pipeline| (pipeline.name.clone(), streams(pipeline)))
        .collect()
}

impl<'a> Supervisor<'a> {
    fn start(
        host: &'a Host,
        options: HostOptions,
        store: &'a Store,
        stop: Shutdown,
        tasks: &'a mut Tasks,
        background: &'a mut JoinSet<()>,
        identities: Vec<(String, PipelineIdentity)>,
    ) -> (Supervisor<'a>, mpsc::UnboundedReceiver<Started>) {
        let HostOptions {
            config,
            builder,
            databases,
            show,
            load,
            observer,
            exit_on_last_event,
        } = options;
        let mut builder = builder;
        builder.record(host.recorder.clone());
        builder.share_connections(host.connections.clone());
        let builder = Arc::new(builder);
        let unfinished = UnfinishedPipelines::default();
        let starting = identities.into_iter().map(|(name, identity)| {
            let unfinished = unfinished.add();
            let task = PipelineTask::Starting {
                identity,
                unfinished,
            };
            (name, task)
        });
        let (cancel_start, cancelled) = mpsc::unbounded_channel();
        let (built, receiver) = mpsc::unbounded_channel();
        let can_look_up = databases.is_some();
        let mut supervisor = Supervisor {
            host,
            store,
            stop,
            tasks,
            expiry: background.spawn(expire(store, &config)),
            builder: builder.clone(),
            show: show.clone(),
            load,
            observer,
            exit_on_last_event,
            fixed: Fixed {
                limits: config.limits,
                listen: host.listens_on(),
            },
            granted: watch::Sender::default(),
            can_look_up,
            watching: None,
            caught_up: BTreeMap::new(),
            sources: BTreeMap::new(),
            reading: BTreeMap::new(),
            next: BTreeMap::new(),
            pipelines: starting.collect(),
            unfinished,
            cancel_start,
            has_started_any: false,
            reload: None,
            preparing: Preparing::new(),
            background,
            config,
        };
        let needs_restart = needs_restart(&supervisor.fixed, &supervisor.config);
        host.board.configuration(|status| {
            status.needs_restart = needs_restart;
            status.reloading_since = None;
            status.reloading_waits_for = None;
        });
        supervisor.announce_unconfigured();
        let log = store_log::show(store.clone(), host.board.clone());
        supervisor.background.spawn(log);
        if let Some(databases) = databases {
            supervisor.grant(databases);
        }
        for source in supervisor.config.sources.clone() {
            let identity = SourceIdentity::of(&source, &supervisor.config);
            supervisor
                .sources
                .insert(source.name.clone(), identity.clone());
            supervisor.read(&source, &identity);
        }
        supervisor.background.spawn(build_all(Starting {
            builder,
            can_look_up,
            pipelines: supervisor.config.pipelines.clone(),
            issues: supervisor.config.no_issues(),
            show,
            board: host.board.clone(),
            cancelled,
            built,
        }));
        (supervisor, receiver)
    }

    async fn supervise(
        mut self,
        mut built: mpsc::UnboundedReceiver<Started>,
    ) -> Result<(), HostError> {
        self.notify(HostEvent::Running);
        let mut beats = self.observer.as_ref().map(beats);
        let mut all_built = false;
        let reloads = self.host.reloads.clone();
        while !(all_built && self.tasks.is_empty() && self.reload.is_none()) {
            tokio::select! {
                started = built.recv(), if !all_built => match started {
                    Some(Ok(pipeline)) => self.has_built(*pipeline).await?,
                    Some(Err(name)) => self.cannot_start(name),
                    None => all_built = true,
                },
                Some(task) = self.tasks.join_next() => self.has_ended(task).await?,
                () = panicked(self.background) => {}
                replies = reloads.next(), if self.reload.is_none() => self.begin_reload(replies),
                Some(prepared) = self.preparing.join_next() => self.has_prepared(prepared).await?,
                () = next_beat(&mut beats) => self.notify(HostEvent::Beat),
            }
            if all_built && !self.has_started_any && self.reload.is_none() {
                return Err(HostError::NoPipeline);
            }
        }
        let is_failed = |task: &&PipelineTask| matches!(task, PipelineTask::Failed);
        match self.pipelines.values().filter(is_failed).count() {
            0 => {}
            failed => return Err(HostError::Pipelines(failed)),
        }
        let unread = match self.exit_on_last_event {
            true => self.host.board.unread(),
            false => Vec::new(),
        };
        if unread.is_empty() {
            Ok(())
        } else {
            Err(HostError::Unread(unread))
        }
    }

    fn notify(&self, event: HostEvent) {
        if let Some(observer) = &self.observer {
            (observer.notify)(event);
        }
    }

    /// Reads a source that nobody reads.
    fn read(&mut self, source: &Source, identity: &SourceIdentity) {
        let name = source.name.clone();
        let caught_up = self.caught_up.entry(name.clone()).or_default();
        caught_up.send_replace(false);
        // Before it reports: what waits at Teleport is not known yet.
        self.host.board.source(&name, |shown| {
            shown.state = CONNECTING.to_owned();
            shown.conditions.clear();
            shown.reader = ReaderFigures::default();
        });
        let (trigger, stop) = self.stop.part();
        let reading = reader::run(
            Reader::new(source, identity.sessions),
            self.store.clone(),
            self.host.board.clone(),
            self.exit_on_last_event,
            caught_up.clone(),
            stop,
        );
        self.reading.insert(name.clone(), trigger);
        self.tasks.spawn(async move {
            reading.await?;
            Ok(Ended::Source(name))
        });
    }

    fn source_ended(&mut self, name: &str) {
        self.reading.remove(name);
        if let Some((source, identity)) = self.next.remove(name) {
            self.read(&source, &identity);
        } else if !self.sources.contains_key(name) {
            self.forget_source(name);
        }
    }

    /// A reload has removed the source.
    fn forget_source(&self, name: &str) {
        if let Some(caught_up) = self.caught_up.get(name) {
            caught_up.send_replace(true);
        }
        self.host.board.forget_source(name);
    }

    /// A pipeline of those that started with the host can run now.
    async fn has_built(&mut self, pipeline: BuiltPipeline) -> Result<(), HostError> {
        match self.pipelines.remove(pipeline.name()) {
            Some(PipelineTask::Starting {
                identity,
                unfinished,
            }) => self.launch(pipeline, identity, unfinished).await,
            // A reload was faster.
            Some(other) => {
                self.pipelines.insert(pipeline.name().to_owned(), other);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn cannot_start(&mut self, name: String) {
        let is_starting = |task: &PipelineTask| matches!(task, PipelineTask::Starting { .. });
        if self.pipelines.get(&name).is_some_and(is_starting) {
            self.pipelines.insert(name, PipelineTask::Failed);
        }
    }

    async fn launch(
        &mut self,
        pipeline: BuiltPipeline,
        identity: PipelineIdentity,
        unfinished: UnfinishedPipeline,
    ) -> Result<(), HostError> {
        self.has_started_any = true;
        let name = pipeline.name().to_owned();
        // Its stages may be others than before.
        self.host.metrics.detach(&name);
        metrics::attach(&self.host.metrics, &pipeline);
        let lookups = self.granted.subscribe();
        let built = Box::new(pipeline.clone());
        let driver = self
            .host
            .start(pipeline, self.store, &lookups, unfinished)
            .await?;
        let ended = self.ends_of(&driver);
        let (trigger, stop) = self.stop.part();
        let running = driver.run(ended, stop);
        let tag = name.clone();
        self.tasks.spawn(async move {
            Ok(match running.await? {
                DriverEnd::Ended => Ended::Pipeline(tag),
                DriverEnd::PastLagLimit => Ended::PastLagLimit(tag),
            })
        });
        let task = PipelineTask::Running {
            identity,
            stop: trigger,
            built,
        };
        self.pipelines.insert(name, task);
        Ok(())
    }

    /// Which streams of the pipeline have ended. A stream whose source is not configured has.
    fn ends_of(&mut self, driver: &Driver<Store>) -> Vec<watch::Receiver<bool>> {
        let streams = driver.worker.streams.iter();
        let of = |stream: &Arc<str>| {
            let source = stream.rsplit_once('/').map_or("", |(source, _)| source);
            let caught_up = self.caught_up.entry(source.to_owned());
            caught_up
                .or_insert_with(|| watch::Sender::new(true))
                .subscribe()
        };
        streams.map(of).collect()
    }

    async fn has_ended(
        &mut self,
        task: Result<Result<Ended, HostError>, JoinError>,
    ) -> Result<(), HostError> {
        match task_ended(task)? {
            Some(Ended::Source(name)) => {
                self.source_ended(&name);
                Ok(())
            }
            Some(Ended::Pipeline(name)) => self.pipeline_ended(&name).await,
            Some(Ended::PastLagLimit(name)) => self.begin_again(&name).await,
            None => Ok(()),
        }
    }

    /// Starts a pipeline at the first event that the store has for it.
    async fn begin_again(&mut self, name: &str) -> Result<(), HostError> {
        match self.pipelines.remove(name) {
            Some(PipelineTask::Running {
                identity, built, ..
            }) => {
                if self.store.give_up(name).await? {
                    tracing::warn!(
                        pipeline = name,
                        "this pipeline has reached its `lag-limit`: the oldest events that it had \
                         not finished were given up, and it goes on with those that are left"
                    );
                    let board = &self.host.board;
                    board.pipeline(name, |status| status.given_up_at = Some(now()));
                }
                let unfinished = self.unfinished.add();
                self.launch(*built, identity, unfinished).await
            }
            // A reload is replacing it.
            other => {
                self.pipelines
                    .extend(other.map(|task| (name.to_owned(), task)));
                self.pipeline_ended(name).await
            }
        }
    }

    /// Components look things up in these from now on.
    fn grant(&mut self, databases: Databases) {
        if let Some(watching) = self.watching.take() {
            watching.abort();
        }
        self.can_look_up = true;
        self.granted.send_replace(databases.lookups());
        let watching = keep_current(databases, self.granted.clone());
        self.watching = Some(self.background.spawn(watching));
    }

    fn announce_unconfigured(&mut self) {
        let names = names(&self.config);
        self.background
            .spawn(unconfigured::announce(self.store.clone(), names));
    }
}

fn expire(store: &Store, config: &Config) -> impl Future<Output = ()> + use<> {
    let age = |pipeline: &Pipeline| (pipeline.name.clone(), pipeline.dead_letters.age);
    let ages = config.pipelines.iter().map(age);
    expiry::expire(store.clone(), ages.collect::<Vec<(String, Duration)>>())
}

fn beats(observer: &Observer) -> Interval {
    let mut beats = tokio::time::interval(observer.interval);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

async fn next_beat(beats: &mut Option<Interval>) {
    match beats {
        Some(beats) => _ = beats.tick().await,
        None => std::future::pending().await,
    }
}

/// `None`: it was aborted.
pub(crate) fn task_ended(
    task: Result<Result<Ended, HostError>, JoinError>,
) -> Result<Option<Ended>, HostError> {
    match task {
        Ok(result) => result.map(Some),
        Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => Ok(None),
    }
}

/// Never returns. A panic of one of the tasks goes on here.
pub(crate) async fn panicked(tasks: &mut JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_in_background_work_ends_the_host() {
        let mut background = JoinSet::new();
        background.spawn(async {});
        background.spawn(async { panic!("a defect") });
        panicked(&mut background).await;
    }
}
