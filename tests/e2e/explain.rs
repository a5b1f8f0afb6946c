//! `lockgate explain`: on a store that the tests make, and while a host runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lockgate_model::{
    Append, BatchRecord, BlockBuilder, Commit, Day, DayTally, DeadLetter, Entries, FeedKind,
    Generation, Head, Outcome, Outcomes, RequestRecord, SeqRange,
};
use lockgate_sim::receiver::Fault;
use lockgate_store::{DeadLetters, Inspector, Ledger, Options, Retention, Store};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Auth, Ended, Running, configuration, lockgate, root, started, status, until};
use serde_json::{Value, json};

use crate::dlq::{AUDIT, DAY, append};

const SESSION: &str = "5d0f7a1e-0000-4000-8000-000000000001";

fn explain(place: &[&str], arguments: &[&str]) -> Ended {
    let mut command = lockgate();
    command.arg("explain").args(place).args(arguments);
    Running::start("explain", &mut command).ended()
}

/// Ten events of the audit log in one block, three of a recording, and what `siem` made of them:
///
/// | entry | |
/// |---|---|
/// | 1 | delivered |
/// | 2 | dropped |
/// | 3 | dead |
/// | 4 | dead, retried, delivered |
/// | 5 | dead, dropped by the operator |
/// | 6 | dead, expired |
/// | 7 | dead, waits again |
/// | 8 | waiting |
fn sample(directory: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Options {
            retention: Retention::default(),
            elapsed: hours_at_each_look(),
            ..Options::new(directory)
        });
        let store = store.unwrap();
        append(&store, 1..=8, DAY).await;
        append_recording(&store).await;
        let component = |name: &str| json!({ "plugin": name, "digest": "d1", "with": {} });
        let description = json!({
            "stages": [component("builtin:filter")], "sink": component("builtin:fluentd"),
        });
        let generation = Generation {
            pipeline: "siem".into(),
            description: description.to_string(),
        };
        let streams = [AUDIT.to_owned()];
        store.register(generation, &streams, DAY).await.unwrap();
        let outcomes = [
            Outcome::Delivered,
            Outcome::Dropped(0),
            Outcome::Dead(1),
            Outcome::Dead(1),
            Outcome::Dead(1),
        ];
        finish(&store, 1..6, &outcomes, DAY + 60_000).await;
        finish(&store, 6..7, &[Outcome::Dead(1)], DAY + 1_000).await;
        finish(&store, 7..8, &[Outcome::Dead(1)], DAY + 60_000).await;
        let at = DAY + 120_000;
        store.retry("siem", AUDIT, &[4, 7], at).await.unwrap();
        let redriven = Commit {
            entries: Entries::Redriven(vec![4]),
            ..commit(&store, 4..5, &[Outcome::Delivered], DAY + 180_000).await
        };
        store.commit(redriven).await.unwrap();
        store.drop_letters("siem", AUDIT, &[5], at).await.unwrap();
        let expired = store.expire_letters("siem", DAY + 2_000, at).await;
        assert_eq!(expired.unwrap(), 1);
        store.close().await.unwrap();
    });
}

async fn append_recording(store: &Store) {
    let mut builder = BlockBuilder::new();
    for index in 0..3 {
        let key = format!("{SESSION}/r{index}");
        let head = Head {
            key: &key,
            event_type: "session.start",
            code: "T2000I",
            time: DAY,
            index,
            session: SESSION,
        };
        builder.push(head, "{}");
    }
    let append = Append {
        source: "teleport".into(),
        feed: FeedKind::Sessions,
        read_at: DAY,
        events: builder.take(),
        cursors: Vec::new(),
        gaps: Vec::new(),
        duplicates: 0,
    };
    store.append(append).await.unwrap();
}

async fn finish(store: &Store, range: SeqRange, outcomes: &[Outcome], at: i64) {
    let commit = commit(store, range, outcomes, at).await;
    store.commit(commit).await.unwrap();
}

async fn commit(store: &Store, range: SeqRange, kinds: &[Outcome], at: i64) -> Commit {
    let block = Ledger::block_at(store, AUDIT, 1).await.unwrap().unwrap();
    let mut outcomes = Outcomes::default();
    kinds.iter().for_each(|&outcome| outcomes.push(outcome));
    let (delivered, dropped, dead) = outcomes.count();
    let died = range.clone().zip(kinds);
    let died = died.filter(|(_, kind)| matches!(kind, Outcome::Dead(_)));
    let letter = |(seq, _): (u64, _)| {
        let cause = "sink (builtin:fluentd)".to_owned();
        DeadLetter::new(&block, seq as usize - 1, cause, "answered 400".to_owned())
    };
    let request = |entries: SeqRange, status: u16| RequestRecord {
        method: "POST".to_owned(),
        endpoint: "url".to_owned(),
        path: "/events".to_owned(),
        documents: (entries.end - entries.start) as u32,
        entries: vec![entries],
        status,
        bytes: 99,
        attempts: 1,
        excerpt: if status < 300 { "" } else { "bad" }.to_owned(),
    };
    Commit {
        pipeline: "siem".into(),
        stream: AUDIT.into(),
        epoch: 1,
        generation: 1,
        dead: died.map(letter).collect(),
        reasons: vec!["noise".to_owned(), "answered 400".to_owned()],
        days: vec![DayTally {
            day: Day::of(DAY),
            delivered,
            dropped,
            dead,
        }],
        batch: BatchRecord {
            id: format!("siem/{AUDIT}/{}", range.start),
            at,
            requests: vec![
                request(range.start..range.end, 400),
                request(range.start..range.start + 1, 200),
            ],
        },
        entries: Entries::Range(range),
        outcomes,
        ..Commit::default()
    }
}

#[test]
fn every_outcome_is_explained_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let place = ["--store", dir.path().to_str().unwrap()];
    for (id, outcome, changes) in [
        ("k1", "delivered", &["delivered"][..]),
        ("k2", "dropped", &["dropped"]),
        ("k3", "dead", &["dead"]),
        ("k4", "delivered", &["dead", "retried", "delivered"]),
        ("k5", "dropped", &["dead", "dead letter dropped"]),
        ("k6", "dead", &["dead", "dead letter expired"]),
        ("k7", "waiting again", &["dead", "retried"]),
        ("k8", "waiting", &[]),
    ] {
        let ended = explain(&place, &[id, "--json"]).exits_with(0);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let pipeline = &report["found"][0]["pipelines"][0];
        assert_eq!(pipeline["outcome"], outcome, "{id}: {report:#}");
        let history = pipeline["history"].as_array().unwrap().iter();
        let found: Vec<_> = history.map(|step| step["change"].clone()).collect();
        assert_eq!(found, changes, "{id}: {report:#}");
        let has_letter = !pipeline["dead_letter"].is_null();
        assert_eq!(has_letter, matches!(id, "k3" | "k7"), "{id}: {report:#}");
    }
    let json = explain(&place, &["k3", "--json"]).exits_with(0).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    let expected = expect_test::expect_file![root().join("tests/cases/explain.json")];
    expected.assert_eq(&format!("{json:#}\n"));
    let mut texts = String::new();
    for id in ["k1", "k4", "k6", "k8", "teleport/audit/2"] {
        let shown = explain(&place, &[id]).exits_with(0).stdout;
        texts += &format!("==> lockgate explain {id}\n\n{shown}\n");
    }
    let expected = expect_test::expect_file![root().join("tests/cases/explain.txt")];
    expected.assert_eq(&texts);
}

#[test]
fn events_of_a_recording_are_found_by_their_session() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let place = ["--store", dir.path().to_str().unwrap()];
    let listed = explain(&place, &["--session", SESSION])
        .exits_with(0)
        .stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("teleport/sessions/2  "), "{listed}");
    let arguments = ["--session", SESSION, "--limit", "2"];
    let listed = explain(&place, &arguments).exits_with(0).stdout;
    assert!(
        listed.ends_with("There are more; `--limit` lists them.\n"),
        "{listed}"
    );
    let by_index = explain(&place, &["--session", SESSION, "--index", "1"]).exits_with(0);
    let key = format!("event {SESSION}/r1\n");
    assert!(by_index.stdout.starts_with(&key), "{}", by_index.stdout);
    // If only the event's own id is known.
    let by_id = explain(&place, &["r1"]).exits_with(0);
    assert_eq!(by_id.stdout, by_index.stdout);
    let missing = explain(&place, &["--session", SESSION, "--index", "7"]).exits_with(1);
    assert!(
        missing.stderr.contains("No event with the index 7"),
        "{}",
        missing.stderr
    );
    let hint = explain(&place, &[SESSION]).exits_with(1);
    assert!(
        hint.stderr.contains("hint: if it is the id of a session"),
        "{}",
        hint.stderr
    );
}

/// The first eight events are older than the store keeps them, and `siem` was done with seven.
#[test]
fn an_event_that_is_not_there_is_explained_by_what_the_store_covers() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let place = ["--store", dir.path().to_str().unwrap()];
    let never = explain(&place, &["k99"]).exits_with(1);
    assert!(
        never.stderr.contains("No event with the id `k99`"),
        "{}",
        never.stderr
    );
    let covered = "teleport/audit: 8 events with times from 2026-01-05T00:00:00.001Z to \
                   2026-01-05T00:00:00.008Z, read from 2026-01-05T00:00:00.000Z";
    assert!(never.stdout.contains(covered), "{}", never.stdout);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Options {
            retention: Retention {
                age: Some(std::time::Duration::from_secs(3600)),
                bytes: None,
            },
            elapsed: hours_at_each_look(),
            ..Options::new(dir.path())
        });
        let store = store.unwrap();
        store.keep_only(&BTreeMap::new()).await.unwrap();
        let block = || Ledger::block_at(&store, AUDIT, 8);
        while block().await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        store.close().await.unwrap();
    });
    let removed = explain(&place, &["k1"]).exits_with(1);
    let line = "retention has removed 8 older ones";
    assert!(removed.stdout.contains(line), "{}", removed.stdout);
    // What was committed is known all the same, and dead letters keep their events.
    let by_entry = explain(&place, &["teleport/audit/1"]).exits_with(0).stdout;
    for line in [
        "entry 1 of teleport/audit: retention has removed its event\n",
        "pipeline siem: delivered\n",
        "POST url /events: 1 document, 99 bytes, 1 attempt; answered 200\n",
    ] {
        assert!(by_entry.contains(line), "{by_entry}");
    }
    let unfinished = explain(&place, &["siem/teleport/audit/8"])
        .exits_with(0)
        .stdout;
    assert!(unfinished.contains("removed by retention"), "{unfinished}");
    let letter = explain(&place, &["k3"]).exits_with(0).stdout;
    assert!(letter.contains("a dead letter keeps the event"), "{letter}");
}

/// The events are gone, and every commit and operation is folded into the daily tallies.
#[test]
fn entries_whose_commits_are_folded_are_not_said_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let place = ["--store", dir.path().to_str().unwrap()];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Options {
            retention: Retention {
                age: Some(std::time::Duration::from_secs(3600)),
                bytes: None,
            },
            fold_links: 1,
            elapsed: hours_at_each_look(),
            ..Options::new(dir.path())
        });
        let store = store.unwrap();
        store.keep_only(&BTreeMap::new()).await.unwrap();
        while store.reads().verify_chain("siem").unwrap()[0].folded < 8 {
            tokio::task::yield_now().await;
        }
        store.close().await.unwrap();
    });
    for (seq, outcome) in [
        (1, "final"),
        (2, "final"),
        (3, "dead"),
        (4, "final"),
        (5, "final"),
        (6, "final"),
        (7, "waiting again"),
        (8, "final"),
    ] {
        let entry = format!("teleport/audit/{seq}");
        let json = explain(&place, &[&entry, "--json"]).exits_with(0).stdout;
        let json: Value = serde_json::from_str(&json).unwrap();
        let pipelines = [
            &json["found"][0]["pipelines"],
            &json["removed"]["pipelines"],
        ];
        let pipeline = pipelines.into_iter().find(|found| found.is_array());
        let pipeline = &pipeline.unwrap()[0];
        assert_eq!(pipeline["outcome"], outcome, "{seq}: {json:#}");
        let is_folded = pipeline["folded_at"].is_string();
        assert_eq!(is_folded, outcome == "final", "{seq}: {json:#}");
    }
    let delivered = explain(&place, &["teleport/audit/1"]).exits_with(0).stdout;
    let line =
        "pipeline siem: final\n  the record of its outcome was folded into the daily tallies";
    assert!(delivered.contains(line), "{delivered}");
    let mut retry = lockgate();
    retry.args(["dlq", "retry"]).args(place);
    retry.arg("siem/teleport/audit/7");
    let refused = Running::start("retry", &mut retry).ended().exits_with(1);
    let said = "is no longer a dead letter: it has been waiting to be sent again.\n";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
}

/// `main` filters and delivers, and one of its events is refused; `held` cannot reach its receiver.
#[test]
fn events_are_explained_while_a_host_runs_and_after_it() {
    const EVENTS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let refused = lockgate_tests::uid(EVENTS, 500);
    receiver.refuse(&format!(r#""uid":"{refused}""#));
    let held = LocalReceiver::start(&dir.path().join("held"));
    held.always(Fault::Status(503));
    let pipelines = format!(
        r#"
[pipelines.main]
dead-letters = {{ in-a-row = 1000, share = "100%" }}
[[pipelines.main.stage]]
plugin = "builtin:filter"
with = {{ skip = ["user.login"] }}
[pipelines.main.sink]
plugin = "builtin:fluentd"
{}
[pipelines.held.sink]
plugin = "builtin:fluentd"
{}
"#,
        receiver.endpoint("main"),
        held.endpoint("held")
    );
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    let waiting = |count: u64| {
        until(&format!("`main` has {count} waiting"), shown, || {
            let main = &status(&config)["pipelines"]["main"];
            main["read"] == EVENTS && main["waiting"] == count
        });
    };
    // No other is left that the receiver could accept.
    waiting(1);
    let mut release = lockgate();
    release
        .args(["dlq", "release", "main", "--config"])
        .arg(&config);
    Running::start("release", &mut release)
        .ended()
        .exits_with(0);
    waiting(0);
    let inspector = Inspector::open(dir.path().join("store")).unwrap();
    let mut uids = [String::new(), String::new()];
    let mut seq = 1;
    while let Some(block) = inspector.block_at(AUDIT, seq).unwrap() {
        for row in 0..block.len() {
            let event = block.view(row);
            if event.key != refused {
                uids[usize::from(event.event_type == "user.login")] = event.key.to_owned();
            }
        }
        seq = block.range().end;
    }
    let [delivered, dropped] = uids;
    let place = ["--config", config.to_str().unwrap()];
    let check = |running: bool| {
        for (uid, outcome) in [
            (&delivered, "delivered"),
            (&dropped, "dropped"),
            (&refused, "dead"),
        ] {
            let ended = explain(&place, &[uid, "--json"]).exits_with(0);
            let report: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(report["host_running"], running);
            let pipelines = report["found"][0]["pipelines"].as_array().unwrap();
            let of = |name: &str| {
                let mut pipelines = pipelines.iter();
                pipelines
                    .find(|pipeline| pipeline["pipeline"] == name)
                    .unwrap()
            };
            let main = of("main");
            assert_eq!(main["outcome"], outcome, "{report:#}");
            let requests = &main["history"][0]["requests"];
            let answered: Vec<_> = requests.as_array().unwrap().iter().collect();
            let last = answered.last().map(|request| request["status"].clone());
            let expected = match outcome {
                "delivered" => Some(json!(200)),
                "dead" => Some(json!(400)),
                _ => None,
            };
            assert_eq!(last, expected, "{report:#}");
            let replay = &main["replay"];
            assert_eq!(replay["same_generation"], true, "{report:#}");
            let stage = match outcome {
                "dropped" => "dropped",
                _ => "passed",
            };
            assert_eq!(replay["stages"][0]["result"], stage, "{report:#}");
            assert_eq!(
                replay["stages"][0]["digest"].as_str().map(str::len),
                Some(71)
            );
            let held = of("held");
            assert_eq!(held["outcome"], "waiting", "{report:#}");
            assert!(held["ahead"].is_u64(), "{report:#}");
            let has_condition = held["conditions"][0]["kind"] == "endpoint";
            assert_eq!(has_condition, running, "{report:#}");
        }
    };
    check(true);
    host.stop().exits_with(0);
    check(false);

    // The filter is different now, and only some types are read.
    let text = fs::read_to_string(&config).unwrap();
    let text = text
        .replace(r#"["user.login"]"#, r#"["print"]"#)
        .replace("start-time", "types = [\"user.login\"]\nstart-time");
    fs::write(&config, text).unwrap();
    let now = explain(&place, &[&dropped]).exits_with(0).stdout;
    for line in [
        "A different generation processed it",
        "its table in the configuration was different then",
        "no host is running",
    ] {
        assert!(now.contains(line), "{line}:\n{now}");
    }
    let never = explain(&place, &["no-such-event"]).exits_with(1).stdout;
    let types = "the source reads only these types: user.login; others are never read\n";
    assert!(never.contains(types), "{never}");
}

fn hours_at_each_look() -> lockgate_store::Elapsed {
    let hours = std::sync::atomic::AtomicU64::new(0);
    std::sync::Arc::new(move || {
        let hours = hours.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::time::Duration::from_secs(hours * 3600)
    })
}
