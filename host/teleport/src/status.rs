//! The status of a source, as it changes.

use std::collections::BTreeMap;

use lockgate_model::Millis;
use tokio::sync::watch;

/// Most failures shown at the same time; further ones are only logged.
const FAILURES_MAX: usize = 64;

/// The place of the failure that says that a clock is wrong.
pub(crate) const CLOCK: &str = "clock";

/// The activity of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Connecting,
    Reading,
    /// Everything has been read; the source checks for new events from time to time.
    CaughtUp,
}

/// Which of Teleport's two interfaces a source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// Bulk export, in chunks.
    Export,
    /// Pages of a search.
    Poll,
}

/// The state of a source's reader. Counts begin at zero when it starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReaderStatus {
    pub phase: Phase,
    pub reader: Option<ReaderKind>,
    pub cluster: Option<String>,
    pub server_version: Option<String>,
    /// End of validity of the credentials in use.
    pub credentials_until: Option<Millis>,
    /// Events passed to the store, of both feeds.
    pub events: u64,
    /// Events skipped because they had been read before.
    pub duplicates: u64,
    /// Events skipped because of their type or time.
    pub filtered: u64,
    /// Events stored as raw bytes because they could not be converted to JSON.
    pub unreadable: u64,
    /// Windows in which Teleport's answers were not ordered by time.
    pub backwards: u64,
    /// Polling: the events before this time have been read.
    pub read_until: Option<Millis>,
    /// Polling: events that became visible only after later ones had been read.
    pub late: u64,
    /// Polling: by how many milliseconds Teleport's clock is ahead of ours, or behind it if
    /// negative. `None` until enough new events have been seen.
    pub skew: Option<Millis>,
    pub recordings_pending: u64,
    pub recordings_done: u64,
    /// Given up, each with a report.
    pub recordings_lost: u64,
    /// Current failures, by place.
    pub failures: BTreeMap<String, String>,
    /// Reports of lost events and other lasting problems: how many, and the last one.
    pub reports: u64,
    pub last_report: Option<String>,
}

impl ReaderStatus {
    /// What is wrong, worst first: a failure, else the last report, else a wrong clock, which keeps
    /// nothing from being read.
    pub fn problem(&self) -> Option<String> {
        let words = |(place, message): (&String, &String)| format!("{place}: {message}");
        let mut failures = self.failures.iter().filter(|&(place, _)| place != CLOCK);
        let clock = self.failures.get_key_value(CLOCK);
        failures
            .next()
            .map(words)
            .or_else(|| self.last_report.clone())
            .or_else(|| clock.map(words))
    }
}

/// Updates the status of a source, from all its tasks.
#[derive(Clone, Debug)]
pub(crate) struct StatusReporter {
    status: std::sync::Arc<watch::Sender<ReaderStatus>>,
}

impl StatusReporter {
    pub(crate) fn new(status: watch::Sender<ReaderStatus>) -> StatusReporter {
        StatusReporter {
            status: std::sync::Arc::new(status),
        }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut ReaderStatus)) {
        self.status.send_modify(change);
    }

    pub(crate) fn set_skew(&self, skew: Option<Millis>) {
        if self.status.borrow().skew != skew {
            self.update(|status| status.skew = skew);
        }
    }

    /// Records a failure. It is logged when it is new at this place, not at each attempt.
    pub(crate) fn set_failure(&self, place: &str, message: String) {
        if self.status.borrow().failures.get(place) != Some(&message) {
            tracing::warn!(place, "{message}");
            self.update(|status| {
                if status.failures.len() < FAILURES_MAX || status.failures.contains_key(place) {
                    status.failures.insert(place.to_owned(), message);
                }
            });
        }
    }

    pub(crate) fn clear_failure(&self, place: &str) {
        if self.status.borrow().failures.contains_key(place) {
            tracing::info!(place, "recovered");
            self.update(|status| {
                status.failures.remove(place);
            });
        }
    }

    /// Records a lasting problem, which trying again does not repair.
    pub(crate) fn report(&self, message: String) {
        tracing::error!("{message}");
        self.update(|status| {
            status.reports += 1;
            status.last_report = Some(message);
        });
    }
}
