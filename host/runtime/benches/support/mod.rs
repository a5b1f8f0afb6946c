//! The built-in plugins as components, as the host runs them: epochs on, one thread.

use std::path::Path;
use std::sync::LazyLock;

use lockgate_lookup::Lookups;
use lockgate_model::contract::{BatchContext, Mapped, Verdict};
use lockgate_model::{EventView, FeedKind, StateOverlay};
use lockgate_runtime::{
    CallContext, Component, ComponentOptions, Engine, EngineOptions, Limits, Sink, Stage,
};
use serde_json::Value;

/// Events per batch.
pub const EVENTS: usize = 500;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(EngineOptions {
        threads: 1,
        ..EngineOptions::default()
    })
    .unwrap()
});

static BATCH: LazyLock<BatchContext> = LazyLock::new(|| BatchContext {
    id: "bench".into(),
    pipeline: "bench".into(),
    source: "teleport".into(),
    read_at: 0,
});

/// `reuse`: use one instance for all batches instead of a fresh one for each.
pub fn stage(plugin: &str, config: Value, reuse: bool) -> Stage {
    Stage::configure(&ENGINE, &component(plugin), options(plugin, config, reuse)).unwrap()
}

#[allow(dead_code)]
pub fn sink(plugin: &str, config: Value, reuse: bool) -> Sink {
    Sink::configure(&ENGINE, &component(plugin), options(plugin, config, reuse)).unwrap()
}

fn component(plugin: &str) -> Component {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/Cargo.toml")
        .canonicalize()
        .unwrap();
    let guests = lockgate_guest_build::guests_dir(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let built = lockgate_guest_build::build(&manifest, &guests).unwrap();
    let path = built
        .iter()
        .find(|path| path.file_stem().is_some_and(|stem| stem == plugin))
        .expect("a built-in plugin");
    let bytes = std::fs::read(path).unwrap();
    Component::load(&ENGINE, plugin, &bytes, &Limits::default()).unwrap()
}

fn options(plugin: &str, config: Value, reuse: bool) -> ComponentOptions {
    ComponentOptions {
        pipeline: "bench".into(),
        label: plugin.into(),
        plugin: plugin.into(),
        config,
        limits: Limits::default(),
        reuse,
        state: false,
    }
}

pub fn batch() -> &'static BatchContext {
    &BATCH
}

fn context() -> CallContext<'static> {
    CallContext {
        batch: batch(),
        lookups: Lookups::default(),
    }
}

#[allow(dead_code)]
pub fn filter(stage: &Stage, events: &[EventView<'_>]) -> Vec<Verdict> {
    let mut state = StateOverlay::not_granted();
    let called = stage.filter(&context(), events, &mut state, false);
    called.result.unwrap()
}

pub fn transform(stage: &Stage, events: &[EventView<'_>]) -> Vec<Mapped> {
    let mut state = StateOverlay::not_granted();
    let called = stage.transform(&context(), events, &mut state, false);
    called.result.unwrap()
}

pub fn event(payload: &str) -> EventView<'_> {
    let key = "8d5a3f0e-1f2b-4a37-9a6f-0f4b7f8f6c11";
    EventView {
        key,
        event_type: "session.command",
        code: "T4000I",
        time: 1_767_600_000_000,
        index: 7,
        feed: FeedKind::Audit,
        session: None,
        payload,
    }
}
