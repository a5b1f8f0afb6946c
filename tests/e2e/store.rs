//! The store: its lock, damage, full disks, and what `status` shows of it.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_model::Generation;
use lockgate_store::{DirectoryLock, Ledger};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, ReceiverProcess, Running, Signal, admin_address, configuration, empty_disk, get,
    listen_on_any_port, lockgate, quickstart, start, start_and_finish, start_with_a_full_disk,
    started, status, until,
};
use serde_json::{Value, json};

use crate::dlq::{AUDIT, DAY, Fixture, append, open};

#[test]
fn a_second_start_on_the_same_store_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let first = started(&config);
    let second = start(&config, &[]).ended().exits_with(1);
    assert!(
        second.stderr.contains(&format!("{}", first.pid())),
        "it names the process that holds the store:\n{}",
        second.stderr
    );
    first.stop().exits_with(0);
}

/// The lock says who holds it: here in the name of another command.
#[test]
fn a_start_waits_for_a_dlq_command_that_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let store = dir.path().join("store");
    let lock = DirectoryLock::take(&store, DAY).unwrap();
    let holder = |command: &str| {
        let text = format!("process 4711 (`/opt/my tools/lockgate {command}`) since 12:00\n");
        fs::write(store.join("lock"), text).unwrap();
    };
    holder("start --config dlq");
    let refused = start(&config, &[]).ended().exits_with(1);
    for part in ["waiting up to 5 s", "process 4711"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    holder("--log info dlq retry --all");
    let host = start(&config, &["--exit-on-last-event"]);
    let line = host.line_with("waiting up to 30 s");
    assert!(line.contains("4711"), "{line}");
    drop(lock);
    let ended = host.ended().exits_with(0);
    let waiting = ended.stderr.matches("waiting up to 30 s").count();
    assert_eq!(waiting, 1, "{}", ended.stderr);
    assert_eq!(receiver.stop().distinct, 100);
}

/// Its memory is unmapped before the lock is let go of.
#[test]
fn a_start_right_after_a_kill_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let mut host = started(&config);
    for _ in 0..5 {
        host.signal(Signal::KILL);
        let next = start(&config, &[]);
        next.line_with("started");
        host.ended();
        host = next;
    }
    host.stop().exits_with(0);
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "3000"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    start_and_finish(&config);
    let file = dir.path().join("store/store.db");
    let good = fs::read(&file).unwrap();
    let overwritten = |at: usize| {
        let mut bytes = good.clone();
        bytes[at..at + 64].fill(0x5a);
        bytes
    };
    // Pages that are free keep what was once there: every copy.
    let text = b"CREATE TABLE blocks";
    let places = good.windows(text.len()).enumerate();
    let places = places.filter(|(_, bytes)| *bytes == text);
    let mut schema = good.clone();
    for (at, _) in places {
        schema[at + 20..at + 84].fill(0x5a);
    }
    assert_ne!(schema, good);
    for (what, bytes) in [
        ("truncated to half", good[..good.len() / 2].to_vec()),
        ("truncated in a page", good[..good.len() - 1000].to_vec()),
        ("overwritten at its head", overwritten(0)),
        ("overwritten in the schema", schema),
        (
            "replaced by a text",
            b"not a database, but somebody's notes".to_vec(),
        ),
    ] {
        fs::write(&file, &bytes).unwrap();
        let ended = start(&config, &["--exit-on-last-event"]).ended();
        assert!(!ended.status.success(), "{what}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("error: ") && ended.stderr.contains("damaged"),
            "{what}:\n{}",
            ended.stderr
        );
        assert_eq!(
            fs::read(&file).unwrap(),
            bytes,
            "{what}: the file is as it was"
        );
    }
    fs::write(&file, &good).unwrap();
    start_and_finish(&config);
    assert_eq!(receiver.stop().distinct, 3000);
}

#[test]
fn a_removed_lock_lets_no_second_host_in() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let first = started(&config);
    fs::remove_file(dir.path().join("store/lock")).unwrap();
    let second = start(&config, &[]).ended().exits_with(1);
    assert!(
        second.stderr.contains("is in use by another process"),
        "{}",
        second.stderr
    );
    first.stop().exits_with(0);
}

#[test]
fn a_host_whose_store_is_removed_ends_and_says_which_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    let file = dir.path().join("store/store.db");
    fs::remove_file(&file).unwrap();
    let ended = host.ended().exits_with(1);
    let gone = format!("`{}` was removed or replaced", file.display());
    let error = ended
        .stderr
        .lines()
        .find(|line| line.starts_with("error: "));
    assert!(
        error.is_some_and(|error| error.contains(&gone) && error.contains("from a backup")),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_host_whose_store_was_moved_says_to_move_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    let (store, moved) = (dir.path().join("store"), dir.path().join("store.moved"));
    fs::rename(&store, &moved).unwrap();
    let ended = host.ended().exits_with(1);
    assert!(
        ended
            .stderr
            .contains("If it was moved, move the whole store back"),
        "{}",
        ended.stderr
    );
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(&config);
    let shown = Running::start("status", &mut command).ended().exits_with(1);
    assert!(
        shown.stderr.contains("If it was moved, move it back"),
        "{}",
        shown.stderr
    );
    fs::rename(&moved, &store).unwrap();
    start_and_finish(&config);
    let totals = receiver.stop();
    assert_eq!(totals.distinct, 100);
}

#[test]
fn a_killed_host_is_not_shown_as_running() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    // It has written its status, too.
    let file = dir.path().join("store/status.json");
    until("it runs", shown, || {
        status(&config)["running"] == true && file.exists()
    });
    host.kill();
    assert!(file.exists(), "a killed host leaves its status file");
    let status = status(&config);
    assert_eq!(
        (&status["running"], &status["host"]),
        (&json!(false), &Value::Null)
    );
}

#[test]
fn a_host_whose_control_socket_is_removed_makes_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    let store = dir.path().join("store");
    until(
        "it runs and has written its status",
        || host.stderr(),
        || {
            let pipeline = &status(&config)["pipelines"]["main"];
            pipeline["state"]["state"] == "running" && store.join("status.json").exists()
        },
    );
    fs::remove_file(store.join("control.sock")).unwrap();
    until(
        "the host is seen without the socket, or with a new one",
        || host.stderr(),
        || status(&config)["running"] == true,
    );
    host.line_with("control.sock` was removed or replaced; the host has made it again");
    let released = Running::start(
        "dlq release",
        lockgate()
            .args(["dlq", "release", "main", "--config"])
            .arg(&config),
    );
    released.ended().exits_with(0);
    host.stop().exits_with(0);
}

#[test]
fn a_host_that_is_stopping_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.control.hang_next(u64::MAX);
    let sink = receiver.endpoint("events.log");
    let pipeline = format!("[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{sink}\n");
    let config = configuration(dir.path(), &auth, &pipeline);
    listen_on_any_port(&config);
    let host = started(&config);
    let address = &admin_address(&host);
    until(
        "the receiver hangs",
        || host.stderr(),
        || receiver.control.holding() > 0,
    );
    host.signal(Signal::TERM);
    host.line_with("SIGTERM: stopping");
    let ready = get(address, "/readyz");
    let shown = status_text(&config);
    assert!(
        ready.starts_with("HTTP/1.1 503")
            && ready.contains(r#""kind":"stop""#)
            && ready.contains("it is stopping"),
        "{ready}"
    );
    assert!(shown.contains("\nit is stopping (for "), "{shown}");
    receiver.recover();
    host.ended().exits_with(0);
}

#[test]
fn status_says_that_the_host_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = started(&config);
    let file = dir.path().join("store/status.json");
    until(
        "it has written its status",
        || host.stderr(),
        || file.exists(),
    );
    host.signal(Signal::STOP);
    let (seen, shown) = (status(&config), status_text(&config));
    host.signal(Signal::CONT);
    assert_eq!(
        (&seen["running"], &seen["silent"]),
        (&json!(true), &json!(true))
    );
    let first = format!("not answering: process {}, version ", host.pid());
    assert!(shown.starts_with(&first), "{shown}");
    host.stop().exits_with(0);
}

/// What `lockgate status` prints for people.
fn status_text(config: &Path) -> String {
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(config);
    let shown = Running::start("status", &mut command).ended();
    shown.exits_with(0).stdout
}

#[test]
fn a_host_that_waits_for_its_store_can_be_asked_why() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    listen_on_any_port(&config);
    // Too little for any store.
    let host = start_with_a_full_disk(&config, 300, &[]);
    let address = &admin_address(&host);
    let mut seen = Value::Null;
    until(
        "it waits",
        || host.stderr(),
        || {
            seen = status(&config);
            seen["host"]["store"]["next_attempt"].is_i64()
        },
    );
    assert_eq!(seen["running"], true);
    let store = &seen["host"]["store"];
    let (since, next) = (store["since"].as_i64(), store["next_attempt"].as_i64());
    assert!(since.is_some() && since < next, "{store}");
    assert!(
        store["message"]
            .as_str()
            .unwrap()
            .contains("the disk is too full"),
        "{store}"
    );
    let shown = status_text(&config);
    assert!(
        shown.starts_with("running: process ")
            && shown.contains("\nwaiting for the store: the disk is too full"),
        "{shown}"
    );
    // What is configured is shown, and no figures are made up.
    let why = seen["store_error"].as_str().unwrap();
    assert!(
        shown.contains(&format!("\nthe figures cannot be read: {why}\n")),
        "{shown}"
    );
    let pipelines = seen["pipelines"].as_object().unwrap();
    assert!(!pipelines.is_empty(), "{seen}");
    for (name, pipeline) in pipelines {
        assert_eq!(pipeline["state"]["state"], "waiting for the store");
        assert!(shown.contains(&format!("\n{name} ")), "{shown}");
    }
    let sources = seen["host"]["sources"].as_object().unwrap();
    assert!(!sources.is_empty(), "{seen}");
    let live = get(address, "/livez");
    assert!(live.starts_with("HTTP/1.1 200"), "{live}");
    let ready = get(address, "/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 503")
            && ready.contains(r#""kind":"store""#)
            && ready.contains("the disk is too full")
            && ready.contains("next_attempt"),
        "{ready}"
    );
    // Nobody else gets the store meanwhile.
    let second = start(&config, &[]).ended().exits_with(1);
    assert!(second.stderr.contains("is in use by"), "{}", second.stderr);
    host.stop().exits_with(0);
}

#[test]
fn a_full_disk_makes_the_host_wait_and_loses_no_committed_event() {
    for blocks in [300, 900, 1500] {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(dir.path(), &["--events", "6000"]);
        let receiver = ReceiverProcess::start(dir.path(), &[]);
        let config = quickstart(dir.path(), &auth, &receiver, "");
        let host = start_with_a_full_disk(&config, blocks, &["--exit-on-last-event"]);
        host.line_with("too full");
        host.stop().exits_with(0);
        start_and_finish(&config);
        assert_eq!(receiver.stop().distinct, 6000, "with {blocks} blocks");
    }
}

/// If the store was opened for a moment, all pipelines would send, and could not commit.
#[test]
fn a_store_is_opened_again_only_if_commits_have_room() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "6000"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let host = start_with_a_full_disk(&config, 1500, &["--exit-on-last-event"]);
    host.line_with("started");
    host.line_with_all(&["too full", "retry_in_s=1"]);
    let mut seen = Value::Null;
    until(
        "it has tried to open the store again",
        || host.stderr(),
        || {
            seen = status(&config);
            let message = seen["host"]["store"]["message"].as_str();
            message.is_some_and(|message| message.contains("32 MiB that have to be free"))
        },
    );
    let started = host.stderr().matches(" started").count();
    assert_eq!(started, 1, "{}", host.stderr());
    // Nothing waits since the start: the store has closed later.
    let since = seen["host"]["store"]["since"].as_i64().unwrap();
    let opened = seen["host"]["store_opened_at"].as_i64().unwrap();
    assert!(opened <= since, "{seen}");
    // There is room.
    empty_disk(&host);
    let ended = host.ended().exits_with(0);
    // Once when it begins, once when it ends, and not for each attempt.
    let log = &ended.stderr;
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
    let end = log
        .lines()
        .find(|line| line.contains("open again attempts="));
    let end = end.unwrap_or_else(|| panic!("{log}"));
    let attempts = end.split("attempts=").nth(1).unwrap();
    let attempts: u64 = attempts.split(' ').next().unwrap().parse().unwrap();
    assert!(attempts >= 2, "{end}");
    assert_eq!(receiver.stop().distinct, 6000);
}

/// `gone` was registered, finished nothing, and is no longer configured. Ten events are older
/// than the store keeps them, as the events that Teleport has show; one was just read.
#[test]
fn events_that_retention_removes_unfinished_are_logged_and_shown() {
    let fixture = Fixture::new();
    fixture.runtime.block_on(async {
        let store = open(&fixture.store());
        let generation = Generation {
            pipeline: "gone".into(),
            description: "{}".to_owned(),
        };
        let streams = [AUDIT.to_owned()];
        store.register(generation, &streams, DAY).await.unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        append(&store, 11..=11, now.as_millis() as i64).await;
        store.close().await.unwrap();
    });
    let auth = Auth::start(fixture.dir.path(), &["--events", "6000"]);
    let sink = "plugin = \"builtin:fluentd\"\nurl = \"http://127.0.0.1:1/\"";
    let pipelines = format!("[store.retain]\nage = \"1h\"\n[pipelines.siem.sink]\n{sink}\n");
    let config = configuration(fixture.dir.path(), &auth, &pipelines);
    let host = start(&config, &[]);
    let waiting = "events wait for a pipeline that is no longer configured";
    host.line_with_all(&[waiting, "pipeline=gone"]);
    let line = host.line_with("retention removed events that this pipeline had not finished");
    for part in [
        "pipeline=gone",
        "stream=teleport/audit",
        "events=10",
        "`age` in `retain`",
    ] {
        assert!(line.contains(part), "no {part}: {line}");
    }
    let ended = host.stop().exits_with(0);
    assert_eq!(
        ended.stderr.matches("retention removed events").count(),
        1,
        "{}",
        ended.stderr
    );
    // Balanced.
    assert_eq!(fixture.books("gone").dropped, 10);
    let figures = status(&config)["pipelines"]["gone"].clone();
    assert_eq!(figures["removed_unfinished"], 10, "{figures}");
    let shown = Running::start(
        "status",
        lockgate().args(["status", "--store"]).arg(fixture.store()),
    );
    let shown = shown.ended().exits_with(0).stdout;
    let line =
        "  10 of the dropped were removed by retention before this pipeline had finished them\n";
    assert!(shown.contains(line), "{shown}");
    let line =
        "of the waiting are in streams that this pipeline is not configured to read any more";
    assert!(shown.contains(line), "{shown}");
}
