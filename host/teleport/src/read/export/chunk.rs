use std::sync::Arc;

use lockgate_model::Day;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::cursor::{Position, chunk_key, update};
use crate::connect::{Failure, to_proto};
use crate::context::Context;
use crate::proto::auditlog::{ExportEventUnstructured, ExportUnstructuredEventsRequest};
use crate::read::Collector;
use crate::{Closed, Intake};

/// How reading a chunk ended.
pub(super) enum End {
    Read,
    /// It failed so often in one place that the others should not wait for it. The server's cursor
    /// of that place.
    Stuck(String),
}

/// Reads a chunk to its end, from a cursor, through every interruption.
pub(super) async fn read<I: Intake>(
    context: &Arc<Context<I>>,
    day: Day,
    chunk: &str,
    mut cursor: String,
) -> Result<End, Closed> {
    let place = chunk_key(day, chunk);
    let mut collector = Collector::audit(context);
    let mut backoff = context.backoff();
    loop {
        let mut client = context.link.client().await;
        let before = cursor.clone();
        let request = ExportUnstructuredEventsRequest {
            date: Some(to_proto(day.start())),
            chunk: chunk.to_owned(),
            cursor: cursor.clone(),
        };
        let opened = client.audit.export_unstructured_events(request);
        let failure = match context
            .timed(async { Ok(opened.await?.into_inner()) })
            .await
        {
            Ok(stream) => pump(context, day, chunk, stream, &mut collector, &mut cursor).await?,
            Err(failure) => Some(failure),
        };
        let Some(failure) = failure else {
            context
                .store(&mut collector, vec![update(day, chunk, &Position::Read)])
                .await?;
            context.board.clear(&place);
            return Ok(End::Read);
        };
        // What came before the failure is good.
        flush(context, day, chunk, &mut collector, &cursor).await?;
        context.link.failed(client.generation, &failure).await;
        if cursor != before {
            backoff.reset();
        }
        context.board.trouble(
            &place,
            format!("the chunk `{chunk}` of {day} cannot be read: {failure}"),
        );
        let is_here = matches!(failure, Failure::NotFound { .. } | Failure::Refused { .. });
        if is_here && backoff.failures() + 1 >= context.settings.limits.export_attempts {
            return Ok(End::Stuck(cursor));
        }
        context.pause(&mut backoff).await;
    }
}

/// Reads one stream; `None` is its end.
async fn pump<I: Intake>(
    context: &Arc<Context<I>>,
    day: Day,
    chunk: &str,
    mut stream: Streaming<ExportEventUnstructured>,
    collector: &mut Collector,
    cursor: &mut String,
) -> Result<Option<Failure>, Closed> {
    let limits = &context.settings.limits;
    // Set when something begins to wait in the collector, and only looked at while the stream is
    // silent.
    let flush_at = tokio::time::sleep(limits.flush);
    tokio::pin!(flush_at);
    let silence = tokio::time::sleep(limits.call);
    tokio::pin!(silence);
    let mut dirty = false;
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            () = &mut flush_at, if dirty => {
                flush(context, day, chunk, collector, cursor).await?;
                dirty = false;
                silence.as_mut().reset(Instant::now() + limits.call);
                continue;
            }
            () = &mut silence => Err(Status::deadline_exceeded("the stream has been silent for too long")),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(Failure::of(&context.settings.address, &status))),
        };
        if let Some(event) = &message.event {
            collector.push(event, None);
        }
        if !message.cursor.is_empty() {
            *cursor = message.cursor;
        }
        if !dirty {
            dirty = true;
            flush_at.as_mut().reset(Instant::now() + limits.flush);
        }
        if collector.is_full() {
            flush(context, day, chunk, collector, cursor).await?;
            dirty = false;
            // The store may have taken long.
            silence.as_mut().reset(Instant::now() + limits.call);
        }
    }
}

async fn flush<I: Intake>(
    context: &Arc<Context<I>>,
    day: Day,
    chunk: &str,
    collector: &mut Collector,
    cursor: &str,
) -> Result<(), Closed> {
    let moved = if cursor.is_empty() {
        vec![]
    } else {
        vec![update(day, chunk, &Position::At(cursor.to_owned()))]
    };
    context.store(collector, moved).await
}
