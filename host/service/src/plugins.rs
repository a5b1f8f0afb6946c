//! Components as the engine calls them: the runtime's stages and sinks, with what a batch may look
//! up and what the endpoint leaves to a request.

use std::sync::Arc;

use lockgate_engine as engine;
use lockgate_lookup::Lookups;
use lockgate_model::contract::{
    BatchContext, CallError, Called, Encoded, Mapped, SinkSetup, StageKind, StageSetup, Verdict,
};
use lockgate_model::request::{Classification, RequestRules, Response, Sent};
use lockgate_model::{DocumentView, EventView, StateOverlay};
use lockgate_observe::metrics::{PluginPlace, Recorder};
use lockgate_runtime::{CallContext, Sink, Stage};

use crate::metrics::catalogue;

/// A stage for the batches of one generation.
#[derive(Clone, Debug)]
pub struct BoundStage {
    pub stage: Stage,
    pub lookups: Lookups,
    /// Where its calls are counted.
    pub meter: Option<CallMeter>,
}

/// A sink and its endpoint's rules.
#[derive(Clone, Debug)]
pub struct BoundSink {
    pub sink: Sink,
    pub rules: Arc<RequestRules>,
    /// Where its calls are counted.
    pub meter: Option<CallMeter>,
}

/// Counts the calls of a component at its place.
#[derive(Clone, Debug)]
pub struct CallMeter {
    pub(crate) recorder: Recorder,
    pub(crate) place: Arc<PluginPlace>,
}

impl CallMeter {
    fn note<T>(&self, called: &Called<T>, memory_peak: usize) {
        let place = &*self.place;
        let labels = [&*place.pipeline, &*place.stage, &*place.plugin];
        let seconds = called.cpu.as_secs_f64();
        self.recorder
            .observe(&catalogue::STAGE_CALL_CPU_SECONDS, &labels, seconds);
        self.recorder
            .set(&catalogue::STAGE_MEMORY, &labels, memory_peak as f64);
        if let Err(error) = &called.result {
            let cause = cause(error);
            let labels = [labels[0], labels[1], labels[2], cause];
            self.recorder
                .add(&catalogue::STAGE_FAILED_CALLS, &labels, 1);
        }
    }
}

/// Why a call failed, in a word.
fn cause(error: &CallError) -> &'static str {
    match error {
        CallError::Trap { .. } => "trap",
        CallError::Timeout { .. } => "time",
        CallError::Memory { .. } => "memory",
        CallError::Output { .. } => "output",
        CallError::WrongCount { .. } | CallError::Contract(_) => "contract",
        CallError::Retry { .. } => "retry",
        CallError::Isolate(_) => "isolate",
        CallError::Hold(_) => "hold",
        CallError::NoRoom(_) => "no-room",
        CallError::Postponed => "postponed",
        CallError::Host(_) => "host",
    }
}

fn metered<T>(meter: Option<&CallMeter>, memory_peak: usize, called: Called<T>) -> Called<T> {
    if let Some(meter) = meter {
        meter.note(&called, memory_peak);
    }
    called
}

impl BoundStage {
    fn context<'a>(&self, batch: &'a BatchContext) -> CallContext<'a> {
        CallContext {
            batch,
            lookups: self.lookups.clone(),
        }
    }
}

impl engine::Stage for BoundStage {
    fn label(&self) -> &str {
        self.stage.label()
    }

    fn kind(&self) -> StageKind {
        self.stage.kind()
    }

    fn setup(&self) -> &StageSetup {
        self.stage.setup()
    }

    fn filter(
        &self,
        batch: &BatchContext,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Verdict>> {
        let context = self.context(batch);
        let called = self.stage.filter(&context, events, state, fresh);
        metered(self.meter.as_ref(), self.stage.memory_peak(), called)
    }

    fn transform(
        &self,
        batch: &BatchContext,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Mapped>> {
        let context = self.context(batch);
        let called = self.stage.transform(&context, events, state, fresh);
        metered(self.meter.as_ref(), self.stage.memory_peak(), called)
    }
}

impl engine::Sink for BoundSink {
    fn label(&self) -> &str {
        self.sink.label()
    }

    fn setup(&self) -> &SinkSetup {
        self.sink.setup()
    }

    fn encode(
        &self,
        batch: &BatchContext,
        documents: &[DocumentView<'_>],
        fresh: bool,
    ) -> Called<Encoded> {
        let called = self.sink.encode(batch, documents, &self.rules, fresh);
        metered(self.meter.as_ref(), self.sink.memory_peak(), called)
    }

    fn classify(
        &self,
        batch: &BatchContext,
        sent: &Sent,
        response: &Response,
    ) -> Called<Classification> {
        let called = self.sink.classify(batch, sent, response);
        metered(self.meter.as_ref(), self.sink.memory_peak(), called)
    }
}
