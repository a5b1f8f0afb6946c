//! Passes one event through the stages of a pipeline, for `lockgate explain`. Nothing is sent, and
//! no state is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_engine::{
    BatchError, DocumentIndex, Documents, EntryIndex, Fates, StageOutput, StageRun,
};
use lockgate_lookup::Lookups;
use lockgate_model::contract::{BatchContext, TypeLists};
use lockgate_model::{Batch, Block, Slice, StateMap, StateOverlay};
use serde_json::Value;

use crate::build::BuiltPipeline;
use crate::components;
use crate::plugins::BoundStage;
use crate::settings::owners;

/// A stage, or the types that the sink wants, and what became of the event there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedStage {
    /// Such as `stage 1 (builtin:filter)`, or `sink (builtin:fluentd)`.
    pub label: String,
    /// SHA-256 of the component, as its generation's description has it.
    pub digest: String,
    /// The plugin's table in the configuration.
    pub with: Value,
    pub result: ReplayedResult,
    /// The stage keeps state, so an event may get another result at another time.
    pub uses_state: bool,
}

/// What a stage makes of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayedResult {
    /// The documents for the next stage.
    Passed(Vec<ReplayedDocument>),
    Dropped(String),
    /// It would be a dead letter.
    Dead(String),
    /// The component did not come to a result, so a pipeline would try again.
    Failed(String),
}

/// A document as the next stage would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedDocument {
    pub key: String,
    pub payload: String,
}

impl BuiltPipeline {
    /// Passes one event through the stages, with the given state of the pipeline's plugins, up to
    /// the one that drops it. The last element is the sink's: whether it wants events of this type.
    pub async fn replay(
        &self,
        block: Arc<Block>,
        row: usize,
        state: &BTreeMap<String, BTreeMap<String, String>>,
        lookups: &Lookups,
    ) -> Vec<ReplayedStage> {
        let event = Batch {
            slices: vec![Slice {
                rows: row..row + 1,
                block,
            }],
        };
        let states = self.stages.iter().zip(owners(self)).map(|(stage, owner)| {
            let kept = state.get(&owner).map(StateMap::from).unwrap_or_default();
            let overlay = |quota| StateOverlay::new(kept, quota);
            let not_granted = StateOverlay::not_granted();
            stage.state_quota.map_or(not_granted, overlay)
        });
        let states: Vec<StateOverlay> = states.collect();
        let mut replayed: Vec<ReplayedStage> = Vec::new();
        // Each stage by passing those before it again: the same event gives the same documents.
        for count in 1..=self.stages.len() + 1 {
            let sink = (count > self.stages.len()).then(|| {
                let types = self.sink.sink.setup().types.clone();
                (self.sink.sink.label().into(), Arc::new(types))
            });
            let stages = count.min(self.stages.len());
            let result = self
                .pass(&event, stages, states[..stages].to_vec(), sink, lookups)
                .await;
            let is_last = !matches!(result, ReplayedResult::Passed(_));
            replayed.push(self.replayed(count - 1, result));
            if is_last {
                break;
            }
        }
        replayed
    }

    pub fn stage_count(&self) -> usize {
        self.stages.len()
    }

    /// Equal for equal components, tables and databases: the description of its generation.
    pub fn generation(&self, lookups: &Lookups) -> String {
        self.description.text(lookups)
    }

    async fn pass(
        &self,
        event: &Batch,
        stages: usize,
        states: Vec<StateOverlay>,
        sink: Option<(Arc<str>, Arc<TypeLists>)>,
        lookups: &Lookups,
    ) -> ReplayedResult {
        let stream = event.slices[0].block.stream.clone();
        let source = stream.rsplit_once('/').map_or("", |(source, _)| source);
        let context = BatchContext {
            id: format!("explain/{stream}/{}", event.range().start).into(),
            pipeline: self.name().into(),
            source: source.into(),
            read_at: event.slices[0].block.read_at,
        };
        let bound = self.stages[..stages].iter().map(|stage| BoundStage {
            stage: stage.stage.clone(),
            lookups: lookups.clone(),
            meter: None,
        });
        let documents = Documents::new(context, event.clone());
        let mut run = Box::new(StageRun::new(documents, states, self.cpu_budget, sink));
        if stages == 0 {
            // Without stages, the run cannot stop.
            run.step::<BoundStage>(&[]);
            return result(&run.into_output());
        }
        match components::run_stages(&self.queue, bound.collect(), run, |_| {}, |_| {}).await {
            Ok(output) => result(&output),
            Err(error) => ReplayedResult::Failed(words(&error)),
        }
    }

    fn replayed(&self, index: usize, result: ReplayedResult) -> ReplayedStage {
        let components = &self.description.components;
        let stage = self.stages.get(index);
        let (label, component) = match stage {
            Some(stage) => (stage.stage.label(), &components["stages"][index]),
            None => (self.sink.sink.label(), &components["sink"]),
        };
        ReplayedStage {
            label: label.to_owned(),
            digest: component["digest"].as_str().unwrap_or("").to_owned(),
            with: component["with"].clone(),
            result,
            uses_state: stage.is_some_and(|stage| stage.state_quota.is_some()),
        }
    }
}

fn result(output: &StageOutput) -> ReplayedResult {
    let StageOutput {
        documents, fates, ..
    } = output;
    let entry = EntryIndex::new(0);
    let document = |&document: &DocumentIndex| ReplayedDocument {
        key: documents.event(document).key.to_owned(),
        payload: documents.payload(document).to_owned(),
    };
    let open = Fates::open(fates, documents);
    match (fates.death(entry), fates.drop_reason(entry)) {
        (Some((_, reason)), _) => ReplayedResult::Dead(reason.to_owned()),
        (_, Some(reason)) => ReplayedResult::Dropped(reason.into_owned()),
        _ => ReplayedResult::Passed(open.iter().map(document).collect()),
    }
}

fn words(error: &BatchError) -> String {
    match error {
        BatchError::Component { error, .. } => error.to_string(),
        BatchError::CpuBudget { budget, .. } => {
            format!("it used more than {} ms of CPU time", budget.as_millis())
        }
        BatchError::TooMuch { made, .. } => format!("it made too much of one batch: {made}"),
    }
}
