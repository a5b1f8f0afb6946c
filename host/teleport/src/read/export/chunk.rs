//! Reads one chunk of a bulk export.

use std::sync::Arc;

use lockgate_model::Day;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::cursor::{Position, chunk_key, update};
use crate::connect::Failure;
use crate::proto::auditlog::{ExportEventUnstructured, ExportUnstructuredEventsRequest};
use crate::read::Collector;
use crate::source::Source;
use crate::time::to_proto;
use crate::{Closed, Intake};

/// How reading a chunk ended.
pub(super) enum ChunkEnd {
    /// With so many events.
    Read(u64),
    /// It failed so often at this cursor of the server that other chunks and dates should not wait
    /// for it: with the cursor and the failure.
    Stuck(String, Failure),
}

/// Reads a chunk from a cursor to its end, resuming after every interruption. If it is a gap, it
/// is tried once.
pub(super) async fn read<I: Intake>(
    source: &Arc<Source<I>>,
    day: Day,
    chunk: &str,
    mut cursor: String,
    is_gap: bool,
) -> Result<ChunkEnd, Closed> {
    let place = chunk_key(day, chunk);
    // Nothing waits for what is on the books.
    let shown = (!is_gap).then_some(&*place);
    let mut collector = Collector::audit(source);
    let mut backoff = source.backoff();
    loop {
        let mut connection = source.connector.connection().await;
        let before = cursor.clone();
        let request = ExportUnstructuredEventsRequest {
            date: Some(to_proto(day.start())),
            chunk: chunk.to_owned(),
            cursor: cursor.clone(),
        };
        let opened = connection.audit.export_unstructured_events(request);
        let what = || format!("answered the request for the chunk `{chunk}` of {day}");
        let opened = async { Ok(opened.await?.into_inner()) };
        let failure = match source.timed_log(shown, what, opened).await {
            Ok(stream) => {
                let collected = (&mut collector, &mut cursor);
                pump(source, day, chunk, shown, stream, collected).await?
            }
            Err(failure) => Some(failure),
        };
        let Some(failure) = failure else {
            source
                .store(&mut collector, vec![update(day, chunk, &Position::Read)])
                .await?;
            source.status.clear_failure(&place);
            return Ok(ChunkEnd::Read(collector.total()));
        };
        // The events before the failure are complete.
        flush(source, day, chunk, &mut collector, &cursor).await?;
        source.connector.failed(connection.id, &failure).await;
        if cursor != before {
            backoff.reset();
        }
        if cursor == before && !cursor.is_empty() && is_unknown_cursor(&failure) {
            source.status.report_repeat(format!(
                "Teleport does not know the stored position in the chunk `{chunk}` of {day}: \
                 {failure}. The chunk is read from its start, so its events that were read before \
                 are sent twice"
            ));
            cursor.clear();
            let moved = vec![update(day, chunk, &Position::At(String::new()))];
            source.store(&mut collector, moved).await?;
            continue;
        }
        if is_gap && cursor == before {
            return Ok(ChunkEnd::Stuck(cursor, failure));
        }
        source.status.set_failure(
            &place,
            format!("the chunk `{chunk}` of {day} cannot be read: {failure}"),
        );
        // A stream that is cut at the same place each time is not at fault for the connection.
        let is_of_chunk = matches!(
            failure,
            Failure::NotFound { .. } | Failure::Refused { .. } | Failure::Lost { .. }
        );
        if is_of_chunk && backoff.failures() + 1 >= source.settings.limits.export_attempts {
            return Ok(ChunkEnd::Stuck(cursor, failure));
        }
        source.pause(&mut backoff).await;
    }
}

/// Whether the server says that the request is wrong: all else in it is what the server itself has
/// listed. A cursor of the Event Handler may have been written in part.
fn is_unknown_cursor(failure: &Failure) -> bool {
    let code = match failure {
        Failure::Refused { code, .. } => *code,
        _ => return false,
    };
    code == Code::InvalidArgument
}

/// Reads one stream. Returns `None` at its end. `shown`: the place where its silence is shown.
async fn pump<I: Intake>(
    source: &Arc<Source<I>>,
    day: Day,
    chunk: &str,
    shown: Option<&str>,
    mut stream: Streaming<ExportEventUnstructured>,
    (collector, cursor): (&mut Collector, &mut String),
) -> Result<Option<Failure>, Closed> {
    let limits = &source.settings.limits;
    // Set when the collector gets its first event, and checked only while the stream is silent.
    let flush_at = tokio::time::sleep(limits.flush);
    tokio::pin!(flush_at);
    let silence = tokio::time::sleep(limits.call);
    tokio::pin!(silence);
    let mut dirty = false;
    let what = || format!("sent anything of the chunk `{chunk}` of {day}");
    loop {
        let message = tokio::select! {
            biased;
            message = source.awaited(shown, what, stream.message()) => message,
            () = &mut flush_at, if dirty => {
                flush(source, day, chunk, collector, cursor).await?;
                dirty = false;
                silence.as_mut().reset(Instant::now() + limits.call);
                continue;
            }
            () = &mut silence => Err(Status::deadline_exceeded("the stream has been silent for too long")),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(Failure::of(&source.settings.address, &status))),
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
            flush(source, day, chunk, collector, cursor).await?;
            dirty = false;
            // Storing may have taken long.
            silence.as_mut().reset(Instant::now() + limits.call);
        }
    }
}

async fn flush<I: Intake>(
    source: &Arc<Source<I>>,
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
    source.store(collector, moved).await
}
