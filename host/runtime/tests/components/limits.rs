//! The limits of instances, and instances that are reused.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use lockgate_model::contract::{CallError, Verdict};
use lockgate_runtime::{Component, ComponentOptions, Engine, EngineOptions, Limits, Stage};
use serde_json::json;

use crate::support::{ENGINE, call_filter, events, options, wasm};

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
fn memory_is_released_and_kept_instances_are_counted() {
    let (engine, component) = engine(EngineOptions::default());
    assert_eq!(engine.memory_used(), 0);
    let fresh = Stage::configure(
        &engine,
        &component,
        options("f", json!({ "mode": "memory", "on": "k3" })),
    )
    .unwrap();
    call_filter(&fresh, &events()).unwrap_err();
    assert_eq!(engine.memory_used(), 0);

    let kept = ComponentOptions {
        reuse: true,
        ..options("f", json!({ "mode": "trap", "on": "k3" }))
    };
    let kept = Stage::configure(&engine, &component, kept).unwrap();
    assert_eq!(
        call_filter(&kept, &events()[4..]),
        Ok(vec![Verdict::Keep; 4])
    );
    assert!(engine.memory_used() > 1 << 20);
    call_filter(&kept, &events()).unwrap_err();
    assert_eq!(engine.memory_used(), 0);
}

/// More stages than slots: some instances are not kept, but all stages work.
#[test]
fn any_number_of_stages_may_reuse_instances() {
    let (engine, component) = engine(EngineOptions {
        threads: 1,
        memory_total: 4 << 30,
        ..EngineOptions::default()
    });
    let kept = || ComponentOptions {
        reuse: true,
        ..options("f", json!({ "mode": "keep" }))
    };
    let stages: Vec<Stage> = (0..300)
        .map(|_| Stage::configure(&engine, &component, kept()).unwrap())
        .collect();
    for stage in stages.iter().chain(&stages) {
        assert_eq!(call_filter(stage, &events()), Ok(vec![Verdict::Keep; 8]));
    }
}

/// An event is not at fault for the memory of other instances, so the batch waits.
#[test]
fn a_component_is_not_blamed_for_the_memory_of_others() {
    // The limit of each instance is 16 MiB.
    let (engine, component) = engine(EngineOptions {
        memory_total: (16 << 20) + (64 << 10),
        ..EngineOptions::default()
    });
    let configure = |mode, reuse| {
        let options = ComponentOptions {
            reuse,
            ..options("f", json!({ "mode": mode }))
        };
        Stage::configure(&engine, &component, options).unwrap()
    };
    let hungry = configure("memory", false);
    let other = configure("keep", true);
    assert!(engine.memory_used() > 64 << 10, "it keeps its instance");
    let result = call_filter(&hungry, &events());
    let Err(CallError::NoRoom(shortage)) = result else {
        panic!("{result:?}");
    };
    let message = shortage.to_string();
    let taken = "and other components have 2 MiB of the 17 MiB that `memory` in `[limits]` allows";
    assert!(message.ends_with(taken), "{message}");
    drop(other);
    // It is told at once that there is room now.
    let mut room = pin!(hungry.room_for(shortage));
    let mut waits = Context::from_waker(Waker::noop());
    assert_eq!(room.as_mut().poll(&mut waits), Poll::Ready(()));
    let limit = 16 << 20;
    assert_eq!(
        call_filter(&hungry, &events()),
        Err(CallError::Memory { limit })
    );
}

/// Else pipelines that are configured later would find no memory.
#[test]
fn an_instance_is_kept_only_while_half_of_the_memory_is_free() {
    let (engine, component) = engine(EngineOptions::default());
    let kept = ComponentOptions {
        reuse: true,
        ..options("f", json!({ "mode": "keep" }))
    };
    let stage = Stage::configure(&engine, &component, kept.clone()).unwrap();
    let bytes = engine.memory_used();
    drop(stage);
    let (engine, component) = self::engine(EngineOptions {
        memory_total: bytes * 3,
        ..EngineOptions::default()
    });
    let stages: Vec<Stage> = (0..8)
        .map(|_| Stage::configure(&engine, &component, kept.clone()).unwrap())
        .collect();
    assert_eq!(engine.memory_used(), bytes, "of one instance");
    for stage in &stages {
        assert_eq!(call_filter(stage, &events()), Ok(vec![Verdict::Keep; 8]));
    }
}

#[test]
fn fuel_counts_the_same_every_time() {
    let (engine, component) = engine(EngineOptions {
        fuel: true,
        ..EngineOptions::default()
    });
    let used = || {
        let stage = Stage::configure(&engine, &component, options("f", json!({}))).unwrap();
        call_filter(&stage, &events()).unwrap();
        stage.fuel_used()
    };
    let first = used();
    assert!(first > 100, "{first}");
    assert_eq!(used(), first);
}

#[test]
fn the_operators_limits_apply() {
    let (engine, component) = engine(EngineOptions::default());
    let limits = Limits {
        memory: 3 << 20,
        ..Limits::default()
    };
    let stage = ComponentOptions {
        limits,
        ..options("f", json!({ "mode": "memory" }))
    };
    let stage = Stage::configure(&engine, &component, stage).unwrap();
    assert_eq!(
        call_filter(&stage, &events()),
        Err(CallError::Memory { limit: 3 << 20 })
    );
    let limits = Limits {
        memory: 1 << 16,
        ..Limits::default()
    };
    let refused = Stage::configure(
        &engine,
        &component,
        ComponentOptions {
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

/// Loading used to start an instance under the default limits.
#[test]
fn the_operators_limits_apply_when_a_component_is_loaded() {
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
