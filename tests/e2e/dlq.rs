//! `lockgate dlq` on stores that the tests make.

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lockgate_admin::control::{Control, Request, Response, Socket};
use lockgate_store::{DeadLetters, Ledger, Store};
use lockgate_tests::{Auth, Books, Running, configuration, lockgate, start, status};

pub(crate) use fixture::{AUDIT, DAY, Fixture, append, open};

#[test]
fn a_damaged_letter_is_named_and_keeps_no_other_from_being_read() {
    let fixture = Fixture::new();
    let file = fixture.store().join("store.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let text = b"\xffnot JSON";
    let found = bytes.windows(text.len()).rposition(|part| part == text);
    let at = found.expect("the payload is in the file");
    bytes[at + 1] = b'N';
    std::fs::write(&file, bytes).unwrap();
    for (arguments, said) in [
        (&["list"][..], "siem/teleport/audit/3"),
        (&["export"], r#""seq":3"#),
        (&["drop", "--all", "--yes"], "3 dead letters dropped"),
    ] {
        let ended = fixture.dlq(arguments).exits_with(1);
        assert!(ended.stdout.contains(said), "{}", ended.stdout);
        for said in [
            "The dead letter `siem/teleport/audit/9` is not what was written",
            "1 dead letter was left out",
        ] {
            assert!(ended.stderr.contains(said), "{}", ended.stderr);
        }
    }
}

#[test]
fn dead_letters_are_listed_newest_first_and_by_filter() {
    let fixture = Fixture::new();
    let [archive, nine, four, three] = [
        "archive/teleport/audit/4",
        "siem/teleport/audit/9",
        "siem/teleport/audit/4",
        "siem/teleport/audit/3",
    ];
    for (filter, expected) in [
        (&[][..], &[archive, nine, four, three][..]),
        (&["--pipeline", "siem"], &[nine, four, three]),
        (&["--type", "session.start"], &[archive, four]),
        (&["--cause", "answered 400"], &[nine, four, three]),
        (&["--cause", "too large"], &[archive]),
        (&["--since", "2026-01-05T00:02:00Z"], &[archive]),
        (&["--until", "2026-01-05T00:02:00Z"], &[nine, four, three]),
        (&["--until", "3650d"], &[]),
        (&["--stream", "teleport/sessions"], &[]),
        (&["--limit", "2"], &[archive, nine]),
        (&["--limit", "1", "--after", nine], &[four]),
        (&["--after", three], &[]),
    ] {
        assert_eq!(fixture.listed(filter), expected, "{filter:?}");
    }

    let ended = fixture.dlq(&["list", "--limit", "2"]).exits_with(0);
    assert_eq!(
        ended.stdout,
        concat!(
            "dead letter               since                     type           cause                   reason\n",
            "archive/teleport/audit/4  2026-01-05T00:02:00.000Z  session.start  sink (builtin:fluentd)  too large\n",
            "siem/teleport/audit/9     2026-01-05T00:01:00.000Z  user.login     sink (builtin:fluentd)  ",
            "the receiver answered 400: bad \\u{1b}[31mfield\\n`user`\n",
        ),
        "no control character reaches the terminal"
    );
    assert_eq!(
        ended.stderr,
        "There are more than these 2. `--after siem/teleport/audit/9` lists the next ones.\n"
    );
    let ended = fixture.dlq(&["list", "--pipeline", "other"]).exits_with(0);
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("", "No dead letter matches.\n")
    );
}

#[test]
fn one_dead_letter_is_shown_with_its_event() {
    let fixture = Fixture::new();
    let shown = fixture
        .dlq(&["show", "archive/teleport/audit/4"])
        .exits_with(0)
        .stdout;
    for text in [
        "archive/teleport/audit/4\n",
        "since       2026-01-05T00:02:00.000Z\n",
        "reason      too large\n",
        "type        session.start\n",
        "\"uid\": \"k4\"",
    ] {
        assert!(shown.contains(text), "`{text}`:\n{shown}");
    }
    let raw = fixture
        .dlq(&["show", "siem/teleport/audit/9"])
        .exits_with(0);
    assert!(raw.stdout.contains("9 bytes as base64"), "{}", raw.stdout);

    let missing = fixture
        .dlq(&["show", "siem/teleport/audit/5"])
        .exits_with(1);
    assert_eq!(
        missing.stderr,
        "error: `siem/teleport/audit/5` is not a dead letter: it was delivered at \
         2026-01-05T00:01:00.000Z.\n\
         hint: `lockgate dlq list` shows those that exist\n"
    );
    let wrong = fixture.dlq(&["show", "5"]).exits_with(2);
    assert!(
        wrong.stderr.contains("siem/teleport/audit/1234"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn events_are_exported_as_they_were_read() {
    let fixture = Fixture::new();
    let head = |pipeline: &str, seq: u64, minute: u8, reason: &str| {
        format!(
            r#"{{"pipeline":"{pipeline}","stream":"teleport/audit","seq":{seq},"at":"2026-01-05T00:0{minute}:00.000Z","cause":"sink (builtin:fluentd)","reason":"{reason}","#
        )
    };
    let refused = r"the receiver answered 400: bad \u001b[31mfield\n`user`";
    let expected = [
        head("archive", 4, 2, "too large") + r#""event":{"uid":"k4","ei":4.50}}"#,
        head("siem", 9, 1, refused) + r#""event_base64":"/25vdCBKU09O"}"#,
        head("siem", 4, 1, refused) + r#""event":{"uid":"k4","ei":4.50}}"#,
        head("siem", 3, 1, refused) + r#""event":{"uid":"k3","ei":3.50}}"#,
    ]
    .map(|line| line + "\n");
    let ended = fixture.dlq(&["export"]).exits_with(0);
    assert_eq!(ended.stdout, expected.concat());
    assert_eq!(ended.stderr, "Exported 4 dead letters.\n");

    let file = fixture.dir.path().join("letters.ndjson");
    let to_file = ["export", "--pipeline", "archive", "--out", "letters.ndjson"];
    fixture.dlq(&to_file).exits_with(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected[0]);
    let again = fixture.dlq(&to_file).exits_with(2);
    assert!(again.stderr.contains("already exists"), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected[0]);
}

#[test]
fn without_a_host_letters_are_retried_and_dropped_in_the_store() {
    let fixture = Fixture::new();
    let books = |dead, waiting, dropped| Books {
        read: 10,
        delivered: 7,
        dropped,
        dead,
        waiting,
    };
    assert_eq!(fixture.books("siem"), books(3, 0, 0));
    assert!(fixture.lag("siem").is_null());

    let ended = fixture
        .dlq(&["retry", "siem/teleport/audit/3"])
        .exits_with(0);
    assert_eq!(
        ended.stdout,
        "1 dead letter will be sent again by the next `lockgate start`.\n"
    );
    assert_eq!(fixture.books("siem"), books(2, 1, 0));
    assert!(
        fixture.lag("siem").is_number(),
        "an entry that waits again makes the pipeline lag"
    );
    // It is not a dead letter any more, and the operator sees what it is.
    for command in [&["retry"][..], &["drop", "--yes"], &["show"]] {
        let arguments = [command, &["siem/teleport/audit/3"]].concat();
        let refused = fixture.dlq(&arguments).exits_with(1).stderr;
        let said = "error: `siem/teleport/audit/3` is no longer a dead letter: it has been waiting \
                    to be sent again since 20";
        assert!(refused.starts_with(said), "{refused}");
    }

    // There is no terminal to ask on.
    let asked = fixture.dlq(&["drop", "--pipeline", "siem"]).exits_with(2);
    assert!(
        asked.stderr.contains("2 dead letters") && asked.stderr.contains("--yes"),
        "{}",
        asked.stderr
    );
    assert_eq!(fixture.books("siem"), books(2, 1, 0));
    let dropped = fixture
        .dlq(&[
            "drop",
            "--pipeline",
            "siem",
            "--type",
            "user.login",
            "--yes",
        ])
        .exits_with(0);
    assert_eq!(dropped.stdout, "1 dead letter dropped.\n");
    assert_eq!(fixture.books("siem"), books(1, 1, 1));
    let again = fixture.dlq(&["retry", "siem/teleport/audit/9"]);
    let refused = again.exits_with(1).stderr;
    let said = "error: `siem/teleport/audit/9` is not a dead letter any more: it was dropped at 20";
    assert!(refused.starts_with(said), "{refused}");

    let all = fixture.dlq(&["retry", "--all"]).exits_with(0);
    assert!(all.stdout.starts_with("2 dead letters "), "{}", all.stdout);
    assert_eq!(fixture.listed(&[]), [""; 0]);
    assert_eq!(fixture.books("siem"), books(0, 2, 1));
    let none = fixture.dlq(&["retry", "--all"]).exits_with(0);
    assert_eq!(none.stderr, "No dead letter matches.\n");
}

#[test]
fn letters_of_a_stream_no_longer_configured_are_not_retried() {
    let fixture = Fixture::new();
    fixture.runtime.block_on(async {
        let store = open(&fixture.store());
        let streams = vec![AUDIT.to_owned()];
        let configured = BTreeMap::from([("siem".to_owned(), streams)]);
        store.keep_only(&configured).await.unwrap();
        store.close().await.unwrap();
    });
    let ended = fixture.dlq(&["retry", "--all"]).exits_with(1);
    assert!(
        ended.stdout.starts_with("3 dead letters "),
        "{}",
        ended.stdout
    );
    assert_eq!(
        ended.stderr,
        "error: `archive` is not configured to read `teleport/audit`, so they would never be sent: \
         configure it and start the host first, or use `lockgate dlq export`.\n"
    );
    assert_eq!(fixture.listed(&[]), ["archive/teleport/audit/4"]);
    assert_eq!(fixture.books("archive").dead, 1);
    assert_eq!(fixture.books("siem").waiting, 3);
    // They can still be dropped.
    let dropped = fixture.dlq(&["drop", "--all", "--yes"]).exits_with(0);
    assert_eq!(dropped.stdout, "1 dead letter dropped.\n");
}

#[test]
fn a_command_must_say_which_letters_it_means() {
    let fixture = Fixture::new();
    for (arguments, text) in [
        (&["retry"][..], "--all"),
        (&["drop", "--yes"], "--all"),
        (&["retry", "--all", "--pipeline", "siem"], "together"),
        (&["retry", "siem/teleport/audit/3", "--all"], "together"),
    ] {
        let ended = fixture.dlq(arguments).exits_with(2);
        assert!(
            ended.stderr.contains(text),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    // All or nothing: one of the names is wrong.
    fixture
        .dlq(&["retry", "siem/teleport/audit/3", "siem/teleport/audit/5"])
        .exits_with(1);
    assert_eq!(fixture.listed(&[]).len(), 4);
}

/// Who mistypes a name would believe that no dead letter is left.
#[test]
fn a_pipeline_that_exists_nowhere_is_refused_with_the_names_of_those_that_do() {
    let fixture = Fixture::new();
    for command in ["list", "export", "retry", "drop"] {
        let refused = fixture.dlq(&[command, "--pipeline", "siem2"]).exits_with(1);
        assert_eq!(
            (refused.stdout.as_str(), refused.stderr.as_str()),
            (
                "",
                "error: The store has no pipeline `siem2`.\n\
                 hint: the pipelines are `archive`, `other` and `siem`\n"
            ),
            "{command}"
        );
    }
    let out = ["export", "--pipeline", "siem2", "--out", "letters.ndjson"];
    fixture.dlq(&out).exits_with(1);
    assert!(!fixture.dir.path().join("letters.ndjson").exists());

    // With a configuration file, its pipelines are known too.
    let config = fixture.dir.path().join("lockgate.toml");
    std::fs::write(&config, "[store]\npath = \"store\"\n[pipelines.new]\n").unwrap();
    let list = |pipeline: &str| {
        let mut command = lockgate();
        command.args(["dlq", "list", "--config", "lockgate.toml"]);
        command.args(["--pipeline", pipeline]);
        Running::start("dlq", command.current_dir(fixture.dir.path())).ended()
    };
    for pipeline in ["new", "other"] {
        let ended = list(pipeline).exits_with(0);
        assert_eq!(ended.stderr, "No dead letter matches.\n", "{pipeline}");
    }
    assert_eq!(
        list("siem2").exits_with(1).stderr,
        "error: Neither the store nor `lockgate.toml` has a pipeline `siem2`.\n\
         hint: the pipelines are `archive`, `new`, `other` and `siem`\n"
    );
}

/// The letters died on 2026-01-05, and the events that Teleport has are from later.
#[test]
fn a_running_host_removes_old_letters_and_says_how_many() {
    let fixture = Fixture::new();
    let auth = Auth::start(fixture.dir.path(), &["--events", "6000"]);
    let sink = "plugin = \"builtin:fluentd\"\nurl = \"http://127.0.0.1:1/\"";
    let pipelines = format!(
        "[pipelines.siem]\ndead-letters = {{ age = \"1h\" }}\n[pipelines.siem.sink]\n{sink}\n"
    );
    let config = configuration(fixture.dir.path(), &auth, &pipelines);
    let before = fixture.books("siem");
    let host = start(&config, &[]);
    host.line_with_all(&["dead letters older than 1h were removed", "expired=3"]);
    host.stop().exits_with(0);

    let after = fixture.books("siem");
    assert_eq!(
        (after.dead, after.delivered),
        (before.dead, before.delivered)
    );
    let listed = fixture.dlq(&["list"]).exits_with(0);
    assert!(
        listed.stdout.lines().count() == 2 && listed.stdout.contains("archive/teleport/audit/4"),
        "a pipeline that is not configured keeps its letters: {}",
        listed.stdout
    );
    assert_eq!(
        listed.stderr,
        "3 dead letters expired earlier and are no longer kept.\n"
    );
    let json = fixture.dlq(&["list", "--json", "--pipeline", "siem"]);
    assert_eq!(
        json.exits_with(0).stdout,
        "{\"dead_letters\":[],\"more\":false,\"expired\":3}\n"
    );
    fixture
        .dlq(&["retry", "siem/teleport/audit/3"])
        .exits_with(1);
    let status = status(&config);
    assert_eq!(status["pipelines"]["siem"]["expired"], 3);
    assert_eq!(status["pipelines"]["archive"]["expired"], 0);
    let shown = Running::start(
        "status",
        lockgate().args(["status", "--store"]).arg(fixture.store()),
    );
    let shown = shown.ended().exits_with(0).stdout;
    assert!(
        shown.contains("  expired: 3 of the dead are no longer kept\n"),
        "{shown}"
    );
}

#[test]
fn a_release_needs_a_running_host() {
    let fixture = Fixture::new();
    let ended = fixture.dlq(&["release", "siem"]).exits_with(1);
    assert!(
        ended.stderr.contains("No host is running") && ended.stderr.contains("lockgate start"),
        "{}",
        ended.stderr
    );
    // Nothing but the store and the pipelines' names is read.
    let config =
        "[store]\npath = \"store\"\n[pipelines.siem]\n[pipelines.lake]\n[pipelines.splunk]\n";
    std::fs::write(fixture.dir.path().join("lockgate.toml"), config).unwrap();
    let release = |pipeline: &str| {
        let mut started = lockgate();
        started.args(["dlq", "release", pipeline, "--config", "lockgate.toml"]);
        Running::start("dlq", started.current_dir(fixture.dir.path())).ended()
    };
    assert_eq!(
        release("seim").exits_with(1).stderr,
        "error: `lockgate.toml` has no pipeline `seim`.\n\
         hint: its pipelines are `lake`, `siem` and `splunk`\n"
    );
    let ended = release("siem").exits_with(1);
    for part in [
        "No host is running",
        // Whoever has changed `path` has a host on the earlier store.
        "`--store OLD`",
        "a second host, on another store, reads and sends everything again",
    ] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

/// Holds the store, as a running host does.
struct FakeHost(Store);

impl Control for FakeHost {
    async fn handle(&self, request: Request) -> Response {
        let (pipeline, stream, seqs) = match request {
            Request::Retry {
                pipeline,
                stream,
                seqs,
            } => (pipeline, stream, seqs),
            Request::Release { pipeline } => {
                return Response::Refused {
                    message: format!("No pipeline `{pipeline}` runs here."),
                };
            }
            Request::Ping => {
                return Response::Done {
                    message: "The host is running.".to_owned(),
                };
            }
            other => panic!("the test asks for {other:?}"),
        };
        match self.0.retry(&pipeline, &stream, &seqs, DAY).await {
            Ok(()) => Response::Done {
                message: "done".to_owned(),
            },
            Err(error) => Response::Refused {
                message: error.to_string(),
            },
        }
    }
}

#[test]
fn while_a_host_holds_the_store_only_the_host_changes_it() {
    let fixture = Fixture::new();
    let path = fixture.store();
    let store = open(&path);
    let unreachable = fixture.dlq(&["retry", "--all"]).exits_with(1);
    assert!(
        unreachable.stderr.contains("is in use") && unreachable.stderr.contains("control socket"),
        "{}",
        unreachable.stderr
    );
    serve(&fixture, &path, store.clone());
    assert_eq!(fixture.listed(&[]).len(), 4);
    let ended = fixture.dlq(&["retry", "--pipeline", "siem"]).exits_with(0);
    assert_eq!(ended.stdout, "3 dead letters are being sent again.\n");
    assert_eq!(fixture.listed(&[]), ["archive/teleport/audit/4"]);
    assert!(*store.retries("siem").borrow() > 0, "the host knows");
    let refused = fixture.dlq(&["release", "siem"]).exits_with(1);
    assert_eq!(refused.stderr, "error: No pipeline `siem` runs here.\n");
}

/// It has the store's lock before its control socket, as a host that is starting.
#[test]
fn a_retry_waits_for_a_host_that_is_starting() {
    let fixture = Fixture::new();
    let path = fixture.store();
    let store = open(&path);
    let mut command = lockgate();
    command.args(["dlq", "retry", "--pipeline", "siem", "--store"]);
    let retry = Running::start("dlq", command.arg(&path));
    retry.line_with("waiting up to 5 s for it");
    serve(&fixture, &path, store.clone());
    let ended = retry.ended().exits_with(0);
    assert_eq!(ended.stdout, "3 dead letters are being sent again.\n");
    assert!(*store.retries("siem").borrow() > 0, "the host knows");
}

fn serve(fixture: &Fixture, path: &Path, store: Store) {
    let _guard = fixture.runtime.enter();
    let socket = Socket::bind(path).unwrap();
    fixture
        .runtime
        .spawn(socket.serve(Arc::new(FakeHost(store))));
}

/// Without a host, only the file can tell which pipelines will run.
#[test]
fn letters_of_a_pipeline_that_the_file_no_longer_has_are_not_retried() {
    let fixture = Fixture::new();
    let config = fixture.dir.path().join("lockgate.toml");
    std::fs::write(&config, "[store]\npath = \"store\"\n[pipelines.siem]\n").unwrap();
    let dlq = |command: &str| {
        let mut started = lockgate();
        started.args(["dlq", command, "--all", "--config", "lockgate.toml"]);
        Running::start("dlq", started.current_dir(fixture.dir.path())).ended()
    };
    let ended = dlq("retry").exits_with(1);
    assert_eq!(
        ended.stdout,
        "3 dead letters will be sent again by the next `lockgate start`.\n"
    );
    assert_eq!(
        ended.stderr,
        "error: `lockgate.toml` has no pipeline `archive`, so they would never be sent: configure it \
         and start the host first, or use `lockgate dlq export`.\n"
    );
    assert_eq!(fixture.listed(&[]), ["archive/teleport/audit/4"]);
}
