//! Passes an event through the components of the configuration again.

use std::path::Path;
use std::sync::Arc;

use lockgate_config::Config;
use lockgate_lookup::Lookups;
use lockgate_model::{Block, BlockBuilder, Head};
use lockgate_observe::Masks;
use lockgate_service::{
    BuiltPipeline, PipelineBuilder, ReplayedDocument, ReplayedResult, ReplayedStage, Unbuilt,
    open_databases,
};
use lockgate_store::{FoundEntry, Inspector};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::report::{PipelineHistory, Replay, ReplayDocument, ReplayStage, Step};
use crate::failure::Failure;
use crate::{commands, print, setup};

/// The pipelines of a configuration, built when they are needed.
pub(super) struct Replayer {
    config: Config,
    builder: PipelineBuilder,
    can_look_up: bool,
    lookups: Lookups,
    runtime: Runtime,
}

impl Replayer {
    pub(super) fn new(
        file: &Path,
        config: &Config,
        masks: &Masks,
        inspector: &Arc<Inspector>,
    ) -> Result<Replayer, Failure> {
        let mut issues = config.no_issues();
        let store = inspector.clone();
        let builder = setup::replay_builder(file, config, masks, store)?;
        let databases = open_databases(&config.lookup, &mut issues);
        if !issues.is_empty() {
            print::problem(&issues.render(print::to_terminal()));
        }
        Ok(Replayer {
            config: config.clone(),
            can_look_up: databases.is_some(),
            lookups: databases
                .map(|databases| databases.lookups())
                .unwrap_or_default(),
            builder,
            runtime: commands::tokio_runtime()?,
        })
    }

    /// Adds what the stages of a pipeline make of an event now, or why that cannot be said.
    pub(super) fn replay(
        &self,
        found: &FoundEntry,
        pipeline: &mut PipelineHistory,
        inspector: &Inspector,
        with_payloads: bool,
    ) -> Result<(), Failure> {
        let name = &pipeline.pipeline;
        let mut pipelines = self.config.pipelines.iter();
        let Some(configured) = pipelines.find(|other| other.name == *name) else {
            return Ok(());
        };
        let mut issues = self.config.no_issues();
        let building = self
            .builder
            .build(configured, self.can_look_up, &mut issues, |_| {});
        let built = match self.runtime.block_on(building) {
            Ok(built) => built,
            Err(unbuilt) => {
                let why = match unbuilt {
                    Unbuilt::NoRoom(why) => why.to_string(),
                    Unbuilt::Reported | Unbuilt::Files(_) => {
                        print::problem(&issues.render(print::to_terminal()));
                        "this pipeline cannot start with the configuration".to_owned()
                    }
                };
                pipeline.not_replayed = Some(why);
                return Ok(());
            }
        };
        // A pipeline that never ran has none.
        let state = inspector.state(name).unwrap_or_default();
        let stages = built.replay(block(found), 0, &state, &self.lookups);
        let stages = self.runtime.block_on(stages);
        let processed = pipeline.history.iter().rev();
        let processed = processed.clone().find(|step| !step.batch.is_empty());
        let replay = report_of(
            &built,
            &self.lookups,
            &stages,
            processed,
            found,
            with_payloads,
        );
        pipeline.replay = Some(replay);
        Ok(())
    }
}

/// The event as a block of its own.
fn block(found: &FoundEntry) -> Arc<Block> {
    let mut builder = BlockBuilder::new();
    let head = Head {
        key: &found.key,
        event_type: &found.event_type,
        code: &found.code,
        time: found.time,
        index: found.index,
        session: &found.session,
    };
    match std::str::from_utf8(&found.payload) {
        Ok(text) if !found.raw => builder.push(head, text),
        _ => builder.push_raw(head, &found.payload),
    }
    let (stream, feed) = (found.stream.as_str().into(), found.feed);
    Arc::new(Block::new(
        stream,
        feed,
        found.seq,
        found.read_at,
        builder.take(),
    ))
}

/// `processed`: the last step in which components worked on the event.
fn report_of(
    built: &BuiltPipeline,
    lookups: &Lookups,
    stages: &[ReplayedStage],
    processed: Option<&Step>,
    found: &FoundEntry,
    with_payloads: bool,
) -> Replay {
    let now: Value = serde_json::from_str(&built.generation(lookups)).unwrap_or_default();
    let event = ReplayedDocument {
        key: found.key.clone(),
        payload: String::from_utf8_lossy(&found.payload).into_owned(),
    };
    let mut before = vec![event];
    let mut reported = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let is_sink = index == built.stage_count();
        let then = processed.map(|step| match is_sink {
            true => &step.description["sink"],
            false => &step.description["stages"][index],
        });
        let digest_then = then.map(|then| then["digest"].as_str().unwrap_or("none"));
        let (result, reason, documents) = match &stage.result {
            ReplayedResult::Passed(documents) => ("passed", None, documents.as_slice()),
            ReplayedResult::Dropped(reason) => ("dropped", Some(reason.clone()), &[][..]),
            ReplayedResult::Dead(reason) => ("dead", Some(reason.clone()), &[][..]),
            ReplayedResult::Failed(reason) => ("failed", Some(reason.clone()), &[][..]),
        };
        let made = documents.iter().map(|document| ReplayDocument {
            key: document.key.clone(),
            bytes: document.payload.len(),
            changed: !before.contains(document),
            payload: with_payloads.then(|| document.payload.clone()),
        });
        reported.push(ReplayStage {
            label: stage.label.clone(),
            digest_then: digest_then
                .filter(|then| *then != stage.digest)
                .map(str::to_owned),
            digest: stage.digest.clone(),
            with_differs: then.is_some_and(|then| then["with"] != stage.with),
            result,
            reason,
            documents: made.collect(),
            uses_state: stage.uses_state,
        });
        before = documents.to_vec();
    }
    Replay {
        same_generation: processed.map(|step| step.description == now),
        stages: reported,
    }
}
