//! The state of a running host, as `lockgate status` and the control socket show it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use lockgate_engine::ConditionKind;
use lockgate_model::Millis;
use serde::{Deserialize, Serialize};

/// A running host's report on itself, on the control socket; where that cannot be opened,
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
    /// Absent where the host does not read its configuration again.
    #[serde(default)]
    pub configuration: Option<ConfigurationStatus>,
    pub sources: BTreeMap<String, SourceStatus>,
    pub pipelines: BTreeMap<String, PipelineStatus>,
}

/// The configuration that is in force, and what became of later ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// When the file was read.
    pub loaded_at: Millis,
    /// Since when a later content of the file is being prepared.
    #[serde(default)]
    pub reloading_since: Option<Millis>,
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

/// A source's reader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `connecting`, `reading by polling`, `caught up, reading by bulk export`, `finished`,
    /// `waiting for credentials`, `waiting for the store`.
    pub state: String,
    pub last_error: Option<Problem>,
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
            PipelineState::WaitingForStore => "waiting for the store",
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
    /// From then on the pipeline is not ready.
    pub not_ready_from: Millis,
}

impl ConditionStatus {
    /// The pipeline is not ready because of it.
    pub(crate) fn makes_unready(&self, now: Millis) -> bool {
        self.not_ready_from <= now
    }
}

/// A kind of condition: one of the engine's, or that the pipeline cannot start.
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
    /// Of a host that is newer than the reader.
    #[serde(other, rename = "unknown")]
    Unknown,
}

impl ConditionStatusKind {
    pub fn name(self) -> &'static str {
        match self {
            ConditionStatusKind::Start => "start",
            ConditionStatusKind::Endpoint => ConditionKind::Endpoint.name(),
            ConditionStatusKind::Documents => ConditionKind::Documents.name(),
            ConditionStatusKind::Plugin => ConditionKind::Plugin.name(),
            ConditionStatusKind::Brake => ConditionKind::Brake.name(),
            ConditionStatusKind::Stalled => ConditionKind::Stalled.name(),
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

/// Where readers and pipelines report. Clones are one board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    status: Arc<Mutex<HostStatus>>,
}

impl Board {
    pub fn new(started_at: Millis) -> Board {
        let status = HostStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at,
            updated_at: started_at,
            store: Some(StoreStatus {
                message: "it is being opened".to_owned(),
                since: started_at,
                next_attempt: None,
            }),
            ..HostStatus::default()
        };
        Board {
            status: Arc::new(Mutex::new(status)),
        }
    }

    pub fn snapshot(&self, now: Millis) -> HostStatus {
        let mut status = self.lock();
        status.updated_at = now;
        for pipeline in status.pipelines.values_mut() {
            let conditions = &pipeline.conditions;
            pipeline.ready = pipeline.state.has_started()
                && !conditions
                    .iter()
                    .any(|condition| condition.makes_unready(now));
            let attempts = conditions
                .iter()
                .filter_map(|condition| condition.next_attempt);
            pipeline.next_retry_at = attempts.min();
        }
        status.clone()
    }

    /// The store has closed, and with it everything else.
    pub fn store_closed(&self, store: StoreStatus) {
        let mut status = self.lock();
        status.store = Some(store);
        let state = PipelineState::WaitingForStore;
        for source in status.sources.values_mut() {
            source.state = state.to_string();
        }
        for pipeline in status.pipelines.values_mut() {
            *pipeline = PipelineStatus {
                state,
                ..PipelineStatus::default()
            };
        }
    }

    /// The store is open, and these pipelines are about to start.
    pub(crate) fn store_opened<'p>(&self, pipelines: impl Iterator<Item = &'p str>) {
        let mut status = self.lock();
        status.store = None;
        // Others were removed by a reload that the store's failure interrupted.
        let mut before = std::mem::take(&mut status.pipelines);
        for name in pipelines {
            let mut pipeline = before.remove(name).unwrap_or_default();
            pipeline.state = PipelineState::Starting;
            status.pipelines.insert(name.to_owned(), pipeline);
        }
    }

    /// The host was asked to stop.
    pub fn stopping(&self, now: Millis) {
        self.lock().stopping_since.get_or_insert(now);
    }

    pub(crate) fn control_socket(&self, is_bound: bool) {
        self.lock().control_socket = is_bound;
    }

    pub(crate) fn configuration<T>(&self, change: impl FnOnce(&mut ConfigurationStatus) -> T) -> T {
        change(
            self.lock()
                .configuration
                .get_or_insert_with(ConfigurationStatus::default),
        )
    }

    /// A reload has removed the source.
    pub(crate) fn forget_source(&self, name: &str) {
        self.lock().sources.remove(name);
    }

    /// A reload has removed the pipeline.
    pub(crate) fn forget_pipeline(&self, name: &str) {
        self.lock().pipelines.remove(name);
    }

    pub fn source(&self, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        change(self.lock().sources.entry(name.to_owned()).or_default());
    }

    pub fn pipeline<T>(&self, name: &str, change: impl FnOnce(&mut PipelineStatus) -> T) -> T {
        change(self.lock().pipelines.entry(name.to_owned()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HostStatus> {
        // A panic while it is held leaves plain data behind.
        self.status
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
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
}
