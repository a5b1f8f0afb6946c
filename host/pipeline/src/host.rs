use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockgate_lookup::{Databases, Lookups};
use lockgate_store::{Ledger, LedgerError, Store};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::assemble::Assembly;
use crate::clock::now;
use crate::consumer::Consumer;
use crate::generation::{Current, keep_current};
use crate::progress::Progress;
use crate::reader::{self, Reader};
use crate::status::{Board, HostStatus};
use crate::stop::{Stop, Stopper};

/// After a stop was asked for, batches in flight get this long to finish.
const GRACE: Duration = Duration::from_secs(10);

/// How often the status file is written.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What `run` needs beside the store.
pub struct Plan {
    pub readers: Vec<Reader>,
    pub pipelines: Vec<Assembly>,
    /// What their components may look up. None where it cannot be opened: then no pipeline here
    /// looks anything up.
    pub databases: Option<Databases>,
    /// Names of all configured pipelines, also of those that cannot start: retention waits for
    /// them.
    pub configured: Vec<String>,
    /// End once the sources are caught up and everything is final.
    pub exit_on_last_event: bool,
    pub board: Board,
    /// Where the status is kept for `lockgate status`.
    pub status_file: PathBuf,
}

/// Why a host ended by itself.
#[derive(Debug, Error)]
pub enum HostError {
    /// The store failed. Nothing that it acknowledged is lost; open it again and run again.
    #[error(transparent)]
    Store(#[from] LedgerError),
    /// A source cannot be read, whatever is tried.
    #[error("the source `{name}` cannot be read: {message}")]
    Source { name: String, message: String },
}

/// Reads every source and runs every pipeline until stopped, until everything is final
/// (`exit_on_last_event`), or until the store fails.
///
/// On a stop nothing new is begun; batches in flight finish within [`GRACE`] or stay waiting. The
/// store is left open for the caller to close.
pub async fn run(plan: Plan, store: &Store, mut stop: Stop) -> Result<(), HostError> {
    // An inner stop ends the tasks also where the host ends by itself.
    let (stopper, inner) = Stopper::new();
    // They end with this function, however it returns.
    let mut beside = JoinSet::new();
    beside.spawn(write_status(plan.board.clone(), plan.status_file.clone()));
    let (granted, lookups) = watch::channel(
        plan.databases
            .as_ref()
            .map(Databases::lookups)
            .unwrap_or_default(),
    );
    if let Some(databases) = plan.databases {
        beside.spawn(keep_current(databases, granted));
    }
    let mut tasks: JoinSet<Result<(), HostError>> = JoinSet::new();
    let mut ended = BTreeMap::new();
    for reader in plan.readers {
        let (caught_up, receiver) = watch::channel(false);
        ended.insert(reader.name().to_owned(), receiver);
        tasks.spawn(reader::run(
            reader,
            store.clone(),
            plan.board.clone(),
            plan.exit_on_last_event,
            caught_up,
            inner.clone(),
        ));
    }
    for assembly in plan.pipelines {
        for consumer in consumers(assembly, store, &lookups).await? {
            // A stream whose source is no longer configured has ended.
            let ended = ended
                .get(&*consumer.source)
                .cloned()
                .unwrap_or_else(|| watch::channel(true).1);
            let stop = inner.clone();
            tasks.spawn(async move { Ok(consumer.run(ended, stop).await?) });
        }
    }
    store.keep_only(&plan.configured).await?;
    let result = tokio::select! {
        result = all(&mut tasks) => result,
        cause = closed(store) => Err(cause.into()),
        () = stop.draining() => {
            stopper.drain();
            tokio::select! {
                result = all(&mut tasks) => result,
                () = tokio::time::sleep(GRACE) => Ok(()),
                () = stop.abandoned() => Ok(()),
            }
        }
    };
    stopper.abandon();
    // After a failure, or the grace: what still runs finds that it may not wait, and leaves its
    // batch waiting.
    let _ = tokio::time::timeout(Duration::from_secs(2), all_ended(&mut tasks)).await;
    tasks.abort_all();
    beside.shutdown().await;
    let _ = tokio::fs::remove_file(&plan.status_file).await;
    result
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
        match task {
            Ok(result) => result?,
            Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            Err(_) => {}
        }
    }
    Ok(())
}

async fn all_ended(tasks: &mut JoinSet<Result<(), HostError>>) {
    while tasks.join_next().await.is_some() {}
}

async fn consumers(
    assembly: Assembly,
    store: &Store,
    lookups: &watch::Receiver<Lookups>,
) -> Result<Vec<Consumer>, LedgerError> {
    let pipeline: Arc<str> = assembly.outlet.pipeline.clone();
    let streams: Vec<String> = assembly
        .streams
        .iter()
        .map(|stream| stream.name.clone())
        .collect();
    let (current, registration) = Current::register(
        store,
        pipeline,
        streams,
        assembly.description,
        lookups.clone(),
    )
    .await?;
    assembly
        .outlet
        .board
        .pipeline(&assembly.outlet.pipeline, |state| state.ready = true);
    Ok(assembly
        .streams
        .into_iter()
        .map(|stream| {
            let progress = registration
                .streams
                .iter()
                .find(|progress| *progress.stream == *stream.name);
            let progress = progress.map_or_else(
                || Progress::new(1, []),
                |found| Progress::new(found.watermark, found.done.iter().cloned()),
            );
            Consumer {
                outlet: assembly.outlet.clone(),
                store: store.clone(),
                stream: stream.name.as_str().into(),
                source: stream.source.as_str().into(),
                in_session_order: stream.in_session_order,
                epoch: registration.epoch,
                current: current.clone(),
                limits: assembly.limits,
                age: assembly.age,
                in_flight: assembly.in_flight,
                progress,
            }
        })
        .collect())
}

/// Best effort: who looks at the status sees how old it is.
async fn write_status(board: Board, file: PathBuf) {
    let new = file.with_extension("new");
    let mut ticks = tokio::time::interval(STATUS_EVERY);
    loop {
        ticks.tick().await;
        let Ok(text) = serde_json::to_vec(&board.snapshot(now())) else {
            continue;
        };
        if tokio::fs::write(&new, text).await.is_ok() {
            let _ = tokio::fs::rename(&new, &file).await;
        }
    }
}

/// What the host that has this store says of itself; `None` where none runs.
pub fn read_status(file: &std::path::Path) -> Option<HostStatus> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}
