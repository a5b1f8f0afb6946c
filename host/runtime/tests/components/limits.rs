use lockgate_runtime::{
    CallError, Component, Engine, EngineOptions, Limits, Stage, StageOptions, Verdict,
};
use serde_json::json;

use crate::support::{ENGINE, context, events, options, wasm};

fn engine(options: EngineOptions) -> (Engine, Component) {
    let engine = Engine::new(EngineOptions {
        threads: 1,
        ..options
    })
    .unwrap();
    let component = Component::load(
        &engine,
        "hostile_filter",
        &wasm("hostile_filter"),
        &Limits::default(),
    )
    .unwrap();
    (engine, component)
}

#[test]
fn memory_is_given_back_and_kept_instances_are_counted() {
    let (engine, component) = engine(EngineOptions::default());
    assert_eq!(engine.memory_used(), 0);
    let fresh = Stage::configure(
        &engine,
        &component,
        options("f", json!({ "mode": "memory", "on": "k3" })),
    )
    .unwrap();
    fresh.filter_isolated(&context(), &events()).unwrap();
    assert_eq!(engine.memory_used(), 0);

    let kept = StageOptions {
        reuse: true,
        ..options("f", json!({ "mode": "trap", "on": "k3" }))
    };
    let kept = Stage::configure(&engine, &component, kept).unwrap();
    assert_eq!(
        kept.filter(&context(), &events()[4..]),
        Ok(vec![Verdict::Keep; 4])
    );
    assert!(engine.memory_used() > 1 << 20);
    kept.filter(&context(), &events()).unwrap_err();
    assert_eq!(engine.memory_used(), 0);
}

/// More than there are places for: those that find none are not kept, and all of them work.
#[test]
fn any_number_of_stages_may_wish_to_keep_their_instances() {
    let (engine, component) = engine(EngineOptions {
        threads: 1,
        memory_total: 4 << 30,
        ..EngineOptions::default()
    });
    let kept = || StageOptions {
        reuse: true,
        ..options("f", json!({ "mode": "keep" }))
    };
    let stages: Vec<Stage> = (0..300)
        .map(|_| Stage::configure(&engine, &component, kept()).unwrap())
        .collect();
    for stage in stages.iter().chain(&stages) {
        assert_eq!(
            stage.filter(&context(), &events()),
            Ok(vec![Verdict::Keep; 8])
        );
    }
}

/// The memory that others took is no fault of an event: the batch waits.
#[test]
fn a_component_without_memory_because_of_others_is_not_blamed() {
    let (engine, component) = engine(EngineOptions {
        memory_total: 8 << 20,
        ..EngineOptions::default()
    });
    let stage = Stage::configure(
        &engine,
        &component,
        options("f", json!({ "mode": "memory" })),
    )
    .unwrap();
    let postponed = stage.filter_isolated(&context(), &events()).unwrap_err();
    assert_eq!(
        postponed.message,
        "all instances together have used up the memory that components may have"
    );
    assert!(matches!(
        stage.filter(&context(), &events()),
        Err(CallError::Host(_))
    ));
}

#[test]
fn a_component_that_takes_nothing_holds_its_batch() {
    let (engine, component) = engine(EngineOptions::default());
    let stage =
        Stage::configure(&engine, &component, options("f", json!({ "mode": "trap" }))).unwrap();
    let many: Vec<_> = events().into_iter().cycle().take(100).collect();
    let postponed = stage.filter_isolated(&context(), &many).unwrap_err();
    assert!(
        postponed.message.starts_with(
            "16 events in a row could not be taken, so the batch is held; the last one: it trapped"
        ),
        "{postponed:?}"
    );
}

#[test]
fn fuel_counts_the_same_every_time() {
    let (engine, component) = engine(EngineOptions {
        fuel: true,
        ..EngineOptions::default()
    });
    let used = || {
        let stage = Stage::configure(&engine, &component, options("f", json!({}))).unwrap();
        stage.filter(&context(), &events()).unwrap();
        stage.fuel_used()
    };
    let first = used();
    assert!(first > 100, "{first}");
    assert_eq!(used(), first);
}

#[test]
fn the_operator_s_limits_are_the_ones_that_hold() {
    let (engine, component) = engine(EngineOptions::default());
    let limits = Limits {
        memory: 3 << 20,
        ..Limits::default()
    };
    let stage = StageOptions {
        limits,
        ..options("f", json!({ "mode": "memory" }))
    };
    let stage = Stage::configure(&engine, &component, stage).unwrap();
    assert_eq!(
        stage.filter(&context(), &events()),
        Err(CallError::Memory { limit: 3 << 20 })
    );
    let limits = Limits {
        memory: 1 << 16,
        ..Limits::default()
    };
    let refused = Stage::configure(
        &engine,
        &component,
        StageOptions {
            limits,
            ..options("f", json!({}))
        },
    )
    .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the plugin cannot be configured: it wanted more than 65536 bytes of memory"
    );
}

/// Finding 18: loading started an instance under the default limits.
#[test]
fn the_operator_s_limits_hold_when_a_component_is_loaded() {
    let limits = Limits {
        memory: 1 << 16,
        ..Limits::default()
    };
    let refused =
        Component::load(&ENGINE, "hostile_filter", &wasm("hostile_filter"), &limits).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "it cannot be started: it wanted more than 65536 bytes of memory"
    );
}
