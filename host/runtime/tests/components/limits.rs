//! The limits of instances, and instances that are reused.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use lockgate_model::contract::{CallError, Holder, SharedMemory, Shortage, Verdict};
use lockgate_runtime::metrics::Metric;
use lockgate_runtime::{
    Code, Component, ComponentOptions, Engine, EngineOptions, Limits, LoadError, Stage,
    StageIdentity,
};
use lockgate_tests::wasm::with_tables;
use serde_json::json;

use crate::support::{ENGINE, call_filter, events, identity, logged, options, wasm};

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
    let configure = |mode| {
        let options = options("f", json!({ "mode": mode }));
        Stage::configure(&engine, &component, options).unwrap()
    };
    let (hungry, other) = (configure("memory"), configure("loop"));
    let limit = 16 << 20;
    let alone = Err(CallError::Memory { limit });
    let (shortage, holder) = loop {
        let other = other.clone();
        let holder = std::thread::spawn(move || call_filter(&other, &events()));
        while engine.memory_used() < 64 << 10 && !holder.is_finished() {
            std::thread::yield_now();
        }
        match call_filter(&hungry, &events()) {
            Err(CallError::NoRoom(shortage)) => break (shortage, holder),
            // On a busy machine the other one may have reached its time limit already.
            result => assert_eq!(result, alone),
        }
        holder.join().unwrap().unwrap_err();
    };
    let message = shortage.to_string();
    let taken = "and other components have 2 MiB of the 17 MiB that `memory` in `[limits]` allows";
    assert!(message.ends_with(taken), "{message}");
    holder.join().unwrap().unwrap_err();
    // It learns at once that there is room now.
    let mut room = pin!(hungry.room_for(shortage));
    let mut waits = Context::from_waker(Waker::noop());
    let room = room.as_mut().poll(&mut waits);
    assert!(room.is_ready());
    assert_eq!(call_filter(&hungry, &events()), alone);
}

/// The line and the metric were there once for each attempt.
#[test]
fn a_call_that_finds_no_memory_leaves_no_log_lines_and_no_metrics() {
    // The limit of each instance is 16 MiB.
    let (engine, component) = engine(EngineOptions {
        memory_total: 16 << 20,
        ..EngineOptions::default()
    });
    let hoards = json!({ "mode": "hoard", "bytes": 8 << 20, "on": "k3" });
    let [hoards, other] = [hoards.clone(), hoards]
        .map(|config| Stage::configure(&engine, &component, options("f", config)).unwrap());
    let holder = std::thread::spawn(move || call_filter(&other, &events()));
    while engine.memory_used() < 8 << 20 && !holder.is_finished() {
        std::thread::yield_now();
    }
    let mut refused = 0;
    let ((), lines) = logged(|| {
        while let Err(CallError::NoRoom(_)) = call_filter(&hoards, &events()) {
            refused += 1;
        }
    });
    holder.join().unwrap().unwrap_err();
    assert!(refused > 0);
    // The last call had its memory, and used its time up.
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].ends_with(": hoards"), "{lines:#?}");
    assert_eq!(hoards.metrics()["hoards"], Metric::Counter(1));
}

/// More new pipelines turn out to be slow than slow calls may have begun.
#[tokio::test]
async fn a_call_that_is_postponed_leaves_no_metrics() {
    let (engine, component) = engine(EngineOptions::default());
    let mut hoards = options("f", json!({ "mode": "hoard", "bytes": 0, "on": "k3" }));
    hoards.limits.time = Duration::from_millis(400);
    let calls = (0..14).map(|nth| {
        let stage = Stage::configure(&engine, &component, hoards.clone()).unwrap();
        let queue = engine.scheduler().queue(format!("p{nth}"));
        let called = stage.clone();
        let ran = queue.run(move || call_filter(&called, &events()));
        (stage, ran)
    });
    let mut postponed = 0;
    for (stage, ran) in calls.collect::<Vec<_>>() {
        let result = ran.await.unwrap().result;
        let metrics = stage.metrics();
        match result {
            Err(CallError::Postponed) => {
                postponed += 1;
                assert!(metrics.is_empty(), "{metrics:?}");
            }
            Err(CallError::Timeout { .. }) => assert_eq!(metrics["hoards"], Metric::Counter(1)),
            other => panic!("{other:?}"),
        }
    }
    assert!(postponed > 0);
}

/// Four idle instances of 62 MB once kept a component that needs 300 MB waiting.
#[test]
fn instances_that_are_kept_make_room_for_those_that_need_their_memory() {
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
    assert_eq!(
        engine.memory_used(),
        3 * bytes,
        "of as many as there is room for"
    );
    for stage in &stages {
        assert_eq!(call_filter(stage, &events()), Ok(vec![Verdict::Keep; 8]));
    }
    let others = ComponentOptions {
        reuse: false,
        ..options("f", json!({ "mode": "memory" }))
    };
    let hungry = Stage::configure(&engine, &component, others).unwrap();
    let failed = call_filter(&hungry, &events());
    let limit = bytes * 3;
    assert_eq!(failed, Err(CallError::Memory { limit }), "it had all of it");
    assert_eq!(engine.memory_used(), 0);
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

/// Loading and configuring each waited for a promise of their own, which kept the other from its
/// memory, in turns: the pipeline never started.
#[test]
fn a_component_that_waits_for_memory_is_loaded_and_configured_under_one_promise() {
    let (engine, _) = engine(EngineOptions {
        memory_total: 194 << 20,
        ..EngineOptions::default()
    });
    // 128 MB.
    let bytes = with_tables(&wasm("hostile_filter"), 80);
    let tokio = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let code = tokio
        .block_on(Code::compile(&engine, "large", bytes.into()))
        .unwrap();
    let limits = Limits {
        memory: 194 << 20,
        ..Limits::default()
    };
    let StageIdentity {
        pipeline, stage, ..
    } = identity("large");
    let load = |pipeline: &Arc<str>| {
        let identity = StageIdentity {
            pipeline: pipeline.clone(),
            ..identity("large")
        };
        Component::new(&engine, "large", code.clone(), &limits, identity)
    };
    let another = "another".into();
    let shortage = Shortage {
        holder: Box::new(Holder {
            pipeline: pipeline.clone(),
            stage,
            bytes: 0,
        }),
        needs: 128 << 20,
        of: SharedMemory::All,
        taken: 100 << 20,
        limit: 194 << 20,
        is_slow: false,
        kept: 0,
        exempt: None,
    };
    let promised = tokio.block_on(engine.room_for(shortage));
    let refused = load(&another).unwrap_err();
    assert!(matches!(refused, LoadError::NoRoom(_)), "{refused}");
    let component = load(&pipeline).unwrap();
    let stage = Stage::configure(
        &engine,
        &component,
        ComponentOptions {
            limits: limits.clone(),
            ..options("large", json!({ "mode": "keep" }))
        },
    );
    stage.unwrap();
    drop(promised);
    load(&another).unwrap();
}

/// Nothing checks the time of calls while there are none.
#[test]
fn a_call_after_a_long_pause_ends_at_its_limit() {
    let (engine, component) = engine(EngineOptions::default());
    let limits = Limits {
        time: Duration::from_millis(30),
        ..Limits::default()
    };
    let loops = ComponentOptions {
        limits,
        ..options("f", json!({ "mode": "loop" }))
    };
    let loops = Stage::configure(&engine, &component, loops).unwrap();
    for pause in [0, 300, 1500] {
        std::thread::sleep(Duration::from_millis(pause));
        let looped = call_filter(&loops, &events());
        assert!(
            matches!(looped, Err(CallError::Timeout { .. })),
            "{looped:?}"
        );
    }
}
