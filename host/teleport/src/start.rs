//! Where a source begins in the log.

use lockgate_model::{CursorUpdate, Day, FeedKind, Millis};

use crate::read::newest_event;
use crate::run::SourceError;
use crate::source::Source;
use crate::time::{parse_time, time};
use crate::{Closed, Intake, Resume, SourceSettings};

/// The cursor of the time of the first event to read.
pub const START: &str = "start";
/// Present until Teleport has been asked for its newest event.
const BY_OWN_CLOCK: &str = "start/by-own-clock";
/// How far around the start the newest event is looked for.
const AROUND: Millis = 31 * Day::MILLIS;

/// The time of the first event to read.
pub(crate) struct Start {
    pub(crate) at: Millis,
    is_stored: bool,
    /// It is the time of the first start, by a clock that may be ahead of Teleport's.
    is_by_own_clock: bool,
}

impl Start {
    pub(crate) fn new(settings: &SourceSettings, resume: &Resume) -> Result<Start, SourceError> {
        let Some(value) = resume.cursors.get(START) else {
            return Ok(Start {
                at: settings.start_time.unwrap_or_else(|| settings.clock.now()),
                is_stored: false,
                is_by_own_clock: settings.start_time.is_none(),
            });
        };
        let stored = parse_time(value).ok_or_else(|| SourceError::Cursor {
            key: START.to_owned(),
            value: value.clone(),
        })?;
        match settings.start_time {
            Some(configured) if configured != stored => Err(SourceError::StartChanged {
                stored: time(stored),
                configured: time(configured),
            }),
            _ => Ok(Start {
                at: stored,
                is_stored: true,
                is_by_own_clock: resume.cursors.contains_key(BY_OWN_CLOCK),
            }),
        }
    }

    /// Cursors that have to be stored before anything is read.
    pub(crate) fn cursors(&self) -> Vec<CursorUpdate> {
        let mut cursors = Vec::new();
        if !self.is_stored {
            cursors.push(cursor(START, Some(time(self.at))));
            if self.is_by_own_clock {
                cursors.push(cursor(BY_OWN_CLOCK, Some(String::new())));
            }
        }
        cursors
    }

    /// Without a `start-time`, reading starts at Teleport's newest event, or at the first start of
    /// the host if that was earlier. Our clock may be ahead: the next events would be before it.
    pub(crate) async fn confirm<I: Intake>(&self, source: &Source<I>) -> Result<(), Closed> {
        if !self.is_by_own_clock {
            return Ok(());
        }
        let newest = newest_event(source, self.at - AROUND, self.at + AROUND).await;
        let mut cursors = vec![cursor(BY_OWN_CLOCK, None)];
        match newest {
            Ok(newest) => {
                // If there is none, what comes next is new, whatever its time.
                let at = newest.unwrap_or(self.at - AROUND).min(self.at);
                let at_time = time(at);
                let from = match newest {
                    Some(newest) if newest == at => {
                        format!("Teleport's newest event on, at {at_time}")
                    }
                    Some(_) => format!("the first start on, at {at_time}"),
                    None => format!("{at_time} on, since which Teleport has no event"),
                };
                tracing::info!(
                    source = &*source.settings.source,
                    "reading from {from}: older events are left out. To read them, set \
                     `start-time`, and begin with a new store or a new name of the source"
                );
                source.start_at_most(at);
                cursors.push(cursor(START, Some(time(at))));
            }
            Err(refusal) => tracing::warn!(
                source = &*source.settings.source,
                "reading starts at {} by the clock of this machine, and events are missed if that \
                 is ahead of Teleport's: asked for its newest event, Teleport answers {:?} `{}`",
                time(self.at),
                refusal.code,
                refusal.message
            ),
        }
        source.move_cursors(FeedKind::Audit, cursors).await
    }
}

pub(crate) fn cursor(key: &str, value: Option<String>) -> CursorUpdate {
    CursorUpdate {
        key: key.to_owned(),
        value,
    }
}
