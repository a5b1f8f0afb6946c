//! `lockgate plugin run`.

use std::io::Write;
use std::process::{Output, Stdio};

use expect_test::expect_file;
use lockgate_tests::components::component;
use lockgate_tests::{lockgate, root};
use serde_json::Value;

const EVENTS: &str = concat!(
    r#"{"code":"T1000I","ei":0,"event":"user.login","time":"2026-01-05T08:00:00Z","uid":"u-1","user":"alice"}"#,
    "\n",
    r#"{"code":"T2000I","ei":1,"event":"session.start","sid":"s-1","time":"2026-01-05T08:00:01Z","uid":"u-2","user":"bob"}"#,
    "\n",
);

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = lockgate();
    command
        .args(["plugin", "run"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[test]
fn a_filter_prints_what_it_keeps() {
    let kept = lines(&run(
        &["builtin:filter", "--with", r#"{"skip":["user.login"]}"#],
        EVENTS,
    ));
    assert_eq!(
        kept.iter()
            .map(|event| event["uid"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["u-2"]
    );
    let kept = lines(&run(
        &[
            "builtin:filter",
            "--with",
            r#"{"where":{"user":["alice"]}}"#,
        ],
        EVENTS,
    ));
    assert_eq!(
        kept.iter()
            .map(|event| event["uid"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["u-1"]
    );
}

#[test]
fn dropped_events_metrics_and_granted_state_are_reported() {
    let measure = component("hostile_filter");
    let output = run(
        &[measure.to_str().unwrap(), "--with", r#"{"mode":"measure"}"#],
        EVENTS,
    );
    assert_eq!(lines(&output).len(), 2);
    let stderr = String::from_utf8_lossy(&output.stderr);
    for line in ["metric seen: 2", "metric bytes: 2 observations, sum "] {
        assert!(stderr.contains(line), "no `{line}`:\n{stderr}");
    }

    let flood = r#"{"mode":"metric-flood"}"#;
    let output = run(&[measure.to_str().unwrap(), "--with", flood], EVENTS);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches(" is refused: ").count(), 16, "{stderr}");
    assert!(
        stderr.contains("further refused metrics are not shown"),
        "{stderr}"
    );

    let output = run(
        &["builtin:filter", "--with", r#"{"skip":["user.login"]}"#],
        EVENTS,
    );
    assert_eq!(lines(&output).len(), 1);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("1 event dropped, on line 1: "), "{stderr}");
    assert!(!stderr.contains("state"), "{stderr}");

    let counter = component("counter");
    let output = run(&[counter.to_str().unwrap()], EVENTS);
    assert_eq!(lines(&output).len(), 2);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`state` in `[plugins.NAME]`"), "{stderr}");
}

#[test]
fn a_mapper_prints_its_documents() {
    let documents = lines(&run(
        &["builtin:redact", "--with", r#"{"remove":["user"]}"#],
        EVENTS,
    ));
    assert_eq!(documents.len(), 2);
    assert!(
        documents
            .iter()
            .all(|document| document.get("user").is_none() && document.get("uid").is_some()),
        "{documents:?}"
    );
}

#[test]
fn a_sink_prints_its_requests() {
    let requests = lines(&run(&["builtin:fluentd"], EVENTS));
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (
            requests[0]["method"].as_str(),
            requests[0]["carries"].as_array().map(Vec::len)
        ),
        (Some("POST"), Some(2))
    );
    let body: Value =
        serde_json::from_str(requests[0]["body"].as_str().unwrap()).expect("the body is JSON");
    assert_eq!(body[1]["uid"], "u-2");
}

/// Service managers may limit the address space.
#[test]
fn the_limits_of_a_call_can_be_set() {
    let filter = component("hostile_filter");
    let filter = filter.to_str().unwrap();
    for (mode, limit, reason) in [
        (
            "memory",
            ["--limit-memory", "16 MiB"],
            "more than 16777216 bytes of memory",
        ),
        (
            "loop",
            ["--limit-time", "200ms"],
            "more than 200 ms of CPU time",
        ),
    ] {
        let with = format!(r#"{{"mode":"{mode}"}}"#);
        let arguments = [&[filter, "--with", &with][..], &limit].concat();
        let output = run(&arguments, EVENTS);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(reason),
            "{mode}: {stderr}"
        );
    }
}

#[test]
fn a_small_address_space_is_reported_and_is_enough() {
    let binary = lockgate();
    let mut command = std::process::Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -v 60000000; exec \"$0\" plugin run builtin:ecs",
        ])
        .arg(binary.get_program())
        .env("NO_COLOR", "1");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(EVENTS.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("address space for instances cannot be reserved"),
        "{stderr}"
    );
    assert_eq!(lines(&output).len(), 2);
}

/// The project's own events: one of every type that Teleport has. `UPDATE_EXPECT=1` rewrites the
/// file.
#[test]
fn the_coverage_of_ecs_matches_the_snapshot() {
    let events =
        std::fs::read_to_string(root().join("plugins/ecs/tests/golden/events.ndjson")).unwrap();
    let output = run(&["builtin:ecs", "--coverage"], &events);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let wide: Vec<_> = text
        .lines()
        .filter(|line| line.chars().count() > 120)
        .collect();
    assert!(
        wide.len() <= 1,
        "only the longest type does not fit into 120 columns: {wide:?}"
    );
    expect_file![root().join("tests/cases/coverage.txt")].assert_eq(&text);

    let output = run(
        &["builtin:ecs", "--coverage", "--json", "--batch", "7"],
        &events,
    );
    let json: Value =
        serde_json::from_slice(&output.stdout).expect("one JSON object, and no documents");
    assert_eq!(json["total"]["mapped"], events.lines().count());
    let login = json["types"]
        .as_array()
        .unwrap()
        .iter()
        .find(|kind| kind["type"] == "user.login")
        .unwrap();
    assert_eq!(
        (
            &login["events"],
            &login["has"]["event.outcome"],
            &login["unmapped"]
        ),
        (&2.into(), &2.into(), &Value::Array(vec![]))
    );
}

#[test]
fn coverage_names_the_fields_that_ecs_does_not_map() {
    let events = concat!(
        r#"{"event":"exec","code":"T3002I","new":{"a":1,"b":null},"sid":"s","addr":"x","env_labels":{"a":"b"},"user":{"kind":"x","n":1}}"#,
        "\n",
        r#"{"event":"exec","code":"T3002I","new":{"a":1},"addr.local":"?","user":"bob","\u001b[2J":1}"#,
        "\n",
        r#"{"event":"exec","code":"T3002I","time":"never","user":"bob"}"#,
        "\n",
    );
    let output = run(
        &[
            "builtin:ecs",
            "--coverage",
            "--with",
            r#"{"quirks":false}"#,
            "--json",
        ],
        events,
    );
    assert!(
        output.status.success(),
        "a `pipeline_error` is a result: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let exec = &json["types"][0];
    let unmapped: Vec<_> = exec["unmapped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["field"].as_str().unwrap(), &one["events"]))
        .collect();
    let [once, twice] = [1, 2].map(Value::from);
    let mut expected = vec![
        ("new.a", &twice),
        ("\"\\u{1b}[2J\"", &once),
        ("\"addr.local\"", &once),
        ("addr", &once),
    ];
    // What stood in the way of the failed row stays as it was.
    expected.extend([
        ("code", &once),
        ("env_labels", &once),
        ("event", &once),
        ("time", &once),
        ("user", &once),
    ]);
    assert_eq!(unmapped, expected);
    assert_eq!(
        (&exec["pipeline_errors"], &exec["mapped"]),
        (&1.into(), &3.into())
    );
    assert!(
        exec["first_pipeline_error"]
            .as_str()
            .unwrap()
            .contains("E05"),
        "{exec}"
    );
}

#[test]
fn coverage_works_for_other_mappers_and_counts_lines_without_a_result() {
    let output = run(
        &[
            "builtin:redact",
            "--coverage",
            "--with",
            r#"{"remove":["user"]}"#,
        ],
        &format!("{EVENTS}nonsense\n"),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(1),
        "a line without result, as without the flag"
    );
    for expected in [
        "2 events, 2 mapped",
        "1 line: no JSON object",
        "unmapped fields are not known",
    ] {
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    }
}

/// The file begins with a byte order mark and has both kinds of line breaks.
#[test]
fn a_line_that_is_not_an_event_is_reported() {
    for (line, expected) in [
        (
            r#"["user.login","T1000I","2026-01-05T08:00:00Z",0,"u","s"]"#,
            "line 2 is not an event: it is not a JSON object",
        ),
        (
            "{",
            "line 2 is not an event: it is incomplete; write each event on one line, as `jq -c .` does",
        ),
        (
            r#"{"event":"a","event":"b"}"#,
            "line 2 is not an event: the key `event` occurs twice in an object",
        ),
        (
            r#"{"event":"a","x":"\ud800"}"#,
            "line 2 is not an event: the escape at byte 18 is a lone surrogate",
        ),
        (
            r#"{"event":["a"]}"#,
            "line 2 is not a Teleport event: invalid type: sequence, expected a string at line 1 column 9",
        ),
        (
            "\u{feff}nonsense",
            "line 2 is not an event: it is not a JSON object",
        ),
    ] {
        let input =
            format!("\u{feff}{{\"event\":\"first\"}}\r\n{line}\r\n\r\n{{\"event\":\"last\"}}");
        let output = run(&["builtin:ecs"], &input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && stderr.lines().any(|printed| printed == expected),
            "{line}:\n{stderr}"
        );
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).lines().count(),
            2,
            "the others have their documents: {line}"
        );
    }
}

#[test]
fn errors_name_the_argument_or_line_at_fault() {
    for (arguments, input, status, text) in [
        (&["builtin:fliter"][..], EVENTS, 2, "builtin:filter"),
        (&["builtin:filter", "--with", "{"], EVENTS, 2, "--with"),
        (
            &["builtin:filter", "--with", r#"{"skip":"print"}"#],
            EVENTS,
            2,
            "skip",
        ),
        (&["no/such/file.wasm"], EVENTS, 2, "no/such/file.wasm"),
        (&["builtin:filter"], "{\"a\":1}\nnonsense\n", 1, "line 2"),
        (
            &["builtin:filter", "--coverage"],
            EVENTS,
            2,
            "`builtin:filter` is a filter",
        ),
        (
            &["builtin:fluentd", "--coverage"],
            EVENTS,
            2,
            "`builtin:fluentd` is a sink",
        ),
        (&["builtin:ecs", "--json"], EVENTS, 2, "--coverage"),
    ] {
        let output = run(arguments, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {stderr}"
        );
        assert!(
            stderr.contains(text),
            "{arguments:?} names `{text}`: {stderr}"
        );
        assert!(
            !stderr.contains("configuration file"),
            "{arguments:?}: there is none: {stderr}"
        );
    }
}
