use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lockgate_model::Millis;
use serde::{Deserialize, Serialize};

/// What a running host reports of itself; `lockgate status` reads it from a file in the store's
/// directory.
///
/// The figures are not in it: those are counted from the store, also when no host runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    pub pid: u32,
    pub version: String,
    /// Milliseconds since the epoch.
    pub started_at: Millis,
    pub updated_at: Millis,
    pub sources: BTreeMap<String, SourceStatus>,
    pub pipelines: BTreeMap<String, PipelineStatus>,
}

/// A source's reader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `connecting`, `reading by polling`, `caught up, reading by bulk export`, `finished`,
    /// `waiting for credentials`.
    pub state: String,
    pub last_error: Option<Problem>,
}

/// A pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// `starting`, `compiling`, `running`, `failed`, `finished`.
    pub state: String,
    /// It runs, and nothing keeps it from delivering, or not for long.
    pub ready: bool,
    pub in_flight: usize,
    /// Entries that became final since the host started.
    pub finished: u64,
    /// What keeps it from delivering, or from delivering everything. Empty where nothing does.
    pub conditions: Vec<ConditionStatus>,
    /// The earliest next attempt of all conditions.
    pub next_retry_at: Option<Millis>,
}

/// One reason why a pipeline, or a part of it, does not deliver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConditionStatus {
    /// `endpoint`, `documents`, `plugin`, `brake`, `stalled`, `start`.
    pub kind: String,
    /// Which endpoint, component or cause.
    pub subject: String,
    pub message: String,
    pub since: Millis,
    pub next_attempt: Option<Millis>,
    /// From then on the pipeline is not ready.
    pub not_ready_from: Millis,
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
            pipeline.ready = matches!(&*pipeline.state, "running" | "finished")
                && conditions
                    .iter()
                    .all(|condition| condition.not_ready_from > now);
            let attempts = conditions
                .iter()
                .filter_map(|condition| condition.next_attempt);
            pipeline.next_retry_at = attempts.min();
        }
        status.clone()
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
