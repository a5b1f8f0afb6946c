//! The recordings of a source that are known, so that each of their events is read once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockgate_model::{CursorUpdate, Millis};

use super::{PendingRecording, RecordingCursor};
use crate::Resume;

/// The keys of cursors of recordings that were announced again begin so.
const AGAIN: &str = "again/";
/// How long a recording is remembered after it was downloaded, in milliseconds. Teleport announces
/// a recording again when an interrupted upload is made up for, within days.
const KEPT: Millis = 31 * 86_400_000;

#[derive(Debug, Default)]
pub(crate) struct KnownRecordings(Mutex<HashMap<String, Known>>);

#[derive(Clone, Debug)]
enum Known {
    /// It is to be downloaded. `again`: it was announced again, so it may have become longer.
    Pending {
        again: bool,
    },
    Done(RecordingCursor),
}

/// What to do about an announcement.
#[derive(Debug, PartialEq)]
pub(crate) enum Announced {
    /// Download it, from the index in its cursor on.
    Download(PendingRecording),
    /// Store this cursor: it is looked at again once the download that is due or running has ended.
    Again(CursorUpdate),
}

impl KnownRecordings {
    pub(crate) fn new(resume: &Resume) -> KnownRecordings {
        let known = PendingRecording::all(resume).map(|recording| {
            let again = resume.cursors.contains_key(&again_key(&recording.sid));
            let known = if recording.state.done && !again {
                Known::Done(recording.state)
            } else {
                Known::Pending { again }
            };
            (recording.sid, known)
        });
        KnownRecordings(Mutex::new(known.collect()))
    }

    /// A `session.upload` event was read.
    pub(crate) fn announce(&self, announced: PendingRecording) -> Announced {
        let mut known = self.known();
        match known.get_mut(&announced.sid) {
            Some(Known::Pending { again }) => {
                *again = true;
                Announced::Again(CursorUpdate {
                    key: again_key(&announced.sid),
                    value: Some(String::new()),
                })
            }
            Some(Known::Done(state)) => {
                let next = state.next;
                known.insert(announced.sid.clone(), Known::Pending { again: false });
                Announced::Download(announced.after(next))
            }
            None => {
                known.insert(announced.sid.clone(), Known::Pending { again: false });
                Announced::Download(announced)
            }
        }
    }

    /// A recording was downloaded, and that is stored. Returns it if it has to be looked at again.
    pub(crate) fn finish(&self, done: &PendingRecording) -> Option<PendingRecording> {
        let next = done.state.next.max(done.state.top);
        let mut recordings = self.known();
        let known = recordings.get_mut(&done.sid)?;
        if let Known::Pending { again: true } = known {
            *known = Known::Pending { again: false };
            return Some(done.clone().after(next));
        }
        *known = Known::Done(RecordingCursor {
            next,
            ..done.state.clone()
        });
        None
    }

    /// Whether this source downloads it, or did.
    pub(crate) fn has(&self, sid: &str) -> bool {
        self.known().contains_key(sid)
    }

    /// Forgets recordings that were downloaded long ago. Returns how their cursors are removed.
    pub(crate) fn forget(&self, now: Millis) -> Vec<CursorUpdate> {
        let is_old = |known: &Known| match known {
            Known::Done(state) => state.uploaded < now - KEPT,
            Known::Pending { .. } => false,
        };
        let forgotten = self
            .known()
            .extract_if(|_, known| is_old(known))
            .collect::<Vec<_>>();
        let removed = forgotten.into_iter().map(|(sid, _)| CursorUpdate {
            key: format!("{}{sid}", super::PREFIX),
            value: None,
        });
        removed.collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The removal of the cursor of a recording that was announced again.
pub(super) fn seen_again(sid: &str) -> CursorUpdate {
    CursorUpdate {
        key: again_key(sid),
        value: None,
    }
}

/// Whether a stored recording has to be looked at, although it was downloaded.
pub(super) fn is_again(resume: &Resume, sid: &str) -> bool {
    resume.cursors.contains_key(&again_key(sid))
}

fn again_key(sid: &str) -> String {
    format!("{AGAIN}{sid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(cursors: &[CursorUpdate]) -> Resume {
        let mut resume = Resume::default();
        for cursor in cursors {
            if let Some(value) = &cursor.value {
                resume.cursors.insert(cursor.key.clone(), value.clone());
            }
        }
        resume
    }

    fn finished(next: i64) -> PendingRecording {
        PendingRecording::new("a", 5).after(next)
    }

    #[test]
    fn a_recording_is_downloaded_once_and_then_only_what_is_new_of_it() {
        let known = KnownRecordings::default();
        let first = PendingRecording::new("a", 5);
        assert_eq!(known.announce(first.clone()), Announced::Download(first));
        assert_eq!(known.finish(&finished(9)), None);
        // Also after a restart.
        for known in [known, KnownRecordings::new(&resume(&[finished(9).done()]))] {
            let again = known.announce(PendingRecording::new("a", 7));
            let expected = PendingRecording::new("a", 7).after(9);
            assert_eq!(again, Announced::Download(expected));
        }
    }

    #[test]
    fn an_announcement_during_a_download_is_looked_at_after_it() {
        let known = KnownRecordings::default();
        let pending = PendingRecording::new("a", 5);
        known.announce(pending.clone());
        let Announced::Again(cursor) = known.announce(pending.clone()) else {
            panic!("it is downloaded twice");
        };
        assert_eq!(known.finish(&finished(9)), Some(finished(9)));
        assert_eq!(known.finish(&finished(9)), None);
        // The process ended before the first download, or after it.
        for stored in [pending.cursor(), finished(9).done()] {
            let resume = resume(&[stored, cursor.clone()]);
            assert_eq!(PendingRecording::stored(&resume).len(), 1);
            let known = KnownRecordings::new(&resume);
            assert!(known.finish(&finished(9)).is_some());
        }
    }

    #[test]
    fn recordings_are_forgotten_long_after_their_download() {
        let known = KnownRecordings::new(&resume(&[finished(9).done()]));
        assert!(known.forget(KEPT).is_empty() && known.has("a"));
        let removed = known.forget(KEPT + 6);
        assert_eq!((removed.len(), &*removed[0].key), (1, "session/a"));
        assert!(!known.has("a"));
    }
}
