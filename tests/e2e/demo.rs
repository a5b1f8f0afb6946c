//! `lockgate demo`.

use std::path::PathBuf;
use std::process::Command;

use lockgate_tests::{Running, lockgate};
use serde_json::Value;

/// The first command of the README, with fewer events.
#[test]
fn the_demo_delivers_everything_and_the_books_balance() {
    let ended = Running::start(
        "demo",
        lockgate().args(["demo", "--events", "3000", "--json"]),
    )
    .ended()
    .exits_with(0);
    let report: Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("one JSON object ({error}): {}", ended.stdout));
    let figure = |name: &str| {
        report[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no `{name}` in {report}"))
    };
    assert_eq!(figure("read"), 3000);
    assert_eq!(
        figure("read"),
        figure("delivered") + figure("dropped") + figure("dead") + figure("waiting")
    );
    assert_eq!((figure("dead"), figure("waiting")), (0, 0));
    assert!(figure("dropped") > 0, "the demo's filter drops something");
    assert_eq!(
        figure("receiver_distinct"),
        figure("delivered"),
        "the receiver saw each delivered id"
    );
    for name in ["seconds", "cpu_us_per_event", "rss_mb"] {
        assert!(
            report[name].as_f64().is_some_and(|value| value > 0.0),
            "`{name}` is measured: {report}"
        );
    }
}

#[test]
fn the_demo_of_the_ecs_mapper_delivers_a_document_for_every_event() {
    let ended = Running::start(
        "demo",
        lockgate().args(["demo", "--events", "2000", "--ecs"]),
    )
    .ended()
    .exits_with(0);
    let samples: Vec<Value> = ended
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(
        samples.len(),
        3,
        "three sample documents:\n{}",
        ended.stdout
    );
    for document in samples {
        assert_eq!(
            (&document["ecs"]["version"], &document["event"]["kind"]),
            (&"8.11.0".into(), &"event".into()),
            "{document}"
        );
        assert!(
            document["event"]["id"].is_string() && document["uid"].is_null(),
            "{document}"
        );
    }
    assert!(
        ended.stdout.contains("2,000 read = ") && ended.stdout.contains(" + 0 dead + 0 waiting"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_demo_prints_its_result_and_what_to_try_next() {
    let ended = Running::start("demo", lockgate().args(["demo", "--events", "1000"]))
        .ended()
        .exits_with(0);
    for text in [
        "read",
        "delivered",
        "dropped",
        "dead",
        "waiting",
        "lockgate demo --keep",
    ] {
        assert!(
            ended.stdout.contains(text),
            "no `{text}` in:\n{}",
            ended.stdout
        );
    }
    let samples = ended
        .stdout
        .lines()
        .filter(|line| line.trim_start().starts_with('{'))
        .count();
    assert_eq!(samples, 3, "three sample documents:\n{}", ended.stdout);
}

/// An installed binary has no `examples`.
#[test]
fn the_demo_names_only_next_steps_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let demo = || {
        let mut command = lockgate();
        command.args(["demo", "--events", "1000"]);
        command.current_dir(dir.path());
        command
    };
    let steps = |stdout: &str| -> Vec<String> {
        let (_, steps) = stdout.split_once("Try next").unwrap();
        let commands = steps.lines().skip(1);
        commands
            .map(|line| line.split_once("   ").map_or(line, |(command, _)| command))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let ended = Running::start("demo", demo().args(["--keep", "kept"])).ended();
    let printed = steps(&ended.exits_with(0).stdout);
    assert_eq!(printed.len(), 6, "{printed:?}");
    let program = PathBuf::from(lockgate().get_program());
    for step in printed {
        let step = step.replace("lockgate ", &format!("{} ", program.display()));
        let mut shell = Command::new("sh");
        shell.args(["-c", &step]).current_dir(dir.path());
        Running::start("sh", &mut shell).ended().exits_with(0);
    }
    std::fs::create_dir_all(dir.path().join("examples/quickstart")).unwrap();
    let ended = Running::start("demo", &mut demo()).ended().exits_with(0);
    let printed = steps(&ended.stdout);
    assert!(
        printed.contains(&"cd examples/quickstart".to_owned()),
        "{printed:?}"
    );
}
