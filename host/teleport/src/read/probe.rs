use lockgate_model::Day;

use crate::connect::{Failure, to_proto};
use crate::context::Context;
use crate::proto::auditlog::GetEventExportChunksRequest;
use crate::{Intake, ReaderKind, Resume};

/// Which reader fits: the one whose cursors are stored, or what the server can. It is asked for the
/// chunks of a day to come, which costs it nothing. Never fails: another answer than yes or no is
/// tried again.
pub(crate) async fn choose<I: Intake>(context: &Context<I>, resume: &Resume) -> ReaderKind {
    if resume
        .cursors
        .keys()
        .any(|key| key.starts_with(super::export::PREFIX))
    {
        return ReaderKind::Export;
    }
    const PLACE: &str = "probe";
    let mut backoff = context.backoff();
    loop {
        let client = context.link.client().await;
        let date = Some(to_proto(context.now() + 2 * Day::MILLIS));
        let answer = list(client.audit, date).await;
        let kind = match answer {
            Ok(()) => ReaderKind::Export,
            Err(status) => match Failure::of(&context.settings.address, &status) {
                Failure::Unimplemented { .. } => ReaderKind::Poll,
                failure => {
                    context.link.failed(client.generation, &failure).await;
                    context.board.trouble(PLACE, failure.to_string());
                    context.pause(&mut backoff).await;
                    continue;
                }
            },
        };
        context.board.clear(PLACE);
        return kind;
    }
}

/// The answer of a stream may come with its first message.
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
