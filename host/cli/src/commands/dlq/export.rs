//! `lockgate dlq export`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use lockgate_store::KeptLetter;
use serde::Serialize;
use serde_json::value::RawValue;

use super::select::{self, Filter};
use super::{letters, rfc3339};
use crate::failure::Failure;
use crate::place::Place;
use crate::{print, setup};

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    filter: Filter,

    /// Write to this new file, which only its owner can read, instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One line. Its members keep this order.
#[derive(Serialize)]
struct Line<'a> {
    pipeline: &'a str,
    stream: &'a str,
    seq: u64,
    at: String,
    cause: &'a str,
    reason: &'a str,
    /// The event as Teleport's JSON …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    /// … or its bytes if they could not be turned into JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_base64: Option<String>,
}

pub(crate) fn run(command: &Export) -> Result<(), Failure> {
    let inspector = command.place.inspector()?;
    command.place.check_pipeline(&command.filter, &inspector)?;
    let mut out = match &command.out {
        Some(path) => Some((path, create(path)?)),
        None => None,
    };
    let mut count = 0;
    let query = command.filter.query(setup::now());
    let found = select::each(&inspector, query, usize::MAX, |kept| {
        count += 1;
        let line = line(&kept)?;
        match &mut out {
            Some((path, file)) => file
                .write_all(line.as_bytes())
                .map_err(|error| cannot_write(path, &error)),
            None => print::data(&line),
        }
    })?;
    if let Some((path, file)) = out {
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|error| cannot_write(path, &error))?;
    }
    print::problem(&format!("Exported {}.", letters(count)));
    found.end()
}

fn line(kept: &KeptLetter) -> Result<String, Failure> {
    let letter = &kept.letter;
    let event = if letter.raw {
        None
    } else {
        json(&letter.payload)
    };
    let event_base64 = event.is_none().then(|| STANDARD.encode(&letter.payload));
    let line = Line {
        pipeline: &kept.pipeline,
        stream: &kept.stream,
        seq: letter.seq,
        at: rfc3339(kept.at),
        cause: &letter.cause,
        reason: &letter.reason,
        event,
        event_base64,
    };
    let json = serde_json::to_string(&line).map_err(Failure::failed)?;
    Ok(format!("{json}\n"))
}

/// The text as it stands, on one line: between JSON's tokens a space is as good as a newline, and
/// inside of them there is none.
fn json(payload: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(payload).ok()?;
    RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match file {
        Ok(file) => Ok(BufWriter::new(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::usage(format!(
            "`--out {}`: the file already exists. Nothing was written.",
            path.display()
        ))
        .hint("name a new file, or remove this one first")),
        Err(error) => Err(cannot_write(path, &error)),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("`{}` cannot be written: {error}.", path.display()))
}

#[cfg(test)]
mod tests {
    use lockgate_model::{DeadLetter, FeedKind};
    use lockgate_store::{KeptLetter, LetterId};

    use super::line;

    fn kept(payload: &[u8], raw: bool) -> KeptLetter {
        KeptLetter {
            id: LetterId(1),
            pipeline: "siem".to_owned(),
            stream: "teleport/audit".to_owned(),
            feed: FeedKind::Audit,
            epoch: 1,
            generation: 1,
            at: 1_767_225_600_250,
            letter: DeadLetter {
                seq: 7,
                cause: "sink".to_owned(),
                reason: "refused \"it\"".to_owned(),
                payload: payload.to_vec(),
                raw,
                ..DeadLetter::default()
            },
        }
    }

    #[test]
    fn an_event_is_exported_byte_for_byte_on_one_line() {
        let head = concat!(
            r#"{"pipeline":"siem","stream":"teleport/audit","seq":7,"#,
            r#""at":"2026-01-01T00:00:00.250Z","cause":"sink","reason":"refused \"it\"","#
        );
        for (payload, raw, rest) in [
            (
                &br#"{"z":1.50,"a":"\n"}"#[..],
                false,
                r#""event":{"z":1.50,"a":"\n"}}"#,
            ),
            (b"{\n\"a\":1}", false, r#""event":{ "a":1}}"#),
            (b"{\"a\":1}", true, r#""event_base64":"eyJhIjoxfQ=="}"#),
            (b"\xff", false, r#""event_base64":"/w=="}"#),
        ] {
            assert_eq!(
                line(&kept(payload, raw)).unwrap(),
                format!("{head}{rest}\n")
            );
        }
    }
}
