//! The settings of engines and of the store, from the configuration and the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockgate_backoff::Random;
use lockgate_config::{Config, Order, Pipeline};
use lockgate_engine::{
    BatchLimits, BrakeLimits, EndpointSettings, Settings, SinkSettings, StageSettings,
    StreamSettings,
};
use lockgate_ledger::Registration;
use lockgate_model::{FeedKind, StateMap, state_owners};
use lockgate_store::{LagLimit, Retention};

use crate::build::BuiltPipeline;

/// How long the store keeps the events of each stream.
pub fn retention(config: &Config) -> BTreeMap<String, Retention> {
    let retention = |kept: lockgate_config::Retention| Retention {
        age: Some(kept.age),
        bytes: Some(kept.bytes),
    };
    let sources = config.sources.iter().flat_map(|source| {
        [
            (FeedKind::Audit, config.store.audit),
            (FeedKind::Sessions, config.store.sessions),
        ]
        .map(|(feed, kept)| (format!("{}/{}", source.name, feed.name()), retention(kept)))
    });
    sources.collect()
}

/// How far each pipeline may hold retention back, if that is limited.
pub(crate) fn lag_limits(config: &Config) -> BTreeMap<String, LagLimit> {
    let limit = |pipeline: &Pipeline| {
        let limit = &pipeline.lag_limit;
        LagLimit {
            age: limit.age,
            bytes: limit.bytes,
        }
    };
    let pipelines = config.pipelines.iter();
    let limits = pipelines.map(|pipeline| (pipeline.name.clone(), limit(pipeline)));
    limits
        .filter(|(_, limit)| limit.age.is_some() || limit.bytes.is_some())
        .collect()
}

pub(crate) fn engine_settings(pipeline: &BuiltPipeline, registration: &Registration) -> Settings {
    let config = &pipeline.config;
    let setup = pipeline.sink.sink.setup();
    let least = |own: u64, wish: Option<u32>| wish.map_or(own, |wish| own.min(wish.into()));
    let streams = config.from.iter().map(|input| {
        let name = format!("{}/{}", input.source, input.feed.name());
        let progress = registration
            .streams
            .iter()
            .find(|progress| progress.stream == name);
        StreamSettings {
            endpoint: pipeline.endpoint_of(input.feed),
            source: input.source.as_str().into(),
            in_session_order: input.order == Order::Session,
            watermark: progress.map_or(1, |progress| progress.watermark),
            done: progress
                .map(|progress| progress.done.clone())
                .unwrap_or_default(),
            name: name.into(),
        }
    });
    let stages = pipeline.stages.iter().zip(owners(pipeline));
    let stages = stages.map(|(stage, owner)| {
        let state = registration.state.get(&owner).map(StateMap::from);
        StageSettings {
            label: stage.stage.label().into(),
            state_owner: owner.into(),
            state_quota: stage.state_quota,
            state: state.unwrap_or_default(),
        }
    });
    let events = least(config.batch.events as u64, setup.max_documents).max(1) as usize;
    Settings {
        pipeline: config.name.as_str().into(),
        epoch: registration.epoch,
        streams: streams.collect(),
        endpoints: pipeline
            .destinations
            .iter()
            .map(|destination| EndpointSettings {
                name: destination.name().into(),
                in_flight: pipeline.client.most_at_once(),
            })
            .collect(),
        batch: BatchLimits {
            events,
            bytes: least(config.batch.bytes, setup.max_bytes).max(1) as usize,
            age: config.batch.age,
        },
        batches_in_flight: config.in_flight,
        sink: SinkSettings {
            label: pipeline.sink.sink.label().into(),
            types: Arc::new(setup.types.clone()),
            inspect: setup.inspect,
            max_documents: setup.max_documents.map_or(usize::MAX, |most| most as usize),
            max_bytes: setup.max_bytes.map_or(usize::MAX, |most| most as usize),
        },
        stages: stages.collect(),
        cpu_budget: pipeline.cpu_budget,
        brake: BrakeLimits {
            in_a_row: config.dead_letters.in_a_row,
            share: config.dead_letters.share,
            bytes: config.dead_letters.bytes,
        },
        brake_text: registration.brake.clone(),
        dead_bytes: registration.dead_bytes,
        seed: Random::from_system().next_u64(),
    }
}

/// Says which state of the pipeline is kept although no stage uses it: counts and quotas must be
/// explainable.
pub(crate) fn log_unused_state(pipeline: &BuiltPipeline, registration: &Registration) {
    let stages = pipeline.stages.iter().zip(owners(pipeline));
    let used: Vec<String> = stages
        .filter(|(stage, _)| stage.state_quota.is_some())
        .map(|(_, owner)| owner)
        .collect();
    for (owner, state) in &registration.state {
        if !used.contains(owner) {
            let bytes: usize = state
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            tracing::info!(
                pipeline = pipeline.name(),
                keys = state.len(),
                bytes,
                "the state of `{owner}` is kept, although no stage uses it"
            );
        }
    }
}

/// Whose state each stage keeps.
pub(crate) fn owners(pipeline: &BuiltPipeline) -> Vec<String> {
    let stages = pipeline.config.stages.iter();
    state_owners(stages.map(|stage| stage.plugin.name.as_str()))
}
