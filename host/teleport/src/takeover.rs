//! Going on where Teleport's Event Handler stopped.

use std::collections::BTreeMap;

use lockgate_model::{CursorUpdate, Day, FeedKind, Millis};
use serde::{Deserialize, Serialize};

use crate::read::{self, Collector, PendingRecording};
use crate::source::Source;
use crate::start::{START, cursor};
use crate::time::{parse_time, time};
use crate::{Closed, Intake, Resume};

/// Present until the last event that the Event Handler has sent was looked for.
const KEY: &str = "handler";
/// The Event Handler's start time: `start-time` may name it later, too.
const BEGAN: &str = "handler/start";
/// How far before its window the Event Handler's last event is looked for: its window moves on
/// while there are no events.
const BEFORE: Millis = 31 * Day::MILLIS;

/// Where the Event Handler stopped, as the files in its state directory say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerPosition {
    /// The time of the first event that it was to read.
    pub start: Option<Millis>,
    /// Of polling: the start of the time range that it was reading.
    pub window: Option<Millis>,
    /// Of polling: the id of the last event that it has sent.
    pub last: Option<String>,
    /// Of bulk export: the chunks of each open date.
    pub dates: BTreeMap<Day, BTreeMap<String, HandlerChunk>>,
    /// Recordings that it has not sent to their ends: the next index, and the time of the upload.
    pub recordings: BTreeMap<String, (i64, Option<Millis>)>,
}

/// How far the Event Handler has read a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerChunk {
    Completed,
    /// Teleport's cursor after the last event that was sent.
    At(String),
}

/// The value of the cursor.
#[derive(Debug, Serialize, Deserialize)]
struct LastSent {
    id: String,
    /// No event before this time is looked at.
    floor: Millis,
}

impl HandlerPosition {
    /// Whether it has read anything, or was asked to.
    pub fn is_known(&self) -> bool {
        self.start.is_some() || !self.dates.is_empty() || !self.recordings.is_empty()
    }

    /// The dates between the open ones that it has no chunks of. It closes them in order, so their
    /// directories are lost: they are read from the start.
    pub fn missing_dates(&self) -> Vec<Day> {
        let missing = self.all_dates().filter(|day| !self.dates.contains_key(day));
        missing.collect()
    }

    fn all_dates(&self) -> impl Iterator<Item = Day> + use<> {
        let first = self.dates.first_key_value().map(|(day, _)| day.0);
        let last = self.dates.last_key_value().map(|(day, _)| day.0);
        let range = first.zip(last).map(|(first, last)| first..=last);
        range.into_iter().flatten().map(Day)
    }

    /// The cursors of a source that goes on from here. `now`: the time of uploads that are not
    /// known.
    pub fn cursors(&self, now: Millis) -> Vec<CursorUpdate> {
        let mut cursors = Vec::new();
        let mut set = |key: &str, value: String| cursors.push(cursor(key, Some(value)));
        let first = self.dates.first_key_value().map(|(day, _)| day.start());
        let start = self.start.or(first);
        if let Some(began) = self.start {
            set(BEGAN, time(began));
        }
        if !self.dates.is_empty() {
            set(START, time(start.unwrap_or(now)));
            // A cluster without bulk export is polled.
            if let Some(from) = self.window.max(self.last.as_ref().and(start)) {
                let last = self.last.clone();
                let polled = read::Polled { from, last };
                set(read::POLLED_BY_HANDLER, json(&polled));
            }
        } else {
            let from = self.window.max(start);
            // Without one, there are only recordings, and the log begins as any other.
            if let Some(from) = from {
                set(START, time(from));
            }
            let from = from.unwrap_or(now);
            cursors.extend(self.last.clone().map(|id| last_sent(id, start, from)));
        }
        let nothing = BTreeMap::new();
        for day in self.all_dates() {
            let chunks = self.dates.get(&day).unwrap_or(&nothing);
            cursors.extend(read::export_cursors(day, chunks));
        }
        for (sid, (next, uploaded)) in &self.recordings {
            let recording = PendingRecording::new(sid, uploaded.unwrap_or(now));
            cursors.push(recording.after(*next).cursor());
        }
        cursors
    }
}

/// The start time of the Event Handler whose position became these cursors.
pub fn handler_began_at(cursors: &BTreeMap<String, String>) -> Option<Millis> {
    parse_time(cursors.get(BEGAN)?)
}

/// The cursor of the last event that the Event Handler has sent: after `from`, or up to 31 days
/// before.
pub(crate) fn last_sent(id: String, start: Option<Millis>, from: Millis) -> CursorUpdate {
    let floor = start.unwrap_or(from).max(from - BEFORE).min(from);
    cursor(KEY, Some(json(&LastSent { id, floor })))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// Finds the last event that the Event Handler has sent, and goes on after it. Events of the same
/// millisecond are read: it is not known which of them were sent.
pub(crate) async fn go_on<I: Intake>(source: &Source<I>, resume: &Resume) -> Result<(), Closed> {
    let stored = resume.cursors.get(KEY);
    let Some(stored) = stored.and_then(|text| serde_json::from_str::<LastSent>(text).ok()) else {
        return Ok(());
    };
    let LastSent { id, floor } = stored;
    let forget = cursor(KEY, None);
    let again = |why: String| {
        tracing::warn!(
            source = &*source.settings.source,
            "the last event that Teleport's Event Handler has sent, `{id}`, {why}. Reading begins \
             at {}, so events after that may be sent twice",
            time(source.start())
        );
    };
    match read::find_event(source, floor, &id).await {
        Ok(Some(at)) => {
            let next = at + 1;
            source.start_at_most(at);
            source.start_at_least(at);
            let mut collector = Collector::audit(source);
            let same = match read::events_at(source, at).await {
                Ok(same) => same,
                Err(refusal) => {
                    again(format!(
                        "was found, and Teleport answers `{}`",
                        refusal.message
                    ));
                    let moved = vec![cursor(START, Some(time(at))), forget];
                    return source.move_cursors(FeedKind::Audit, moved).await;
                }
            };
            for event in same.iter().filter(|event| event.id != id) {
                collector.push(event, None);
                if collector.is_full() {
                    source.store(&mut collector, Vec::new()).await?;
                }
            }
            let moved = vec![cursor(START, Some(time(next))), forget];
            source.store(&mut collector, moved).await?;
            source.start_at_least(next);
            tracing::info!(
                source = &*source.settings.source,
                "going on after the last event that Teleport's Event Handler has sent, `{id}` of {}",
                time(at)
            );
            Ok(())
        }
        Ok(None) => {
            again("was not found".to_owned());
            source.move_cursors(FeedKind::Audit, vec![forget]).await
        }
        // It may answer at the next start.
        Err(refusal) => {
            again(format!(
                "was not found, because Teleport answers `{}`",
                refusal.message
            ));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = Day::MILLIS;

    fn cursors(position: &HandlerPosition) -> BTreeMap<String, String> {
        let cursors = position.cursors(100 * DAY).into_iter();
        cursors
            .map(|cursor| (cursor.key, cursor.value.expect("a value")))
            .collect()
    }

    #[test]
    fn an_export_goes_on_in_each_chunk() {
        let chunks = BTreeMap::from([
            ("a".to_owned(), HandlerChunk::Completed),
            ("b".to_owned(), HandlerChunk::At("a1:47".into())),
        ]);
        let position = HandlerPosition {
            start: Some(DAY),
            window: Some(3 * DAY),
            last: Some("e1".into()),
            dates: BTreeMap::from([(Day(4), chunks), (Day(6), BTreeMap::new())]),
            recordings: BTreeMap::from([("s1".to_owned(), (8, None))]),
        };
        assert_eq!(position.missing_dates(), [Day(5)]);
        let cursors = cursors(&position);
        let expected = [
            ("export/1970-01-05", "open"),
            ("export/1970-01-05/a", "read"),
            ("export/1970-01-05/b", "at:a1:47"),
            ("export/1970-01-06", "open"),
            ("handler/start", "1970-01-02T00:00:00Z"),
            ("export/1970-01-07", "open"),
            ("handler/polled", "{\"from\":259200000,\"last\":\"e1\"}"),
            ("start", "1970-01-02T00:00:00Z"),
        ];
        for (key, value) in expected {
            assert_eq!(cursors.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(cursors["session/s1"].contains("\"next\":8"), "{cursors:?}");
        assert_eq!(cursors.len(), 9, "{cursors:?}");
    }

    #[test]
    fn recordings_alone_do_not_say_where_the_log_begins() {
        let position = HandlerPosition {
            recordings: BTreeMap::from([("s1".to_owned(), (0, None))]),
            ..HandlerPosition::default()
        };
        let keys: Vec<String> = cursors(&position).into_keys().collect();
        assert_eq!(keys, ["session/s1"]);
    }

    #[test]
    fn polling_goes_on_after_the_last_event() {
        let position = |start, window, last: Option<&str>| HandlerPosition {
            start,
            window,
            last: last.map(str::to_owned),
            ..HandlerPosition::default()
        };
        for (position, start, last) in [
            (
                position(Some(DAY), Some(3 * DAY), Some("e1")),
                3,
                Some((DAY, "e1")),
            ),
            (
                position(Some(DAY), Some(90 * DAY), Some("e1")),
                90,
                Some((59 * DAY, "e1")),
            ),
            // Stores of old versions have no window, or one in the year 1.
            (position(Some(DAY), None, Some("e1")), 1, Some((DAY, "e1"))),
            (position(Some(DAY), Some(-700_000 * DAY), None), 1, None),
        ] {
            let cursors = cursors(&position);
            assert_eq!(cursors[START], time(start * DAY), "{position:?}");
            let stored = cursors
                .get(KEY)
                .map(|text| serde_json::from_str::<LastSent>(text).unwrap());
            let stored = stored.as_ref().map(|last| (last.floor, last.id.as_str()));
            assert_eq!(stored, last, "{position:?}");
        }
    }
}
