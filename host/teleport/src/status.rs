//! The status of a source, as it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockgate_model::{LoggedMessage, Millis};
use tokio::sync::watch;

use crate::connect::Route;
use crate::{Clock, LockFigures, SourceSettings, read};

/// Most failures shown at the same time; further ones are only logged.
const FAILURES_MAX: usize = 64;

/// The place of the failure that says that a clock is wrong.
pub(crate) const CLOCK: &str = "clock";
/// The place of failures to reach Teleport.
pub(crate) const CONNECTION: &str = "connection";
/// The place of failures to read the credentials' files.
pub(crate) const CREDENTIALS: &str = "credentials";
/// The place of failures to lock users.
pub(crate) const LOCKS: &str = "locks";
/// The place of failures that concern all recordings.
pub(crate) const RECORDINGS: &str = "recordings";
/// The places of sweeps begin so.
pub(crate) const SWEEP: &str = "sweep of";

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

/// The part that a failure keeps from being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// Everything: Teleport cannot be reached.
    Connection,
    /// Nothing yet: new credentials cannot be used.
    Credentials,
    /// The audit log.
    Log,
    /// One chunk of a bulk export; the others are read.
    Chunk,
    /// Recordings.
    Recordings,
    /// Nothing: users are not locked.
    Locks,
    /// Events that become visible late.
    Sweep,
    /// Nothing: a clock is wrong.
    Clock,
}

impl FailureKind {
    pub(crate) fn of(place: &str) -> FailureKind {
        match place {
            CONNECTION => FailureKind::Connection,
            CREDENTIALS => FailureKind::Credentials,
            RECORDINGS => FailureKind::Recordings,
            CLOCK => FailureKind::Clock,
            LOCKS => FailureKind::Locks,
            _ if place.starts_with(read::SESSION_PREFIX) => FailureKind::Recordings,
            _ if place.starts_with(SWEEP) => FailureKind::Sweep,
            // `export/<date>/<chunk>`
            _ if place.starts_with(read::EXPORT_PREFIX) && place.matches('/').count() > 1 => {
                FailureKind::Chunk
            }
            _ => FailureKind::Log,
        }
    }

    /// Whether nothing of the audit log is read while it lasts.
    pub fn stops_the_log(self) -> bool {
        matches!(self, FailureKind::Connection | FailureKind::Log)
    }
}

/// Something that fails now and is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFailure {
    pub kind: FailureKind,
    pub message: String,
    pub since: Millis,
    /// `None` if it is not known.
    pub next_attempt: Option<Millis>,
}

/// The state of a source's reader. Counts begin at zero when it starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReaderStatus {
    pub phase: Phase,
    pub reader: Option<ReaderKind>,
    /// How the newest connection reaches Teleport.
    pub route: Option<Route>,
    pub cluster: Option<String>,
    pub server_version: Option<String>,
    /// Without a `start-time`: the time of the first event that is read.
    pub reads_from: Option<Millis>,
    /// Validity of the credentials in use.
    pub credentials_from: Option<Millis>,
    pub credentials_until: Option<Millis>,
    /// Events passed to the store, of both feeds.
    pub events: u64,
    /// Of these, events of recordings.
    pub recorded_events: u64,
    /// The time of the newest event of the audit log that Teleport has shown, as far as its time is
    /// credible.
    pub newest: Option<Millis>,
    /// The last time, by the clock of this machine, of which it is known that all that was in the
    /// log has been read.
    pub complete_at: Option<Millis>,
    /// Since when Teleport has not answered a call that the audit log waits for, once that lasts
    /// longer than usual.
    pub unanswered_since: Option<Millis>,
    /// When the last failure ended that had kept the log from being read.
    pub resumed_at: Option<Millis>,
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
    /// Gaps on the books that are tried again.
    pub gaps_open: u64,
    /// Events of Teleport on the downloads of this source, which are left out.
    pub own_accesses: u64,
    /// `None`: nobody is to be locked.
    pub locks: Option<LockFigures>,
    /// Recordings that fail now. Not all of them are in `failures`.
    pub recordings_failing: u64,
    /// Current failures, by place.
    pub failures: BTreeMap<String, SourceFailure>,
    /// Reports of lost events and other lasting problems: how many, and the last one, with its
    /// time.
    pub reports: u64,
    pub last_report: Option<String>,
    pub last_report_at: Option<Millis>,
    /// Of the reports: those of something that was not read or may not be, and the last of them.
    /// The others say what is read again.
    pub losses: u64,
    pub last_loss: Option<String>,
}

/// What is known of the time at Teleport, as [`ReaderStatus`] has it.
pub(crate) struct LogTime {
    pub(crate) newest: Option<Millis>,
    pub(crate) skew: Option<Millis>,
    pub(crate) complete_at: Option<Millis>,
    pub(crate) reader: Option<ReaderKind>,
}

/// Updates the status of a source, from all its tasks.
#[derive(Clone)]
pub(crate) struct StatusReporter {
    status: Arc<watch::Sender<ReaderStatus>>,
    source: Arc<str>,
    clock: Arc<dyn Clock>,
    /// The places of the recordings that fail.
    failing: Arc<Mutex<BTreeSet<String>>>,
    /// What the log says of the places that fail.
    logged: Arc<Mutex<BTreeMap<String, LoggedMessage>>>,
}

impl StatusReporter {
    pub(crate) fn new(
        status: watch::Sender<ReaderStatus>,
        settings: &SourceSettings,
    ) -> StatusReporter {
        StatusReporter {
            status: Arc::new(status),
            source: settings.source.clone(),
            clock: settings.clock.clone(),
            failing: Arc::default(),
            logged: Arc::default(),
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

    /// The newest event of the audit log that Teleport has shown. Times of the future are not
    /// credible by themselves.
    pub(crate) fn set_newest(&self, newest: Millis) {
        if self
            .status
            .borrow()
            .newest
            .is_none_or(|known| known < newest)
        {
            self.update(|status| status.newest = Some(newest));
        }
    }

    /// All that was in the log at `at` has been read.
    pub(crate) fn set_complete(&self, at: Millis) {
        if !self.stops_the_log() {
            self.update(|status| status.complete_at = Some(at));
        }
    }

    /// Whether a failure keeps the audit log from being read.
    fn stops_the_log(&self) -> bool {
        let status = self.status.borrow();
        let mut failures = status.failures.values();
        failures.any(|failure| failure.kind.stops_the_log())
    }

    /// Records a failure, or what it is now. It is logged when it begins and when it has become
    /// another, not at each attempt.
    pub(crate) fn set_failure(&self, place: &str, message: String) {
        self.record_failure(place, message, None, None);
    }

    /// The same, with the time of the next attempt.
    pub(crate) fn set_failure_until(
        &self,
        place: &str,
        message: String,
        next_attempt: Option<Millis>,
    ) {
        self.record_failure(place, message, next_attempt, None);
    }

    /// The same of a failure that began before it was noticed.
    pub(crate) fn set_failure_since(&self, place: &str, message: String, since: Millis) {
        self.record_failure(place, message, None, Some(since));
    }

    fn record_failure(
        &self,
        place: &str,
        message: String,
        next_attempt: Option<Millis>,
        began: Option<Millis>,
    ) {
        let is_due = self.log_is_due(place, &message);
        let since = match self.status.borrow().failures.get(place) {
            Some(known)
                if known.message == message && known.next_attempt == next_attempt && !is_due =>
            {
                return;
            }
            known => known.map(|known| known.since),
        };
        let source = &*self.source;
        if place.starts_with(read::SESSION_PREFIX) {
            self.note_failing(place, &message);
        } else if since.is_none() {
            tracing::warn!(source, place, "{message}");
        } else if is_due {
            tracing::warn!(source, place, "still failing, now: {message}");
        } else {
            tracing::debug!(source, place, "still failing: {message}");
        }
        let failure = SourceFailure {
            kind: FailureKind::of(place),
            message,
            since: since.or(began).unwrap_or_else(|| self.clock.now()),
            next_attempt,
        };
        self.update(|status| {
            if failure.kind == FailureKind::Connection {
                status.phase = Phase::Connecting;
            }
            if status.failures.len() < FAILURES_MAX || status.failures.contains_key(place) {
                status.failures.insert(place.to_owned(), failure);
            }
        });
    }

    /// Whether the log has to name this failure. Recordings are counted, and only the first named.
    fn log_is_due(&self, place: &str, message: &str) -> bool {
        if place.starts_with(read::SESSION_PREFIX) {
            return false;
        }
        let now = self.clock.elapsed();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        match logged.get_mut(place) {
            Some(known) => known.is_due(message, now),
            None => {
                logged.insert(place.to_owned(), LoggedMessage::new(message, now));
                true
            }
        }
    }

    /// Records that a recording fails. Teleport may limit how many it sends, and then many fail at
    /// once: the first is logged for all.
    fn note_failing(&self, place: &str, message: &str) {
        let mut failing = self.failing();
        let is_first = failing.is_empty();
        failing.insert(place.to_owned());
        let count = failing.len() as u64;
        let source = &*self.source;
        if is_first {
            tracing::warn!(
                source,
                "{message}. It is tried again; others that fail meanwhile are counted by `lockgate \
                 status`"
            );
        } else {
            tracing::debug!(source, place, "failing: {message}");
        }
        self.update(|status| status.recordings_failing = count);
    }

    /// Records that a recording does not fail any more.
    fn clear_failing(&self, place: &str) {
        let mut failing = self.failing();
        if !failing.remove(place) {
            return;
        }
        let count = failing.len() as u64;
        if count == 0 {
            tracing::info!(source = &*self.source, "no recording fails any more");
        }
        self.update(|status| status.recordings_failing = count);
    }

    fn failing(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_failure(&self, place: &str) -> bool {
        self.status.borrow().failures.contains_key(place)
    }

    pub(crate) fn clear_failure(&self, place: &str) {
        self.clear_failing(place);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.remove(place);
        drop(logged);
        let since = match self.status.borrow().failures.get(place) {
            Some(failure) => failure.since,
            None => return,
        };
        let now = self.clock.now();
        let lasted_s = (now - since).max(0) / 1000;
        if place.starts_with(read::SESSION_PREFIX) {
            tracing::debug!(source = &*self.source, place, lasted_s, "recovered");
        } else {
            tracing::info!(source = &*self.source, place, lasted_s, "recovered");
        }
        self.update(|status| {
            let ended = status.failures.remove(place).map(|ended| ended.kind);
            if ended.is_some_and(FailureKind::stops_the_log) {
                status.resumed_at = Some(now);
            }
            if ended == Some(FailureKind::Connection)
                && status.phase == Phase::Connecting
                && status.reader.is_some()
            {
                status.phase = Phase::Reading;
            }
        });
    }

    /// Records a lasting problem, which trying again does not repair.
    pub(crate) fn report(&self, message: String) {
        tracing::error!(source = &*self.source, "{message}");
        let loss = message.clone();
        self.update(|status| {
            status.losses += 1;
            status.last_loss = Some(loss);
        });
        self.keep(message);
    }

    pub(crate) fn update_locks(&self, change: impl FnOnce(&mut LockFigures)) {
        self.status.send_if_modified(|status| {
            let figures = status.locks.get_or_insert_default();
            let before = figures.clone();
            change(figures);
            *figures != before
        });
    }

    pub(crate) fn log_time(&self) -> LogTime {
        let status = self.status.borrow();
        LogTime {
            newest: status.newest,
            skew: status.skew,
            complete_at: status.complete_at,
            reader: status.reader,
        }
    }

    /// Records that events are read again, and nothing is missed.
    pub(crate) fn report_repeat(&self, message: String) {
        tracing::warn!(source = &*self.source, "{message}");
        self.keep(message);
    }

    fn keep(&self, message: String) {
        let at = self.clock.now();
        self.update(|status| {
            status.reports += 1;
            status.last_report = Some(message);
            status.last_report_at = Some(at);
        });
    }
}
