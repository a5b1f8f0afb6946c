//! Events from Teleport to a receiver, on the books.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_model::Day;
use lockgate_tests::components::hostile_plugins;
use lockgate_tests::{
    Auth, Books, Ended, ReceiverProcess, Running, books, configuration, endpoint, lockgate,
    quickstart, start, start_and_finish, started, status, until,
};
use serde_json::Value;

const FILTER: &str = "
[[pipelines.main.stage]]
plugin = \"builtin:filter\"
with = { skip = [\"user.login\", \"cert.create\"] }
";

/// The books of the pipeline `main`.
fn main_books(config: &Path) -> Books {
    books(&status(config), "main")
}

/// Books with all of these events delivered.
fn all_delivered(events: u64) -> Books {
    Books {
        read: events,
        delivered: events,
        ..Books::default()
    }
}

/// The log ended with the line of the signal, or with whatever came before the last event.
#[test]
fn the_last_line_of_the_log_says_why_the_host_stops_and_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let last_line = |ended: Ended| ended.stderr.lines().last().unwrap_or_default().to_owned();
    let finished = start(&config, &["--exit-on-last-event"])
        .ended()
        .exits_with(0);
    let finished = last_line(finished);
    for part in [
        "INFO",
        "stopped: the log is read to its end, and every event is final",
        "100 of 100",
    ] {
        assert!(finished.contains(part), "{finished}");
    }
    let stopped = last_line(started(&config).stop().exits_with(0));
    for part in ["INFO", "stopped: the host was asked to stop", "100 of 100"] {
        assert!(stopped.contains(part), "{stopped}");
    }
}

/// The events are of today: a search asks some thirty times for each day without events, so those
/// of a fixed day would cost more with every day that passes.
#[test]
fn both_ways_of_reading_deliver_every_event_once() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let yesterday = Day(Day::of(now.as_millis() as i64).0 - 1);
    for backend in ["export", "search"] {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(
            dir.path(),
            &["--events", "4000", "--rate", "4000", "--backend", backend],
        );
        let receiver = ReceiverProcess::start(dir.path(), &[]);
        let config = quickstart(dir.path(), &auth, &receiver, "");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace("2026-01-01T", &format!("{yesterday}T"));
        std::fs::write(&config, text).unwrap();

        let host = started(&config);
        let shown = || format!("{}\n{}", status(&config), host.stderr());
        until("every event is delivered", shown, || {
            main_books(&config) == all_delivered(4000)
        });
        host.stop().exits_with(0);
        // Nothing is sent again by a second start.
        start_and_finish(&config);
        assert_eq!(main_books(&config), all_delivered(4000), "{backend}");
        let totals = receiver.stop();
        assert_eq!(
            (totals.documents, totals.distinct),
            (4000, 4000),
            "{backend}"
        );
    }
}

#[test]
fn events_that_a_filter_drops_are_on_the_books() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "2000"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, FILTER);
    start_and_finish(&config);
    let books = main_books(&config);
    assert_eq!((books.read, books.dead, books.waiting), (2000, 0, 0));
    assert!(books.dropped > 100 && books.delivered > 100, "{books:?}");
    assert_eq!(receiver.stop().distinct, books.delivered);
}

#[test]
fn a_call_has_no_more_documents_than_the_sink_takes() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let pipeline = format!(
        "[pipelines.main.sink]\nplugin = \"hostile-sink\"\nwith = {{ max-documents = 7 }}\n{}\n",
        endpoint(&receiver.addr, &receiver.dir, "main")
    );
    let config = configuration(dir.path(), &auth, &(hostile_plugins() + &pipeline));
    start_and_finish(&config);
    assert_eq!(main_books(&config), all_delivered(1000));
    let totals = receiver.stop();
    assert_eq!((totals.documents, totals.distinct), (1000, 1000));
    assert!(totals.requests >= 1000 / 7, "{totals:?}");
}

#[test]
fn no_event_is_lost_while_a_receiver_fails() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "3000"]);
    let receiver = ReceiverProcess::start(dir.path(), &["--status", "503x4,200"]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let ended = start_and_finish(&config);
    assert!(
        ended.stderr.contains("503"),
        "the log says why it waited:\n{}",
        ended.stderr
    );
    assert_eq!(main_books(&config), all_delivered(3000));
    assert_eq!(receiver.stop().distinct, 3000);
}

#[test]
fn the_host_waits_for_a_receiver_that_is_not_up_yet_and_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "500"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let (addr, config) = (
        receiver.addr.clone(),
        quickstart(dir.path(), &auth, &receiver, ""),
    );
    assert_eq!(receiver.stop().documents, 0);

    let host = start(&config, &["--exit-on-last-event"]);
    host.line_with("held: the receiver cannot be reached");
    // The books come from the store, the condition from the control socket.
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
            && main_books(&config).read == 500
    });
    assert_eq!(main_books(&config).waiting, 500);

    let receiver = ReceiverProcess::listening(dir.path(), &addr, &[]);
    host.ended().exits_with(0);
    assert_eq!(main_books(&config), all_delivered(500));
    assert_eq!(receiver.stop().distinct, 500);
}

#[test]
fn recordings_are_sent_to_the_session_url() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1500"]);
    let capture = dir.path().join("captured.ndjson");
    let receiver = ReceiverProcess::start(dir.path(), &["--capture", capture.to_str().unwrap()]);
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
    start_and_finish(&config);
    let books = main_books(&config);
    assert!(books.read > 1500, "recordings were read too: {books:?}");
    assert_eq!(books, all_delivered(books.read));
    let totals = receiver.stop();
    assert_eq!(totals.documents, books.delivered);
    assert_eq!(totals.by_path["/events.log"], 1500, "the audit log");
    let recordings: Vec<_> = totals
        .by_path
        .keys()
        .filter(|path| !["/events.log", "(other paths)"].contains(&path.as_str()))
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
fn the_events_of_a_recording_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1500"]);
    let capture = dir.path().join("captured.ndjson");
    let receiver = ReceiverProcess::start(
        dir.path(),
        &["--capture", capture.to_str().unwrap(), "--latency", "5ms"],
    );
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let pipeline =
        "[pipelines.main]\nfrom = [\"sessions\"]\nbatch = { events = 20 }\n[pipelines.main.sink]";
    std::fs::write(&config, text.replace("[pipelines.main.sink]", pipeline)).unwrap();
    start_and_finish(&config);
    let delivered = main_books(&config).delivered;
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
fn sigterm_stops_a_running_host_without_losing_events() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100000", "--rate", "2000"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    until(
        "the first events are delivered",
        || host.stderr(),
        || main_books(&config).delivered > 0,
    );
    host.stop().exits_with(0);
    let books = main_books(&config);
    assert_eq!((books.dropped, books.dead), (0, 0));
    assert_eq!(
        receiver.stop().distinct,
        books.delivered,
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
    let receiver = ReceiverProcess::start(dir.path(), &["--status", "400x8,200"]);
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
    let ended = start_and_finish(&config);
    assert!(
        ended.stderr.contains("400"),
        "the log says so:\n{}",
        ended.stderr
    );
    assert_eq!(main_books(&config), all_delivered(20));
    assert_eq!(receiver.stop().distinct, 20);
}
