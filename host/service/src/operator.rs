//! What operators ask of a running host: on the control socket, and over HTTP on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lockgate_admin::control::{Control, Request, Response, Socket};
use lockgate_admin::http::{Listener, Readiness, Reason};
use lockgate_ledger::{DeadLetters, LedgerError};
use lockgate_store::Store;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::host::Host;
use crate::status::Board;

/// Opens both where they can be opened. Neither keeps events from being delivered.
pub(crate) async fn listen(
    host: &Host,
    store: &Store,
    board: &Board,
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
            let board = board.clone();
            tasks.spawn(listener.serve(move || readiness(&board)));
        }
        Err(error) => tracing::warn!(
            "the admin listener cannot use {address}, the host runs without it: {error}; choose \
             another port with `listen` in `[admin]`"
        ),
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
                    message: condition.message.clone(),
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
