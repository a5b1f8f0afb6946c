//! Receivers that fail, and documents that a receiver refuses: what an operator sees of both.

use std::path::Path;

use lockgate_sim::receiver::{Fault, ReceiverOptions, Rule};
use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Running, admin_address, books, configuration, get, listen_on_any_port, start,
    start_and_finish, started, status, uid, until,
};
use serde_json::Value;

/// The pipeline `main` with the built-in sink. `keys` are of the pipeline, `sink` is of the sink.
fn pipeline(receiver: &LocalReceiver, keys: &str, sink: &str) -> String {
    format!(
        "[pipelines.main]\n{keys}\n[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n{sink}\n",
        receiver.endpoint("events")
    )
}

fn state(config: &Path) -> Value {
    status(config)["pipelines"]["main"]["state"].clone()
}

/// A condition of `main` as `status` shows it.
fn condition(config: &Path, kind: &str, subject: &str) -> Option<Value> {
    let state = state(config);
    let mut conditions = state["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["kind"] == kind && condition["subject"] == subject)
        .cloned()
}

#[track_caller]
fn until_held(host: &Running, config: &Path, kind: &str, subject: &str, message: &str) {
    let shown = || format!("{}\n{}", status(config), host.stderr());
    until("the condition shows", shown, || {
        condition(config, kind, subject).is_some_and(|condition| {
            condition["message"]
                .as_str()
                .is_some_and(|text| text.contains(message))
        })
    });
}

#[track_caller]
fn until_delivered(host: &Running, config: &Path, events: u64) {
    let shown = || format!("{}\n{}", status(config), host.stderr());
    until("everything is delivered", shown, || {
        books(&status(config), "main").delivered == events
    });
}

#[track_caller]
fn until_ready(host: &Running, config: &Path) {
    let shown = || format!("{}\n{}", status(config), host.stderr());
    until("the pipeline is ready, without a condition", shown, || {
        let state = state(config);
        state["ready"] == true && state["conditions"].as_array().is_some_and(Vec::is_empty)
    });
}

fn lines_with<'l>(stderr: &'l str, texts: &[&str]) -> Vec<&'l str> {
    stderr
        .lines()
        .filter(|line| texts.iter().all(|text| line.contains(text)))
        .collect()
}

#[test]
fn one_event_that_always_gets_500_does_not_hold_up_the_others() {
    let events = 3000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.control.set_rules(vec![Rule {
        body: uid(events, 1000),
        ..Rule::new(Fault::Status(500))
    }]);
    let keys = "batch = { events = 20 }";
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, keys, ""));
    let host = started(&config);
    // The batch that it is in is not committed without it; all other events have arrived.
    let shown = || format!("{:?}\n{}", receiver.control.totals(), host.stderr());
    until("all other events arrive", shown, || {
        receiver.control.totals().distinct == events - 1
    });
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the batches without it are committed", shown, || {
        books(&status(&config), "main").waiting <= 20
    });
    assert_eq!(books(&status(&config), "main").dead, 0);
    until("status says why it waits", shown, || {
        let state = state(&config);
        let mut conditions = state["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            message.contains("the receiver answered 500")
        })
    });

    receiver.recover();
    until_delivered(&host, &config, events);
    until_ready(&host, &config);
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().distinct, events);
}

/// The search for what is at fault must not flood a receiver that is in trouble: a batch of 5,000
/// events once cost 10,000 requests within seconds.
#[test]
fn a_receiver_that_answers_everything_with_an_error_gets_few_requests() {
    let events = 5000;
    for (status, requests) in [(500, 8), (400, 20), (413, 20)] {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
        let receiver = LocalReceiver::start(dir.path());
        receiver.always(Fault::Status(status));
        let keys = "batch = { events = 5000 }";
        let config = configuration(dir.path(), &auth, &pipeline(&receiver, keys, ""));
        let host = started(&config);
        // By then the first requests have been split.
        receiver.wait_for_requests(requests);
        let from = std::time::Instant::now();
        until_held(&host, &config, "endpoint", "url", &status.to_string());
        let meanwhile = receiver.control.totals().requests;
        let seconds = from.elapsed().as_secs();
        assert!(
            meanwhile <= 50 + 2 * seconds,
            "{status}: {meanwhile} in {seconds} s"
        );

        receiver.recover();
        until_delivered(&host, &config, events);
        until_ready(&host, &config);
        host.stop().exits_with(0);
        let totals = receiver.stop();
        assert_eq!((totals.distinct, totals.duplicates), (events, 0));
    }
}

#[test]
fn a_batch_that_makes_the_receiver_time_out_is_split_until_it_answers_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.control.set_rules(vec![Rule {
        more_than: 50,
        ..Rule::new(Fault::AnswerLate)
    }]);
    let keys = "batch = { events = 100, age = \"1h\" }";
    let pipeline = pipeline(&receiver, keys, "timeout = \"5s\"");
    let config = configuration(dir.path(), &auth, &pipeline);
    let host = started(&config);
    until_delivered(&host, &config, 100);
    until_ready(&host, &config);
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().distinct, 100);
}

#[test]
fn a_receiver_slower_than_the_time_out_gets_everything_once_it_is_fast_again() {
    let events = 4000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.always(Fault::AnswerLate);
    let pipeline = pipeline(&receiver, "", "timeout = \"5s\"");
    let config = configuration(dir.path(), &auth, &pipeline);
    let host = started(&config);
    until_held(&host, &config, "endpoint", "url", "5 s");
    assert_eq!(state(&config)["ready"], false);
    // Some of them are probes.
    receiver.wait_for_requests(12);
    assert_eq!(books(&status(&config), "main").delivered, 0);

    receiver.recover();
    until_delivered(&host, &config, events);
    until_ready(&host, &config);
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().distinct, events);
}

#[test]
fn an_outage_is_logged_in_two_lines_and_nothing_is_sent_twice() {
    let events = 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.always(Fault::Status(503));
    // One request for each event.
    let keys = "batch = { events = 1 }";
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, keys, ""));
    listen_on_any_port(&config);
    let host = start(&config, &[]);
    let admin = admin_address(&host);
    until_held(&host, &config, "endpoint", "url", "503");
    let shown = state(&config);
    assert_eq!(shown["ready"], false, "{shown}");
    let ready = get(&admin, "/readyz");
    let reason = r#""pipeline":"main","kind":"endpoint""#;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains(reason),
        "{ready}"
    );
    receiver.wait_for_requests(receiver.control.totals().requests + 1);
    // Between two probes `status` says when the next one is due.
    until(
        "the next attempt is shown",
        || host.stderr(),
        || state(&config)["next_retry_at"].is_u64(),
    );

    receiver.recover();
    until_delivered(&host, &config, events);
    until_ready(&host, &config);
    let ready = get(&admin, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let stderr = host.stop().exits_with(0).stderr;
    let began = lines_with(&stderr, &["held: ", "pipeline=main", "kind=endpoint"]);
    let ended = lines_with(
        &stderr,
        &["no longer held", "pipeline=main", "kind=endpoint"],
    );
    assert_eq!((began.len(), ended.len()), (1, 1), "{stderr}");
    // It says after which time the receiver recovered, and at which attempt.
    for field in ["lasted_s=", "attempts="] {
        let value = ended[0].split_once(field).expect(field).1;
        let number = value
            .split(' ')
            .next()
            .and_then(|text| text.parse::<u32>().ok());
        assert!(number.is_some(), "{ended:?}");
    }
    assert!(!ended[0].contains("attempts=0"), "{ended:?}");
    let warnings = lines_with(&stderr, &["WARN", "pipeline=main"]);
    assert_eq!(warnings.len(), 1, "not one for each attempt: {stderr}");

    // Nothing is sent again by the next start.
    start_and_finish(&config);
    let totals = receiver.stop();
    assert_eq!((totals.documents, totals.distinct), (events, events));
}

#[test]
fn a_recording_with_one_event_that_is_too_large_is_delivered_without_it() {
    // What the recordings hold is only known when they have been read.
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let capture = dir.path().join("captured.ndjson");
    let receiver = LocalReceiver::with(
        dir.path(),
        ReceiverOptions {
            capture: Some(capture.clone()),
            ..ReceiverOptions::default()
        },
    );
    let keys = "from = [\"sessions\"]";
    start_and_finish(&configuration(
        dir.path(),
        &auth,
        &pipeline(&receiver, keys, ""),
    ));
    let captured = std::fs::read_to_string(&capture).unwrap();
    let events = captured.lines().count() as u64;
    let too_large = captured.lines().nth(40).expect("recordings have events");
    receiver.stop();

    let again = dir.path().join("again");
    std::fs::create_dir(&again).unwrap();
    let receiver = LocalReceiver::start(&again);
    receiver.control.set_rules(vec![Rule {
        body: too_large.to_owned(),
        ..Rule::new(Fault::Status(413))
    }]);
    let config = configuration(&again, &auth, &pipeline(&receiver, keys, ""));
    let host = started(&config);
    until_delivered(&host, &config, events - 1);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the event is a dead letter", shown, || {
        books(&status(&config), "main").dead == 1
    });
    until_ready(&host, &config);
    let stderr = host.stop().exits_with(0).stderr;
    assert_eq!(
        lines_with(&stderr, &["dead letter", "larger than the receiver takes"]).len(),
        1,
        "{stderr}"
    );
    assert_eq!(receiver.stop().distinct, events - 1);
}

#[test]
fn a_condition_names_the_endpoint_that_fails_and_ends_when_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.control.set_rules(vec![Rule {
        path: "/recordings".into(),
        ..Rule::new(Fault::Status(503))
    }]);
    let keys = "from = [\"audit\", \"sessions\"]";
    let sink = receiver.session_url("recordings");
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, keys, &sink));
    let host = started(&config);
    until_held(&host, &config, "endpoint", "session-url", "503");
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the audit log is delivered", shown, || {
        books(&status(&config), "main").delivered == 1000
    });
    assert_eq!(condition(&config, "endpoint", "url"), None);
    assert_eq!(state(&config)["ready"], false);
    host.line_with_all(&["held: ", "503", "subject=session-url"]);

    receiver.recover();
    until("everything is delivered", shown, || {
        let books = books(&status(&config), "main");
        books.read > 1000 && books.delivered == books.read
    });
    until_ready(&host, &config);
    host.line_with_all(&["no longer held", "subject=session-url"]);
    host.stop().exits_with(0);
}

#[test]
fn a_sinks_reason_is_attributed_to_the_sink() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let pipelines = format!(
        "[plugins.strict]\nsource = \"file:{}\"\n\n[pipelines.main.sink]\nplugin = \"strict\"\n\
         with = {{ mode = \"array\", classify = \"hold\" }}\n{}\n",
        component("hostile_sink").display(),
        receiver.endpoint("events")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let message = "sink (strict) says: the index is missing";
    until_held(&host, &config, "endpoint", "url", message);
    host.line_with_all(&["held: sink (strict) says: the index is missing"]);
    host.stop().exits_with(0);
}

#[test]
fn a_certificate_of_an_unknown_authority_holds_the_pipeline_and_shows_the_hint() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let other_dir = tempfile::tempdir().unwrap();
    let other_receiver = LocalReceiver::start(other_dir.path());
    // The port of one, the certificate authority of the other.
    let port = |receiver: &LocalReceiver| receiver.address().replace("127.0.0.1", "localhost");
    let pipeline = pipeline(&receiver, "", "").replace(&port(&receiver), &port(&other_receiver));
    let config = configuration(dir.path(), &auth, &pipeline);
    let host = started(&config);
    let hint = "set `tls.ca` to the certificate of the authority";
    until_held(&host, &config, "endpoint", "url", hint);
    assert_eq!(state(&config)["ready"], false);
    host.line_with_all(&["held: ", hint, "pipeline=main", "subject=url"]);
    host.stop().exits_with(0);
    assert_eq!(books(&status(&config), "main").waiting, 100);
}

#[test]
fn recordings_wait_while_all_are_refused_and_the_audit_log_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.control.set_rules(vec![Rule {
        path: "/recordings".into(),
        ..Rule::new(Fault::Status(400))
    }]);
    let keys = "from = [\"audit\", \"sessions\"]";
    let sink = receiver.session_url("recordings");
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, keys, &sink));
    let host = started(&config);
    until_held(&host, &config, "endpoint", "session-url", "400");
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the audit log is delivered", shown, || {
        books(&status(&config), "main").delivered == 1000
    });
    assert_eq!(state(&config)["ready"], false);
    host.stop().exits_with(0);
    let books = books(&status(&config), "main");
    assert!(books.dead == 0 && books.waiting > 0, "{books:?}");
}

#[test]
fn a_refused_event_alone_in_its_batch_does_not_hold_up_the_next_batch() {
    let events = 50;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.control.set_rules(vec![Rule {
        body: uid(events, 10),
        ..Rule::new(Fault::Status(400))
    }]);
    let keys = "batch = { events = 1 }\nin-flight = 1";
    let config = configuration(dir.path(), &auth, &pipeline(&receiver, keys, ""));
    let host = started(&config);
    until_delivered(&host, &config, events - 1);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    // With nothing left to accept, it waits for the operator or for further events.
    until("only the refused event is left", shown, || {
        let books = books(&status(&config), "main");
        books.dead + books.waiting == 1
    });
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().distinct, events - 1);
}
