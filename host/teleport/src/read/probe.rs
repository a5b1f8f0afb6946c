//! The choice between bulk export and polling.

use lockgate_model::Day;

use crate::connect::Failure;
use crate::proto::auditlog::GetEventExportChunksRequest;
use crate::source::Source;
use crate::time::to_proto;
use crate::{Intake, ReaderKind, Resume};

/// Chooses the reader: bulk export if the server supports it. To find out, it asks for the chunks
/// of a future day, which costs the server nothing. A failure is retried; but where an export has
/// begun, only the answer that there is none ends it.
pub(crate) async fn choose<I: Intake>(source: &Source<I>, resume: &Resume) -> ReaderKind {
    let mut keys = resume.cursors.keys();
    let has_begun = keys.any(|key| key.starts_with(super::export::PREFIX));
    const PLACE: &str = "probe";
    const ANSWERED: &str = "answered the question whether it offers bulk export";
    let mut backoff = source.backoff();
    loop {
        let connection = source.connector.connection().await;
        let date = Some(to_proto(source.now() + 2 * Day::MILLIS));
        let kind = match source
            .timed_log(
                Some(PLACE),
                || ANSWERED.to_owned(),
                list(connection.audit, date),
            )
            .await
        {
            Ok(()) => ReaderKind::Export,
            Err(Failure::Unimplemented { .. }) => ReaderKind::Poll,
            Err(Failure::Refused { .. } | Failure::NotFound { .. }) if has_begun => {
                ReaderKind::Export
            }
            Err(failure) => {
                source.connector.failed(connection.id, &failure).await;
                source.status.set_failure(PLACE, failure.to_string());
                source.pause(&mut backoff).await;
                continue;
            }
        };
        source.status.clear_failure(PLACE);
        return kind;
    }
}

/// Reads the whole stream: the status may come with its first message.
async fn list(
    mut audit: crate::connect::AuditLog,
    date: Option<prost_types::Timestamp>,
) -> Result<(), tonic::Status> {
    let mut chunks = audit
        .get_event_export_chunks(GetEventExportChunksRequest { date })
        .await?
        .into_inner();
    while chunks.message().await?.is_some() {}
    Ok(())
}
