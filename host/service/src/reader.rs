//! Reads one source into the store, and shows its state on the status board.

use std::collections::BTreeMap;

use lockgate_config::{Credentials as CredentialsConfig, Issue, Report, Source};
use lockgate_model::{Append, KnownEvents, Millis};
use lockgate_store::{Ledger, LedgerError, Store};
use lockgate_teleport::{
    Closed, Credentials, Ended, Intake, Phase, ReaderKind, ReaderStatus, Resume, SourceSettings,
    Sweep,
};
use tokio::sync::{mpsc, watch};

use crate::blocking::blocking;
use crate::clock::now;
use crate::host::HostError;
use crate::limits::{CREDENTIALS_INTERVAL, RECENT_BLOCKS};
use crate::shutdown::Shutdown;
use crate::status::{Board, Problem, SourceStatus};

/// Reads one source into the store.
pub struct Reader {
    name: String,
    settings: SourceSettings,
}

impl Reader {
    /// `sessions`: some pipeline wants this source's recordings.
    pub fn new(source: &Source, sessions: bool) -> Reader {
        let credentials = match &source.credentials {
            CredentialsConfig::Identity(path) => Credentials::identity_file(path),
            CredentialsConfig::Trio { cert, key, ca } => Credentials::key_trio(cert, key, ca),
        };
        let mut settings = SourceSettings::new(&source.name, &source.addr, credentials);
        settings.types = source.types.clone();
        settings.start_time = source.start_time;
        settings.sessions = sessions;
        settings.limits.window = source.window;
        settings.limits.sweeps = Sweep::stretches(source.overlap, source.sweep);
        settings.limits.recordings = source.concurrency;
        Reader {
            name: source.name.clone(),
            settings,
        }
    }

    /// Checks its credentials as `start` does, and gives the fault as a sentence. Connects to
    /// nothing.
    fn check(&self) -> Result<(), String> {
        self.settings
            .credentials
            .load()
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Checks that it can go on from these cursors.
    pub(crate) fn check_resume(&self, cursors: BTreeMap<String, String>) -> Result<(), String> {
        let resume = Resume {
            cursors,
            ..Resume::default()
        };
        lockgate_teleport::check(&self.settings, &resume).map_err(|error| error.to_string())
    }
}

/// Reports the problems of a source that its text does not show. Connects to nothing.
pub fn check_source(source: &Source, report: &mut Report) {
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

/// Runs until stopped, or until the source is caught up where that was asked for. `caught_up` is
/// then set.
pub(crate) async fn run(
    reader: Reader,
    store: Store,
    board: Board,
    exit_on_last_event: bool,
    caught_up: watch::Sender<bool>,
    mut stop: Shutdown,
) -> Result<(), HostError> {
    let Reader { name, mut settings } = reader;
    settings.exit_on_last_event = exit_on_last_event;
    let (reads, source) = (store.clone(), name.clone());
    let resume = blocking(move || -> Result<Resume, LedgerError> {
        let stream = format!("{source}/audit");
        Ok(Resume {
            cursors: reads.reads().cursors(&source)?,
            recent_times: reads.reads().recent_times(&stream, RECENT_BLOCKS)?,
        })
    })
    .await?;
    // One source's missing credentials stop neither the other sources nor the pipelines, which have
    // events to deliver.
    while let Err(error) = settings.credentials.load() {
        let message = format!("the credentials cannot be used: {error}");
        tracing::error!(
            source = name,
            retry_in_s = CREDENTIALS_INTERVAL.as_secs(),
            "{message}"
        );
        board.source(&name, |state| {
            state.state = "waiting for credentials".into();
            state.last_error = Some(Problem { at: now(), message });
        });
        if !stop.sleep(CREDENTIALS_INTERVAL).await {
            return Ok(());
        }
    }
    let (status, watched) = watch::channel(ReaderStatus::default());
    let watching = tokio::spawn(show(name.clone(), board.clone(), watched));
    let mut host_stop = stop.of_host();
    let shutdown = async move { stop.draining().await };
    let (appending, mut appended) = mpsc::channel(1);
    let ended = lockgate_teleport::run(
        settings,
        resume,
        StoreIntake {
            stream: format!("{name}/audit"),
            store: store.clone(),
            appending,
        },
        status,
        shutdown,
    )
    .await;
    watching.abort();
    if matches!(ended, Ok(Ended::Stopped)) {
        // Who reads the source after this goes on from its cursors: what is being appended must be
        // in them, also where it waits for room in the stream.
        tokio::select! {
            _ = appended.recv() => {}
            () = host_stop.draining() => {}
        }
    }
    match ended {
        Ok(Ended::CaughtUp) => {
            tracing::info!(source = name, "caught up with Teleport");
            board.source(&name, |state| state.state = "finished".into());
            caught_up.send_replace(true);
            Ok(())
        }
        Ok(Ended::Stopped) => Ok(()),
        Ok(Ended::Closed) => {
            // The reason is the store's; it was logged there, and each pipeline ends with it too.
            let failed = store.failed().borrow().clone();
            Err(failed.map_or_else(
                || HostError::Source {
                    name,
                    message: "the store refused a block".into(),
                },
                HostError::from,
            ))
        }
        Err(error) => Err(HostError::Source {
            name,
            message: error.to_string(),
        }),
    }
}

struct StoreIntake {
    store: Store,
    /// The source's audit log.
    stream: String,
    /// Closed once nothing is being appended.
    appending: mpsc::Sender<()>,
}

impl Intake for StoreIntake {
    async fn append(&self, append: Append) -> Result<(), Closed> {
        let (store, appending) = (self.store.clone(), self.appending.clone());
        // It goes on where the reader is stopped meanwhile.
        let appended = tokio::spawn(async move {
            let appended = store.append(append).await;
            drop(appending);
            appended
        });
        match appended.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!("an append failed: {error}");
                Err(Closed)
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program is ending.
                Err(_) => Err(Closed),
            },
        }
    }

    async fn known(&self, from: Millis, to: Millis, max: usize) -> Result<KnownEvents, Closed> {
        let known = self.store.known_events(&self.stream, from, to, max).await;
        known.map_err(|error| {
            tracing::error!("the events read before cannot be listed: {error}");
            Closed
        })
    }
}

/// Keeps the board as the source describes itself.
async fn show(name: String, board: Board, mut status: watch::Receiver<ReaderStatus>) {
    loop {
        let described = describe(&status.borrow_and_update());
        board.source(&name, |state| {
            state.state = described.state;
            // An error stays to be seen after it has passed.
            if let Some(problem) = described.last_error
                && state
                    .last_error
                    .as_ref()
                    .is_none_or(|last| last.message != problem.message)
            {
                state.last_error = Some(problem);
            }
        });
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn describe(status: &ReaderStatus) -> SourceStatus {
    let reader = match status.reader {
        Some(ReaderKind::Export) => "by bulk export",
        Some(ReaderKind::Poll) => "by polling",
        None => "",
    };
    let state = match status.phase {
        Phase::Connecting => "connecting".to_owned(),
        Phase::Reading => format!("reading {reader}"),
        Phase::CaughtUp => format!("caught up, reading {reader}"),
    };
    let problem = status.problem();
    SourceStatus {
        state: state.trim_end().to_owned(),
        last_error: problem.map(|message| Problem { at: now(), message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is lasting, and was the first by name.
    #[test]
    fn a_wrong_clock_hides_no_other_problem() {
        let mut status = ReaderStatus::default();
        let shown = |status: &ReaderStatus| describe(status).last_error.map(|last| last.message);
        let failure = |place: &str| (place.to_owned(), "wrong".to_owned());
        status.failures.extend([failure("clock")]);
        assert_eq!(shown(&status).as_deref(), Some("clock: wrong"));
        status.last_report = Some("events are missing".into());
        assert_eq!(shown(&status).as_deref(), Some("events are missing"));
        status.failures.extend([failure("connection")]);
        assert_eq!(shown(&status).as_deref(), Some("connection: wrong"));
    }
}
