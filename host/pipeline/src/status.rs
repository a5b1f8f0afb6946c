use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lockgate_model::Millis;
use serde::{Deserialize, Serialize};

/// What a running host says of itself; `lockgate status` reads it from a file in the store's
/// folder.
///
/// The figures are not in it: those are counted from the store, also when no host runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    pub pid: u32,
    pub version: String,
    /// Milliseconds since the epoch.
    pub started_at: Millis,
    pub updated_at: Millis,
    pub sources: BTreeMap<String, SourceState>,
    pub pipelines: BTreeMap<String, PipelineState>,
}

/// How a source's reader is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// `connecting`, `export`, `search`, `caught up`, `waiting`.
    pub state: String,
    pub last_error: Option<Problem>,
}

/// How a pipeline is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineState {
    /// False: something keeps it from delivering that will not mend itself, such as a 401.
    pub ready: bool,
    pub in_flight: usize,
    /// Entries that became final since the host started.
    pub finished: u64,
    pub last_error: Option<Problem>,
    /// When the earliest held request is sent again.
    pub next_retry_at: Option<Millis>,
}

/// Something that went wrong, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub at: Millis,
    pub message: String,
}

/// The one place where readers and pipelines report how they are.
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
            ..HostStatus::default()
        };
        Board {
            status: Arc::new(Mutex::new(status)),
        }
    }

    pub fn snapshot(&self, now: Millis) -> HostStatus {
        let mut status = self.lock();
        status.updated_at = now;
        status.clone()
    }

    pub fn source(&self, name: &str, change: impl FnOnce(&mut SourceState)) {
        change(self.lock().sources.entry(name.to_owned()).or_default());
    }

    pub fn pipeline<T>(&self, name: &str, change: impl FnOnce(&mut PipelineState) -> T) -> T {
        change(self.lock().pipelines.entry(name.to_owned()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HostStatus> {
        // A panic while it is held leaves plain data behind.
        self.status
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
