//! The cases of `tests/cases/hostile` and `tests/cases/refused`; see the README.md there.

use std::path::Path;

use lockgate_tests::components::{cases, hostile_plugins, pipeline_of};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Books, ReceiverProcess, books, configuration, endpoint, start, started, status, uid,
    until,
};
use serde::Deserialize;
use serde_json::Value;

const EVENTS: u64 = 120;

/// Position of the event that sets the hostile components off.
const VICTIM: u64 = 77;

/// `expected.toml` of a hostile component.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(skip)]
    name: String,
    books: ExpectedBooks,
    /// Whether `status` calls the pipeline ready in the end.
    ready: bool,
    /// A part of the message of one of the pipeline's conditions. Absent: it has none.
    condition: Option<String>,
    /// Texts that lines of the pipeline's log contain.
    #[serde(default)]
    log: Vec<String>,
    /// Documents that the receiver gets. Absent: those that are delivered.
    arrives: Option<u64>,
}

/// Of [`EVENTS`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedBooks {
    delivered: u64,
    dropped: u64,
    dead: u64,
    waiting: u64,
}

/// `expected.toml` of a plugin that refuses its configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    message: String,
    line: String,
}

#[test]
fn each_hostile_component_is_contained_and_affects_no_other_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let victim = uid(EVENTS, VICTIM);
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let mut expected = Vec::new();
    let mut pipelines = hostile_plugins() + &healthy(&receiver.endpoint("healthy"));
    for case in cases("hostile") {
        let mut case_expected: Expected = expectation(&case);
        case_expected.name = name(&case);
        expected.push(case_expected);
        pipelines += &pipeline_of(&case, &receiver.address(), &victim);
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    until(
        "the healthy pipeline delivers everything",
        || host.stderr(),
        || books(&status(&config), "healthy").delivered == EVENTS,
    );
    for case in &expected {
        let differs = || case.differs(&status(&config)).unwrap_or_default();
        let shown = || format!("{}: {}\n{}", case.name, differs(), host.stderr());
        until("a case is as expected", shown, || differs().is_empty());
    }
    // Held pipelines do not keep the host from stopping.
    let ended = host.stop().exits_with(0);

    let status = status(&config);
    let received = receiver.stop();
    let arrived = |path: &str| received.by_path.get(path).map_or(0, |path| path.documents);
    assert_eq!(arrived("/healthy"), EVENTS);
    for case in &expected {
        let name = &case.name;
        assert_eq!(books(&status, name), case.books(), "{name}: after the stop");
        assert_eq!(
            arrived(&format!("/{name}")),
            case.arrives.unwrap_or(case.books.delivered),
            "{name}: the receiver has what is on the books"
        );
        let lines: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.contains(&format!("pipeline={name} ")))
            .collect();
        for text in &case.log {
            assert!(
                lines.iter().any(|line| line.contains(text)),
                "{name}: no `{text}` in:\n{}",
                lines.join("\n")
            );
        }
        let letters: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("dead letter"))
            .collect();
        assert_eq!(letters.len() as u64, case.books.dead, "{name}: {letters:?}");
        assert!(
            letters.iter().all(|line| line.contains(&victim)),
            "{name}: only the victim is dead: {letters:?}"
        );
    }
    assert_eq!(
        received.documents, received.distinct,
        "nothing was sent twice"
    );
    // Text from guests is in the log, but cannot write lines of its own or move the cursor.
    assert!(
        !ended.stderr.contains('\u{1b}') && !ended.stderr.contains('\u{202e}'),
        "control characters are escaped"
    );
    assert!(
        ended.stderr.lines().all(|line| !line.starts_with("forged")),
        "a line break in a guest's text makes no line"
    );
    let flood = ended
        .stderr
        .lines()
        .filter(|line| line.contains("forged: line"))
        .count();
    assert!(flood < 1000, "{flood} lines of a flood of 10,000");
}

#[test]
fn a_plugin_that_refuses_its_configuration_stops_its_own_pipeline_only() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let cases = cases("refused");
    let endpoint = endpoint(&receiver.addr, &receiver.dir, "healthy");
    let mut pipelines = hostile_plugins() + &healthy(&endpoint);
    for case in &cases {
        pipelines += &pipeline_of(case, &receiver.addr, "");
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let text = std::fs::read_to_string(&config).unwrap();
    // Everything else is delivered, and the exit status says that something was not.
    let ended = start(&config, &["--exit-on-last-event"])
        .ended()
        .exits_with(1);
    let stderr = &ended.stderr;
    let number = cases.len();
    assert!(
        stderr.contains(&format!("{number} pipelines could not start")),
        "{stderr}"
    );
    for case in &cases {
        let (name, refusal): (String, Refusal) = (name(case), expectation(case));
        let (line, message) = (&refusal.line, &refusal.message);
        assert!(
            stderr.contains(message),
            "{name}: no `{message}` in:\n{stderr}"
        );
        let section = format!("[[pipelines.{name}.stage]]");
        let number = text
            .lines()
            .skip_while(|written| *written != section)
            .position(|written| written == line)
            .expect("the line is in the file")
            + text
                .lines()
                .position(|written| written == section)
                .expect("the stage is in the file")
            + 1;
        assert!(
            stderr.contains(&format!("lockgate.toml:{number}:")),
            "{name}: it points at line {number}:\n{stderr}"
        );
        assert!(
            stderr.contains(&format!("{number} │ {line}")),
            "{name}: it shows the line `{line}`:\n{stderr}"
        );
        assert!(
            stderr
                .lines()
                .any(|line| line.contains(&format!("pipeline={name}"))
                    && line.contains("does not start")),
            "{name}"
        );
    }
    let all = Books {
        read: EVENTS,
        delivered: EVENTS,
        ..Books::default()
    };
    assert_eq!(books(&status(&config), "healthy"), all);
    assert_eq!(receiver.stop().documents, EVENTS);

    // With no pipeline left there is nothing to start.
    let case = &cases[0];
    let pipeline = hostile_plugins() + &pipeline_of(case, "127.0.0.1:1", "");
    let config = configuration(dir.path(), &auth, &pipeline);
    let ended = start(&config, &[]).ended().exits_with(2);
    let refusal: Refusal = expectation(case);
    assert!(ended.stderr.contains(&refusal.message), "{}", ended.stderr);
}

impl Expected {
    fn books(&self) -> Books {
        Books {
            read: EVENTS,
            delivered: self.books.delivered,
            dropped: self.books.dropped,
            dead: self.books.dead,
            waiting: self.books.waiting,
        }
    }

    /// The first difference between the status and what is expected.
    fn differs(&self, status: &Value) -> Option<String> {
        let (found, expected) = (books(status, &self.name), self.books());
        if found != expected {
            return Some(format!("{found:?} instead of {expected:?}"));
        }
        let state = &status["pipelines"][&self.name]["state"];
        let conditions: Vec<&str> = state["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|condition| condition["message"].as_str())
            .collect();
        let as_expected = match &self.condition {
            Some(text) => conditions.iter().any(|message| message.contains(text)),
            None => conditions.is_empty(),
        };
        if !as_expected || state["ready"] != self.ready {
            return Some(format!("{state}"));
        }
        None
    }
}

fn name(case: &Path) -> String {
    let name = case.file_name().and_then(|name| name.to_str());
    name.expect("a directory has a name").to_owned()
}

fn expectation<T: for<'de> Deserialize<'de>>(case: &Path) -> T {
    let text = std::fs::read_to_string(case.join("expected.toml")).expect("an expectation");
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

/// A pipeline without a hostile component.
fn healthy(endpoint: &str) -> String {
    format!("[pipelines.healthy.sink]\nplugin = \"builtin:fluentd\"\n{endpoint}\n\n")
}
