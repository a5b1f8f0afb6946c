//! The log as JSON, for machines: nothing else is written next to it.

use std::fs;
use std::path::Path;

use lockgate_tests::{Running, Signal, lockgate, reload, start};
use serde_json::Value;

use crate::reload::Fixture;

const STAGE: &str = "stage = [{ plugin = \"builtin:filter\", with = { no-such = 1 } }]";

/// They were drawn as for people, and the records said only how many there were.
#[test]
fn problems_of_the_configuration_are_records() {
    let fixture = Fixture::new();
    let good = fixture.pipeline("main", "");
    let config = fixture.write(&(good.clone() + &fixture.pipeline("broken", STAGE)));
    let host = start(&config, &["--log-format", "json"]);
    host.line_with_all(&["no-such", "hint"]);

    let seen = || records(&host.stderr());
    let found = problem(&seen(), "no-such");
    assert_eq!(found["fields"]["pipeline"], "broken", "{found}");
    assert_is_placed(&found, &config);

    for (wrong, by_signal) in [("urll = 1", false), ("urlll = 1", true)] {
        fixture.write(&format!("{good}{wrong}\n"));
        if by_signal {
            host.signal(Signal::HUP);
        } else {
            reload(&config).exits_with(1);
        }
        let key = wrong.split(' ').next().unwrap();
        host.line_with_all(&[&format!("`{key}`"), "hint"]);
        let found = problem(&seen(), &format!("`{key}`"));
        assert_eq!(found["fields"]["pipeline"], "main", "{found}");
        assert_is_placed(&found, &config);
    }
    records(&host.stop().stderr);
}

/// Those of the command line were lines for people.
#[test]
fn arguments_that_are_refused_are_records() {
    for variable in [false, true] {
        let mut command = lockgate();
        command.args(["start", "--confg", "lockgate.toml"]);
        if variable {
            command.env("LOCKGATE_LOG_FORMAT", "json");
        } else {
            command.arg("--log-format=json");
        }
        let ended = Running::start("start", &mut command).ended().exits_with(2);
        let found = problem(&records(&ended.stderr), "'--confg'");
        let hint = found["fields"]["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("--config"), "{found}");
    }
}

/// What is wrong before the host runs, too; whatever is to be logged.
#[test]
fn a_start_that_fails_says_so_in_records() {
    let fixture = Fixture::new();
    let config = fixture.write("[pipelines.main]\nin-flight = 0\n");
    let none = config.with_file_name("none.toml");
    for (config, filter, message, place) in [
        (&config, "info", "in-flight", Some("main")),
        (&config, "off", "in-flight", Some("main")),
        (&none, "info", "cannot be read", None),
        (&config, "lockgate=loud", "is not a log filter", None),
    ] {
        let mut command = lockgate();
        command.args(["--log-format", "json", "--log", filter, "start"]);
        command.arg("--config").arg(config);
        let ended = Running::start("start", &mut command).ended().exits_with(2);
        let found = problem(&records(&ended.stderr), message);
        assert_eq!(found["fields"]["pipeline"].as_str(), place, "{found}");
        assert_ne!(found["fields"]["hint"], Value::Null, "{found}");
        if filter != "lockgate=loud" {
            assert_is_placed(&found, config);
        }
    }
}

/// Every line of a log.
#[track_caller]
fn records(stderr: &str) -> Vec<Value> {
    let record = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    stderr.lines().map(record).collect()
}

#[track_caller]
fn problem(records: &[Value], text: &str) -> Value {
    let mut of_it = records.iter().filter(|record| {
        record["level"] == "ERROR"
            && record["fields"]["hint"].is_string()
            && record["message"].as_str().unwrap().contains(text)
    });
    of_it
        .next()
        .unwrap_or_else(|| panic!("{text}: {records:#?}"))
        .clone()
}

#[track_caller]
fn assert_is_placed(record: &Value, config: &Path) {
    let fields = &record["fields"];
    let name = config.file_name().unwrap().to_str().unwrap();
    assert!(fields["file"].as_str().unwrap().ends_with(name), "{record}");
    let lines = fs::read_to_string(config).map_or(1, |text| text.lines().count());
    let line = fields["line"].as_u64().unwrap();
    assert!((1..=lines as u64).contains(&line), "{record}");
    assert!(fields["column"].as_u64().unwrap() >= 1, "{record}");
}
