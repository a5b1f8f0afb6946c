//! Pipelines that the store knows and the configuration does not.

use lockgate_ledger::LedgerError;
use lockgate_model::Books;
use lockgate_store::Store;

use crate::blocking::blocking;

/// Logs each pipeline that is not among `configured` and still has events to finish. It may have
/// been renamed by mistake: nobody delivers these events, and retention removes them.
pub(crate) async fn announce(store: Store, configured: Vec<String>) {
    let Ok(pipelines) = blocking(move || waiting(&store, &configured)).await else {
        // The store has failed, which ends the host and is said there.
        return;
    };
    for (pipeline, events) in pipelines {
        tracing::warn!(
            pipeline,
            events,
            "events wait for a pipeline that is no longer configured: they are not \
             delivered, and retention will remove them. If you renamed it, restore the old name"
        );
    }
}

/// How many events wait for each of them, if any do.
fn waiting(store: &Store, configured: &[String]) -> Result<Vec<(String, u64)>, LedgerError> {
    let mut waiting = Vec::new();
    for pipeline in store.reads().pipelines()? {
        if configured.contains(&pipeline.name) {
            continue;
        }
        let mut books = Books::default();
        for (_, figures) in store.reads().books(&pipeline.name)? {
            books += figures;
        }
        if books.waiting > 0 {
            waiting.push((pipeline.name, books.waiting));
        }
    }
    Ok(waiting)
}
