//! The searches of the simulated server.

use std::sync::Arc;

use lockgate_model::Millis;
use lockgate_teleport::proto::auditlog::{
    EventUnstructured, EventsUnstructured, GetUnstructuredEventsRequest,
};
use prost_types::Timestamp;

use super::{Page, time_of};
use crate::fixture::SimulatedClock;

/// Answers a search; given the events, and how many searches there were before.
pub type Search =
    Box<dyn FnMut(&GetUnstructuredEventsRequest, &[EventUnstructured], usize) -> Page + Send>;

/// A page has fewer bytes than this; a larger event makes an empty page without a key.
pub const PAGE_BYTES: usize = 100_000;

/// Like Teleport's file backend: sorts by time, again and unstably for each page; both ends of a
/// window are inclusive; the key is the uid of the last event of a page; an unknown key makes an
/// empty page.
pub fn file_backend() -> Search {
    Box::new(|request, events, calls| Ok(search(request, events, calls)))
}

/// An event that becomes visible at some time.
#[derive(Clone)]
pub struct Planned {
    pub visible: Millis,
    pub event: EventUnstructured,
}

/// A log that grows by a plan, while each answer takes some time.
pub fn growing(clock: Arc<SimulatedClock>, plan: Vec<Planned>, answer: Millis) -> Search {
    Box::new(move |request, _, calls| {
        clock.pass(answer);
        let now = clock.time();
        let visible = plan.iter().filter(|planned| planned.visible <= now);
        let visible: Vec<_> = visible.map(|planned| planned.event.clone()).collect();
        Ok(search(request, &visible, calls))
    })
}

/// The answer of [`file_backend`].
pub fn search(
    request: &GetUnstructuredEventsRequest,
    events: &[EventUnstructured],
    calls: usize,
) -> EventsUnstructured {
    let (from, to) = (instant(request.start_date), instant(request.end_date));
    let wanted = |event: &&EventUnstructured| {
        let time = instant(event.time);
        from <= time
            && time <= to
            && (request.event_types.is_empty() || request.event_types.contains(&event.r#type))
    };
    let mut found: Vec<&EventUnstructured> = events.iter().filter(wanted).collect();
    // Equal times are in another order on each page.
    found.sort_by_key(|event| {
        (
            time_of(event),
            event
                .id
                .bytes()
                .map(|byte| u64::from(byte) * (calls as u64 + 7) % 31)
                .sum::<u64>(),
        )
    });
    if request.order == 1 {
        found.reverse();
    }
    let start = match request.start_key.as_str() {
        "" => 0,
        key => found
            .iter()
            .position(|event| event.id == key)
            .map_or(found.len(), |at| at + 1),
    };
    let mut page = EventsUnstructured::default();
    let mut bytes = 0;
    for event in &found[start..] {
        bytes += event.unstructured.len();
        let is_full = page.items.len() as i32 == request.limit || bytes >= PAGE_BYTES;
        if is_full {
            page.last_key = page
                .items
                .last()
                .map(|last: &EventUnstructured| last.id.clone())
                .unwrap_or_default();
            return page;
        }
        page.items.push((*event).clone());
    }
    if page.items.len() as i32 == request.limit {
        page.last_key = page
            .items
            .last()
            .map(|last| last.id.clone())
            .unwrap_or_default();
    }
    page
}

fn instant(time: Option<Timestamp>) -> (i64, i32) {
    let time = time.unwrap_or_default();
    (time.seconds, time.nanos)
}
