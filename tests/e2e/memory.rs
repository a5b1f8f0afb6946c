//! The memory of the whole host, whatever components do.

use std::path::Path;

use lockgate_sim::auth::AuthOptions;
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::components::{component, hostile_plugins};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::wasm::{with_filled_tables, with_tables};
use lockgate_tests::{
    Auth, LocalAuth, ReceiverProcess, Running, Signal, admin_address, books, configuration,
    endpoint, get, limit_address_space, listen_on_any_port, lockgate, quickstart, reload,
    start_with_address_space, started, status, uid, until,
};

const MIB: u64 = 1 << 20;

/// Options with which each call takes 60 MB, and never ends.
const HOARD: &str = "mode = \"hoard\", bytes = 60000000";

/// 60,000 documents in flight, and a task for the request of each, once took 7 GB.
#[test]
fn many_documents_with_a_request_for_each_cost_little_memory() {
    let events = 1000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let victim = uid(events, 77);
    // Nine for each event are within the limits, 100,000 for one are not.
    let pipelines = format!(
        "{}[[pipelines.main.stage]]\nplugin = \"hostile-mapper\"\n\
         with = {{ mode = \"many\", on = \"{victim}\" }}\n\n\
         [[pipelines.main.stage]]\nplugin = \"hostile-mapper\"\n\
         with = {{ mode = \"many\", documents = 9 }}\n\n\
         [pipelines.main.sink]\nplugin = \"hostile-sink\"\nwith = {{ mode = \"each\" }}\n{}\n",
        hostile_plugins(),
        endpoint(&receiver.addr, &receiver.dir, "main")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("every event but one is delivered", shown, || {
        let books = books(&status(&config), "main");
        (books.delivered, books.dead) == (events - 1, 1)
    });
    let most = host.most_memory() / MIB;
    assert!(most < 500, "{most} MiB");
    let stderr = host.stop().exits_with(0).stderr;
    assert!(
        stderr
            .lines()
            .any(|line| line.contains("dead letter") && line.contains(&victim)),
        "{stderr}"
    );
}

/// Tables were not counted: eight pipelines held 2 GB.
#[test]
fn tables_of_components_count_as_their_memory() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let filter = std::fs::read(component("hostile_filter")).unwrap();
    // 96 MB of tables are within the limit of an instance, 152 MB are not.
    for (name, tables) in [("large", 60), ("larger", 95)] {
        let file = dir.path().join(format!("{name}.wasm"));
        std::fs::write(file, with_tables(&filter, tables)).unwrap();
    }
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let names: Vec<String> = (1..=8).map(|number| format!("filled-{number}")).collect();
    let mut pipelines = "[limits]\nmemory = \"2 GiB\"\n\n\
         [plugins.large]\nsource = \"file:large.wasm\"\nreuse = true\n\n\
         [plugins.larger]\nsource = \"file:larger.wasm\"\n\n"
        .to_owned();
    for (name, plugin) in names
        .iter()
        .map(|name| (name.as_str(), "large"))
        .chain([("refused", "larger")])
    {
        pipelines += &format!(
            "[[pipelines.{name}.stage]]\nplugin = \"{plugin}\"\n\n\
             [pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{}\n\n",
            endpoint(&receiver.addr, &receiver.dir, name)
        );
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    host.line_with_all(&["pipeline=refused", "does not start"]);
    host.line_with("it wanted more than 134217728 bytes of memory");
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("all eight deliver everything", shown, || {
        let status = status(&config);
        names
            .iter()
            .all(|name| books(&status, name).delivered == events)
    });
    let most = host.most_memory() / MIB;
    assert!(most < 700, "{most} MiB");
    host.stop();
}

/// Their tables grow when they start, and are written to: 2 GB that nobody had counted. Their calls
/// use their whole limit, so that each keeps what it has.
#[test]
fn eight_pipelines_with_filled_tables_stay_within_the_memory_for_components() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    // 96 MB each.
    let filter = std::fs::read(component("hostile_filter")).unwrap();
    let filled = with_filled_tables(&filter, 60);
    std::fs::write(dir.path().join("filled.wasm"), filled).unwrap();
    let mut pipelines = "[limits]\nmemory = \"256 MiB\"\n\n\
         [plugins.filled]\nsource = \"file:filled.wasm\"\n\
         limits = { time = \"5s\", batch-time = \"10m\" }\n\n"
        .to_owned();
    let names: Vec<String> = (1..=8).map(|number| format!("filled-{number}")).collect();
    for name in &names {
        pipelines += &pipeline_with(name, "filled", "mode = \"loop\"", &receiver);
    }
    pipelines += &pipeline("runs", "builtin:filter", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    listen_on_any_port(&config);
    let host = started(&config);
    let address = &admin_address(&host);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    // Slow calls may have half of it: one at a time.
    until("most find no memory, and say so", shown, || {
        let status = status(&config);
        let waits = |name: &&String| {
            let state = &status["host"]["pipelines"][name.as_str()];
            let message = state["conditions"][0]["message"].as_str();
            let is_short = message.is_some_and(|message| {
                message.contains("other components have") && message.contains("`[limits]`")
            });
            is_short && state["ready"] == false
        };
        books(&status, "runs").delivered == events && names.iter().filter(waits).count() >= 5
    });
    let peak = |line: &str| {
        let is_peak = line.starts_with("lockgate_stage_memory_peak_bytes{");
        let value = line.rsplit(' ').next()?.parse::<f64>().ok()?;
        (is_peak && line.contains("filled")).then_some(value as u64)
    };
    // It is known when a call has ended.
    until("the tables are counted", shown, || {
        let peak = get(address, "/metrics").lines().filter_map(peak).max();
        peak.is_some_and(|peak| peak >= 90_000_000)
    });
    let most = host.most_memory() / MIB;
    assert!(most < 600, "{most} MiB");
    host.kill();
}

/// Two of eight once found no memory while they were configured, and never started.
#[test]
fn pipelines_whose_components_need_more_memory_than_there_is_take_turns() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let names: Vec<String> = (1..=8).map(|number| format!("filled-{number}")).collect();
    let mut pipelines = "[limits]\nmemory = \"256 MiB\"\n\n".to_owned();
    // 96 MB.
    pipelines += &plugin_with_tables(dir.path(), "large", 60);
    for name in &names {
        pipelines += &pipeline(name, "large", &receiver);
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("all eight deliver everything", shown, || {
        let status = status(&config);
        names
            .iter()
            .all(|name| books(&status, name).delivered == events)
    });
    host.kill();
}

/// Four idle instances once kept a component waiting that needed some of their memory.
#[test]
fn a_component_gets_the_memory_of_instances_that_are_idle() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let names: Vec<String> = (1..=4).map(|number| format!("idle-{number}")).collect();
    let mut pipelines = "[limits]\nmemory = \"256 MiB\"\n\n".to_owned();
    // Four of 30 MB, together less than half, and one of 152 MB.
    pipelines += &plugin_with_tables(dir.path(), "small", 19);
    pipelines += &plugin_with_tables(dir.path(), "wide", 95);
    for name in &names {
        pipelines += &pipeline(name, "small", &receiver);
    }
    pipelines += &pipeline("needs-more", "wide", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("all five deliver everything", shown, || {
        let status = status(&config);
        let mut names = names.iter().map(String::as_str).chain(["needs-more"]);
        names.all(|name| books(&status, name).delivered == events)
    });
    host.stop().exits_with(0);
}

/// Two components take more memory than there is, and keep it in calls that never end.
#[test]
fn a_pipeline_that_finds_no_memory_says_so_and_the_others_run() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let mut pipelines = format!(
        "[limits]\nmemory = \"96 MiB\"\n\n\
         [plugins.hoards]\nsource = \"file:{}\"\n\
         limits = {{ memory = \"96 MiB\", time = \"1m\", batch-time = \"10m\" }}\n\n",
        component("hostile_filter").display()
    );
    for name in ["one", "other"] {
        pipelines += &pipeline_with(name, "hoards", HOARD, &receiver);
    }
    pipelines += &pipeline("runs", "builtin:filter", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("two hoard or wait, and one delivers", shown, || {
        let status = status(&config);
        let waits = |name: &str| {
            let state = &status["host"]["pipelines"][name];
            let message = state["conditions"][0]["message"].as_str();
            let is_short = message.is_some_and(|message| {
                message.contains("other components have") && message.contains("`[limits]`")
            });
            is_short && state["ready"] == false
        };
        books(&status, "runs").delivered == events && (waits("one") || waits("other"))
    });
    host.kill();
}

/// An instance that the system refused was taken for the component's fault, and its events became
/// dead letters.
#[test]
fn memory_that_the_system_refuses_is_waited_for() {
    const MUCH: u64 = 60 << 30;
    let dir = tempfile::tempdir().unwrap();
    let mut auth = LocalAuth::start(
        dir.path(),
        AuthOptions {
            events: GeneratorOptions {
                events: 2000,
                ..GeneratorOptions::default()
            },
            ..AuthOptions::default()
        },
    );
    let receiver = LocalReceiver::start(dir.path());
    let config = dir.path().join("lockgate.toml");
    let text = format!(
        "[teleport]\naddr = \"{}\"\nidentity = \"auth/identity\"\n\
         start-time = \"2026-01-01T00:00:00Z\"\n\n[store]\npath = \"store\"\n\n\
         {}[[pipelines.main.stage]]\nplugin = \"hostile-filter\"\n\n\
         [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        auth.addr,
        hostile_plugins(),
        receiver.endpoint("main")
    );
    std::fs::write(&config, text).unwrap();
    // Nothing is read, so no component is called, until the pipeline has started.
    auth.stop();
    // The pipeline waits for it.
    let (key, away) = (receiver.dir.join("client.key"), dir.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let host = start_with_address_space(&config, MUCH);
    host.line_with_all(&["it cannot start yet", "client.key"]);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    let waits = || {
        let state = &status(&config)["host"]["pipelines"]["main"];
        let message = state["conditions"][0]["message"].as_str();
        let parts = ["the system did not give it", "address space", "`ulimit -v`"];
        message.is_some_and(|message| parts.iter().all(|part| message.contains(part)))
    };
    limit_address_space(&host, host.address_space() + (2 << 30));
    std::fs::rename(&away, &key).unwrap();
    until("its start waits", shown, waits);
    limit_address_space(&host, MUCH);
    until("it has started", shown, || {
        status(&config)["host"]["pipelines"]["main"]["state"] == "running"
    });
    // The host needs little for itself, and an instance 4 GiB.
    limit_address_space(&host, host.address_space() + (2 << 30));
    auth.go_on();
    until("its call waits", shown, waits);
    let waiting = books(&status(&config), "main");
    assert_eq!((waiting.delivered, waiting.dead), (0, 0), "{}", shown());
    limit_address_space(&host, MUCH);
    until("everything is delivered", shown, || {
        books(&status(&config), "main").delivered == 2000
    });
    let stderr = host.stop().exits_with(0).stderr;
    assert!(!stderr.contains("dead letter"), "{stderr}");
}

/// Each attempt to start a component failed later, and the pipelines waited for ever.
#[test]
fn an_address_space_that_no_component_fits_into_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let ended = start_with_address_space(&config, 3 << 30).ended();
    let stderr = ended.exits_with(1).stderr;
    for part in ["limited to 3072 MiB", "`LimitAS=`", "`ulimit -v`"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

/// The reload was refused as a whole. Each call that has the memory ends after three seconds of CPU
/// time.
#[test]
fn a_reload_waits_for_memory_that_another_component_has() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let mut pipelines = format!(
        "[limits]\nmemory = \"96 MiB\"\n\n\
         [plugins.hoards]\nsource = \"file:{}\"\n\
         limits = {{ memory = \"96 MiB\", time = \"3s\", batch-time = \"3s\" }}\n\n",
        component("hostile_filter").display()
    );
    // 48 MB.
    pipelines += &plugin_with_tables(dir.path(), "large", 30);
    pipelines += &pipeline_with("hoards", "hoards", HOARD, &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("a batch is in the component", shown, || {
        status(&config)["host"]["pipelines"]["hoards"]["in_flight"] != 0
    });
    configuration(
        dir.path(),
        &auth,
        &(pipelines + &pipeline("new", "large", &receiver)),
    );
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("1 added (new)"), "{answer}");
    host.line_with_all(&[
        "the reload waits for memory",
        "most of it: `hoards`, stage 1",
    ]);
    host.kill();
}

/// It was only `loading`, for up to 30 seconds.
#[test]
fn status_says_what_a_reload_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let mut pipelines = format!(
        "[limits]\nmemory = \"96 MiB\"\n\n\
         [plugins.hoards]\nsource = \"file:{}\"\n\
         limits = {{ memory = \"96 MiB\", time = \"1m\", batch-time = \"10m\" }}\n\n",
        component("hostile_filter").display()
    );
    // 48 MB.
    pipelines += &plugin_with_tables(dir.path(), "large", 30);
    pipelines += &pipeline_with("hoards", "hoards", HOARD, &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("a batch is in the component", shown, || {
        status(&config)["host"]["pipelines"]["hoards"]["in_flight"] != 0
    });
    pipelines += &pipeline("new", "large", &receiver);
    configuration(dir.path(), &auth, &pipelines);
    let mut command = lockgate();
    command.args(["reload", "--config"]).arg(&config);
    let reload = Running::start("reload", &mut command);
    until("status says what the reload waits for", shown, || {
        let waits_for = &status(&config)["host"]["configuration"]["reloading_waits_for"];
        let waits_for = waits_for.as_str().unwrap_or_default();
        waits_for.contains("memory for the pipeline `new`") && waits_for.contains("`hoards`")
    });
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(&config);
    let table = Running::start("status", &mut command).ended().stdout;
    assert!(
        table.contains("waiting for memory for the pipeline `new`"),
        "{table}"
    );
    host.kill();
    reload.ended().exits_with(1);
}

/// The log said `held`, and never that this had ended.
#[test]
fn a_start_that_is_held_for_memory_and_cancelled_ends_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let filter = std::fs::read(component("hostile_filter")).unwrap();
    let mut pipelines = "[limits]\nmemory = \"128 MiB\"\n\n".to_owned();
    // 64 MB, kept while it is configured, and 96 MB; it is compiled after that.
    for (name, tables) in [("spins", 40), ("large", 60)] {
        let file = dir.path().join(format!("{name}.wasm"));
        std::fs::write(file, with_tables(&filter, tables)).unwrap();
        pipelines += &format!(
            "[plugins.{name}]\nsource = \"file:{name}.wasm\"\n\
             limits = {{ memory = \"128 MiB\", time = \"1m\", batch-time = \"10m\" }}\n\n"
        );
    }
    pipelines += &pipeline("runs", "builtin:filter", &receiver);
    pipelines += &pipeline_with("spins", "spins", "mode = \"configure-loop\"", &receiver);
    let with_it = pipelines.clone() + &pipeline("held", "large", &receiver);
    let config = configuration(dir.path(), &auth, &with_it);
    let host = started(&config);
    let held = ["pipeline=held", "kind=start", "subject=memory"];
    host.line_with_all(&[&["held: it cannot start yet"], &held[..]].concat());
    configuration(dir.path(), &auth, &pipelines);
    host.signal(Signal::HUP);
    host.line_with_all(
        &[
            &["no longer held, because the pipeline does not start"],
            &held[..],
        ]
        .concat(),
    );
    host.stop().exits_with(0);
}

#[test]
fn a_component_that_can_never_have_the_memory_it_needs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "10"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let mut pipelines = "[limits]\nmemory = \"64 MiB\"\n\n".to_owned();
    pipelines += &plugin_with_tables(dir.path(), "large", 60);
    pipelines += &pipeline("main", "large", &receiver);
    let config = configuration(dir.path(), &auth, &pipelines);
    let checked = lockgate().args(["check", "--config"]).arg(&config).output();
    let stderr = String::from_utf8(checked.unwrap().stderr).unwrap();
    for part in [
        "`large` cannot be loaded: it cannot be started: it wanted more than 67108864 bytes of memory.",
        "raise `memory` in `[limits]`",
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

/// A filter that keeps its instances, with this many tables of 1.6 MB.
fn plugin_with_tables(dir: &Path, name: &str, tables: u32) -> String {
    let filter = std::fs::read(component("hostile_filter")).unwrap();
    std::fs::write(
        dir.join(format!("{name}.wasm")),
        with_tables(&filter, tables),
    )
    .unwrap();
    format!(
        "[plugins.{name}]\nsource = \"file:{name}.wasm\"\nreuse = true\n\
         limits = {{ memory = \"256 MiB\" }}\n\n"
    )
}

/// The same, with these options of its plugin.
fn pipeline_with(name: &str, plugin: &str, with: &str, receiver: &ReceiverProcess) -> String {
    let with = format!("with = {{ {with} }}\n\n[pipelines");
    pipeline(name, plugin, receiver).replacen("\n[pipelines", &with, 1)
}

fn pipeline(name: &str, plugin: &str, receiver: &ReceiverProcess) -> String {
    format!(
        "[[pipelines.{name}.stage]]\nplugin = \"{plugin}\"\n\n\
         [pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{}\n\n",
        endpoint(&receiver.addr, &receiver.dir, name)
    )
}
