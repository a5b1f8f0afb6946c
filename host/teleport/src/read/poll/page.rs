use lockgate_model::Millis;
use tonic::Code;

use super::PLACE;
use crate::Intake;
use crate::connect::{Failure, to_proto};
use crate::context::Context;
use crate::proto::auditlog::{EventsUnstructured, GetUnstructuredEventsRequest};

/// The order of a page. The values mean this whatever the names in Teleport's file say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    OldestFirst = 0,
    NewestFirst = 1,
}

/// A question for one page.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) from: Millis,
    /// The last millisecond of the window, all of it.
    pub(super) to: Millis,
    pub(super) limit: i32,
    /// Empty: from the start of the window.
    pub(super) key: String,
    pub(super) direction: Direction,
}

/// The server's own answer that it cannot: the same each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

/// Asks, through every interruption, until there is a page or the server itself refuses.
pub(super) async fn ask<I: Intake>(
    context: &Context<I>,
    query: &Query,
) -> Result<EventsUnstructured, Refusal> {
    let mut backoff = context.backoff();
    loop {
        let mut client = context.link.client().await;
        let request = GetUnstructuredEventsRequest {
            namespace: "default".to_owned(),
            start_date: Some(to_proto(query.from)),
            end_date: Some(end(query.to)),
            event_types: context.settings.types.clone(),
            limit: query.limit,
            start_key: query.key.clone(),
            order: query.direction as i32,
        };
        let call = client.audit.get_unstructured_events(request);
        match context.timed(async { Ok(call.await?.into_inner()) }).await {
            Ok(page) => {
                context.board.clear(PLACE);
                return Ok(page);
            }
            Err(Failure::Refused { code, message }) => return Err(Refusal { code, message }),
            Err(failure) => {
                context.link.failed(client.generation, &failure).await;
                context.board.trouble(PLACE, failure.to_string());
                context.pause(&mut backoff).await;
            }
        }
    }
}

/// The last nanosecond of a millisecond: both ends of a window are inclusive, and the next window
/// may lie in a day of its own.
fn end(millis: Millis) -> prost_types::Timestamp {
    let start = to_proto(millis);
    prost_types::Timestamp {
        nanos: start.nanos + 999_999,
        ..start
    }
}
