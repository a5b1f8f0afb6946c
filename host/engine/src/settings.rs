//! The settings that an engine starts with.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::contract::{Inspect, TypeLists};
use lockgate_model::{Seq, SeqRange, StateMap};

use crate::brake::BrakeLimits;
use crate::index::EndpointIndex;

/// The settings of one pipeline.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pipeline: Arc<str>,
    /// Epoch that every commit names.
    pub epoch: u32,
    pub streams: Vec<StreamSettings>,
    pub endpoints: Vec<EndpointSettings>,
    pub batch: BatchLimits,
    /// Batches of one stream that are worked on at a time.
    pub batches_in_flight: usize,
    pub sink: SinkSettings,
    /// One for each filter and mapper.
    pub stages: Vec<StageSettings>,
    /// CPU time of all calls for one batch, and of all calls of one encoding.
    pub cpu_budget: Duration,
    pub brake: BrakeLimits,
    /// The brake's counts, as the pipeline's last commit saved them; empty before the first.
    pub brake_text: String,
    /// Bytes of the dead letters that the pipeline keeps.
    pub dead_bytes: u64,
    /// For jitter. The same seed and the same inputs give the same actions.
    pub seed: u64,
}

impl Settings {
    /// Batches then build on each other.
    pub(crate) fn uses_state(&self) -> bool {
        self.stages.iter().any(|stage| stage.state_quota.is_some())
    }
}

/// A stream that the pipeline reads, and how far it has come.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// Such as `teleport/audit`.
    pub name: Arc<str>,
    /// Such as `teleport`.
    pub source: Arc<str>,
    /// Where its documents go.
    pub endpoint: EndpointIndex,
    /// Documents of one session are delivered in their order.
    pub in_session_order: bool,
    /// Every entry below it is final.
    pub watermark: Seq,
    /// Final entries above the watermark.
    pub done: Vec<SeqRange>,
}

/// One URL that the operator wrote.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Its key in the configuration: `url` or `session-url`.
    pub name: Arc<str>,
    /// Requests at a time.
    pub in_flight: usize,
}

/// When a batch is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events.
    pub events: usize,
    /// Bytes of payload. A single larger event is a batch of its own.
    pub bytes: usize,
    /// A batch is closed after this time, however small it is.
    pub age: Duration,
}

/// What the sink asked for, within the operator's limits.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Such as `sink (builtin:fluentd)`.
    pub label: Arc<str>,
    /// Event types that the sink takes.
    pub types: Arc<TypeLists>,
    pub inspect: Inspect,
    /// Documents of one call of `encode`.
    pub max_documents: usize,
    /// Payload bytes of one call of `encode`. A single larger document goes alone.
    pub max_bytes: usize,
}

/// The state of a filter or a mapper.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// Such as `stage 1 (builtin:redact)`.
    pub label: Arc<str>,
    /// Whose state it keeps, see [`state_owners`](lockgate_model::state_owners).
    pub state_owner: Arc<str>,
    /// Bytes of state that the operator granted. `None`: none.
    pub state_quota: Option<usize>,
    /// Its durable state.
    pub state: StateMap,
}
