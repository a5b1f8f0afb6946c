//! The state of a running host, as `lockgate status` and the control socket show it.

mod board;

use std::collections::BTreeMap;
use std::fmt;

use lockgate_engine::{ConditionKind, WaitRequester};
use lockgate_model::Millis;
use serde::{Deserialize, Serialize};

use crate::limits::COMPLETE_MS;

pub use board::Board;

/// The state of a source that has read everything and is not read any more.
pub(crate) const FINISHED: &str = "finished";
/// The state of a source that has not reached Teleport yet.
pub(crate) const CONNECTING: &str = "connecting";
/// The state of a source and of a pipeline while the store is closed.
const WAITING_FOR_STORE: &str = "waiting for the store";

/// A running host's report on itself, on the control socket; if that cannot be opened,
/// `lockgate status` reads it from a file in the store's directory.
///
/// The figures are not in it: those are counted from the store, also when no host runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    pub pid: u32,
    pub version: String,
    /// Milliseconds since the epoch.
    pub started_at: Millis,
    pub updated_at: Millis,
    /// When it was asked to stop; absent before.
    #[serde(default)]
    pub stopping_since: Option<Millis>,
    /// It answers on the control socket.
    #[serde(default)]
    pub control_socket: bool,
    /// Why the store is closed; absent while it is open.
    #[serde(default)]
    pub store: Option<StoreStatus>,
    /// When the host last opened the store; absent before.
    #[serde(default)]
    pub store_opened_at: Option<Millis>,
    /// The store's log, while another process keeps it from being folded into the file.
    #[serde(default)]
    pub store_log: Option<StoreLogStatus>,
    /// Why nothing listens at `listen` of `[admin]`; absent while the host does, or is not to.
    #[serde(default)]
    pub admin_listener: Option<ListenerStatus>,
    /// Absent if the host does not read its configuration again.
    #[serde(default)]
    pub configuration: Option<ConfigurationStatus>,
    pub sources: BTreeMap<String, SourceStatus>,
    pub pipelines: BTreeMap<String, PipelineStatus>,
}

impl HostStatus {
    /// Since when the pipelines that have not started wait for that.
    pub(crate) fn starting_since(&self) -> Millis {
        match &self.store {
            Some(store) => store.since,
            None => self.store_opened_at.unwrap_or(self.started_at),
        }
    }

    /// An attempt that is being made, or about to be, is not the next one.
    fn leave_out_past_attempts(&mut self, now: Millis) {
        let keep = |at: &mut Option<Millis>| *at = at.filter(|&at| at > now);
        if let Some(store) = &mut self.store {
            keep(&mut store.next_attempt);
        }
        if let Some(listener) = &mut self.admin_listener {
            keep(&mut listener.next_attempt);
        }
        let sources = self.sources.values_mut();
        let pipelines = self.pipelines.values_mut();
        let parts = sources
            .map(|source| (&mut source.conditions, &mut source.next_retry_at))
            .chain(
                pipelines.map(|pipeline| (&mut pipeline.conditions, &mut pipeline.next_retry_at)),
            );
        for (conditions, next_retry_at) in parts {
            for condition in conditions.iter_mut() {
                keep(&mut condition.next_attempt);
            }
            let attempts = conditions.iter();
            *next_retry_at = attempts
                .filter_map(|condition| condition.next_attempt)
                .min();
        }
    }
}

/// The configuration that is in force, and what became of later ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// When the file was read.
    pub loaded_at: Millis,
    /// Since when a later content of the file is being prepared.
    #[serde(default)]
    pub reloading_since: Option<Millis>,
    /// What that waits for, such as memory that others have.
    #[serde(default)]
    pub reloading_waits_for: Option<String>,
    /// Why a later content of the file was refused; absent after the next that is not.
    #[serde(default)]
    pub refused: Option<RefusedConfiguration>,
    /// Keys whose values are in force only after a restart, such as `listen` in `[admin]`.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}

/// A content of the configuration file that could not be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RefusedConfiguration {
    /// When the first such content was read after the last good one.
    pub since: Millis,
    /// When the last such content was read: the one with these problems.
    #[serde(default)]
    pub read_at: Millis,
    /// Each begins with the place: `lockgate.toml:7:1: `.
    pub problems: Vec<String>,
}

/// A store that is closed until the host opens it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub message: String,
    pub since: Millis,
    /// `None`: it is being opened.
    pub next_attempt: Option<Millis>,
}

/// An admin listener that cannot be opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub message: String,
    pub since: Millis,
    pub next_attempt: Option<Millis>,
}

/// A log that grows until whoever reads from the store ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreLogStatus {
    pub bytes: u64,
    pub since: Millis,
}

/// A source's reader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `connecting`, `reading by polling`, `caught up, reading by bulk export`, `not reading`,
    /// `finished`, `waiting for credentials`, `waiting for the store`, `failed`.
    pub state: String,
    /// No condition has lasted long enough to make it unready.
    #[serde(default)]
    pub ready: bool,
    /// The conditions that keep it from reading, or from reading everything.
    #[serde(default)]
    pub conditions: Vec<ConditionStatus>,
    /// The earliest next attempt of all conditions.
    #[serde(default)]
    pub next_retry_at: Option<Millis>,
    /// Since when it is not known what waits at Teleport; absent while that is known.
    #[serde(default)]
    pub unknown_since: Option<Millis>,
    /// How far it is behind Teleport's newest event, in seconds; absent if that is not known.
    #[serde(default)]
    pub behind_seconds: Option<f64>,
    /// Reports of lost events and other lasting problems since the host started, and the last one.
    #[serde(default)]
    pub reports: u64,
    #[serde(default)]
    pub last_report: Option<Problem>,
    /// Of the reports: those of something that was not read, and the last of them.
    #[serde(skip)]
    pub losses: u64,
    #[serde(skip)]
    pub last_loss: Option<String>,
    /// Counts since the reader started, and its position.
    #[serde(default)]
    pub reader: ReaderFigures,
}

/// The figures of a source's reader. Counts begin at zero when it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReaderFigures {
    /// How Teleport is reached: `auth`, `proxy`, `proxy-upgrade` or `ssh-tunnel`, as `connect`
    /// names it.
    pub route: Option<String>,
    pub cluster: Option<String>,
    pub server_version: Option<String>,
    /// Without a `start-time`: the time of the first event that is read.
    pub reads_from: Option<Millis>,
    /// Validity of the credentials in use.
    pub credentials_from: Option<Millis>,
    pub credentials_until: Option<Millis>,
    /// Events read, by feed.
    pub audit_events: u64,
    pub session_events: u64,
    /// Events left out because they had been read before, and because of their type or time.
    pub duplicates: u64,
    pub filtered: u64,
    /// Of the filtered: what Teleport wrote about the downloads of this source.
    pub own_accesses: u64,
    /// Gaps on the books that are tried again.
    pub gaps_open: u64,
    /// Events stored as raw bytes because they could not be converted to JSON.
    pub unreadable: u64,
    /// Events that became visible only after later ones had been read.
    pub late: u64,
    /// Polling: the events before this time have been read.
    pub read_until: Option<Millis>,
    /// The time of the newest event that Teleport has shown.
    pub newest: Option<Millis>,
    /// The last time of which it is known that all that was in the log has been read.
    pub complete_at: Option<Millis>,
    /// Since when Teleport has not answered a call that the audit log waits for, once that lasts
    /// longer than usual.
    pub unanswered_since: Option<Millis>,
    /// When reading went on after the last outage.
    pub resumed_at: Option<Millis>,
    /// Polling: by how many milliseconds Teleport's clock is ahead of ours, or behind it if
    /// negative.
    pub skew_ms: Option<Millis>,
    pub recordings_pending: u64,
    /// Of these, those whose last attempt failed.
    pub recordings_failing: u64,
    pub recordings_done: u64,
    /// Given up, each with a report.
    pub recordings_lost: u64,
    /// Absent if nobody is to be locked.
    pub locks: Option<LockStatus>,
}

impl ReaderFigures {
    /// Teleport answers, and did not fail to since all of the log had been read.
    fn is_current(&self) -> bool {
        let resumed_before = |at| self.resumed_at.is_none_or(|since| since <= at);
        self.unanswered_since.is_none() && self.complete_at.is_none_or(resumed_before)
    }

    /// It is known that all of the log has been read, but for what came in the last moments.
    pub(crate) fn is_complete(&self, now: Millis) -> bool {
        let is_recent = |at: Millis| now - at <= COMPLETE_MS;
        self.is_current() && self.complete_at.is_some_and(is_recent)
    }
}

/// The locks of users with too many failed logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockStatus {
    /// Failed logins of a user that were read.
    pub failed_logins: u64,
    /// Failed logins whose event names no user that can be locked.
    pub unnamed: u64,
    /// Locks that were made, or renewed.
    pub made: u64,
    /// Locks that were not made because one was in force already.
    pub kept: u64,
    /// Locks that could not be made.
    pub given_up: u64,
    /// The user of the last of these that was tried, and why it was given up.
    pub last_given_up: Option<String>,
    /// Locks that were not made because the failed logins were read too late.
    pub too_late: u64,
    /// Locks that are still to be made.
    pub pending: u64,
    /// Users whose failed logins were forgotten because there were too many users.
    pub forgotten_users: u64,
    /// When a lock was made last.
    pub made_at: Option<Millis>,
}

impl SourceStatus {
    /// It has not reached Teleport yet, and nothing says that it cannot.
    pub fn is_connecting(&self) -> bool {
        self.state == CONNECTING
    }

    /// The parts that a source could not read although it has ended, in words.
    pub(crate) fn unread(&self) -> Option<String> {
        let reader = &self.reader;
        let count = |number: u64, one: &str, many: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{number} {many}")),
        };
        let parts = [
            count(
                reader.recordings_pending,
                "recording is still to be downloaded",
                "recordings are still to be downloaded",
            ),
            count(
                reader.recordings_lost,
                "recording was given up",
                "recordings were given up",
            ),
            count(reader.gaps_open, "gap is open", "gaps are open"),
            self.last_loss.as_ref().map(|report| match self.losses {
                1 => report.clone(),
                losses => format!("{losses} reports, the last of which is: {report}"),
            }),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// A condition keeps the audit log from being read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.conditions.iter().any(|condition| condition.stops)
    }

    /// The time-dependent members. Waiting events that Teleport has not shown are not known.
    fn refresh(&mut self, started_at: Millis, now: Millis) {
        self.ready = !self
            .conditions
            .iter()
            .any(|condition| condition.makes_unready(now));
        let reader = &self.reader;
        let complete_at = reader.complete_at;
        let (is_current, is_complete) = (reader.is_current(), reader.is_complete(now));
        let behind = reader.newest.zip(reader.read_until);
        let behind = behind.map(|(newest, until)| (newest - until).max(0) as f64 / 1000.0);
        let unknown_since = Some(complete_at.unwrap_or(started_at));
        (self.behind_seconds, self.unknown_since) = match behind {
            _ if self.state == FINISHED || is_complete && !self.is_stopped() => (Some(0.0), None),
            _ if self.is_stopped() || self.state == WAITING_FOR_STORE => (None, unknown_since),
            Some(behind) if is_current => (Some(behind), None),
            // Newer events may have come during the outage, or since the call without an answer.
            behind => (behind, unknown_since),
        };
    }
}

/// A pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineStatus {
    pub state: PipelineState,
    /// It runs, and no condition has lasted long enough to make it unready.
    pub ready: bool,
    pub in_flight: usize,
    /// Entries that became final since the host started.
    pub finished: u64,
    /// When it last gave up events past its `lag-limit`, since the host started.
    #[serde(default)]
    pub given_up_at: Option<Millis>,
    /// End of validity of the client certificate in use.
    #[serde(default)]
    pub certificate_until: Option<Millis>,
    /// The conditions that keep it from delivering, or from delivering everything.
    pub conditions: Vec<ConditionStatus>,
    /// The earliest next attempt of all conditions.
    pub next_retry_at: Option<Millis>,
}

/// How far a pipeline has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PipelineState {
    #[default]
    Starting,
    Compiling,
    Running,
    Failed,
    Finished,
    #[serde(rename = "waiting for the store")]
    WaitingForStore,
    /// Of a host that is newer than the reader.
    #[serde(other, rename = "unknown")]
    Unknown,
}

impl PipelineState {
    /// Only its conditions, if any, keep it from delivering.
    pub fn has_started(self) -> bool {
        matches!(self, PipelineState::Running | PipelineState::Finished)
    }
}

impl fmt::Display for PipelineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PipelineState::Starting => "starting",
            PipelineState::Compiling => "compiling",
            PipelineState::Running => "running",
            PipelineState::Failed => "failed",
            PipelineState::Finished => "finished",
            PipelineState::WaitingForStore => WAITING_FOR_STORE,
            PipelineState::Unknown => "unknown",
        })
    }
}

/// One reason why a pipeline, or a part of it, does not deliver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConditionStatus {
    pub kind: ConditionStatusKind,
    /// Which endpoint, component or cause.
    pub subject: String,
    pub message: String,
    pub since: Millis,
    pub next_attempt: Option<Millis>,
    /// Who asked for the wait until then. Of an endpoint.
    #[serde(default)]
    pub asked_by: Option<AskedBy>,
    /// From then on the pipeline or the source is not ready. `None`: it stays ready.
    pub not_ready_from: Option<Millis>,
    /// Of a source: nothing of the audit log is read while it lasts.
    #[serde(default)]
    pub stops: bool,
}

impl ConditionStatus {
    /// The pipeline or the source is not ready because of it.
    pub(crate) fn makes_unready(&self, now: Millis) -> bool {
        self.not_ready_from.is_some_and(|from| from <= now)
    }
}

/// Who asked for the wait until the next attempt at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AskedBy {
    /// By `Retry-After`.
    Receiver,
    /// By what it made of the receiver's answer.
    Sink,
    /// Of a host that is newer than the reader.
    #[serde(other, rename = "unknown")]
    Unknown,
}

impl From<WaitRequester> for AskedBy {
    fn from(requester: WaitRequester) -> AskedBy {
        match requester {
            WaitRequester::Receiver => AskedBy::Receiver,
            WaitRequester::Sink => AskedBy::Sink,
        }
    }
}

/// A kind of condition: one of the engine's, that the pipeline cannot start, or one of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionStatusKind {
    #[default]
    Start,
    Endpoint,
    Documents,
    Plugin,
    Brake,
    Stalled,
    /// Teleport cannot be reached.
    Connection,
    /// The credentials for Teleport cannot be used, or expire soon; of a pipeline: its changed
    /// credentials, or its client certificate.
    Credentials,
    /// Teleport is reached, and the audit log or a part of it cannot be read.
    Reading,
    /// Recordings cannot be downloaded.
    Recordings,
    /// A stream is at its retention limit, so reading waits.
    Retention,
    /// Teleport's clock and ours differ.
    Clock,
    /// Users with too many failed logins are not locked.
    Locks,
    /// Events cannot be read from the store.
    Store,
    /// Requests wait for file descriptors.
    Descriptors,
    /// Of a host that is newer than the reader.
    #[serde(other, rename = "unknown")]
    Unknown,
}

impl ConditionStatusKind {
    /// Complete: as long as the enum, of which `Unknown` is the last.
    const ALL: [ConditionStatusKind; ConditionStatusKind::Unknown as usize + 1] = [
        ConditionStatusKind::Start,
        ConditionStatusKind::Endpoint,
        ConditionStatusKind::Documents,
        ConditionStatusKind::Plugin,
        ConditionStatusKind::Brake,
        ConditionStatusKind::Stalled,
        ConditionStatusKind::Connection,
        ConditionStatusKind::Credentials,
        ConditionStatusKind::Reading,
        ConditionStatusKind::Recordings,
        ConditionStatusKind::Retention,
        ConditionStatusKind::Clock,
        ConditionStatusKind::Locks,
        ConditionStatusKind::Store,
        ConditionStatusKind::Descriptors,
        ConditionStatusKind::Unknown,
    ];

    /// Those that a source can have.
    pub(crate) fn of_sources() -> impl Iterator<Item = ConditionStatusKind> {
        Self::ALL.into_iter().filter(|kind| kind.owners().0)
    }

    /// Those that a pipeline can have.
    pub(crate) fn of_pipelines() -> impl Iterator<Item = ConditionStatusKind> {
        Self::ALL.into_iter().filter(|kind| kind.owners().1)
    }

    /// Whether a source, and whether a pipeline, can have it.
    fn owners(self) -> (bool, bool) {
        match self {
            ConditionStatusKind::Start | ConditionStatusKind::Credentials => (true, true),
            ConditionStatusKind::Connection
            | ConditionStatusKind::Reading
            | ConditionStatusKind::Recordings
            | ConditionStatusKind::Retention
            | ConditionStatusKind::Clock
            | ConditionStatusKind::Locks => (true, false),
            ConditionStatusKind::Endpoint
            | ConditionStatusKind::Documents
            | ConditionStatusKind::Plugin
            | ConditionStatusKind::Brake
            | ConditionStatusKind::Stalled
            | ConditionStatusKind::Store
            | ConditionStatusKind::Descriptors => (false, true),
            ConditionStatusKind::Unknown => (false, false),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ConditionStatusKind::Start => "start",
            ConditionStatusKind::Endpoint => ConditionKind::Endpoint.name(),
            ConditionStatusKind::Documents => ConditionKind::Documents.name(),
            ConditionStatusKind::Plugin => ConditionKind::Plugin.name(),
            ConditionStatusKind::Brake => ConditionKind::Brake.name(),
            ConditionStatusKind::Stalled => ConditionKind::Stalled.name(),
            ConditionStatusKind::Connection => "connection",
            ConditionStatusKind::Credentials => "credentials",
            ConditionStatusKind::Reading => "reading",
            ConditionStatusKind::Recordings => "recordings",
            ConditionStatusKind::Retention => "retention",
            ConditionStatusKind::Clock => "clock",
            ConditionStatusKind::Locks => "locks",
            ConditionStatusKind::Store => "store",
            ConditionStatusKind::Descriptors => "descriptors",
            ConditionStatusKind::Unknown => "unknown",
        }
    }
}

impl From<ConditionKind> for ConditionStatusKind {
    fn from(kind: ConditionKind) -> ConditionStatusKind {
        match kind {
            ConditionKind::Endpoint => ConditionStatusKind::Endpoint,
            ConditionKind::Documents => ConditionStatusKind::Documents,
            ConditionKind::Plugin => ConditionStatusKind::Plugin,
            ConditionKind::Brake => ConditionStatusKind::Brake,
            ConditionKind::Stalled => ConditionStatusKind::Stalled,
        }
    }
}

/// Something that went wrong, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub at: Millis,
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_a_newer_host_can_be_read() {
        let newer = r#"{"state":"resting","ready":false,"in_flight":0,"finished":0,"conditions":[
            {"kind":"tired","subject":"sink","message":"later","since":1,"next_attempt":null,
             "not_ready_from":1,"mood":"bad"}],"next_retry_at":null}"#;
        let status: PipelineStatus = serde_json::from_str(newer).expect("it can be read");
        assert_eq!(status.state, PipelineState::Unknown);
        let condition = &status.conditions[0];
        assert_eq!(
            (condition.kind.name(), condition.message.as_str()),
            ("unknown", "later")
        );
    }

    #[test]
    fn each_kind_of_condition_is_listed_once() {
        let mut names = ConditionStatusKind::ALL.map(ConditionStatusKind::name);
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
