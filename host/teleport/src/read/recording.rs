//! Session recordings. Each `session.upload` event stores a cursor, `session/<sid>`, together with
//! itself; the recording is read later, and the cursor goes when that is done. Each opening of a
//! recording makes Teleport write an event of its own, so nothing here asks twice in a hurry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_model::{CursorUpdate, Millis};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::{Closed, Intake, Resume};

mod stream;

use stream::End;

pub(crate) const PREFIX: &str = "session/";

/// Between two looks at whether a server that was too old has been replaced.
const IDLE: Duration = Duration::from_secs(5);

/// A recording that is to be read, or the rest of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) sid: String,
    state: State,
}

/// The value of its cursor, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Index of the first event that was not read.
    next: i64,
    /// Time of the `session.upload` event.
    uploaded: Millis,
    /// Times it was not there or could not be read.
    attempts: u32,
    /// Not to be asked for before this time.
    not_before: Millis,
}

impl Pending {
    pub(crate) fn new(sid: &str, uploaded: Millis) -> Pending {
        Pending {
            sid: sid.to_owned(),
            state: State {
                uploaded,
                ..State::default()
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

    /// A cursor whose value cannot be read begins anew.
    pub(crate) fn stored(resume: &Resume) -> Vec<Pending> {
        let entries = resume
            .cursors
            .range(PREFIX.to_owned()..)
            .take_while(|(key, _)| key.starts_with(PREFIX));
        entries
            .map(|(key, value)| Pending {
                sid: key[PREFIX.len()..].to_owned(),
                state: serde_json::from_str(value).unwrap_or_default(),
            })
            .collect()
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.sid)
    }

    fn done(&self) -> CursorUpdate {
        CursorUpdate {
            key: self.key(),
            value: None,
        }
    }
}

/// Reads recordings as they are announced, so many at a time. Ends when no more are announced and
/// all that can be read now are.
pub(crate) async fn download<I: Intake>(
    context: Arc<Context<I>>,
    stored: Vec<Pending>,
    mut announced: UnboundedReceiver<Pending>,
) -> Result<(), Closed> {
    // By the time they are due.
    let mut queue: BTreeMap<(Millis, String), Pending> = BTreeMap::new();
    let enqueue = |queue: &mut BTreeMap<_, _>, pending: Pending| {
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
    loop {
        context
            .board
            .update(|status| status.recordings_pending = (queue.len() + running.len()) as u64);
        let now = context.now();
        while too_old.is_none()
            && running.len() < context.settings.limits.recordings.max(1)
            && let Some(entry) = queue.first_entry()
            && entry.key().0 <= now
        {
            let pending = entry.remove();
            let context = context.clone();
            running.spawn(async move { stream::read(&context, pending).await });
        }
        if !open && running.is_empty() {
            return Ok(());
        }
        let due = queue
            .first_key_value()
            .map_or(Millis::MAX, |((due, _), _)| *due);
        // If no download can start, it is not time that due recordings wait for.
        let can_begin =
            too_old.is_none() && running.len() < context.settings.limits.recordings.max(1);
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
                End::Done => {}
                End::Later(pending) => {
                    enqueue(&mut queue, pending);
                }
                End::Unknown(pending, generation) => {
                    enqueue(&mut queue, pending);
                    too_old = Some(generation);
                    if !std::mem::replace(&mut reported, true) {
                        context.board.report(
                            "this version of Teleport cannot send session recordings (it lacks `StreamUnstructuredSessionEvents`). They stay \
                             pending until it is upgraded. To do without them, remove `sessions` from every pipeline"
                                .to_owned(),
                        );
                    }
                }
            },
            () = tokio::time::sleep(wait) => {}
        }
        if too_old.is_some() && too_old != Some(context.link.generation()) {
            too_old = None;
        }
    }
}

/// Waits triple.
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
        let fresh = Pending::new("7f3", 5);
        let begun = Pending {
            sid: "a/b".into(),
            state: State {
                next: 47,
                uploaded: 6,
                attempts: 2,
                not_before: 9,
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
        assert_eq!(Pending::stored(&resume), [fresh, begun.clone()]);
        assert_eq!(
            begun.done(),
            CursorUpdate {
                key: "session/a/b".into(),
                value: None
            }
        );
    }

    #[test]
    fn waits_grow_threefold_up_to_the_longest() {
        let limits = (Duration::from_secs(60), Duration::from_secs(6 * 3600));
        let minutes: Vec<u64> = (0..8)
            .map(|attempts| wait(attempts, limits).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [1, 3, 9, 27, 81, 243, 360, 360]);
    }
}
