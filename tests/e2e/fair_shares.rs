//! A healthy pipeline next to hostile ones.

use lockgate_tests::components::hostile_plugins;
use lockgate_tests::neighbours::Neighbour::{
    Burns, BurnsAndTraps, Compiles, Hangs, Hoards, Loops, Traps,
};
use lockgate_tests::neighbours::{neighbours, pipeline};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, admin_address, books, configuration, get, listen_on_any_port, started, status, until,
};

/// How fast it is next to them is a benchmark: `cargo bench --workspace --bench neighbours`.
#[test]
fn a_healthy_pipeline_delivers_everything_next_to_five_bad_neighbours() {
    let events = 5000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let healthy = pipeline("healthy", &receiver);
    let hostile = [Loops, Burns, Traps, Hangs, Compiles];
    let pipelines = neighbours(dir.path(), &receiver, &hostile, &healthy);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || host.stderr();
    // It does not wait for the component that takes minutes to compile.
    let mut delivers_meanwhile = false;
    until("the healthy pipeline delivers everything", shown, || {
        let status = status(&config);
        let delivered = books(&status, "healthy").delivered;
        let compiles = &status["host"]["pipelines"]["compiles"]["state"];
        delivers_meanwhile |= delivered > 0 && compiles == "compiling";
        delivered == events
    });
    assert!(delivers_meanwhile, "{}", host.stderr());
    // Of each one that does not deliver the host says so.
    for name in ["loops", "traps", "hangs"] {
        let shown = || format!("{name}: {}\n{}", status(&config), host.stderr());
        until("the host says what keeps a pipeline", shown, || {
            let status = status(&config);
            let state = &status["pipelines"][name]["state"];
            let conditions = state["conditions"].as_array();
            state["ready"] == false && conditions.is_some_and(|conditions| !conditions.is_empty())
        });
    }
    host.stop().exits_with(0);
    let status = status(&config);
    for name in hostile.iter().flat_map(|neighbour| neighbour.pipelines()) {
        assert_eq!(books(&status, &name).dead, 0, "{name}: nothing is given up");
    }
    assert_eq!(receiver.stop().by_path["/healthy"].documents, events);
}

/// All of its isolation was once one job: 500 calls of 0.65 s each, which every batch of the
/// healthy pipeline waited for. Then each of its calls cost the healthy one about an event.
#[test]
fn a_slow_isolation_does_not_hold_up_a_healthy_pipeline() {
    let events = 5000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let healthy = pipeline("healthy", &receiver);
    let pipelines = neighbours(dir.path(), &receiver, &[BurnsAndTraps], &healthy);
    let config = configuration(dir.path(), &auth, &pipelines);
    listen_on_any_port(&config);
    let host = started(&config);
    let address = &admin_address(&host);
    let calls = || {
        let failed = |line: &&str| {
            line.starts_with("lockgate_stage_failed_calls_total{")
                && line.contains("pipeline=\"burns-and-traps\"")
        };
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        let metrics = get(address, "/metrics");
        let calls: f64 = metrics.lines().filter(failed).filter_map(value).sum();
        calls as u64
    };
    until(
        "the healthy pipeline delivers everything",
        || host.stderr(),
        || books(&status(&config), "healthy").delivered == events,
    );
    let meanwhile = calls();
    assert!(
        meanwhile * 20 < events,
        "{meanwhile} calls of the other, while {events} events were delivered"
    );
    // It goes on, and `status` says what is wrong with it.
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the other one makes calls that fail", shown, || calls() > 4);
    until("the host says what is wrong", shown, || {
        let state = &status(&config)["pipelines"]["burns-and-traps"]["state"];
        let message = state["conditions"][0]["message"].as_str();
        state["ready"] == false && message.is_some_and(|message| message.contains("trapped"))
    });
    host.kill();
    let dead = books(&status(&config), "burns-and-traps").dead;
    assert_eq!(dead, 0, "each event by itself is good");
    assert_eq!(receiver.stop().by_path["/healthy"].documents, events);
}

/// They once took all memory before their calls were slow, and kept it while they burned their time
/// limits. The healthy pipeline then waited for longer and longer, also when memory was free.
#[test]
fn ten_components_that_hoard_memory_leave_enough_to_a_healthy_pipeline() {
    let events = 5000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let healthy = pipeline("healthy", &receiver);
    let pipelines = neighbours(dir.path(), &receiver, &[Hoards], &healthy);
    let config = configuration(dir.path(), &auth, &pipelines);
    listen_on_any_port(&config);
    let host = started(&config);
    let address = &admin_address(&host);
    until(
        "the healthy pipeline delivers everything",
        || host.stderr(),
        || books(&status(&config), "healthy").delivered == events,
    );
    let found_no_room = |line: &str| {
        line.starts_with("lockgate_stage_failed_calls_total") && line.contains("cause=\"no-room\"")
    };
    let shown = || format!("{}\n{}", get(address, "/metrics"), host.stderr());
    until("some of them are kept from hoarding", shown, || {
        get(address, "/metrics").lines().any(found_no_room)
    });
    host.kill();
    let status = status(&config);
    for name in Hoards.pipelines() {
        assert_eq!(books(&status, &name).dead, 0, "{name}: nothing is given up");
    }
    assert_eq!(receiver.stop().by_path["/healthy"].documents, events);
}

/// Pipelines once waited for the `configure` of all that started before them; later, for those of
/// some 40 at a time. Each of these takes its limit of 60 s.
#[test]
fn a_pipeline_starts_while_those_before_it_are_still_configured() {
    let events = 500;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let mut pipelines = hostile_plugins();
    for n in 1..=64 {
        pipelines += &format!(
            "[[pipelines.loops-{n}.stage]]\nplugin = \"hostile-filter\"\n\
             with = {{ mode = \"configure-loop\" }}\n\n\
             [pipelines.loops-{n}.sink]\nplugin = \"builtin:fluentd\"\n\
             url = \"http://127.0.0.1:1/\"\n\n"
        );
    }
    // It has the most to compile, so it starts last.
    pipelines += "[[pipelines.healthy.stage]]\nplugin = \"builtin:ecs\"\n";
    pipelines += &pipeline("healthy", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    until(
        "the healthy pipeline delivers everything",
        || host.stderr(),
        || {
            let status = status(&config);
            let is_delivered = books(&status, "healthy").delivered == events;
            if is_delivered {
                let state = &status["host"]["pipelines"]["loops-64"]["state"];
                assert_eq!(state, "starting", "{}", host.stderr());
            }
            is_delivered
        },
    );
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the host says why one has not started", shown, || {
        let state = &status(&config)["pipelines"]["loops-64"]["state"];
        let message = state["conditions"][0]["message"].as_str();
        message.is_some_and(|message| message.contains("stage 1 (hostile-filter) is still being"))
    });
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().by_path["/healthy"].documents, events);
}
