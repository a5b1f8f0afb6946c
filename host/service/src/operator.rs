//! Requests of operators to a running host: on the control socket, and over HTTP on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_admin::control::{self, Control, ControlError, Request, Response, Socket};
use lockgate_admin::http::{HealthSource, Readiness, Reason};
use lockgate_ledger::{DeadLetters, LedgerError};
use lockgate_model::Millis;
use lockgate_store::Store;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::admin_listener;
use crate::blocking::blocking;
use crate::clock::now;
use crate::host::{Host, Release};
use crate::limits::{STATUS_INTERVAL, STATUS_STALE_MS, STORE_INTERVAL, STORE_PATIENCE};
use crate::reload::ReloadOutcome;
use crate::starting::CONFIGURATION;
use crate::status::{Board, ConditionStatus, ConditionStatusKind, HostStatus};

/// Answers operators, also while the store is closed.
pub struct Listeners {
    tasks: JoinSet<()>,
    status_file: PathBuf,
}

impl Host {
    /// Opens the control socket in the store's directory and the admin listener, if they can be
    /// opened: neither keeps events from being delivered. The caller holds the store's lock.
    pub async fn listen(&self, directory: &Path, admin: Option<SocketAddr>) -> Listeners {
        let mut tasks = JoinSet::new();
        self.set_listen(admin);
        let socket = Socket::bind(directory);
        self.board.control_socket(socket.is_ok());
        match socket {
            Ok(socket) => {
                let control = Operator { host: self.clone() };
                tasks.spawn(socket.serve(Arc::new(control)));
            }
            Err(error) => tracing::warn!(
                "the control socket cannot be opened, so `lockgate dlq` cannot change anything \
                 while this host runs: {error}"
            ),
        }
        if let Some(address) = admin {
            let health = Health { host: self.clone() };
            admin_listener::open(address, health, self.board.clone(), &mut tasks).await;
        }
        let status_file = status_file(directory);
        tasks.spawn(write_status(self.board.clone(), status_file.clone()));
        Listeners { tasks, status_file }
    }
}

impl Listeners {
    /// Stops answering, and removes the file with the status.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        let _ = tokio::fs::remove_file(&self.status_file).await;
    }
}

fn status_file(directory: &Path) -> PathBuf {
    directory.join("status.json")
}

/// Best effort: whoever looks at the status sees how old it is.
async fn write_status(board: Board, file: PathBuf) {
    let new = file.with_extension("new");
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    loop {
        ticks.tick().await;
        let Ok(text) = serde_json::to_vec(&board.snapshot(now())) else {
            continue;
        };
        if write_private(&new, &text).await.is_ok() {
            let _ = tokio::fs::rename(&new, &file).await;
        }
    }
}

/// Like everything in the store, it is for its owner only: it quotes what receivers answer.
async fn write_private(file: &Path, text: &[u8]) -> std::io::Result<()> {
    // An earlier version may have left one that others may read.
    let _ = tokio::fs::remove_file(file).await;
    let mut options = tokio::fs::OpenOptions::new();
    let mut opened = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .await?;
    opened.write_all(text).await?;
    opened.flush().await
}

/// A host that runs.
pub struct RunningHost {
    pub status: HostStatus,
    /// It was asked and did not answer: this is what it wrote last.
    pub is_silent: bool,
}

/// The report of the host that runs on the store in `directory`; `None` if none runs. Blocks.
pub fn running_host(directory: &Path, now: Millis) -> Option<RunningHost> {
    let answered = |status| RunningHost {
        status,
        is_silent: false,
    };
    let file = || -> Option<HostStatus> {
        let text = std::fs::read(status_file(directory)).ok()?;
        serde_json::from_slice(&text).ok()
    };
    let is_fresh = |host: &HostStatus| now - host.updated_at < STATUS_STALE_MS;
    match control::call(directory, &Request::Status) {
        Ok(Some(Response::Status { status })) => serde_json::from_value(status).ok().map(answered),
        // It has the socket open and does not answer, so it is there.
        Err(ControlError::Lost { .. }) => file().map(|status| RunningHost {
            status,
            is_silent: true,
        }),
        // Nobody listens on the socket that a host left behind.
        Ok(None)
            if directory.join(control::SOCKET).exists()
                && file().is_some_and(|host| host.control_socket) =>
        {
            None
        }
        // It runs without a socket, or is about to make a removed one again, or this user may not
        // connect, or it is of an older version.
        _ => file().filter(is_fresh).map(answered),
    }
}

struct Health {
    host: Host,
}

impl HealthSource for Health {
    fn readiness(&self) -> Readiness {
        let at = now();
        readiness(&self.host.board.snapshot(at), at)
    }

    async fn metrics(&self) -> String {
        let host = self.host.clone();
        let status = host.board.snapshot(now());
        let render = move || crate::metrics::render(&host, &status, now());
        blocking(render).await
    }
}

struct Operator {
    host: Host,
}

impl Operator {
    fn store(&self) -> Result<Store, LedgerError> {
        self.host.store().ok_or_else(|| {
            let closed = self.host.board.snapshot(now()).store;
            LedgerError::Closed {
                cause: closed
                    .map_or_else(|| "it is not open yet".to_owned(), |store| store.message),
                full: false,
            }
        })
    }

    /// Waits for a store that the host is opening, but not for one that was closed.
    async fn opened_store(&self) -> Result<Store, LedgerError> {
        let deadline = Instant::now() + STORE_PATIENCE;
        loop {
            let store = self.store();
            let status = self.host.board.snapshot(now());
            // Between two attempts it is closed.
            let is_closed = status
                .store
                .is_some_and(|store| store.next_attempt.is_some());
            let is_opening = !is_closed && status.stopping_since.is_none();
            if store.is_ok() || !is_opening || Instant::now() >= deadline {
                return store;
            }
            sleep(STORE_INTERVAL).await;
        }
    }

    async fn reload(&self) -> Response {
        let refused = |message: String| Response::Refused { message };
        let status = self.host.board.snapshot(now());
        if status.stopping_since.is_some() {
            return refused("The host is stopping: the configuration is not loaded.".to_owned());
        }
        let answer = self.host.reload();
        if let Err(closed) = self.store() {
            return refused(format!(
                "{closed}. The configuration is loaded once the store is open; `lockgate status` \
                 shows what becomes of it."
            ));
        }
        match answer.await {
            Ok(ReloadOutcome::Done(message)) => done(&message),
            Ok(ReloadOutcome::Refused(report)) => Response::Problems {
                report: report.render(false),
            },
            Ok(ReloadOutcome::NotNow(message)) => refused(message),
            Err(_) => refused(
                "The host stopped, or its store closed, before the reload was complete: `lockgate \
                 status` shows how the host is."
                    .to_owned(),
            ),
        }
    }
}

impl Control for Operator {
    async fn handle(&self, request: Request) -> Response {
        match request {
            Request::Ping => done("The host is running."),
            Request::Status => match serde_json::to_value(self.host.board.snapshot(now())) {
                Ok(status) => Response::Status { status },
                Err(error) => Response::Refused {
                    message: format!("The status cannot be serialized: {error}."),
                },
            },
            Request::Retry {
                pipeline,
                stream,
                seqs,
            } => {
                let retried = match self.opened_store().await {
                    Ok(store) => store.retry(&pipeline, &stream, &seqs, now()).await,
                    Err(closed) => Err(closed),
                };
                answer(retried, "Sent back to the pipeline.")
            }
            Request::Drop {
                pipeline,
                stream,
                seqs,
            } => {
                let dropped = match self.opened_store().await {
                    Ok(store) => store.drop_letters(&pipeline, &stream, &seqs, now()).await,
                    Err(closed) => Err(closed),
                };
                answer(dropped, "Dropped.")
            }
            Request::Release { pipeline } => match self.host.release(&pipeline).await {
                Release::Released(documents) => done(&format!(
                    "`{pipeline}` may dead-letter everything read so far{}, until this host stops \
                     or a reload changes the pipeline. The brake applies again to later events.",
                    match documents {
                        0 => String::new(),
                        1 => ", including 1 document that was held".to_owned(),
                        _ => format!(", including {documents} documents that were held"),
                    }
                )),
                Release::NothingHeld => done(&format!(
                    "Nothing in `{pipeline}` waits for a release; nothing was changed."
                )),
                Release::NotRunning => Response::Refused {
                    message: match self.store() {
                        Ok(_) => format!("No pipeline `{pipeline}` runs here."),
                        Err(closed) => format!("No pipeline runs: {closed}."),
                    },
                },
            },
            Request::Reload => self.reload().await,
        }
    }
}

fn done(message: &str) -> Response {
    Response::Done {
        message: message.to_owned(),
    }
}

fn answer(result: Result<(), LedgerError>, message: &str) -> Response {
    match result {
        Ok(()) => done(message),
        Err(error) => Response::Refused {
            message: format!("{error}."),
        },
    }
}

/// Whether everything is well, and if not, what is not. `status` is of the moment `at`.
pub fn readiness(status: &HostStatus, at: Millis) -> Readiness {
    let mut reasons = Vec::new();
    if let Some(since) = status.stopping_since {
        reasons.push(Reason {
            kind: "stop".to_owned(),
            subject: "host".to_owned(),
            message: "it is stopping".to_owned(),
            since,
            ..Reason::default()
        });
    }
    if let Some(store) = &status.store {
        reasons.push(Reason {
            kind: "store".to_owned(),
            subject: "store".to_owned(),
            message: store.message.clone(),
            since: store.since,
            next_attempt: store.next_attempt,
            ..Reason::default()
        });
    }
    for (name, source) in &status.sources {
        let conditions = source.conditions.iter();
        reasons.extend(
            conditions
                .filter(|condition| condition.makes_unready(at))
                .map(|condition| Reason {
                    source: Some(name.clone()),
                    ..reason(condition)
                }),
        );
    }
    for (name, pipeline) in &status.pipelines {
        if !pipeline.state.has_started() && pipeline.conditions.is_empty() {
            reasons.push(Reason {
                pipeline: Some(name.clone()),
                kind: "start".to_owned(),
                subject: "pipeline".to_owned(),
                message: format!("it is {}", pipeline.state),
                since: status.starting_since(),
                ..Reason::default()
            });
        }
        let conditions = pipeline.conditions.iter();
        reasons.extend(
            conditions
                .filter(|condition| condition.makes_unready(at))
                .map(|condition| Reason {
                    pipeline: Some(name.clone()),
                    ..reason(condition)
                }),
        );
    }
    Readiness {
        ready: reasons.is_empty(),
        reasons,
    }
}

fn reason(condition: &ConditionStatus) -> Reason {
    Reason {
        kind: condition.kind.name().to_owned(),
        subject: condition.subject.clone(),
        message: public_message(condition),
        since: condition.since,
        next_attempt: condition.next_attempt,
        ..Reason::default()
    }
}

/// A condition in the listener's words. A receiver's answer and a component's message may quote
/// an event, and the listener has no authentication: they are shown by `lockgate status` alone.
fn public_message(condition: &ConditionStatus) -> String {
    let what = match condition.kind {
        ConditionStatusKind::Endpoint => "nothing but a probe is sent to this endpoint",
        ConditionStatusKind::Documents => "single documents wait",
        ConditionStatusKind::Plugin => "a batch waits for this component",
        ConditionStatusKind::Brake => "the brake keeps events from being dead-lettered",
        ConditionStatusKind::Connection => "Teleport cannot be reached, so nothing is read",
        ConditionStatusKind::Reading => "a part of the audit log cannot be read",
        ConditionStatusKind::Recordings => "recordings cannot be downloaded",
        ConditionStatusKind::Clock => "Teleport's clock and the clock of this machine differ",
        ConditionStatusKind::Locks => "users with too many failed logins are not locked",
        ConditionStatusKind::Unknown => "something keeps it from delivering",
        // The problem may be in a component's words.
        ConditionStatusKind::Start if condition.subject == CONFIGURATION => {
            return "it could not start; `lockgate status` shows why, and `lockgate reload` tries \
                    again"
                .to_owned();
        }
        // The host's own words.
        ConditionStatusKind::Stalled
        | ConditionStatusKind::Start
        | ConditionStatusKind::Store
        | ConditionStatusKind::Descriptors
        | ConditionStatusKind::Credentials
        | ConditionStatusKind::Retention => return condition.message.clone(),
    };
    format!("{what}; `lockgate status` shows why")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{PipelineState, StoreStatus};

    fn ready(board: &Board) -> Readiness {
        readiness(&board.snapshot(9), 9)
    }

    #[test]
    fn a_host_is_not_ready_before_its_store_is_open_and_its_pipelines_run() {
        let board = Board::new(0);
        let kinds = |board: &Board| -> Vec<String> {
            let reasons = ready(board).reasons.into_iter();
            reasons.map(|reason| reason.kind).collect()
        };
        assert_eq!(kinds(&board), ["store"]);
        board.store_opened(0, ["siem"].into_iter());
        assert_eq!(kinds(&board), ["start"]);
        board.pipeline("siem", |pipeline| {
            pipeline.state = PipelineState::Running;
        });
        assert!(ready(&board).ready);
        board.store_closed(StoreStatus::default());
        assert_eq!(kinds(&board), ["store", "start"]);
    }

    /// Right after `start`, most retries were refused.
    #[tokio::test]
    async fn a_change_waits_while_the_store_is_being_opened_and_not_while_it_is_closed() {
        let host = Host::new(0);
        let operator = Operator { host: host.clone() };
        let retry = || {
            operator.handle(Request::Retry {
                pipeline: "siem".to_owned(),
                stream: "teleport/audit".to_owned(),
                seqs: vec![1],
            })
        };
        let answers_at_once = async |change: &dyn Fn(&Board)| {
            change(&host.board);
            tokio::select! {
                biased;
                _ = retry() => true,
                () = std::future::ready(()) => false,
            }
        };
        assert!(!answers_at_once(&|_| {}).await, "it is being opened");
        let closed = StoreStatus {
            next_attempt: Some(Millis::MAX),
            ..StoreStatus::default()
        };
        assert!(answers_at_once(&|board| board.store_closed(closed.clone())).await);
        assert!(!answers_at_once(&|board| board.store_opened(0, std::iter::empty())).await);
        assert!(answers_at_once(&|board| board.stopping(0)).await);
    }

    #[test]
    fn a_pipeline_waits_for_the_store_from_its_closing_and_starts_from_its_opening_on() {
        let board = Board::new(1);
        let since = |board: &Board| -> Vec<(String, Millis)> {
            let reasons = ready(board).reasons.into_iter();
            reasons
                .map(|reason| (reason.message, reason.since))
                .collect()
        };
        board.configured(["prod"].into_iter(), ["siem"].into_iter());
        let waiting = "it is waiting for the store".to_owned();
        assert_eq!(since(&board)[1], (waiting.clone(), 1));
        board.store_opened(2, ["siem"].into_iter());
        board.pipeline("siem", |pipeline| pipeline.state = PipelineState::Running);
        assert_eq!(since(&board), []);
        board.store_closed(StoreStatus {
            since: 5,
            ..StoreStatus::default()
        });
        assert_eq!(since(&board)[1], (waiting, 5));
        board.store_opened(7, ["siem"].into_iter());
        assert_eq!(since(&board), [("it is starting".to_owned(), 7)]);
    }

    #[test]
    fn an_attempt_that_is_due_is_not_shown_as_the_next_one() {
        let board = Board::new(0);
        board.store_opened(0, ["siem"].into_iter());
        for (next, shown) in [(8, None), (9, None), (10, Some(10))] {
            let condition = ConditionStatus {
                kind: ConditionStatusKind::Brake,
                next_attempt: Some(next),
                not_ready_from: Some(0),
                ..ConditionStatus::default()
            };
            board.pipeline("siem", |pipeline| {
                pipeline.state = PipelineState::Running;
                pipeline.conditions = vec![condition.clone()];
            });
            board.source("prod", |source| source.conditions = vec![condition]);
            let attempts: Vec<_> = ready(&board)
                .reasons
                .iter()
                .map(|reason| reason.next_attempt)
                .collect();
            assert_eq!(attempts, [shown, shown], "{next}");
            let status = board.snapshot(9);
            assert_eq!(status.pipelines["siem"].next_retry_at, shown, "{next}");
            assert_eq!(status.sources["prod"].next_retry_at, shown, "{next}");
        }
        board.store_closed(StoreStatus {
            next_attempt: Some(9),
            ..StoreStatus::default()
        });
        assert_eq!(ready(&board).reasons[0].next_attempt, None);
    }

    #[test]
    fn a_host_is_not_ready_from_the_first_request_to_stop_on() {
        let board = Board::new(0);
        board.store_opened(0, std::iter::empty());
        assert!(ready(&board).ready);
        board.stopping(7);
        board.stopping(9);
        let expected = Reason {
            kind: "stop".to_owned(),
            subject: "host".to_owned(),
            message: "it is stopping".to_owned(),
            since: 7,
            ..Reason::default()
        };
        assert_eq!(ready(&board).reasons, [expected]);
    }

    #[test]
    fn readiness_quotes_neither_a_receiver_nor_a_component() {
        let board = Board::new(0);
        board.store_opened(0, std::iter::empty());
        let condition = |kind, message: &str| ConditionStatus {
            kind,
            subject: "url".to_owned(),
            message: message.to_owned(),
            not_ready_from: Some(0),
            ..ConditionStatus::default()
        };
        board.pipeline("siem", |pipeline| {
            pipeline.state = PipelineState::Running;
            pipeline.conditions = vec![
                condition(
                    ConditionStatusKind::Endpoint,
                    "the receiver answered 401: user alice",
                ),
                condition(
                    ConditionStatusKind::Documents,
                    "1 document waits: user alice",
                ),
                condition(ConditionStatusKind::Plugin, "it cannot work: user alice"),
                condition(
                    ConditionStatusKind::Brake,
                    "16 dead letters in a row … would say: user alice",
                ),
                ConditionStatus {
                    subject: CONFIGURATION.to_owned(),
                    ..condition(ConditionStatusKind::Start, "it could not start: user alice")
                },
            ];
        });
        let readiness = ready(&board);
        let messages: Vec<&str> = readiness
            .reasons
            .iter()
            .map(|reason| reason.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "nothing but a probe is sent to this endpoint; `lockgate status` shows why",
                "single documents wait; `lockgate status` shows why",
                "a batch waits for this component; `lockgate status` shows why",
                "the brake keeps events from being dead-lettered; `lockgate status` shows why",
                "it could not start; `lockgate status` shows why, and `lockgate reload` tries again",
            ]
        );
    }
}
