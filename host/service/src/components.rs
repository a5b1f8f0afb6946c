//! Steps of an engine's work on component threads: one call a job, so that pipelines take turns.

use std::sync::Arc;

use lockgate_engine::{
    BatchError, EncodeOutput, Encoding, FailedCall, Sink, StageOutput, StageRun, Step,
};
use lockgate_model::contract::{BatchInfo, CallError};
use lockgate_model::request::{Classification, Response, Sent};
use lockgate_runtime::{Queue, SchedulerError};
use tokio::time::timeout;

use crate::limits::ROOM_PATIENCE;
use crate::plugins::{BoundSink, BoundStage};

/// Takes a batch through the stages. `failed` is called for each call that fails on the way.
pub(crate) async fn run_stages(
    queue: &Queue,
    stages: Arc<[BoundStage]>,
    mut run: Box<StageRun>,
    failed: impl Fn(FailedCall),
) -> Result<StageOutput, BatchError> {
    if stages.is_empty() {
        return Ok(run.into_output());
    }
    loop {
        let bound = stages.clone();
        let ran = queue.run(move || {
            let step = run.step(&bound);
            (run, step)
        });
        let (stepped, step) = ran.await.map_err(stop_for)?.result;
        run = stepped;
        match step {
            Step::More => {
                if let Some(call) = run.take_failed_call() {
                    let shortage = call.shortage.clone();
                    failed(call);
                    if let Some(shortage) = shortage {
                        // All stages share the same memory.
                        stages[0].stage.room_for(shortage).await;
                    }
                }
            }
            Step::Done => return Ok(run.into_output()),
            Step::Failed(error) => return Err(error),
        }
    }
}

/// Asks the sink for requests. `failed` is called for each call that fails on the way.
pub(crate) async fn encode(
    queue: &Queue,
    sink: BoundSink,
    mut encoding: Box<Encoding>,
    failed: impl Fn(FailedCall),
) -> Result<EncodeOutput, BatchError> {
    loop {
        let bound = sink.clone();
        let ran = queue.run(move || {
            let step = encoding.step(&bound);
            (encoding, step)
        });
        let (stepped, step) = ran.await.map_err(stop_for)?.result;
        encoding = stepped;
        match step {
            Step::More => {
                if let Some(call) = encoding.take_failed_call() {
                    let shortage = call.shortage.clone();
                    failed(call);
                    if let Some(shortage) = shortage {
                        sink.sink.room_for(shortage).await;
                    }
                }
            }
            Step::Done => return Ok(encoding.into_output()),
            Step::Failed(error) => return Err(error),
        }
    }
}

pub(crate) async fn classify(
    queue: &Queue,
    sink: BoundSink,
    info: BatchInfo,
    sent: Sent,
    response: Arc<Response>,
) -> Result<Classification, CallError> {
    let call = Arc::new((sink, info, sent, response));
    let sink = &call.0.sink;
    loop {
        let same = call.clone();
        let ran = queue.run(move || {
            let (sink, info, sent, response) = &*same;
            Sink::classify(sink, info, sent, response).result
        });
        let classified = match ran.await {
            Ok(ran) => ran.result,
            Err(error) => Err(CallError::Host(error.to_string())),
        };
        match classified {
            // After that time, the engine says in a condition what it waits for.
            Err(CallError::NoRoom(shortage))
                if timeout(ROOM_PATIENCE, sink.room_for(shortage.clone()))
                    .await
                    .is_ok() => {}
            Err(CallError::Postponed) => {}
            classified => {
                return classified.map(|classification| quoted(sink.label(), classification));
            }
        }
    }
}

/// Why nothing can be sent, as a condition and the log show it: in the sink's words, not in the
/// host's.
fn quoted(label: &str, classification: Classification) -> Classification {
    let quote = |message: String| format!("{label} says: {message}");
    match classification {
        Classification::Hold(message) => Classification::Hold(quote(message)),
        Classification::Retry { message, after } => Classification::Retry {
            message: quote(message),
            after,
        },
        other => other,
    }
}

/// A call that the scheduler could not run: the batch is held and tried again.
fn stop_for(error: SchedulerError) -> BatchError {
    let error = CallError::Host(error.to_string());
    BatchError::Component {
        label: "the host".to_owned(),
        error,
    }
}
