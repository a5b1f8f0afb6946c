//! What a test chooses of a pipeline, and what it need not.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::contract::Inspect;
use lockgate_model::{SeqRange, StateMap};

use crate::brake::BrakeLimits;
use crate::index::EndpointIndex;
use crate::settings::{
    BatchLimits, EndpointSettings, Settings, SinkSettings, StageSettings, StreamSettings,
};

pub(crate) struct TestSettings {
    pub(crate) in_session_order: bool,
    pub(crate) batch_events: usize,
    pub(crate) batch_age: Duration,
    pub(crate) batches_in_flight: usize,
    pub(crate) requests_in_flight: usize,
    pub(crate) documents_in_request: usize,
    /// A batch of more is too much for a stage.
    pub(crate) max_events_in_stages: usize,
    /// Batches leave the stages with [`TestPipeline::leave_stages`].
    pub(crate) stays_in_stages: bool,
    /// No call of the sink ends.
    pub(crate) stays_in_sink: bool,
    pub(crate) brake: BrakeLimits,
    /// The brake as the last commit of the start before has it.
    pub(crate) brake_text: String,
    pub(crate) inspect: Inspect,
    /// Batches build on the state of those before.
    pub(crate) with_state: bool,
    /// There is a stage that traps on each event whose key begins with `trap`.
    pub(crate) with_traps: bool,
    /// CPU time of each call of that stage and of the sink.
    pub(crate) call_cpu: Duration,
    /// Sequences that were final before the start.
    pub(crate) done: Vec<SeqRange>,
}

impl Default for TestSettings {
    /// One document in a request, a brake that does not engage.
    fn default() -> TestSettings {
        TestSettings {
            in_session_order: false,
            batch_events: 100,
            batch_age: Duration::ZERO,
            batches_in_flight: 1,
            requests_in_flight: 4,
            documents_in_request: 1,
            max_events_in_stages: usize::MAX,
            stays_in_stages: false,
            stays_in_sink: false,
            brake: BrakeLimits {
                in_a_row: u32::MAX,
                share: u32::MAX,
                bytes: u64::MAX,
            },
            brake_text: String::new(),
            inspect: Inspect::Never,
            with_state: false,
            with_traps: false,
            call_cpu: Duration::ZERO,
            done: Vec::new(),
        }
    }
}

impl TestSettings {
    pub(super) fn engine(&self) -> Settings {
        let stage = StageSettings {
            label: "stage 1 (test)".into(),
            state_owner: "counter".into(),
            state_quota: self.with_state.then_some(1024),
            state: StateMap::default(),
        };
        Settings {
            pipeline: "p".into(),
            epoch: 1,
            streams: vec![StreamSettings {
                name: "teleport/audit".into(),
                source: "teleport".into(),
                endpoint: EndpointIndex::new(0),
                in_session_order: self.in_session_order,
                watermark: 1,
                done: self.done.clone(),
            }],
            endpoints: vec![EndpointSettings {
                name: "url".into(),
                in_flight: self.requests_in_flight,
            }],
            batch: BatchLimits {
                events: self.batch_events,
                bytes: 1 << 30,
                age: self.batch_age,
            },
            batches_in_flight: self.batches_in_flight,
            sink: SinkSettings {
                label: "sink (test)".into(),
                types: Arc::default(),
                inspect: self.inspect,
                max_documents: self.documents_in_request,
                max_bytes: 1 << 30,
            },
            stages: (self.with_state || self.with_traps)
                .then_some(stage)
                .into_iter()
                .collect(),
            cpu_budget: Duration::from_secs(30),
            brake: self.brake,
            brake_text: self.brake_text.clone(),
            dead_bytes: 0,
            seed: 7,
        }
    }
}
