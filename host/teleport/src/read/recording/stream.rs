//! Downloads one session recording.

use std::sync::Arc;

use lockgate_model::{FeedKind, Gap, GapState, Millis};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::known::seen_again;
use super::{PendingRecording, wait};
use crate::connect::Failure;
use crate::proto::auditlog::{EventUnstructured, StreamUnstructuredSessionEventsRequest};
use crate::read::{Collector, Feed};
use crate::source::Source;
use crate::{Closed, Intake};

/// How a download ended.
pub(super) enum DownloadEnd {
    /// Read to its end, or given up with a report.
    Done,
    /// To be retried, at the time in its cursor.
    Later(PendingRecording),
    /// The server of this connection does not support the call.
    Unsupported(PendingRecording, u64),
}

/// Reads the rest of one recording.
pub(super) async fn read<I: Intake>(
    source: &Arc<Source<I>>,
    mut pending: PendingRecording,
) -> Result<DownloadEnd, Closed> {
    let place = pending.key();
    let opened_at = pending.state.next;
    let mut connection = source.connector.connection().await;
    let mut collector = Collector::new(Feed::Recording {
        sid: pending.sid.clone(),
    });
    let request = StreamUnstructuredSessionEventsRequest {
        session_id: pending.sid.clone(),
        start_index: pending.state.next.clamp(0, i32::MAX.into()) as i32,
    };
    let opened = connection.audit.stream_unstructured_session_events(request);
    let before = pending.state.next;
    let opened = async { Ok(opened.await?.into_inner()) };
    let what = || {
        format!(
            "answered the request for the recording of session `{}`",
            pending.sid
        )
    };
    let failure = match source.timed_log(Some(&place), what, opened).await {
        Ok(stream) => pump(source, stream, &mut collector, &mut pending).await?,
        Err(failure) => Some(failure),
    };
    let Some(failure) = failure else {
        source.store(&mut collector, vec![pending.done()]).await?;
        source.status.clear_failure(&place);
        if let Some(gap) = source.gaps.of(&place) {
            let (at, events) = (source.now(), collector.total());
            let state = GapState::Read { at, events };
            source.note_gap(Gap { state, ..gap }).await?;
        }
        // It may have been announced again without a new event.
        if opened_at == 0 || collector.total() > 0 {
            source.status.update(|status| status.recordings_done += 1);
        }
        if pending.state.next == 0 {
            lose(source, &pending, "it is empty".to_owned()).await?;
        }
        if let Some(again) = source.known_recordings.finish(&pending) {
            let cursors = vec![again.cursor(), seen_again(&again.sid)];
            source.move_cursors(FeedKind::Sessions, cursors).await?;
            return Ok(DownloadEnd::Later(again));
        }
        return Ok(DownloadEnd::Done);
    };
    source.connector.failed(connection.id, &failure).await;
    if pending.state.next != before {
        pending.state.attempts = 0;
    }
    if let Failure::Unimplemented { .. } = failure {
        return Ok(DownloadEnd::Unsupported(pending, connection.id));
    }
    if is_final(source, &pending, &failure) {
        source.store(&mut collector, vec![pending.done()]).await?;
        source.status.clear_failure(&place);
        source.status.update(|status| status.recordings_lost += 1);
        let error = format!("it did not appear in time: {failure}");
        lose(source, &pending, error).await?;
        let _ = source.known_recordings.finish(&pending);
        return Ok(DownloadEnd::Done);
    }
    let (first, max) = source.settings.limits.recording_wait;
    // A recording may be missing or damaged for a long time; other failures may end soon.
    let is_lasting = matches!(failure, Failure::NotFound { .. } | Failure::Refused { .. });
    let max = if is_lasting { max } else { max.min(first * 10) };
    let pause = wait(pending.state.attempts, (first, max));
    pending.state.not_before = source.now() + pause.as_millis() as Millis;
    pending.state.attempts += 1;
    let is_refused = matches!(failure, Failure::Refused { .. });
    if is_refused && pending.state.attempts >= source.settings.limits.recording_attempts {
        source
            .note_gap(gap(source, &pending, failure.to_string()))
            .await?;
    }
    source.status.set_failure_until(
        &place,
        format!(
            "the recording of session `{}` cannot be read: {failure}",
            pending.sid
        ),
        Some(pending.state.not_before),
    );
    source.store(&mut collector, vec![pending.cursor()]).await?;
    Ok(DownloadEnd::Later(pending))
}

/// The part of a recording that is missing.
fn gap<I: Intake>(source: &Source<I>, pending: &PendingRecording, error: String) -> Gap {
    let what = match pending.state.next {
        0 => format!("the recording of session `{}`", pending.sid),
        next => format!(
            "the recording of session `{}` from event {next} on",
            pending.sid
        ),
    };
    let uploaded = pending.state.uploaded;
    source.gap(
        pending.key(),
        FeedKind::Sessions,
        (uploaded, uploaded),
        what,
        error,
    )
}

async fn lose<I: Intake>(
    source: &Source<I>,
    pending: &PendingRecording,
    error: String,
) -> Result<(), Closed> {
    let state = GapState::Lost(source.now());
    let gap = gap(source, pending, error);
    source.note_gap(Gap { state, ..gap }).await
}

/// Whether a recording that is missing will not appear any more.
fn is_final<I: Intake>(source: &Source<I>, pending: &PendingRecording, failure: &Failure) -> bool {
    let age = source.now() - pending.state.uploaded;
    let patience = source.settings.limits.recording_patience.as_millis() as Millis;
    // This attempt counts.
    let is_repeated = pending.state.attempts > 0;
    matches!(failure, Failure::NotFound { .. }) && is_repeated && age > patience
}

/// Reads one stream. Returns `None` at its end.
async fn pump<I: Intake>(
    source: &Arc<Source<I>>,
    mut stream: Streaming<EventUnstructured>,
    collector: &mut Collector,
    pending: &mut PendingRecording,
) -> Result<Option<Failure>, Closed> {
    let limits = &source.settings.limits;
    let flush_at = tokio::time::sleep(limits.flush);
    tokio::pin!(flush_at);
    let silence = tokio::time::sleep(limits.call);
    tokio::pin!(silence);
    // Skips events before the start, because a server may begin earlier. Only at the beginning:
    // later indexes need not increase.
    let first = pending.state.next;
    let mut is_known = first > 0;
    let place = pending.key();
    let sid = pending.sid.clone();
    let what = || format!("sent anything of the recording of session `{sid}`");
    loop {
        let message = tokio::select! {
            biased;
            message = source.awaited(Some(&place), what, stream.message()) => message,
            () = &mut flush_at, if !collector.is_empty() => {
                source.store(collector, vec![pending.cursor()]).await?;
                silence.as_mut().reset(Instant::now() + limits.call);
                continue;
            }
            () = &mut silence => Err(Status::deadline_exceeded("the stream has been silent for too long")),
        };
        let event = match message {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(Failure::of(&source.settings.address, &status))),
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
        pending.state.top = pending.state.top.max(pending.state.next);
        if collector.is_full() {
            source.store(collector, vec![pending.cursor()]).await?;
            silence.as_mut().reset(Instant::now() + limits.call);
        }
    }
}
