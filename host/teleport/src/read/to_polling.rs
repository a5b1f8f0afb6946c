//! Polling a log of which a part was exported: the Auth Service has another backend now, or the
//! position is that of an Event Handler which read from another one.

use std::collections::BTreeMap;

use lockgate_model::{CursorUpdate, FeedKind, Gap, GapState, Millis};
use serde::{Deserialize, Serialize};

use super::export::{PREFIX, REFUSED, first_date};
use super::poll::UNTIL;
use crate::source::Source;
use crate::start::{START, cursor};
use crate::takeover;
use crate::time::{parse_time, time};
use crate::{Closed, Intake, Resume};

/// Cursor key: where the Event Handler would poll, if it has exported since.
pub(crate) const HANDLER: &str = "handler/polled";
/// Cursor key: where polling began after an export. What is older was read by the export.
const FROM: &str = "poll-from";

/// Where the Event Handler would poll. Everything before it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Polled {
    pub(crate) from: Millis,
    /// The last event that it has sent while it polled.
    pub(crate) last: Option<String>,
}

/// Where these cursors of a bulk export let polling begin: everything before was read. `None`: they
/// are not those of an export.
pub fn polling_begins_at(cursors: &BTreeMap<String, String>) -> Option<Millis> {
    position(cursors).map(|polled| polled.from)
}

/// Where polling began, if the log was exported before.
pub(crate) fn polled_from(cursors: &BTreeMap<String, String>) -> Option<Millis> {
    parse_time(cursors.get(FROM)?)
}

/// Replaces the position of an export by one that polling goes on from: nothing is missed, and what
/// the export has read of its open dates may come again.
pub(crate) async fn poll_after_export<I: Intake>(
    source: &Source<I>,
    resume: &Resume,
) -> Result<Resume, Closed> {
    let mut resume = resume.clone();
    let Some(Polled { from, last }) = position(&resume.cursors) else {
        return Ok(resume);
    };
    source.status.report_repeat(format!(
        "the stored position is that of a bulk export, and Teleport does not offer bulk export: \
         reading goes on by polling, from {} on. No event is missed; events after that time which \
         were sent before are sent twice, unless they are still in the store",
        time(from)
    ));
    let is_of_export = |key: &&String| {
        key.starts_with(PREFIX) || key.starts_with(REFUSED) || key.as_str() == HANDLER
    };
    let old: Vec<String> = resume
        .cursors
        .keys()
        .filter(is_of_export)
        .cloned()
        .collect();
    let mut moved: Vec<CursorUpdate> = old.iter().map(|key| cursor(key, None)).collect();
    moved.push(cursor(UNTIL, Some(time(from))));
    moved.push(cursor(FROM, Some(time(from))));
    let start = resume.cursors.get(START).and_then(|text| parse_time(text));
    moved.extend(last.map(|id| takeover::last_sent(id, start, from)));
    source.move_cursors(FeedKind::Audit, moved.clone()).await?;
    for CursorUpdate { key, value } in moved {
        match value {
            Some(value) => resume.cursors.insert(key, value),
            None => resume.cursors.remove(&key),
        };
    }
    // What could not be exported is polled: a part that Teleport still refuses is a gap of its own.
    for gap in source.gaps.beginning(PREFIX) {
        let at = source.now();
        let state = GapState::Read { at, events: 0 };
        source.note_gap(Gap { state, ..gap }).await?;
    }
    Ok(resume)
}

fn position(cursors: &BTreeMap<String, String>) -> Option<Polled> {
    let start = cursors.get(START).and_then(|text| parse_time(text));
    let first = first_date(cursors)?
        .start()
        .max(start.unwrap_or(Millis::MIN));
    let polled = cursors.get(HANDLER);
    let polled = polled.and_then(|text| serde_json::from_str::<Polled>(text).ok());
    // Both are true; the later one repeats less.
    Some(
        polled
            .filter(|polled| polled.from >= first)
            .unwrap_or(Polled {
                from: first,
                last: None,
            }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_begins_at_the_later_of_two_positions() {
        let day = |day: u32| format!("2026-01-{day:02}T00:00:00Z");
        let at = |day_of: u32| parse_time(&day(day_of)).unwrap();
        let polled = |day_of| {
            let polled = Polled {
                from: at(day_of),
                last: Some("e1".to_owned()),
            };
            serde_json::to_string(&polled).unwrap()
        };
        for (cursors, expected) in [
            (vec![(START, day(1))], None),
            (
                vec![("export/2026-01-05/a", "read".to_owned())],
                Some((5, false)),
            ),
            (
                vec![("export/2026-01-05", "open".to_owned()), (START, day(6))],
                Some((6, false)),
            ),
            (
                vec![
                    ("export/2026-01-05", "open".to_owned()),
                    (HANDLER, polled(4)),
                ],
                Some((5, false)),
            ),
            (
                vec![
                    ("export/2026-01-05", "open".to_owned()),
                    (HANDLER, polled(5)),
                ],
                Some((5, true)),
            ),
        ] {
            let cursors: BTreeMap<String, String> = cursors
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
            let found = position(&cursors).map(|found| (found.from, found.last.is_some()));
            let expected = expected.map(|(day, has_last)| (at(day), has_last));
            assert_eq!(found, expected, "{cursors:?}");
        }
    }
}
