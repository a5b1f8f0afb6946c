//! Finding an event by its id, newest first.

use lockgate_model::{Day, Millis};

use super::page::{Direction, Query, Refusal, fetch};
use super::{FAR, newest_event};
use crate::Intake;
use crate::proto::auditlog::EventUnstructured;
use crate::source::Source;
use crate::time::of_proto;

/// The largest time range that is searched at once.
const RANGE_MAX: Millis = 31 * Day::MILLIS;

/// The time of the newest event with this id, if it is not before `from`.
pub(crate) async fn find_event<I: Intake>(
    source: &Source<I>,
    from: Millis,
    id: &str,
) -> Result<Option<Millis>, Refusal> {
    let Some(newest) = newest_event(source, from, source.now().max(from) + FAR).await? else {
        return Ok(None);
    };
    let (mut to, mut range) = (newest, Day::MILLIS);
    let mut key = String::new();
    while to >= from {
        let query = Query {
            from: from.max(to - range),
            to,
            page_size: source.settings.limits.page,
            key: std::mem::take(&mut key),
            direction: Direction::NewestFirst,
            any_type: true,
            ..Query::default()
        };
        let page = fetch(source, &query).await?;
        let times = page.items.iter().map(|event| of_proto(event.time.as_ref()));
        if let Some(event) = page.items.iter().find(|event| event.id == id) {
            return Ok(Some(of_proto(event.time.as_ref())));
        }
        (to, key) = match times.min() {
            // The rest of the page's last millisecond comes again: keys are for equal times only.
            Some(earliest) if earliest < to => (earliest, String::new()),
            Some(_) if !page.last_key.is_empty() && page.last_key != query.key => {
                (to, page.last_key)
            }
            Some(_) => (to - 1, String::new()),
            None => {
                range = (range * 4).min(RANGE_MAX);
                (query.from - 1, String::new())
            }
        };
    }
    Ok(None)
}

/// All events of a millisecond.
pub(crate) async fn events_at<I: Intake>(
    source: &Source<I>,
    at: Millis,
) -> Result<Vec<EventUnstructured>, Refusal> {
    let mut events = Vec::new();
    let mut query = Query {
        from: at,
        to: at,
        page_size: source.settings.limits.page,
        ..Query::default()
    };
    loop {
        let page = fetch(source, &query).await?;
        let is_last =
            page.items.is_empty() || page.last_key.is_empty() || page.last_key == query.key;
        events.extend(page.items);
        if is_last {
            return Ok(events);
        }
        query.key = page.last_key;
    }
}
