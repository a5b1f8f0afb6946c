//! Gaps: parts of a source's log that could not be read.

use crate::{FeedKind, Millis};

/// A part of a source's log that Teleport could not return. It stays on the books after it has
/// been read or given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The source's own name for it; a gap with the same key replaces it.
    pub key: String,
    pub feed: FeedKind,
    /// The times between which events may be missing, both inclusive. Of a recording: when its
    /// upload was announced.
    pub from: Millis,
    pub to: Millis,
    /// When the reader first failed there.
    pub since: Millis,
    /// How often it was tried to read it.
    pub attempts: u64,
    /// What cannot be read, as the subject of a sentence: "the events", "the chunk `c1`".
    pub what: String,
    /// Why, at the last attempt.
    pub error: String,
    pub state: GapState,
}

/// The state of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapState {
    /// It is tried again.
    Open,
    /// It cannot be read any more, since this time.
    Lost(Millis),
    /// It was read at this time, with so many events that were not in the store.
    Read { at: Millis, events: u64 },
}

impl Gap {
    pub fn is_open(&self) -> bool {
        self.state == GapState::Open
    }

    /// Events are missing: it is open or lost.
    pub fn is_missing(&self) -> bool {
        !matches!(self.state, GapState::Read { .. })
    }

    /// The length of the time between which events may be missing.
    pub fn millis(&self) -> Millis {
        (self.to - self.from + 1).max(0)
    }

    pub fn contains(&self, time: Millis) -> bool {
        (self.from..=self.to).contains(&time)
    }
}

impl GapState {
    /// The word for it in the store, in `status --json` and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            GapState::Open => "open",
            GapState::Lost(_) => "lost",
            GapState::Read { .. } => "read",
        }
    }

    /// Since when it is so; `None` of one that is open.
    pub fn at(&self) -> Option<Millis> {
        match *self {
            GapState::Open => None,
            GapState::Lost(at) | GapState::Read { at, .. } => Some(at),
        }
    }

    pub fn events(&self) -> u64 {
        match *self {
            GapState::Read { events, .. } => events,
            _ => 0,
        }
    }
}
