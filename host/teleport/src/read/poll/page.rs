//! Pages of a search.

use std::fmt;

use lockgate_model::{Day, Millis};
use tonic::Code;

use super::{ASIDE, PLACE};
use crate::Intake;
use crate::connect::Failure;
use crate::proto::auditlog::{EventsUnstructured, GetUnstructuredEventsRequest};
use crate::source::Source;
use crate::time::{time, to_proto};

/// Calls for a window that are lost before a shorter one is tried.
const LOSSES_MAX: u32 = 8;

/// The order of a page. The names in Teleport's proto file say the opposite of what the values
/// mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    OldestFirst = 0,
    NewestFirst = 1,
}

/// A request for one page.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) from: Millis,
    /// The last millisecond of the window, inclusive.
    pub(super) to: Millis,
    pub(super) page_size: i32,
    /// Empty for the first page of the window.
    pub(super) key: String,
    pub(super) direction: Direction,
    /// Events of every type, not only of the configured ones.
    pub(super) any_type: bool,
    /// A call that is lost or throttled is a refusal, as it is for windows of several days: the log
    /// must not wait.
    pub(super) gives_up: bool,
    /// It is made beside a bulk export, so the log does not wait for it.
    pub(super) is_aside: bool,
}

impl Query {
    /// Where its failures are shown.
    fn place(&self) -> &'static str {
        match self.is_aside {
            true => ASIDE,
            false => PLACE,
        }
    }
}

/// Why there is no page. The server's own error answer, which is the same each time, or the loss of
/// the connection, which [`Code::DeadlineExceeded`] stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Refusal {
    /// What is wrong at this time of the log.
    pub(super) fn at(&self, at: Millis) -> String {
        let (at, message) = (time(at), &self.message);
        match self.code {
            Code::DeadlineExceeded => format!("Teleport does not answer at {at}: `{message}`"),
            code => format!("Teleport answered with an error at {at}: {code:?} `{message}`"),
        }
    }
}

/// As the end of a sentence that begins with Teleport.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Code::DeadlineExceeded => write!(f, "does not answer: `{}`", self.message),
            code => write!(f, "answers {code:?} `{}`", self.message),
        }
    }
}

/// Requests a page, retrying after every interruption, until the server returns a page or refuses.
/// The call is on the heap: it is a part of so many futures that a thread's stack would not hold
/// them.
pub(super) async fn fetch<I: Intake>(
    source: &Source<I>,
    query: &Query,
) -> Result<EventsUnstructured, Refusal> {
    Box::pin(fetch_unboxed(source, query)).await
}

async fn fetch_unboxed<I: Intake>(
    source: &Source<I>,
    query: &Query,
) -> Result<EventsUnstructured, Refusal> {
    let mut backoff = source.backoff();
    let mut losses = 0;
    let place = query.place();
    loop {
        let mut connection = source.connector.connection().await;
        let request = GetUnstructuredEventsRequest {
            namespace: "default".to_owned(),
            start_date: Some(to_proto(query.from)),
            end_date: Some(end(query.to)),
            event_types: if query.any_type {
                Vec::new()
            } else {
                source.settings.types.clone()
            },
            limit: query.page_size,
            start_key: query.key.clone(),
            order: query.direction as i32,
        };
        let call = connection.audit.get_unstructured_events(request);
        let call = async { Ok(call.await?.into_inner()) };
        let what = || {
            let (from, to) = (time(query.from), time(query.to));
            format!("answered the search from {from} to {to}")
        };
        match source.timed_log(Some(place), what, call).await {
            Ok(page) => {
                source.status.clear_failure(place);
                return Ok(page);
            }
            Err(Failure::Refused { code, message }) => return Err(Refusal { code, message }),
            Err(failure) => {
                source.connector.failed(connection.id, &failure).await;
                // Several days may be too much to search at once.
                let is_large = query.to - query.from > Day::MILLIS;
                losses += u32::from(matches!(failure, Failure::Lost { .. }));
                let is_lost = losses >= LOSSES_MAX && query.to > query.from;
                if let Some((code, message)) = of_asking_for_too_much(&failure)
                    && (query.gives_up || is_large || is_lost)
                {
                    let message = message.clone();
                    return Err(Refusal { code, message });
                }
                source.status.set_failure(place, failure.to_string());
                source.pause(&mut backoff).await;
            }
        }
    }
}

/// A failure that may come of asking for too much.
fn of_asking_for_too_much(failure: &Failure) -> Option<(Code, &String)> {
    match failure {
        Failure::Lost { reason } => Some((Code::DeadlineExceeded, reason)),
        Failure::Throttled { message } => Some((Code::ResourceExhausted, message)),
        _ => None,
    }
}

/// The last nanosecond of a millisecond: both ends of a window are inclusive, and the next window
/// may be in another day.
fn end(millis: Millis) -> prost_types::Timestamp {
    let start = to_proto(millis);
    prost_types::Timestamp {
        nanos: start.nanos + 999_999,
        ..start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_lost_is_not_called_an_answer() {
        let reason = "the other side of the SSH tunnel closed the connection".to_owned();
        let (code, message) = of_asking_for_too_much(&Failure::Lost {
            reason: reason.clone(),
        })
        .map(|(code, message)| (code, message.clone()))
        .expect("it may be");
        let refusal = Refusal { code, message };
        let text = refusal.to_string();
        assert_eq!(
            refusal.at(0),
            format!("Teleport does not answer at 1970-01-01T00:00:00Z: `{reason}`")
        );
        assert_eq!(text, format!("does not answer: `{reason}`"));
        let refusal = Refusal {
            code: Code::Unknown,
            message: "x".to_owned(),
        };
        assert_eq!(refusal.to_string(), "answers Unknown `x`");
    }
}
