//! Session recordings. Each `session.upload` event is stored together with a cursor,
//! `session/<sid>`. The recording is downloaded later. Its cursor then says how far, for the case
//! that it is announced again: an upload that was interrupted is made up for. Teleport writes an
//! event each time a recording is opened, so retries are slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, FeedKind, Millis};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::source::Source;
use crate::status::RECORDINGS;
use crate::{Closed, Intake, Resume};

mod known;
mod stream;

pub(crate) use known::{Announced, KnownRecordings};
use stream::DownloadEnd;

pub(crate) const PREFIX: &str = "session/";

/// Time between two looks for recordings that were downloaded long ago.
const FORGET: Duration = Duration::from_secs(3600);

/// Interval of checks whether an outdated server has been replaced.
const IDLE: Duration = Duration::from_secs(5);

/// A recording to download, completely or from an index on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingRecording {
    pub(crate) sid: String,
    state: RecordingCursor,
}

/// The value of its cursor, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RecordingCursor {
    /// Index of the next event to read.
    next: i64,
    /// Time of the `session.upload` event.
    uploaded: Millis,
    /// Failed attempts since the last progress.
    attempts: u32,
    /// The next attempt must not begin before this time.
    not_before: Millis,
    /// One more than the highest index read.
    #[serde(default)]
    top: i64,
    /// It was downloaded to its end, or given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    done: bool,
}

impl PendingRecording {
    pub(crate) fn new(sid: &str, uploaded: Millis) -> PendingRecording {
        PendingRecording {
            sid: sid.to_owned(),
            state: RecordingCursor {
                uploaded,
                ..RecordingCursor::default()
            },
        }
    }

    pub(crate) fn cursor(&self) -> CursorUpdate {
        let value = serde_json::to_string(&self.state).expect("numbers are JSON");
        CursorUpdate {
            key: self.key(),
            value: Some(value),
        }
    }

    /// From an index on.
    pub(crate) fn after(self, next: i64) -> PendingRecording {
        PendingRecording {
            state: RecordingCursor {
                next,
                top: next,
                uploaded: self.state.uploaded,
                ..RecordingCursor::default()
            },
            ..self
        }
    }

    /// The recordings in the store that are still to be downloaded, or to be looked at again.
    pub(crate) fn stored(resume: &Resume) -> Vec<PendingRecording> {
        PendingRecording::all(resume)
            .filter(|recording| !recording.state.done || known::is_again(resume, &recording.sid))
            .map(|recording| match recording.state.done {
                true => {
                    let next = recording.state.next;
                    recording.after(next)
                }
                false => recording,
            })
            .collect()
    }

    /// The recordings in the store. One whose cursor cannot be parsed is downloaded from its start.
    fn all(resume: &Resume) -> impl Iterator<Item = PendingRecording> + '_ {
        let entries = resume
            .cursors
            .range(PREFIX.to_owned()..)
            .take_while(|(key, _)| key.starts_with(PREFIX));
        entries.map(|(key, value)| PendingRecording {
            sid: key[PREFIX.len()..].to_owned(),
            state: serde_json::from_str(value).unwrap_or_default(),
        })
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.sid)
    }

    /// Its cursor from now on.
    fn done(&self) -> CursorUpdate {
        let state = RecordingCursor {
            next: self.state.next.max(self.state.top),
            uploaded: self.state.uploaded,
            done: true,
            ..RecordingCursor::default()
        };
        let done = PendingRecording {
            sid: self.sid.clone(),
            state,
        };
        done.cursor()
    }
}

/// Downloads recordings as they are announced, several at a time. Ends when no more will be
/// announced and every recording that is available now has been read.
pub(crate) async fn download<I: Intake>(
    source: Arc<Source<I>>,
    stored: Vec<PendingRecording>,
    mut announced: UnboundedReceiver<PendingRecording>,
) -> Result<(), Closed> {
    // Sorted by the time at which they are due.
    let mut queue: BTreeMap<(Millis, String), PendingRecording> = BTreeMap::new();
    let enqueue = |queue: &mut BTreeMap<_, _>, pending: PendingRecording| {
        queue.insert((pending.state.not_before, pending.sid.clone()), pending)
    };
    for pending in stored {
        enqueue(&mut queue, pending);
    }
    let mut running = JoinSet::new();
    let mut open = true;
    // The connection whose server does not support the call. A later connection may lead to a newer
    // server.
    let mut too_old: Option<u64> = None;
    let mut reported = false;
    let mut forget_at = Duration::ZERO;
    loop {
        if source.settings.clock.elapsed() >= forget_at {
            forget_at = source.settings.clock.elapsed() + FORGET;
            let removed = source.known_recordings.forget(source.now());
            if !removed.is_empty() {
                source.move_cursors(FeedKind::Sessions, removed).await?;
            }
        }
        source
            .status
            .update(|status| status.recordings_pending = (queue.len() + running.len()) as u64);
        let now = source.now();
        while too_old.is_none()
            && running.len() < source.settings.limits.recordings.max(1)
            && let Some(entry) = queue.first_entry()
            && entry.key().0 <= now
        {
            let pending = entry.remove();
            let source = source.clone();
            running.spawn(async move { stream::read(&source, pending).await });
        }
        if !open && running.is_empty() {
            return Ok(());
        }
        let due = queue
            .first_key_value()
            .map_or(Millis::MAX, |((due, _), _)| *due);
        // If no download can start, due recordings do not wait for a certain time.
        let can_begin =
            too_old.is_none() && running.len() < source.settings.limits.recordings.max(1);
        let wait = if can_begin {
            Duration::from_millis((due - now).clamp(1, 60_000) as u64)
        } else {
            IDLE
        };
        tokio::select! {
            pending = announced.recv(), if open => match pending {
                Some(pending) => {
                    enqueue(&mut queue, pending);
                }
                None => open = false,
            },
            Some(ended) = running.join_next() => match ended.expect("a download neither panics nor is aborted")? {
                DownloadEnd::Done => {}
                DownloadEnd::Later(pending) => {
                    enqueue(&mut queue, pending);
                }
                DownloadEnd::Unsupported(pending, connection) => {
                    enqueue(&mut queue, pending);
                    too_old = Some(connection);
                    source.status.set_failure(
                        RECORDINGS,
                        "this version of Teleport cannot send session recordings".to_owned(),
                    );
                    if !std::mem::replace(&mut reported, true) {
                        source.status.report(
                            "this version of Teleport cannot send session recordings (it lacks \
                             `StreamUnstructuredSessionEvents`). They stay pending until it is \
                             upgraded. To do without them, remove `sessions` from every pipeline"
                                .to_owned(),
                        );
                    }
                }
            },
            () = tokio::time::sleep(wait) => {}
        }
        if too_old.is_some() && too_old != Some(source.connector.newest()) {
            too_old = None;
            source.status.clear_failure(RECORDINGS);
        }
    }
}

/// The wait after this many attempts: it triples each time.
fn wait(attempts: u32, (first, max): (Duration, Duration)) -> Duration {
    first
        .saturating_mul(3u32.saturating_pow(attempts.min(10)))
        .min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_recordings_are_restored_from_their_cursors() {
        let fresh = PendingRecording::new("7f3", 5);
        let begun = PendingRecording {
            sid: "a/b".into(),
            state: RecordingCursor {
                next: 47,
                uploaded: 6,
                attempts: 2,
                not_before: 9,
                top: 47,
                done: false,
            },
        };
        let mut resume = Resume::default();
        for pending in [&fresh, &begun] {
            let update = pending.cursor();
            resume
                .cursors
                .insert(update.key, update.value.expect("a value"));
        }
        resume.cursors.insert("sessionx".into(), "{}".into());
        resume
            .cursors
            .insert("start".into(), "2026-01-05T00:00:00Z".into());
        assert_eq!(PendingRecording::stored(&resume), [fresh, begun.clone()]);
        let done = begun.done();
        assert_eq!(done.key, "session/a/b");
        resume
            .cursors
            .insert(done.key, done.value.expect("a value"));
        assert_eq!(PendingRecording::stored(&resume).len(), 1);
    }

    #[test]
    fn waits_triple_up_to_the_longest() {
        let limits = (Duration::from_secs(60), Duration::from_secs(6 * 3600));
        let minutes: Vec<u64> = (0..8)
            .map(|attempts| wait(attempts, limits).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [1, 3, 9, 27, 81, 243, 360, 360]);
    }
}
