//! Components as the engine calls them: the runtime's stages and sinks, with what a batch may look
//! up and what the endpoint leaves to a request.

use std::sync::Arc;

use lockgate_engine as engine;
use lockgate_engine::StageKind;
use lockgate_lookup::Lookups;
use lockgate_model::contract::{
    BatchInfo, Called, Encoded, Mapped, SinkSetup, StageSetup, Verdict,
};
use lockgate_model::request::{Classification, RequestRules, Response, Sent};
use lockgate_model::{DocumentView, EventView, StateOverlay};
use lockgate_runtime::{CallContext, Kind, Sink, Stage};

/// A stage for the batches of one generation.
#[derive(Clone, Debug)]
pub struct BoundStage {
    pub stage: Stage,
    pub lookups: Lookups,
}

/// A sink and its endpoint's rules.
#[derive(Clone, Debug)]
pub struct BoundSink {
    pub sink: Sink,
    pub rules: Arc<RequestRules>,
}

impl BoundStage {
    fn context<'a>(&self, batch: &'a BatchInfo) -> CallContext<'a> {
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
        match self.stage.kind() {
            Kind::Filter => StageKind::Filter,
            Kind::Mapper | Kind::HttpSink => StageKind::Mapper,
        }
    }

    fn setup(&self) -> &StageSetup {
        self.stage.setup()
    }

    fn filter(
        &self,
        batch: &BatchInfo,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Verdict>> {
        self.stage
            .filter(&self.context(batch), events, state, fresh)
    }

    fn transform(
        &self,
        batch: &BatchInfo,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Mapped>> {
        self.stage
            .transform(&self.context(batch), events, state, fresh)
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
        batch: &BatchInfo,
        documents: &[DocumentView<'_>],
        fresh: bool,
    ) -> Called<Encoded> {
        self.sink.encode(batch, documents, &self.rules, fresh)
    }

    fn classify(
        &self,
        batch: &BatchInfo,
        sent: &Sent,
        response: &Response,
    ) -> Called<Classification> {
        self.sink.classify(batch, sent, response)
    }
}
