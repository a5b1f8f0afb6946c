//! The files in the state directory of Teleport's Event Handler.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockgate_model::{Day, Millis};
use lockgate_teleport::{HandlerChunk, HandlerPosition, of_rfc3339};

use super::TakeoverError;

const START: &str = "start_time";
const WINDOW: &str = "window_time";
const LAST: &str = "id";
const EXPORT: &str = "cursor_v2";
const COMPLETED: &str = "completed-chunks";
const PARTIAL: &str = ".chunk";
const SESSION: &str = "session";
const MISSING: &str = "missing_recording";

/// The Event Handler's start time. `None`: there is none.
pub(super) fn handler_start_time(state: &Path) -> Result<Option<Millis>, TakeoverError> {
    time(&state.join(START))
}

/// Where the Event Handler stopped. `None`: it has never run there.
pub fn handler_position(state: &Path) -> Result<Option<HandlerPosition>, TakeoverError> {
    let mut position = HandlerPosition {
        start: time(&state.join(START))?,
        window: time(&state.join(WINDOW))?,
        last: text(&state.join(LAST))?,
        ..HandlerPosition::default()
    };
    for (name, path) in entries(&state.join(EXPORT))? {
        if let Some(day) = parse_time(&format!("{name}T00:00:00Z")) {
            position.dates.insert(Day::of(day), chunks(&path)?);
        }
    }
    for (name, path) in entries(state)? {
        let recording = |prefix: &str| name.strip_prefix(prefix).filter(|sid| !sid.is_empty());
        if let Some(sid) = recording(MISSING) {
            let missing = missing(&path)?;
            position.recordings.entry(sid.to_owned()).or_insert(missing);
        } else if let Some(sid) = recording(SESSION) {
            position
                .recordings
                .insert(sid.to_owned(), (next_index(&path)?, None));
        }
    }
    // Without a start, what polling has sent would be taken for nothing.
    let is_polled = position.window.is_some() || position.last.is_some();
    if is_polled && position.start.is_none() && position.dates.is_empty() {
        let path = state.join(START);
        return Err(TakeoverError::NoTime { path });
    }
    Ok(position.is_known().then_some(position))
}

fn chunks(date: &Path) -> Result<BTreeMap<String, HandlerChunk>, TakeoverError> {
    let mut chunks = BTreeMap::new();
    for (name, path) in entries(date)? {
        if let Some(chunk) = name.strip_suffix(PARTIAL) {
            let cursor = text(&path)?.unwrap_or_default();
            chunks.insert(chunk.to_owned(), HandlerChunk::At(cursor));
        }
    }
    let completed = text(&date.join(COMPLETED))?.unwrap_or_default();
    for chunk in completed
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        chunks.insert(chunk.to_owned(), HandlerChunk::Completed);
    }
    Ok(chunks)
}

/// The index after that of the last event which was sent. An empty file, and the index 0, are
/// those of a recording that may not have been begun.
fn next_index(path: &Path) -> Result<i64, TakeoverError> {
    let bytes = read(path)?.unwrap_or_default();
    let index = <[u8; 8]>::try_from(&bytes[..]).map_or(0, u64::from_be_bytes);
    Ok(match i64::try_from(index) {
        Ok(0) | Err(_) => 0,
        Ok(index) => index + 1,
    })
}

fn missing(path: &Path) -> Result<(i64, Option<Millis>), TakeoverError> {
    let bytes = read(path)?.unwrap_or_default();
    // What cannot be read is downloaded from its start.
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let field = |name: &str| {
        let object = value.as_object()?;
        let mut fields = object.iter();
        fields.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let index = field("Index")
        .and_then(serde_json::Value::as_i64)
        .unwrap_or(0);
    let uploaded = field("Timestamp").and_then(|value| parse_time(value.as_str()?));
    let next = if index > 0 { index + 1 } else { 0 };
    Ok((next, uploaded))
}

/// `None`: there is no such file, or it is empty.
fn time(path: &Path) -> Result<Option<Millis>, TakeoverError> {
    let Some(text) = text(path)? else {
        return Ok(None);
    };
    let time = parse_time(&text);
    let path = || path.to_owned();
    time.map(Some)
        .ok_or_else(|| TakeoverError::NoTime { path: path() })
}

pub(super) fn parse_time(text: &str) -> Option<Millis> {
    of_rfc3339(text.trim())
}

fn text(path: &Path) -> Result<Option<String>, TakeoverError> {
    let bytes = read(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok((!text.is_empty()).then_some(text))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TakeoverError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(unreadable(path, source)),
    }
}

/// Names and paths of what is in a directory; nothing if there is none.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, TakeoverError> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(directory, source)),
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|source| unreadable(directory, source))?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

fn unreadable(path: &Path, source: io::Error) -> TakeoverError {
    TakeoverError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::takeover::describe;

    const DAY: &str = "2026-01-05";

    fn state(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn a_directory_without_state_has_no_position() {
        let empty = state(&[("session", b""), ("lockgate/store.db", b"x")]);
        assert_eq!(handler_position(empty.path()).unwrap(), None);
        assert_eq!(handler_position(Path::new("/nowhere")).unwrap(), None);
    }

    /// It was taken for no position, and nothing of what had not been sent was read.
    #[test]
    fn a_position_without_its_start_is_refused() {
        for (name, content) in [("id", "e1"), ("window_time", "2026-01-05T00:00:00Z")] {
            let dir = state(&[("start_time", b""), (name, content.as_bytes())]);
            let refused = handler_position(dir.path()).unwrap_err();
            assert!(matches!(&refused, TakeoverError::NoTime { path } if path.ends_with(START)));
            fs::remove_file(dir.path().join(START)).unwrap();
            handler_position(dir.path()).unwrap_err();
        }
    }

    #[test]
    fn the_state_of_polling_is_read() {
        let index = |index: u64| index.to_be_bytes();
        let missing = br#"{"Index":7,"Attempt":1,"Timestamp":"2026-01-05T01:00:00Z"}"#;
        let dir = state(&[
            ("start_time", b"2026-01-01T00:00:00Z"),
            ("window_time", b"2026-01-05T00:00:00Z"),
            ("cursor", b"key"),
            ("id", b"e1\n"),
            ("session", b""),
            ("sessions1", &index(0)),
            ("sessions2", &index(41)),
            ("missing_recordings3", missing),
        ]);
        let position = handler_position(dir.path()).unwrap().unwrap();
        let at = |text| parse_time(text);
        assert_eq!(position.start, at("2026-01-01T00:00:00Z"));
        assert_eq!(position.window, at("2026-01-05T00:00:00Z"));
        assert_eq!(position.last.as_deref(), Some("e1"));
        let uploaded = at("2026-01-05T01:00:00Z");
        let recordings = [("s1", (0, None)), ("s2", (42, None)), ("s3", (8, uploaded))];
        let recordings = recordings.map(|(sid, next)| (sid.to_owned(), next));
        assert_eq!(position.recordings, BTreeMap::from(recordings));
        assert_eq!(
            describe(&position, true),
            "after the event `e1`; 3 recordings to send"
        );
        let kept = describe(&position, false);
        assert!(kept.contains("3 recordings not sent to the end"), "{kept}");
    }

    #[test]
    fn the_state_of_an_export_is_read() {
        let completed = format!("cursor_v2/{DAY}/completed-chunks");
        let (begun, read) = (
            format!("cursor_v2/{DAY}/c.chunk"),
            format!("cursor_v2/{DAY}/a.chunk"),
        );
        let dir = state(&[
            ("start_time", b"2026-01-01T00:00:00Z"),
            (&completed, b"a\nb\n"),
            (&begun, b"a1:47"),
            (&read, b"a1:3"),
        ]);
        for more in ["2026-01-06", "2026-01-07"] {
            fs::create_dir(dir.path().join("cursor_v2").join(more)).unwrap();
        }
        let position = handler_position(dir.path()).unwrap().unwrap();
        let chunks: Vec<_> = position.dates.values().map(BTreeMap::len).collect();
        assert_eq!(chunks, [3, 0, 0]);
        let first = position.dates.values().next().unwrap();
        assert_eq!(first["a"], HandlerChunk::Completed);
        assert_eq!(first["c"], HandlerChunk::At("a1:47".into()));
        let described = "bulk export from 2026-01-05 on, 2 chunks read, 1 begun";
        assert_eq!(describe(&position, true), described);

        // A position that is lost is told.
        fs::remove_dir(dir.path().join("cursor_v2/2026-01-06")).unwrap();
        fs::write(dir.path().join(begun), b"").unwrap();
        let told = describe(&handler_position(dir.path()).unwrap().unwrap(), true);
        for part in ["no state of 2026-01-06, read", "no position in `c`, read"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_file_without_a_time_is_named() {
        let dir = state(&[("start_time", b"soon")]);
        let error = handler_position(dir.path()).unwrap_err().to_string();
        assert!(error.contains("start_time` holds no time"), "{error}");
    }
}
