//! The running host: readers, pipelines, and how they end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_config::Report;
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
use crate::driver::{Driver, OperatorRequest, Unfinished};
use crate::expiry;
use crate::generation::{Current, keep_current};
use crate::limits::{ABANDON_GRACE, ABORT_GRACE, CLOSE_NOTICED};
use crate::metrics;
use crate::plugins::{BoundSink, CallMeter};
use crate::reader::{self, Reader};
use crate::settings::{engine_settings, log_unused_state};
use crate::shutdown::{Shutdown, ShutdownTrigger};
use crate::starting::build_all;
use crate::status::{Board, PipelineState, ReaderFigures};
use crate::store_log;
use crate::unconfigured;
use crate::worker::{BatchMemory, PlacedStage, Worker};

/// What [`Host::run`] needs beside the store.
pub struct HostOptions {
    pub readers: Vec<Reader>,
    pub builder: PipelineBuilder,
    pub pipelines: Vec<lockgate_config::Pipeline>,
    /// An empty report on the configuration file, for problems of plugins.
    pub report: Report,
    /// Shows the problems of a pipeline that cannot start.
    pub show: Box<dyn Fn(&Report) + Send>,
    /// End once the sources are caught up and everything is final.
    pub exit_on_last_event: bool,
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

/// What an operator can reach. It outlives the store, which may close and open again. Clones are one
/// host.
#[derive(Clone)]
pub struct Host {
    pub(crate) board: Board,
    pub(crate) metrics: Registry,
    pub(crate) recorder: Recorder,
    running: Arc<Mutex<Running>>,
}

/// `None` and empty while the store is closed.
#[derive(Default)]
struct Running {
    store: Option<Store>,
    pipelines: HashMap<String, mpsc::UnboundedSender<OperatorRequest>>,
}

/// What [`Host::release`] did.
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
            running: Arc::default(),
        }
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

    /// Lets a pipeline dead-letter everything read so far, where anything waits for that.
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
    /// On a stop nothing new is begun; batches in flight finish within [`ABANDON_GRACE`] or stay
    /// waiting. The store is left open for the caller to close.
    pub async fn run(
        &self,
        options: HostOptions,
        store: &Store,
        mut stop: Shutdown,
    ) -> Result<(), HostError> {
        let until_final = options.exit_on_last_event;
        // An inner stop ends the tasks also where the host ends by itself.
        let (trigger, inner) = ShutdownTrigger::new();
        self.running().store = Some(store.clone());
        let names = options
            .pipelines
            .iter()
            .map(|pipeline| pipeline.name.as_str());
        self.board.store_opened(names);
        // They end with this function, however it returns.
        let mut beside = JoinSet::new();
        let mut tasks: JoinSet<Result<(), HostError>> = JoinSet::new();
        let running = self.run_all(options, store, inner, &mut tasks, &mut beside);
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
        beside.shutdown().await;
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

    /// Until all of `tasks` have ended. Those `beside` them end with the host; a panic of one of them
    /// ends the host, too.
    async fn run_all(
        &self,
        options: HostOptions,
        store: &Store,
        stop: Shutdown,
        tasks: &mut JoinSet<Result<(), HostError>>,
        beside: &mut JoinSet<()>,
    ) -> Result<(), HostError> {
        let HostOptions {
            readers,
            mut builder,
            pipelines,
            report,
            show,
            exit_on_last_event,
        } = options;
        let board = self.board.clone();
        let configured: Vec<String> = pipelines
            .iter()
            .map(|pipeline| pipeline.name.clone())
            .collect();
        // Before anything is read: those that start later hold back retention, too.
        store.keep_only(&configured).await?;
        let names = configured.clone();
        beside.spawn(unconfigured::announce(store.clone(), configured));
        beside.spawn(store_log::show(store.clone(), self.board.clone()));
        let ages = pipelines.iter().map(|pipeline| {
            let age = pipeline.dead_letters.age;
            (pipeline.name.clone(), age)
        });
        beside.spawn(expiry::expire(store.clone(), ages.collect()));
        builder.record(self.recorder.clone());
        let databases = builder.take_databases();
        let granted = databases
            .as_ref()
            .map(Databases::lookups)
            .unwrap_or_default();
        let (granted, lookups) = watch::channel(granted);
        if let Some(databases) = databases {
            beside.spawn(keep_current(databases, granted));
        }
        let mut ended = BTreeMap::new();
        for reader in readers {
            let (caught_up, receiver) = watch::channel(false);
            ended.insert(reader.name().to_owned(), receiver);
            // Before it reports: what waits at Teleport is not known yet.
            board.source(reader.name(), |shown| {
                shown.state = "connecting".to_owned();
                shown.conditions.clear();
                shown.reader = ReaderFigures::default();
            });
            tasks.spawn(reader::run(
                reader,
                names.clone(),
                store.clone(),
                board.clone(),
                exit_on_last_event,
                caught_up,
                stop.clone(),
            ));
        }
        let unfinished = Unfinished::new(pipelines.len());
        let (built, mut ready) = mpsc::unbounded_channel();
        let building = build_all(builder, pipelines, report, show, board.clone(), built);
        let building = tokio::spawn(building);
        // Dropping this function ends it, with the process that may be compiling.
        let _ends = AbortOnDrop(building.abort_handle());
        let (mut started, mut failed) = (0, 0);
        loop {
            tokio::select! {
                pipeline = ready.recv() => match pipeline {
                    Some(Some(pipeline)) => {
                        started += 1;
                        metrics::attach(&self.metrics, &pipeline);
                        let driver = self.start(pipeline, store, &lookups, &unfinished).await?;
                        let ended = ended_of(&driver, &ended);
                        let stop = stop.clone();
                        tasks.spawn(async move { Ok(driver.run(ended, stop).await?) });
                    }
                    Some(None) => {
                        failed += 1;
                        unfinished.one_less();
                    }
                    None => break,
                },
                Some(task) = tasks.join_next() => task_ended(task)?,
                () = panicked(beside) => {}
            }
        }
        if let Err(error) = building.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        if started == 0 {
            return Err(HostError::NoPipeline);
        }
        tokio::select! {
            result = all(tasks) => result?,
            () = panicked(beside) => {}
        }
        let unread = match exit_on_last_event {
            true => self.board.unread(),
            false => Vec::new(),
        };
        if failed > 0 {
            Err(HostError::Pipelines(failed))
        } else if !unread.is_empty() {
            Err(HostError::Unread(unread))
        } else {
            Ok(())
        }
    }

    /// Makes the pipeline known to the ledger, and an engine for it.
    async fn start(
        &self,
        pipeline: BuiltPipeline,
        store: &Store,
        lookups: &watch::Receiver<Lookups>,
        unfinished: &Unfinished,
    ) -> Result<Driver<Store>, LedgerError> {
        let name: Arc<str> = pipeline.name().into();
        let inputs = &pipeline.config.from;
        let streams: Vec<String> = inputs
            .iter()
            .map(|input| format!("{}/{}", input.source, input.feed.name()))
            .collect();
        let (current, registration) = Current::register(
            store,
            name.clone(),
            streams.clone(),
            pipeline.description.clone(),
            lookups.clone(),
        )
        .await?;
        log_unused_state(&pipeline, &registration);
        let settings = engine_settings(&pipeline, &registration);
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
            unfinished: unfinished.clone(),
        })
    }
}

/// Which streams of the pipeline have ended. A stream whose source is no longer configured has.
fn ended_of(
    driver: &Driver<Store>,
    ended: &BTreeMap<String, watch::Receiver<bool>>,
) -> Vec<watch::Receiver<bool>> {
    let of = |stream: &Arc<str>| {
        let source = stream.rsplit_once('/').map_or("", |(source, _)| source);
        ended
            .get(source)
            .cloned()
            .unwrap_or_else(|| watch::channel(true).1)
    };
    driver.worker.streams.iter().map(of).collect()
}

/// The store closed by itself: also where nobody has anything to write.
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

async fn all(tasks: &mut JoinSet<Result<(), HostError>>) -> Result<(), HostError> {
    while let Some(task) = tasks.join_next().await {
        task_ended(task)?;
    }
    Ok(())
}

fn task_ended(
    task: Result<Result<(), HostError>, tokio::task::JoinError>,
) -> Result<(), HostError> {
    match task {
        Ok(result) => result,
        Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => Ok(()),
    }
}

/// Never returns. A panic of one of the tasks goes on here.
async fn panicked(tasks: &mut JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    std::future::pending().await
}

async fn all_ended(tasks: &mut JoinSet<Result<(), HostError>>) {
    while tasks.join_next().await.is_some() {}
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_beside_the_host_ends_it() {
        let mut beside = JoinSet::new();
        beside.spawn(async {});
        beside.spawn(async { panic!("a defect") });
        panicked(&mut beside).await;
    }
}
