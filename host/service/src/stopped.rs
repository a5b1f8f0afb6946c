//! The last line of the log: why the host stopped, and how far each pipeline is.

use lockgate_store::{LedgerError, Store};
use tokio::time::timeout;

use crate::blocking::blocking;
use crate::limits::LAST_FIGURES;

/// Why a host ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    Asked,
    /// It was to end with the last event.
    AllFinal,
}

/// The entries of a pipeline that have an outcome, and all that it has to finish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    finished: u64,
    read: u64,
}

pub(crate) async fn log(store: Store, pipelines: Vec<String>, reason: StopReason) {
    let count = blocking(move || -> Vec<(String, Result<Reached, LedgerError>)> {
        let pipelines = pipelines.into_iter();
        let reached = |name: &str| -> Result<Reached, LedgerError> {
            let mut reached = Reached::default();
            for (_, books) in store.reads().books(name)? {
                reached.read += books.read;
                reached.finished += books.read - books.waiting;
            }
            Ok(reached)
        };
        pipelines
            .map(|name| {
                let reached = reached(&name);
                (name, reached)
            })
            .collect()
    });
    // Nobody waits for it for long.
    let counted = timeout(LAST_FIGURES, count).await.unwrap_or_default();
    tracing::info!("{}", text(reason, &counted));
}

fn text(reason: StopReason, pipelines: &[(String, Result<Reached, LedgerError>)]) -> String {
    let why = match reason {
        StopReason::Asked => "the host was asked to stop",
        StopReason::AllFinal => "the log is read to its end, and every event is final",
    };
    let reached: Vec<String> = pipelines
        .iter()
        .map(|(name, reached)| match reached {
            Ok(Reached { finished, read }) => format!("`{name}` {finished} of {read}"),
            Err(LedgerError::Unknown(_)) => format!("`{name}` has not run"),
            Err(_) => format!("`{name}` not known"),
        })
        .collect();
    match reached.as_slice() {
        [] => format!("stopped: {why}"),
        reached => format!(
            "stopped: {why}; events with an outcome: {}",
            reached.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_why_and_how_far_each_pipeline_is() {
        let reached = |finished, read| Ok(Reached { finished, read });
        let unknown = Err(LedgerError::Unknown("pipeline `new`".to_owned()));
        let pipelines = [
            ("siem".to_owned(), reached(4880, 5000)),
            ("lake".to_owned(), reached(5000, 5000)),
            ("new".to_owned(), unknown),
        ];
        assert_eq!(
            text(StopReason::Asked, &pipelines),
            "stopped: the host was asked to stop; events with an outcome: `siem` 4880 of 5000, \
             `lake` 5000 of 5000, `new` has not run"
        );
        assert_eq!(
            text(StopReason::AllFinal, &[]),
            "stopped: the log is read to its end, and every event is final"
        );
    }
}
