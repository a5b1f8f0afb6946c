//! Compiling in a process of its own: its limits, and what ends it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use lockgate_runtime::{
    ChildCompiler, Code, CompileLimits, Compiler, Component, Engine, EngineOptions, Kind, Limits,
    LoadError, StageIdentity,
};
use lockgate_tests::components::hostile_plugins;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::wasm::slow_to_compile;
use lockgate_tests::{
    Auth, Running, books, configuration, lockgate, start_and_finish, status, until,
};

fn engine(limits: CompileLimits) -> Engine {
    let program = lockgate().get_program().into();
    Engine::new(EngineOptions {
        threads: 1,
        compiler: Compiler::Child(ChildCompiler { program, limits }),
        ..EngineOptions::default()
    })
    .expect("an engine")
}

fn builtin(name: &str) -> Vec<u8> {
    let source = format!("builtin:{name}");
    let artifact = lockgate_registry::resolve(&source, Path::new("")).expect("it is built in");
    artifact.bytes.into_owned()
}

#[tokio::test]
async fn code_that_a_child_process_compiled_runs_here() {
    let engine = engine(CompileLimits::default());
    let code = Code::compile(&engine, "fluentd", builtin("fluentd").into())
        .await
        .expect("it compiles");
    let identity = StageIdentity {
        pipeline: "main".into(),
        stage: "sink (builtin:fluentd)".into(),
        plugin: "builtin:fluentd".into(),
    };
    let component =
        Component::new(&engine, "fluentd", code, &Limits::default(), identity).expect("it fits");
    assert_eq!(component.kind(), Kind::HttpSink);
}

#[tokio::test]
async fn a_component_that_does_not_compile_is_refused_with_the_reason() {
    let engine = engine(CompileLimits::default());
    let mut bytes = builtin("fluentd");
    bytes.truncate(bytes.len() / 2);
    let error = Code::compile(&engine, "half", bytes.into())
        .await
        .unwrap_err();
    assert!(matches!(error, LoadError::Compile(_)), "{error}");
    assert!(error.to_string().contains("out of bounds"), "{error}");
}

/// A component once took 114 s of CPU time and 5.2 GB to compile.
#[tokio::test]
async fn a_component_that_takes_too_much_to_compile_is_refused_with_a_remedy() {
    let defaults = CompileLimits::default();
    let memory = CompileLimits {
        memory: 16 << 20,
        ..defaults
    };
    let error = Code::compile(&engine(memory), "ecs", builtin("ecs").into())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "compiling took more than 16 MiB of memory; raise `compile` in `[limits]`, or make the component smaller"
    );
    let time = CompileLimits {
        time: Duration::from_secs(1),
        ..defaults
    };
    let error = Code::compile(&engine(time), "slow", slow_to_compile().into())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "compiling took more than 1 s of CPU time; raise `compile` in `[limits]`, or make the component smaller"
    );
}

/// The host has been killed, or no longer wants the code.
#[test]
fn a_compiler_exits_when_its_input_is_closed() {
    let mut child = lockgate()
        .args(["compile", "--memory", "2000000000", "--time", "600"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let bytes = slow_to_compile();
    input
        .write_all(&(bytes.len() as u64).to_le_bytes())
        .and_then(|()| input.write_all(&bytes))
        .expect("it reads");
    drop(input);
    assert_eq!(ended(child), Some(1));
}

/// SIGTERM used to be ignored until the last component was compiled.
#[test]
fn a_host_that_is_compiling_stops_on_sigterm() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("slow.wasm"), slow_to_compile()).expect("it can be written");
    let auth = Auth::start(dir.path(), &["--events", "10"]);
    let config = configuration(
        dir.path(),
        &auth,
        r#"
[limits]
compile = { time = "1h" }

[pipelines.siem]
stage = [{ plugin = "slow.wasm" }]

[pipelines.siem.sink]
plugin = "builtin:fluentd"
url = "http://127.0.0.1:1/"
"#,
    );
    let mut command = lockgate();
    let host = Running::start(
        "lockgate",
        command.arg("start").arg("--config").arg(&config),
    );
    host.line_with_all(&["compiling", "slow.wasm"]);
    let stderr = host.stop().exits_with(0).stderr;
    assert!(!stderr.contains("cannot be loaded"), "{stderr}");
}

/// `status` used to say `compiling` until the pipeline ran, however long it was configured.
#[test]
fn a_pipeline_of_which_everything_is_compiled_is_shown_as_starting() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = Auth::start(dir.path(), &["--events", "10"]);
    // The pipeline with less to compile starts first, so the sink of the other is compiled then.
    let pipelines = hostile_plugins()
        + r#"
[[pipelines.configures.stage]]
plugin = "hostile-filter"
with = { mode = "configure-loop" }

[pipelines.configures.sink]
plugin = "builtin:fluentd"
url = "http://127.0.0.1:1/"

[pipelines.other.sink]
plugin = "builtin:fluentd"
url = "http://127.0.0.1:1/"
"#;
    let config = configuration(dir.path(), &auth, &pipelines);
    let mut command = lockgate();
    let host = Running::start(
        "lockgate",
        command.arg("start").arg("--config").arg(&config),
    );
    host.line_with_all(&["compiling", "configures"]);
    until(
        "it is shown as starting",
        || host.stderr(),
        || status(&config)["host"]["pipelines"]["configures"]["state"] == "starting",
    );
    host.stop().exits_with(0);
}

/// Files of compiled code below a directory.
fn code_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(code_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "code")
        {
            found.push(path);
        }
    }
    found
}

/// The digests are in the store: who can write the files cannot have other code run.
#[test]
fn compiled_code_that_was_exchanged_is_not_run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let pipeline = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n\
         [[pipelines.main.stage]]\nplugin = \"builtin:filter\"\n",
        receiver.endpoint("main")
    );
    let config = configuration(dir.path(), &auth, &pipeline);
    let first = start_and_finish(&config).stderr;
    assert_eq!(first.matches("INFO  compiled plugin").count(), 2, "{first}");
    let again = start_and_finish(&config).stderr;
    assert!(!again.contains("INFO  compil"), "both are kept: {again}");

    let files = code_files(&dir.path().join("store"));
    assert_eq!(files.len(), 2, "{files:?}");
    let [one, other] = [0, 1].map(|index| std::fs::read(&files[index]).expect("it is readable"));
    std::fs::write(&files[0], &other).expect("it can be written");
    std::fs::write(&files[1], &one).expect("it can be written");
    let exchanged = start_and_finish(&config).stderr;
    let warned = exchanged
        .matches("is not what this host wrote there")
        .count();
    assert_eq!(warned, 2, "{exchanged}");
    assert_eq!(
        exchanged.matches("INFO  compiled plugin").count(),
        2,
        "{exchanged}"
    );
    assert_eq!(books(&status(&config), "main").delivered, 100);
    let again = start_and_finish(&config).stderr;
    assert!(
        !again.contains("INFO  compil"),
        "they are right again: {again}"
    );
}

fn ended(mut child: Child) -> Option<i32> {
    let mut code = Vec::new();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_to_end(&mut code).expect("it ends");
    assert!(code.is_empty());
    child.wait().expect("it ended").code()
}
