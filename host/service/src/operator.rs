//! What operators ask of a running host: on the control socket, and over HTTP on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lockgate_admin::control::{Control, Request, Response, Socket};
use lockgate_admin::http::{Answers, Listener, Readiness, Reason};
use lockgate_ledger::{DeadLetters, LedgerError};
use lockgate_observe::metrics::Registry;
use lockgate_store::Store;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::host::Host;
use crate::status::{Board, ConditionStatus};

/// Opens both where they can be opened. Neither keeps events from being delivered.
pub(crate) async fn listen(
    host: &Host,
    store: &Store,
    board: &Board,
    metrics: &Registry,
    directory: &Path,
    address: Option<SocketAddr>,
    tasks: &mut JoinSet<()>,
) {
    match Socket::bind(directory) {
        Ok(socket) => {
            let control = Operator {
                host: host.clone(),
                store: store.clone(),
            };
            tasks.spawn(socket.serve(Arc::new(control)));
        }
        Err(error) => tracing::warn!(
            "the control socket cannot be opened, so `lockgate dlq` cannot change anything beside \
             this host: {error}"
        ),
    }
    let Some(address) = address else { return };
    match Listener::bind(address).await {
        Ok(listener) => {
            tracing::info!(address = %listener.address(), "the admin listener answers");
            let answers = Health {
                store: store.clone(),
                board: board.clone(),
                metrics: metrics.clone(),
            };
            tasks.spawn(listener.serve(answers));
        }
        Err(error) => tracing::warn!(
            "the admin listener cannot use {address}, the host runs without it: {error}; choose \
             another port with `listen` in `[admin]`"
        ),
    }
}

struct Health {
    store: Store,
    board: Board,
    metrics: Registry,
}

impl Answers for Health {
    fn readiness(&self) -> Readiness {
        readiness(&self.board)
    }

    async fn metrics(&self) -> String {
        let (metrics, store) = (self.metrics.clone(), self.store.clone());
        let status = self.board.snapshot(now());
        let render = move || crate::metrics::render(&metrics, &store, &status);
        match tokio::task::spawn_blocking(render).await {
            Ok(text) => text,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program is ending.
                Err(_) => String::new(),
            },
        }
    }
}

struct Operator {
    host: Host,
    store: Store,
}

impl Control for Operator {
    async fn handle(&self, request: Request) -> Response {
        match request {
            Request::Ping => done("The host is running."),
            Request::Retry {
                pipeline,
                stream,
                seqs,
            } => {
                let retried = self.store.retry(&pipeline, &stream, &seqs, now()).await;
                answer(retried, "Sent back to the pipeline.")
            }
            Request::Drop {
                pipeline,
                stream,
                seqs,
            } => {
                let dropped = self
                    .store
                    .drop_letters(&pipeline, &stream, &seqs, now())
                    .await;
                answer(dropped, "Dropped.")
            }
            Request::Release { pipeline } if self.host.release(&pipeline) => done(&format!(
                "`{pipeline}` may dead-letter what was read until now; the brake applies again to \
                 what is read from here on."
            )),
            Request::Release { pipeline } => Response::Refused {
                message: format!("No pipeline `{pipeline}` runs here."),
            },
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

fn readiness(board: &Board) -> Readiness {
    let at = now();
    let status = board.snapshot(at);
    let mut reasons = Vec::new();
    for (name, pipeline) in &status.pipelines {
        if !matches!(&*pipeline.state, "running" | "finished") && pipeline.conditions.is_empty() {
            reasons.push(Reason {
                source: None,
                pipeline: Some(name.clone()),
                kind: "start".to_owned(),
                subject: "pipeline".to_owned(),
                message: format!("it is {}", pipeline.state),
                since: status.started_at,
                next_attempt: None,
            });
        }
        let conditions = pipeline.conditions.iter();
        reasons.extend(
            conditions
                .filter(|condition| condition.not_ready_from <= at)
                .map(|condition| Reason {
                    source: None,
                    pipeline: Some(name.clone()),
                    kind: condition.kind.clone(),
                    subject: condition.subject.clone(),
                    message: public(condition),
                    since: condition.since,
                    next_attempt: condition.next_attempt,
                }),
        );
    }
    Readiness {
        ready: reasons.is_empty(),
        reasons,
    }
}

/// What the listener says of a condition. A receiver's answer and a component's message may quote
/// an event, and the listener has no authentication: they are shown by `lockgate status` alone.
fn public(condition: &ConditionStatus) -> String {
    let what = match &*condition.kind {
        "endpoint" => "nothing but a probe is sent to this endpoint",
        "documents" => "single documents wait while others are sent",
        "plugin" => "a batch waits for this component",
        // The host's own words.
        _ => return condition.message.clone(),
    };
    format!("{what}; `lockgate status` shows why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_quotes_neither_a_receiver_nor_a_component() {
        let board = Board::new(0);
        let condition = |kind: &str, message: &str| ConditionStatus {
            kind: kind.to_owned(),
            subject: "url".to_owned(),
            message: message.to_owned(),
            ..ConditionStatus::default()
        };
        board.pipeline("siem", |pipeline| {
            pipeline.state = "running".to_owned();
            pipeline.conditions = vec![
                condition("endpoint", "the receiver answered 401: user alice"),
                condition("documents", "1 document waits: user alice"),
                condition("plugin", "it cannot work: user alice"),
                condition("brake", "16 dead letters in a row"),
            ];
        });
        let readiness = readiness(&board);
        let messages: Vec<&str> = readiness
            .reasons
            .iter()
            .map(|reason| reason.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "nothing but a probe is sent to this endpoint; `lockgate status` shows why",
                "single documents wait while others are sent; `lockgate status` shows why",
                "a batch waits for this component; `lockgate status` shows why",
                "16 dead letters in a row",
            ]
        );
    }
}
