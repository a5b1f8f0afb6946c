use std::collections::BTreeMap;

use lockgate_model::Millis;
use tokio::sync::watch;

/// More than this many at once are only logged.
const TROUBLES_MAX: usize = 64;

/// What a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Connecting,
    Reading,
    /// Everything there is has been read; it looks again from time to time.
    CaughtUp,
}

/// Which of Teleport's two interfaces is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// Bulk export, in chunks.
    Export,
    /// Pages of a search.
    Poll,
}

/// What a source says of itself. Figures count since it was started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceStatus {
    pub phase: Phase,
    pub reader: Option<ReaderKind>,
    pub cluster: Option<String>,
    pub server_version: Option<String>,
    /// End of validity of the credentials in use.
    pub credentials_until: Option<Millis>,
    /// Events given to the store, of both feeds.
    pub events: u64,
    /// Left out because they had been read before.
    pub duplicates: u64,
    /// Left out because of their type or time.
    pub filtered: u64,
    /// Stored as raw bytes because they could not be turned into JSON.
    pub unreadable: u64,
    /// Windows in which Teleport's answers were not in the order of time.
    pub backwards: u64,
    /// Polling: everything before this time was read.
    pub read_until: Option<Millis>,
    pub recordings_pending: u64,
    pub recordings_done: u64,
    /// Given up, each with a report.
    pub recordings_lost: u64,
    /// What fails at the moment, by place. Empty: all is well.
    pub troubles: BTreeMap<String, String>,
    /// What was left out for good, and other things an operator has to know: how many, and the
    /// last of them.
    pub reports: u64,
    pub last_report: Option<String>,
}

/// Where the tasks of a source write its status.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    status: std::sync::Arc<watch::Sender<SourceStatus>>,
}

impl Board {
    pub(crate) fn new(status: watch::Sender<SourceStatus>) -> Board {
        Board {
            status: std::sync::Arc::new(status),
        }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        self.status.send_modify(change);
    }

    /// Something fails. It is logged when it is new at this place, not at each attempt.
    pub(crate) fn trouble(&self, place: &str, message: String) {
        if self.status.borrow().troubles.get(place) != Some(&message) {
            tracing::warn!(place, "{message}");
            self.update(|status| {
                if status.troubles.len() < TROUBLES_MAX || status.troubles.contains_key(place) {
                    status.troubles.insert(place.to_owned(), message);
                }
            });
        }
    }

    pub(crate) fn clear(&self, place: &str) {
        if self.status.borrow().troubles.contains_key(place) {
            tracing::info!(place, "works again");
            self.update(|status| {
                status.troubles.remove(place);
            });
        }
    }

    /// Something that is not repaired by trying again.
    pub(crate) fn report(&self, message: String) {
        tracing::error!("{message}");
        self.update(|status| {
            status.reports += 1;
            status.last_report = Some(message);
        });
    }
}
