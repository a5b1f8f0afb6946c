//! The built-in plugins as components, as the host runs them: epochs on, one thread.

use std::path::Path;
use std::sync::LazyLock;

use lockgate_lookup::Lookups;
use lockgate_model::{EventView, FeedRef};
use lockgate_runtime::{Component, Context, Engine, EngineOptions, Limits, Stage, StageOptions};
use serde_json::Value;

/// Events of a batch.
pub const EVENTS: usize = 500;

/// `reuse`: one instance for all batches, in place of a fresh one for each.
pub fn stage(plugin: &str, config: Value, reuse: bool) -> Stage {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        Engine::new(EngineOptions {
            threads: 1,
            ..EngineOptions::default()
        })
        .unwrap()
    });
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/Cargo.toml")
        .canonicalize()
        .unwrap();
    let guests = lockgate_guest_build::guests_folder(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let built = lockgate_guest_build::build(&manifest, &guests).unwrap();
    let path = built
        .iter()
        .find(|path| path.file_stem().is_some_and(|stem| stem == plugin))
        .expect("a built-in plugin");
    let component = Component::load(
        &ENGINE,
        plugin,
        &std::fs::read(path).unwrap(),
        &Limits::default(),
    )
    .unwrap();
    let options = StageOptions {
        pipeline: "bench".into(),
        label: plugin.into(),
        plugin: plugin.into(),
        config,
        limits: Limits::default(),
        reuse,
    };
    Stage::configure(&ENGINE, &component, options).unwrap()
}

pub fn context() -> Context {
    Context {
        batch: "bench".into(),
        pipeline: "bench".into(),
        source: "teleport".into(),
        read_at: 0,
        lookups: Lookups::default(),
    }
}

pub fn event(payload: &str) -> EventView<'_> {
    let key = "8d5a3f0e-1f2b-4a37-9a6f-0f4b7f8f6c11";
    EventView {
        key,
        event_type: "session.command",
        code: "T4000I",
        time: 1_767_600_000_000,
        index: 7,
        feed: FeedRef::Audit,
        payload,
    }
}
