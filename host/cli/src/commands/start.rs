use std::time::Duration;

use lockgate_observe::Masks;
use lockgate_observe::metrics::Registry;
use lockgate_service::{Host, HostError, Stopper};
use lockgate_store::{Ledger, Store};

use crate::args::Start;
use crate::failure::Failure;
use crate::setup;
use crate::signals::Signals;

/// Waits between attempts to continue after the disk was full.
const FULL_WAIT: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

pub(crate) fn run(command: &Start, masks: &Masks) -> Result<(), Failure> {
    let config = setup::load(&command.config, masks)?;
    super::tokio_runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let (stopper, stop) = Stopper::new();
        let host = run_host(command, &config, masks, stop);
        tokio::pin!(host);
        loop {
            tokio::select! {
                result = &mut host => return result,
                signal = signals.next() => {
                    tracing::info!("{signal}: stopping; waiting up to 10 s for batches in flight, the rest is delivered after the next start");
                    stopper.drain();
                }
            }
            tokio::select! {
                result = &mut host => return result,
                signal = signals.next() => {
                    tracing::info!("{signal} again: stopping at once");
                    stopper.abandon();
                }
            }
        }
    })
}

/// Opens the store and runs the host. Repeats that if the disk was full; acknowledged data
/// survives.
async fn run_host(
    command: &Start,
    config: &lockgate_config::Config,
    masks: &Masks,
    mut stop: lockgate_service::Stop,
) -> Result<(), Failure> {
    let mut waits = FULL_WAIT
        .iter()
        .copied()
        .chain(std::iter::repeat(FULL_WAIT[FULL_WAIT.len() - 1]));
    // Over every time that the store is opened: counters go on.
    let metrics = Registry::default();
    loop {
        let ended = match Store::open(setup::store_options(config)) {
            Ok(store) => {
                let exit = command.exit_on_last_event;
                let plan = setup::plan(&command.config, config, masks, &store, &metrics, exit)?;
                let pipelines = plan.pipelines.len();
                tracing::info!(version = env!("CARGO_PKG_VERSION"), pipelines, "started");
                let result = Host::default().run(plan, &store, stop.clone()).await;
                let closed = store.close().await;
                match result {
                    Ok(()) => return closed.map_err(Failure::failed),
                    Err(HostError::Ledger(error)) if error.is_full() => error.to_string(),
                    Err(HostError::NoPipeline) => {
                        return Err(Failure::usage("No pipeline could start."));
                    }
                    Err(error) => return Err(Failure::failed(error)),
                }
            }
            Err(error) if error.is_full() => error.to_string(),
            Err(error) => return Err(Failure::failed(error)),
        };
        let wait = waits.next().unwrap_or_default();
        tracing::error!(
            retry_in_s = wait.as_secs(),
            "the disk is too full for the store: {ended}. Free some disk space; nothing is lost, \
             because Teleport keeps the events that have not been read"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.draining() => return Ok(()),
        }
    }
}
