//! The cursors of a bulk export.

use std::collections::{BTreeMap, HashMap};

use lockgate_model::{CursorUpdate, Day, Millis};

use crate::time::parse_time;
use crate::{HandlerChunk, Resume};

/// Prefix of the cursor keys of bulk export.
pub(crate) const PREFIX: &str = "export/";
/// Prefix of the keys that say since when a chunk cannot be read.
pub(crate) const REFUSED: &str = "refused/";
/// The value of a date's cursor.
pub(super) const OPEN: &str = "open";
const READ: &str = "read";
const AT: &str = "at:";

/// The position in a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The server's cursor; empty at the start.
    At(String),
    Read,
}

/// The chunks of a date that have been begun.
pub(super) type Chunks = HashMap<String, Position>;

pub(super) fn date_key(day: Day) -> String {
    format!("{PREFIX}{day}")
}

pub(super) fn chunk_key(day: Day, chunk: &str) -> String {
    format!("{PREFIX}{day}/{chunk}")
}

/// The key that says since when a chunk cannot be read, by the key of the chunk.
pub(super) fn refused_key(chunk_key: &str) -> String {
    format!("{REFUSED}{chunk_key}")
}

/// Since when chunks cannot be read, by their keys.
pub(crate) fn refused(resume: &Resume) -> BTreeMap<String, Millis> {
    let stored = resume.cursors.range(REFUSED.to_owned()..);
    stored
        .map_while(|(key, value)| Some((key.strip_prefix(REFUSED)?, value)))
        .filter_map(|(key, value)| Some((key.to_owned(), parse_time(value)?)))
        .collect()
}

pub(super) fn update(day: Day, chunk: &str, position: &Position) -> CursorUpdate {
    let value = match position {
        Position::At(cursor) => format!("{AT}{cursor}"),
        Position::Read => READ.to_owned(),
    };
    CursorUpdate {
        key: chunk_key(day, chunk),
        value: Some(value),
    }
}

/// The cursors of a date that Teleport's Event Handler has begun.
pub(crate) fn handler_cursors(
    day: Day,
    chunks: &BTreeMap<String, HandlerChunk>,
) -> impl Iterator<Item = CursorUpdate> + '_ {
    let open = CursorUpdate {
        key: date_key(day),
        value: Some(OPEN.to_owned()),
    };
    let chunks = chunks.iter().map(move |(chunk, read)| {
        let position = match read {
            HandlerChunk::Completed => Position::Read,
            HandlerChunk::At(cursor) => Position::At(cursor.clone()),
        };
        update(day, chunk, &position)
    });
    std::iter::once(open).chain(chunks)
}

/// The open dates and their chunks, from the store. A cursor that cannot be parsed is ignored, so
/// its chunk is read again.
pub(super) fn stored(resume: &Resume) -> BTreeMap<Day, Chunks> {
    let mut dates: BTreeMap<Day, Chunks> = BTreeMap::new();
    for (key, value) in &resume.cursors {
        let Some(rest) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let (date, chunk) = rest
            .split_once('/')
            .map_or((rest, None), |(date, chunk)| (date, Some(chunk)));
        let Some(day) = day(date) else { continue };
        let chunks = dates.entry(day).or_default();
        let position = match value.strip_prefix(AT) {
            Some(cursor) => Position::At(cursor.to_owned()),
            None if value == READ => Position::Read,
            None => continue,
        };
        if let Some(chunk) = chunk {
            chunks.insert(chunk.to_owned(), position);
        }
    }
    dates
}

/// The oldest open date of the cursors.
pub(crate) fn first_date(cursors: &BTreeMap<String, String>) -> Option<Day> {
    let keys = cursors.keys().filter_map(|key| key.strip_prefix(PREFIX));
    keys.filter_map(|rest| day(rest.split('/').next()?)).min()
}

fn day(date: &str) -> Option<Day> {
    let start: Millis = parse_time(&format!("{date}T00:00:00Z"))?;
    Some(Day::of(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_written() {
        let day = Day::of(1_767_600_000_000);
        let positions = [
            ("c-1", Position::At("a1:47".into())),
            ("c/2", Position::Read),
            ("c-3", Position::At(String::new())),
        ];
        let mut resume = Resume::default();
        resume.cursors.insert(date_key(day), OPEN.into());
        resume.cursors.insert(date_key(Day(day.0 + 1)), OPEN.into());
        resume.cursors.insert("poll/until".into(), "x".into());
        resume
            .cursors
            .insert("export/yesterday".into(), OPEN.into());
        for (chunk, position) in &positions {
            let update = update(day, chunk, position);
            resume
                .cursors
                .insert(update.key, update.value.expect("a value"));
        }
        assert_eq!(date_key(day), "export/2026-01-05");
        let chunks = positions
            .into_iter()
            .map(|(chunk, position)| (chunk.to_owned(), position))
            .collect();
        assert_eq!(
            stored(&resume),
            BTreeMap::from([(day, chunks), (Day(day.0 + 1), Chunks::default())])
        );
    }
}
