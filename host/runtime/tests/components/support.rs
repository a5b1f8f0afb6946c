//! Compiled guests, stages, batches of events, and the log as an operator would read it.

use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use lockgate_lookup::Lookups;
use lockgate_model::contract::{BatchContext, CallError, Encoded, Mapped, Verdict};
use lockgate_model::request::RequestRules;
use lockgate_model::{DocumentView, EventView, FeedKind, StateOverlay};
use lockgate_runtime::{
    CallContext, Component, ComponentOptions, ConfigureError, Engine, EngineOptions, Limits, Sink,
    Stage, StageIdentity,
};
use serde_json::Value;
use tracing::field::{Field, Visit};

pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(EngineOptions {
        threads: 1,
        ..EngineOptions::default()
    })
    .unwrap()
});

pub static FILTER: LazyLock<Component> = LazyLock::new(|| load("hostile_filter"));
pub static MAPPER: LazyLock<Component> = LazyLock::new(|| load("hostile_mapper"));
pub static COUNTER: LazyLock<Component> = LazyLock::new(|| load("counter"));
pub static SINK: LazyLock<Component> = LazyLock::new(|| load("hostile_sink"));

/// Bytes of a guest of `tests/components`, compiled on first use.
pub fn wasm(name: &str) -> Vec<u8> {
    static GUESTS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/components/Cargo.toml")
            .canonicalize()
            .unwrap();
        lockgate_guest_build::build(
            &manifest,
            &lockgate_guest_build::guests_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))),
        )
        .unwrap()
    });
    let path = GUESTS
        .iter()
        .find(|path| path.file_stem().is_some_and(|stem| stem == name))
        .expect("a guest of this name");
    std::fs::read(path).unwrap()
}

fn load(name: &str) -> Component {
    Component::load(&ENGINE, name, &wasm(name), &Limits::default()).unwrap()
}

/// Limits that a runaway guest reaches soon, but no other guest, even on a slow machine.
pub fn tight() -> Limits {
    Limits {
        time: Duration::from_secs(1),
        memory: 16 << 20,
        ..Limits::default()
    }
}

pub fn options(plugin: &str, config: Value) -> ComponentOptions {
    ComponentOptions {
        pipeline: "siem".into(),
        label: format!("stage 1 ({plugin})").into(),
        plugin: plugin.into(),
        config,
        limits: tight(),
        reuse: false,
        state: false,
    }
}

/// Of the stage with these [`options`].
pub fn identity(plugin: &str) -> StageIdentity {
    let ComponentOptions {
        pipeline,
        label: stage,
        plugin,
        ..
    } = options(plugin, Value::Null);
    StageIdentity {
        pipeline,
        stage,
        plugin,
    }
}

pub fn configure(component: &Component, config: Value) -> Result<Stage, ConfigureError> {
    Stage::configure(&ENGINE, component, options(component.name(), config))
}

pub fn filter(config: Value) -> Stage {
    configure(&FILTER, config).unwrap()
}

pub fn try_filter(config: Value) -> Result<Stage, ConfigureError> {
    configure(&FILTER, config)
}

pub fn reused_filter(config: Value) -> Stage {
    Stage::configure(
        &ENGINE,
        &FILTER,
        ComponentOptions {
            reuse: true,
            ..options("hostile_filter", config)
        },
    )
    .unwrap()
}

pub fn mapper(config: Value) -> Stage {
    configure(&MAPPER, config).unwrap()
}

pub fn sink(config: Value) -> Sink {
    Sink::configure(&ENGINE, &SINK, options("hostile_sink", config)).unwrap()
}

pub static BATCH: LazyLock<BatchContext> = LazyLock::new(|| BatchContext {
    id: "siem/teleport/audit/1-8".into(),
    pipeline: "siem".into(),
    source: "teleport".into(),
    read_at: 1_767_600_000_000,
});

pub fn context() -> CallContext<'static> {
    CallContext {
        batch: &BATCH,
        lookups: Lookups::default(),
    }
}

/// One call without state.
pub fn call_filter(stage: &Stage, events: &[EventView<'_>]) -> Result<Vec<Verdict>, CallError> {
    let mut state = StateOverlay::not_granted();
    stage.filter(&context(), events, &mut state, false).result
}

/// One call without state.
pub fn call_mapper(stage: &Stage, events: &[EventView<'_>]) -> Result<Vec<Mapped>, CallError> {
    let mut state = StateOverlay::not_granted();
    stage
        .transform(&context(), events, &mut state, false)
        .result
}

/// One call without the operator's headers and parameters.
pub fn encode(sink: &Sink, documents: &[DocumentView<'_>]) -> Result<Encoded, CallError> {
    sink.encode(&BATCH, documents, &RequestRules::default(), false)
        .result
}

pub const KEYS: [&str; 8] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];

pub fn events() -> Vec<EventView<'static>> {
    let event = |key| EventView {
        key,
        event_type: "t",
        code: "T1",
        time: -1,
        index: 5,
        feed: FeedKind::Audit,
        session: None,
        payload: r#"{"a":"b"}"#,
    };
    KEYS.map(event).to_vec()
}

pub fn documents() -> Vec<DocumentView<'static>> {
    let document = |event| DocumentView {
        event,
        attributes: &[],
    };
    events().into_iter().map(document).collect()
}

/// Returns the log lines of `run`, one per event: level, fields in order, message last.
pub fn logged<R>(run: impl FnOnce() -> R) -> (R, Vec<String>) {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let result = tracing::subscriber::with_default(Collect(lines.clone()), run);
    let lines = lines.lock().unwrap().clone();
    (result, lines)
}

struct Collect(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Collect {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line {
            text: event.metadata().level().to_string(),
            message: String::new(),
        };
        event.record(&mut line);
        self.0
            .lock()
            .unwrap()
            .push(format!("{}: {}", line.text, line.message));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line {
    text: String,
    message: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.text, " {}={value}", field.name());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                let _ = write!(self.text, " {name}={value:?}");
            }
        }
    }
}
