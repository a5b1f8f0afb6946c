//! The running host: readers, pipelines, and how they end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockgate_config::{Config, Issues};
use lockgate_egress::{ConnectionBudget, descriptor_limit};
use lockgate_engine::{Pipeline, Uptime};
use lockgate_ledger::{Ledger, LedgerError};
use lockgate_lookup::{Databases, Lookups};
use lockgate_model::Millis;
use lockgate_observe::metrics::{Recorder, Registry};
use lockgate_store::Store;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::build::{BuiltPipeline, PipelineBuilder};
use crate::clock::now;
use crate::credentials::Credentials;
use crate::descriptors::{DescriptorWaits, Need};
use crate::driver::{Driver, OperatorRequest, UnfinishedPipeline};
use crate::generation::CurrentGeneration;
use crate::limits::{ABANDON_GRACE, ABORT_GRACE, CLOSE_NOTICED};
use crate::metrics;
use crate::plugins::{BoundSink, CallMeter};
use crate::reload::{ReloadOutcome, ReloadQueue};
use crate::replaced::ReplacedComponents;
use crate::settings::{engine_settings, log_unused_state};
use crate::shutdown::{Shutdown, ShutdownTrigger};
use crate::status::{Board, PipelineState};
use crate::stopped::{self, StopReason};
use crate::supervisor::{self, Tasks, task_ended};
use crate::worker::{BatchMemory, PlacedStage, Worker};

/// Reads and checks the configuration file, as a reload does. It may block.
pub type LoadConfig = Arc<dyn Fn() -> Result<Config, Issues> + Send + Sync>;

/// The arguments of [`Host::run`] besides the store and the stop.
pub struct HostOptions {
    pub config: Config,
    pub builder: PipelineBuilder,
    /// The databases for look-ups. `None` if one cannot be opened.
    pub databases: Option<Databases>,
    /// Shows the problems of a pipeline that cannot start, or of a file that is not loaded.
    pub show: Arc<dyn Fn(&Issues) + Send + Sync>,
    pub load: LoadConfig,
    pub observer: Option<Observer>,
    /// End once the sources are caught up and everything is final.
    pub exit_on_last_event: bool,
}

/// Gets notice of what the host does. `notify` must not block.
#[derive(Clone)]
pub struct Observer {
    pub notify: Arc<dyn Fn(HostEvent) + Send + Sync>,
    /// Time between two beats.
    pub interval: Duration,
}

/// An event that an [`Observer`] gets notice of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The host reads its sources.
    Running,
    /// The loop that starts and replaces readers and pipelines has its turn.
    Beat,
    /// A reload begins.
    Reloading,
    /// It has ended, with success or without.
    Reloaded,
}

/// Why a host ended by itself.
#[derive(Debug, Error)]
pub enum HostError {
    /// The ledger failed. Nothing that it acknowledged is lost; open it again and run again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A source cannot be read, whatever is tried.
    #[error("the source `{name}` cannot be read: {message}")]
    Source { name: String, message: String },
    /// Their problems have been shown.
    #[error("{}", not_started(*.0))]
    Pipelines(usize),
    /// Their problems have been shown. Without a pipeline there is nothing to do.
    #[error("no pipeline could start")]
    NoPipeline,
    /// It was to go on until everything was read and final, and something cannot be read now.
    #[error("not everything was read from {}", unread(.0))]
    Unread(Vec<(String, String)>),
    /// It was to go on until everything was final.
    #[error("stopped before every event was delivered, dropped or dead-lettered")]
    StoppedEarly,
}

fn not_started(pipelines: usize) -> String {
    match pipelines {
        1 => "1 pipeline could not start; its events are not delivered".to_owned(),
        _ => format!("{pipelines} pipelines could not start; their events are not delivered"),
    }
}

fn unread(sources: &[(String, String)]) -> String {
    let source = |(name, unread): &(String, String)| format!("the source `{name}`: {unread}");
    sources.iter().map(source).collect::<Vec<_>>().join("; ")
}

/// The part of a host that operators can reach. It outlives the store, which may close and open
/// again. Clones are one host.
#[derive(Clone)]
pub struct Host {
    pub(crate) board: Board,
    pub(crate) metrics: Registry,
    pub(crate) recorder: Recorder,
    pub(crate) reloads: ReloadQueue,
    /// To all receivers.
    pub(crate) connections: ConnectionBudget,
    running: Arc<Mutex<Running>>,
    configuration: Arc<Mutex<Configuration>>,
}

/// Stays while the store is closed.
#[derive(Default)]
struct Configuration {
    /// In force.
    config: Option<Config>,
    /// Where the admin listener listens, or tries to.
    listen: Option<SocketAddr>,
}

/// `None` and empty while the store is closed.
#[derive(Default)]
struct Running {
    store: Option<Store>,
    pipelines: HashMap<String, mpsc::UnboundedSender<OperatorRequest>>,
}

/// The result of [`Host::release`].
pub(crate) enum Release {
    /// Let go so many documents that were held.
    Released(usize),
    NothingHeld,
    NotRunning,
}

impl Host {
    pub fn new(started_at: Millis) -> Host {
        Host {
            board: Board::new(started_at),
            metrics: Registry::default(),
            recorder: Recorder::default(),
            reloads: ReloadQueue::default(),
            connections: ConnectionBudget::default(),
            running: Arc::default(),
            configuration: Arc::default(),
        }
    }

    /// Reads the configuration file again, at once or when the store is open. The answer may be
    /// dropped.
    pub fn reload(&self) -> oneshot::Receiver<ReloadOutcome> {
        self.reloads.ask()
    }

    /// The configuration in force: that of the last reload. `None` before the first
    /// [`run`](Self::run).
    pub fn config(&self) -> Option<Config> {
        self.configuration().config.clone()
    }

    pub(crate) fn in_force(&self, config: Config) {
        let need = Need::of(&config);
        if let Some(shortage) = need.divide(descriptor_limit(), &self.connections) {
            tracing::warn!("{shortage}");
        }
        self.configuration().config = Some(config);
    }

    pub(crate) fn listens_on(&self) -> Option<SocketAddr> {
        self.configuration().listen
    }

    pub(crate) fn set_listen(&self, listen: Option<SocketAddr>) {
        self.configuration().listen = listen;
    }

    fn configuration(&self) -> MutexGuard<'_, Configuration> {
        self.configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a pipeline that a reload removed.
    pub(crate) fn forget(&self, pipeline: &str) {
        self.running().pipelines.remove(pipeline);
        self.board.forget_pipeline(pipeline);
        self.metrics.detach(pipeline);
    }

    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The store, while it is open.
    pub(crate) fn store(&self) -> Option<Store> {
        self.running().store.clone()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a pipeline dead-letter everything read so far, if anything waits for that.
    pub(crate) async fn release(&self, pipeline: &str) -> Release {
        let (reply, answer) = oneshot::channel();
        let sender = self.running().pipelines.get(pipeline).cloned();
        match sender.and_then(|sender| sender.send(OperatorRequest::Release(reply)).ok()) {
            None => Release::NotRunning,
            Some(()) => match answer.await {
                Ok(Some(documents)) => Release::Released(documents),
                Ok(None) => Release::NothingHeld,
                // It has ended since.
                Err(_) => Release::NotRunning,
            },
        }
    }

    /// Reads every source and runs every pipeline until stopped, until everything is final
    /// (`exit_on_last_event`), or until the store fails.
    ///
    /// On a stop nothing new is begun; batches in flight finish within `ABANDON_GRACE` or stay
    /// waiting. The store is left open for the caller to close.
    pub async fn run(
        &self,
        options: HostOptions,
        store: &Store,
        mut stop: Shutdown,
    ) -> Result<(), HostError> {
        let until_final = options.exit_on_last_event;
        // An inner stop ends the tasks also if the host ends by itself.
        let (trigger, inner) = ShutdownTrigger::new();
        self.running().store = Some(store.clone());
        self.in_force(options.config.clone());
        let pipelines = options.config.pipelines.iter();
        let names = pipelines.map(|pipeline| pipeline.name.as_str());
        self.board.store_opened(now(), names);
        self.board.configuration(|status| {
            // Of the first start; a reload sets its own.
            if status.loaded_at == 0 {
                status.loaded_at = now();
            }
        });
        // They end with this function, however it returns.
        let mut background = JoinSet::new();
        let mut tasks = Tasks::new();
        let running = supervisor::run(self, options, store, inner, &mut tasks, &mut background);
        let result = tokio::select! {
            result = running => result,
            cause = closed(store) => Err(cause.into()),
            () = stop.draining() => Ok(()),
        };
        let result = if stop.is_draining() && result.is_ok() {
            trigger.drain();
            tokio::select! {
                result = all(&mut tasks) => result,
                cause = closed(store) => Err(cause.into()),
                () = tokio::time::sleep(ABANDON_GRACE) => Ok(()),
                () = stop.abandoned() => Ok(()),
            }
        } else {
            result
        };
        trigger.abandon();
        // Tasks still running stop waiting and leave their batches for the next start.
        let _ = tokio::time::timeout(ABORT_GRACE, all_ended(&mut tasks)).await;
        tasks.abort_all();
        background.shutdown().await;
        if result.is_ok() {
            let config = self.config();
            let names = config.iter().flat_map(|config| &config.pipelines);
            let names = names.map(|pipeline| pipeline.name.clone()).collect();
            let reason = match stop.is_draining() {
                true => StopReason::Asked,
                false => StopReason::AllFinal,
            };
            stopped::log(store.clone(), names, reason).await;
        }
        *self.running() = Running::default();
        match result {
            // A file of the store may be gone. The store notices, and says so better.
            Err(HostError::Ledger(LedgerError::Read(what))) => {
                let cause = tokio::time::timeout(CLOSE_NOTICED, closed(store)).await;
                Err(cause.unwrap_or(LedgerError::Read(what)).into())
            }
            Ok(()) if until_final && stop.is_draining() => Err(HostError::StoppedEarly),
            result => result,
        }
    }

    /// Makes the pipeline known to the ledger, and an engine for it.
    pub(crate) async fn start(
        &self,
        pipeline: BuiltPipeline,
        store: &Store,
        lookups: &watch::Receiver<Lookups>,
        unfinished: UnfinishedPipeline,
    ) -> Result<Driver<Store>, LedgerError> {
        let name: Arc<str> = pipeline.name().into();
        let inputs = &pipeline.config.from;
        let streams: Vec<String> = inputs
            .iter()
            .map(|input| format!("{}/{}", input.source, input.feed.name()))
            .collect();
        // Before it is registered: nothing that is given up later is missed.
        let mut room_wanted = store.room_wanted(&name);
        room_wanted.mark_unchanged();
        let (current, registration) = CurrentGeneration::register(
            store,
            name.clone(),
            streams.clone(),
            pipeline.description.clone(),
            lookups.clone(),
        )
        .await?;
        log_unused_state(&pipeline, &registration);
        let settings = engine_settings(&pipeline, &registration);
        let last = registration.last_description.as_deref();
        let replaced = ReplacedComponents::of(&pipeline, last);
        self.board.pipeline(&name, |status| {
            status.state = PipelineState::Running;
            status.conditions.clear();
        });
        let places = metrics::places(&pipeline.config);
        let mut meters = places.into_iter().map(|place| CallMeter {
            recorder: self.recorder.clone(),
            place: Arc::new(place),
        });
        let stages = pipeline.stages.into_iter().zip(meters.by_ref());
        let stages = stages.map(|(built, meter)| PlacedStage {
            stage: built.stage,
            meter,
        });
        let stages = stages.collect();
        let sink = BoundSink {
            meter: meters.next(),
            ..pipeline.sink
        };
        let (sender, requests) = mpsc::unbounded_channel();
        self.running().pipelines.insert(name.to_string(), sender);
        let descriptor_waits = DescriptorWaits::new(self.board.clone(), name.clone());
        let credentials = pipeline.client.server().map(|client| {
            Arc::new(Credentials::new(
                name.clone(),
                client.clone(),
                pipeline.masks.clone(),
                &pipeline.config.sink,
                pipeline.certificates,
            ))
        });
        let worker = Worker {
            pipeline: name,
            ledger: store.clone(),
            streams: streams
                .iter()
                .map(|stream| stream.as_str().into())
                .collect(),
            stages,
            sink,
            client: pipeline.client,
            credentials,
            masks: pipeline.masks,
            descriptor_waits,
            destinations: pipeline.destinations,
            rate: pipeline.rate,
            queue: pipeline.queue,
            memory: pipeline.memory,
            current: tokio::sync::Mutex::new(current),
            batch_memory: BatchMemory::default(),
            recorder: self.recorder.clone(),
            board: self.board.clone(),
        };
        Ok(Driver {
            engine: Pipeline::new(settings, Uptime::ZERO),
            worker: Arc::new(worker),
            board: self.board.clone(),
            requests,
            room_wanted,
            replaced,
            unfinished,
        })
    }
}

/// Returns once the store has closed itself, even if nothing is being written.
async fn closed(store: &Store) -> LedgerError {
    let mut failed = store.failed();
    loop {
        if let Some(cause) = failed.borrow_and_update().clone() {
            return cause;
        }
        if failed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn all(tasks: &mut Tasks) -> Result<(), HostError> {
    while let Some(task) = tasks.join_next().await {
        task_ended(task)?;
    }
    Ok(())
}

async fn all_ended(tasks: &mut Tasks) {
    while tasks.join_next().await.is_some() {}
}
