//! Steps of an engine's work on component threads: one call a job, so that pipelines take turns.

use std::pin::pin;
use std::sync::Arc;

use lockgate_engine::{
    BatchError, EncodeOutput, Encoding, FailedCall, Sink, StageOutput, StageRun, Step,
};
use lockgate_model::contract::{BatchContext, CallError, Shortage};
use lockgate_model::request::{Classification, Response, Sent};
use lockgate_runtime::{Queue, Room, SchedulerError};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::{ROOM_PATIENCE, STAGES_LONG};
use crate::plugins::{BoundSink, BoundStage};

/// Takes a batch through the stages. `failed` is called for each call that fails on the way;
/// `at_work`, with the label of the stage, once that takes long.
pub(crate) async fn run_stages(
    queue: &Queue,
    stages: Arc<[BoundStage]>,
    mut run: Box<StageRun>,
    failed: impl Fn(FailedCall),
    at_work: impl Fn(&str),
) -> Result<StageOutput, BatchError> {
    if stages.is_empty() {
        return Ok(run.into_output());
    }
    let long_from = Instant::now() + STAGES_LONG;
    let mut named = None;
    // Until the call that it is for has been made.
    let mut room = None;
    loop {
        let label = run.next_label(&stages);
        let bound = stages.clone();
        let ran = queue.run(move || {
            let step = run.step(&bound);
            (run, step)
        });
        let name = || {
            if named != label {
                named = label;
                label.into_iter().for_each(&at_work);
            }
        };
        let ran = told_if_late(ran, long_from, name).await;
        let (stepped, step) = ran.map_err(stop_for)?.result;
        run = stepped;
        drop(room.take());
        match step {
            Step::More => {
                // All stages share the same memory.
                let room_for = |shortage| stages[0].stage.room_for(shortage);
                room = room_after(run.take_failed_call(), &failed, room_for).await;
            }
            Step::Done => return Ok(run.into_output()),
            Step::Failed(error) => return Err(error),
        }
    }
}

/// Calls `late` if the work has not ended by then.
async fn told_if_late<T>(
    work: impl Future<Output = T>,
    deadline: Instant,
    late: impl FnOnce(),
) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout_at(deadline, work.as_mut()).await {
        return done;
    }
    late();
    work.await
}

/// Passes on a call that failed. The memory for it if it is to be made again, once there is some.
async fn room_after<R: Future<Output = Room>>(
    failure: Option<FailedCall>,
    failed: impl Fn(FailedCall),
    room_for: impl FnOnce(Shortage) -> R,
) -> Option<Room> {
    let call = failure?;
    let shortage = call.shortage.clone();
    failed(call);
    match shortage {
        Some(shortage) => Some(room_for(shortage).await),
        None => None,
    }
}

/// Asks the sink for requests. `failed` is called for each call that fails on the way.
pub(crate) async fn encode(
    queue: &Queue,
    sink: BoundSink,
    mut encoding: Box<Encoding>,
    failed: impl Fn(FailedCall),
) -> Result<EncodeOutput, BatchError> {
    // Until the call that it is for has been made.
    let mut room = None;
    loop {
        let bound = sink.clone();
        let ran = queue.run(move || {
            let step = encoding.step(&bound);
            (encoding, step)
        });
        let (stepped, step) = ran.await.map_err(stop_for)?.result;
        encoding = stepped;
        drop(room.take());
        match step {
            Step::More => {
                let room_for = |shortage| sink.sink.room_for(shortage);
                room = room_after(encoding.take_failed_call(), &failed, room_for).await;
            }
            Step::Done => return Ok(encoding.into_output()),
            Step::Failed(error) => return Err(error),
        }
    }
}

pub(crate) async fn classify(
    queue: &Queue,
    sink: BoundSink,
    context: BatchContext,
    sent: Sent,
    response: Arc<Response>,
) -> Result<Classification, CallError> {
    let call = Arc::new((sink, context, sent, response));
    let sink = &call.0.sink;
    // Until the call that it is for has been made.
    let mut room = None;
    loop {
        let same = call.clone();
        let ran = queue.run(move || {
            let (sink, context, sent, response) = &*same;
            Sink::classify(sink, context, sent, response).result
        });
        let classified = match ran.await {
            Ok(ran) => ran.result,
            Err(error) => Err(CallError::Host(error.to_string())),
        };
        drop(room.take());
        if let Err(CallError::NoRoom(shortage)) = &classified {
            // After that time, the engine says in a condition what it waits for.
            let found = timeout(ROOM_PATIENCE, sink.room_for(shortage.clone()));
            room = found.await.ok();
        }
        let is_postponed = classified == Err(CallError::Postponed);
        if room.is_none() && !is_postponed {
            return classified.map(|classification| quoted(sink.label(), classification));
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_long_is_told_of_once_and_goes_on() {
        let told = Cell::new(0);
        let late = || told.set(told.get() + 1);
        let work = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seconds
        };
        let deadline = Instant::now() + STAGES_LONG;
        assert_eq!(told_if_late(work(29), deadline, late).await, 29);
        assert_eq!(told.get(), 0);
        assert_eq!(told_if_late(work(100), deadline, late).await, 100);
        assert_eq!(told.get(), 1);
        // It is over at once, though late.
        assert_eq!(told_if_late(async { 1 }, deadline, late).await, 1);
        assert_eq!(told.get(), 1);
    }
}
