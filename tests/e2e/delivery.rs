use std::collections::BTreeMap;
use std::path::Path;

use lockgate_tests::{Auth, Receiver, Running, lockgate, quickstart, until};
use serde_json::Value;

const FILTER: &str = "
[[pipelines.main.stage]]
plugin = \"builtin:filter\"
with = { skip = [\"user.login\", \"cert.create\"] }
";

/// Figures of `lockgate status --json`, summed over streams.
fn status(config: &Path, pipeline: &str) -> [u64; 5] {
    let ended = Running::start(
        "status",
        lockgate()
            .args(["status", "--json", "--config"])
            .arg(config),
    )
    .ended()
    .exits_with(0);
    let status: Value = serde_json::from_str(&ended.stdout).expect("status is JSON");
    // Before the host has made it known, a pipeline has no books.
    let Some(books) = status["pipelines"].get(pipeline) else {
        return [0; 5];
    };
    ["read", "delivered", "dropped", "dead", "waiting"].map(|name| {
        books[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no `{name}` in {status}"))
    })
}

fn start(config: &Path) -> Running {
    Running::start(
        "start",
        lockgate()
            .args(["start", "--exit-on-last-event", "--config"])
            .arg(config),
    )
}

#[test]
fn both_ways_of_reading_deliver_every_event_once() {
    for backend in ["export", "search"] {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(dir.path(), &["--events", "4000", "--backend", backend]);
        let receiver = Receiver::start(dir.path(), &[]);
        let config = quickstart(dir.path(), &auth, &receiver, "");
        start(&config).ended().exits_with(0);
        assert_eq!(status(&config, "main"), [4000, 4000, 0, 0, 0], "{backend}");
        // Nothing is sent again by a second start.
        start(&config).ended().exits_with(0);
        let totals = receiver.stop();
        assert_eq!(
            (totals.documents, totals.distinct),
            (4000, 4000),
            "{backend}"
        );
    }
}

#[test]
fn what_a_filter_leaves_out_is_on_the_books_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "2000"]);
    let receiver = Receiver::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, FILTER);
    start(&config).ended().exits_with(0);
    let [read, delivered, dropped, dead, waiting] = status(&config, "main");
    assert_eq!((read, dead, waiting), (2000, 0, 0));
    assert!(
        dropped > 100 && delivered > 100 && delivered + dropped == read,
        "{delivered} + {dropped}"
    );
    assert_eq!(receiver.stop().distinct, delivered);
}

#[test]
fn a_receiver_that_fails_for_a_while_costs_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "3000"]);
    let receiver = Receiver::start(dir.path(), &["--status", "503x4,200"]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let ended = start(&config).ended().exits_with(0);
    assert!(
        ended.stderr.contains("503"),
        "the log tells why it waited:\n{}",
        ended.stderr
    );
    assert_eq!(status(&config, "main"), [3000, 3000, 0, 0, 0]);
    assert_eq!(receiver.stop().distinct, 3000);
}

#[test]
fn a_receiver_that_is_not_there_yet_is_waited_for_and_status_tells() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "500"]);
    let receiver = Receiver::start(dir.path(), &[]);
    let (addr, config) = (
        receiver.addr.clone(),
        quickstart(dir.path(), &auth, &receiver, ""),
    );
    assert_eq!(receiver.stop().documents, 0);

    let host = start(&config);
    host.line_with("held: the receiver cannot be reached");
    // The host writes its status once a second: the books come from the store, the error from
    // there.
    let shown = || {
        Running::start(
            "status",
            lockgate().args(["status", "--config"]).arg(&config),
        )
        .ended()
        .exits_with(0)
        .stdout
    };
    until("status shows the error and the books", shown, || {
        shown().contains("endpoint url: the receiver cannot be reached")
            && status(&config, "main")[0] == 500
    });
    assert_eq!(status(&config, "main"), [500, 0, 0, 0, 500]);

    let receiver = Receiver::listening(dir.path(), &addr, &[]);
    host.ended().exits_with(0);
    assert_eq!(status(&config, "main"), [500, 500, 0, 0, 0]);
    assert_eq!(receiver.stop().distinct, 500);
}

#[test]
fn recordings_reach_an_address_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1500"]);
    let capture = dir.path().join("captured.ndjson");
    let receiver = Receiver::start(dir.path(), &["--capture", capture.to_str().unwrap()]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let session_url = format!(
        "session-url = \"https://{}/session\"\ntls =",
        receiver.addr.replace("127.0.0.1", "localhost")
    );
    let text = text.replace(
        "[pipelines.main.sink]",
        "[pipelines.main]\nfrom = [\"audit\", \"sessions\"]\n[pipelines.main.sink]",
    );
    std::fs::write(&config, text.replace("tls =", &session_url)).unwrap();
    start(&config).ended().exits_with(0);
    let [read, delivered, .., waiting] = status(&config, "main");
    assert!(read > 1500, "recordings were read too: {read}");
    assert_eq!((delivered, waiting), (read, 0));
    let totals = receiver.stop();
    assert_eq!(totals.documents, delivered);
    assert_eq!(totals.by_path["/events.log"], 1500, "the audit log");
    let recordings: Vec<_> = totals
        .by_path
        .keys()
        .filter(|path| *path != "/events.log")
        .collect();
    assert!(
        !recordings.is_empty()
            && recordings
                .iter()
                .all(|path| path.starts_with("/session.") && path.ends_with(".log")),
        "{recordings:?}"
    );
}

/// Batches of 20 events, so that each recording is spread over several.
#[test]
fn the_events_of_a_recording_arrive_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1500"]);
    let capture = dir.path().join("captured.ndjson");
    let receiver = Receiver::start(
        dir.path(),
        &["--capture", capture.to_str().unwrap(), "--latency", "5ms"],
    );
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let pipeline =
        "[pipelines.main]\nfrom = [\"sessions\"]\nbatch = { events = 20 }\n[pipelines.main.sink]";
    std::fs::write(&config, text.replace("[pipelines.main.sink]", pipeline)).unwrap();
    start(&config).ended().exits_with(0);
    let delivered = status(&config, "main")[1];
    assert_eq!(receiver.stop().documents, delivered);

    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for line in std::fs::read_to_string(&capture).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let (session, index) = (
            event["sid"].as_str().unwrap(),
            event["ei"].as_i64().unwrap(),
        );
        let before = last.insert(session.to_owned(), index);
        assert!(
            before.is_none_or(|before| before < index),
            "{session}: {index} after {before:?}"
        );
    }
    assert!(
        last.len() > 5 && last.values().any(|&index| index > 20),
        "several recordings, some longer than a batch: {last:?}"
    );
}

#[test]
fn sigterm_ends_a_running_host_with_nothing_lost() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100000", "--rate", "2000"]);
    let receiver = Receiver::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = Running::start("start", lockgate().args(["start", "--config"]).arg(&config));
    until(
        "the first events are delivered",
        || host.stderr(),
        || dir.path().join("store/store.db").exists() && status(&config, "main")[1] > 0,
    );
    host.stop().exits_with(0);
    let [read, delivered, dropped, dead, waiting] = status(&config, "main");
    assert_eq!((read, dropped, dead), (delivered + waiting, 0, 0));
    assert_eq!(
        receiver.stop().distinct,
        delivered,
        "what finished was committed, what was committed had arrived"
    );
}

/// A proxy that answers 400 to everything (nginx does, to a client that shows no certificate) must
/// not empty the stream into the dead letters: neither while it does, nor at the moment it
/// recovers.
#[test]
fn a_receiver_that_refuses_everything_for_a_while_makes_no_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "20"]);
    // One batch at a time, its halves, single events: then only probes are sent, and each waits
    // longer. With several batches in flight all refusals may be of batches and halves.
    let receiver = Receiver::start(dir.path(), &["--status", "400x8,200"]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(
            "[pipelines.main.sink]",
            "[pipelines.main]\nin-flight = 1\nbatch = { events = 4 }\n[pipelines.main.sink]",
        ),
    )
    .unwrap();
    let ended = start(&config).ended().exits_with(0);
    assert!(
        ended.stderr.contains("400"),
        "the log tells:\n{}",
        ended.stderr
    );
    assert_eq!(status(&config, "main"), [20, 20, 0, 0, 0]);
    assert_eq!(receiver.stop().distinct, 20);
}
