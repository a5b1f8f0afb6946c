use std::sync::Arc;

use lockgate_model::Millis;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::{Pending, wait};
use crate::connect::{Failure, time};
use crate::context::Context;
use crate::proto::auditlog::{EventUnstructured, StreamUnstructuredSessionEventsRequest};
use crate::read::{Collector, Feed};
use crate::{Closed, Intake};

/// What became of a download.
pub(super) enum End {
    /// Read to its end, or given up with a report.
    Done,
    /// To be tried again, at the time it says.
    Later(Pending),
    /// The server of this connection does not know the call.
    Unknown(Pending, u64),
}

/// Reads what is left of one recording.
pub(super) async fn read<I: Intake>(
    context: &Arc<Context<I>>,
    mut pending: Pending,
) -> Result<End, Closed> {
    let place = pending.key();
    let mut client = context.link.client().await;
    let mut collector = Collector::new(Feed::Recording {
        sid: pending.sid.clone(),
    });
    let request = StreamUnstructuredSessionEventsRequest {
        session_id: pending.sid.clone(),
        start_index: pending.state.next.clamp(0, i32::MAX.into()) as i32,
    };
    let opened = client.audit.stream_unstructured_session_events(request);
    let before = pending.state.next;
    let failure = match context
        .timed(async { Ok(opened.await?.into_inner()) })
        .await
    {
        Ok(stream) => pump(context, stream, &mut collector, &mut pending).await?,
        Err(failure) => Some(failure),
    };
    let Some(failure) = failure else {
        context.store(&mut collector, vec![pending.done()]).await?;
        context.board.clear(&place);
        context.board.update(|status| status.recordings_done += 1);
        if pending.state.next == 0 {
            context.board.report(format!(
                "the recording of session `{}` is empty",
                pending.sid
            ));
        }
        return Ok(End::Done);
    };
    context.link.failed(client.generation, &failure).await;
    if pending.state.next != before {
        pending.state.attempts = 0;
    }
    if let Failure::Unimplemented { .. } = failure {
        return Ok(End::Unknown(pending, client.generation));
    }
    if let Some(reason) = hopeless(context, &pending, &failure) {
        context.store(&mut collector, vec![pending.done()]).await?;
        context.board.clear(&place);
        context.board.update(|status| status.recordings_lost += 1);
        context.board.report(format!(
            "the recording of session `{}` is abandoned after {} events: {reason}: {failure}",
            pending.sid, pending.state.next
        ));
        return Ok(End::Done);
    }
    let (first, max) = context.settings.limits.recording_wait;
    // A missing recording may take a long time to appear; other failures may end soon.
    let max = if matches!(failure, Failure::NotFound { .. }) {
        max
    } else {
        max.min(first * 10)
    };
    let pause = wait(pending.state.attempts, (first, max));
    pending.state.not_before = context.now() + pause.as_millis() as Millis;
    pending.state.attempts += 1;
    context.board.trouble(
        &place,
        format!(
            "the recording of session `{}` cannot be read, next attempt at {}: {failure}",
            pending.sid,
            time(pending.state.not_before)
        ),
    );
    context
        .store(&mut collector, vec![pending.cursor()])
        .await?;
    Ok(End::Later(pending))
}

/// Why it is of no use to ask again.
fn hopeless<I: Intake>(
    context: &Context<I>,
    pending: &Pending,
    failure: &Failure,
) -> Option<&'static str> {
    let limits = &context.settings.limits;
    // This attempt counts.
    let attempts = pending.state.attempts + 1;
    match failure {
        Failure::NotFound { .. } => {
            let age = context.now() - pending.state.uploaded;
            (attempts >= 2 && age > limits.recording_patience.as_millis() as Millis)
                .then_some("it has not come in time")
        }
        Failure::Refused {
            code: Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange,
            ..
        } => Some("it cannot be read"),
        Failure::Refused { .. } => {
            (attempts >= limits.recording_attempts).then_some("it cannot be read to its end")
        }
        _ => None,
    }
}

/// Reads one stream; `None` is its end.
async fn pump<I: Intake>(
    context: &Arc<Context<I>>,
    mut stream: Streaming<EventUnstructured>,
    collector: &mut Collector,
    pending: &mut Pending,
) -> Result<Option<Failure>, Closed> {
    let limits = &context.settings.limits;
    let flush_at = tokio::time::sleep(limits.flush);
    tokio::pin!(flush_at);
    let silence = tokio::time::sleep(limits.call);
    tokio::pin!(silence);
    // The start is inclusive, and a server may begin earlier still. Only at the beginning: indexes
    // need not rise for ever.
    let first = pending.state.next;
    let mut is_known = first > 0;
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            () = &mut flush_at, if !collector.is_empty() => {
                context.store(collector, vec![pending.cursor()]).await?;
                silence.as_mut().reset(Instant::now() + limits.call);
                continue;
            }
            () = &mut silence => Err(Status::deadline_exceeded("the stream has been silent for too long")),
        };
        let event = match message {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(Failure::of(&context.settings.address, &status))),
        };
        is_known = is_known && event.index < first;
        if is_known {
            continue;
        }
        if collector.is_empty() {
            flush_at.as_mut().reset(Instant::now() + limits.flush);
        }
        collector.push(&event, None);
        pending.state.next = event.index.saturating_add(1);
        if collector.is_full() {
            context.store(collector, vec![pending.cursor()]).await?;
            silence.as_mut().reset(Instant::now() + limits.call);
        }
    }
}
