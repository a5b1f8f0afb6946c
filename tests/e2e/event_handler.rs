//! Configurations and state of Teleport's Event Handler, taken over as they are.

mod position;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockgate_sim::generate::{CHUNK, Generator, GeneratorOptions};
use lockgate_tests::{Auth, Ended, ReceiverProcess, Running, lockgate};
use serde_json::Value;

const EVENTS: u64 = 3_000;

/// A simulated cluster and a receiver, in the directory in which the Event Handler ran.
struct Site {
    dir: tempfile::TempDir,
    auth: Auth,
    receiver: ReceiverProcess,
}

impl Site {
    fn new(events: u64, backend: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--events", &events.to_string(), "--backend", backend];
        let auth = Auth::start(dir.path(), &arguments);
        let capture = dir.path().join("captured.ndjson");
        let receiver =
            ReceiverProcess::start(dir.path(), &["--capture", capture.to_str().unwrap()]);
        Site {
            dir,
            auth,
            receiver,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn host(&self) -> String {
        self.receiver.addr.replace("127.0.0.1", "localhost")
    }

    /// The example of the Event Handler's documentation, with the addresses and files of here.
    fn example(&self, more: &str) -> PathBuf {
        let (host, addr) = (self.host(), &self.auth.addr);
        let text = format!(
            r#"{more}
storage = "./storage"
timeout = "10s"
batch = 20
window-size = "24h"
skip-session-types = ["print", "desktop.recording"]

[forward.fluentd]
ca = "receiver/ca.crt"
cert = "receiver/client.crt"
key = "receiver/client.key"
url = "https://{host}/events.log"
session-url = "https://{host}/session"

[teleport]
addr = "{addr}"
identity = "auth/identity"
refresh.enabled = true
refresh.interval = "1m"
"#
        );
        let file = self.path("teleport-event-handler.toml");
        fs::write(&file, text).unwrap();
        file
    }

    /// Where the Event Handler keeps its state.
    fn state(&self) -> PathBuf {
        self.path("storage").join(self.auth.addr.replace(':', "_"))
    }

    /// Writes files of its state.
    fn write_state(&self, files: &[(&str, &[u8])]) {
        for (name, content) in files {
            let path = self.state().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, |_| {})
    }

    #[track_caller]
    fn run_with(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Ended {
        let mut command = lockgate();
        command.args(arguments).current_dir(self.dir.path());
        change(&mut command);
        Running::start(arguments[0], &mut command).ended()
    }

    /// What the receiver has got: the `uid`s of documents that are not of recordings alone.
    fn captured(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("captured.ndjson")).unwrap_or_default();
        let documents = text.lines().map(|line| serde_json::from_str(line).unwrap());
        documents.collect()
    }

    fn captured_uids(&self) -> BTreeSet<String> {
        let documents = self.captured();
        let uids = documents.iter().filter_map(|it| it["uid"].as_str());
        uids.map(str::to_owned).collect()
    }
}

fn log(events: u64) -> Generator {
    Generator::new(GeneratorOptions {
        events,
        ..GeneratorOptions::default()
    })
}

fn time(millis: i64) -> String {
    lockgate_model::utc(millis - millis % 1000)
}

const START: &str = "start-time = \"2026-01-01T00:00:00Z\"";

/// `check` names the pipelines, and `start` delivers to the URLs of the file.
#[test]
fn the_event_handlers_own_file_delivers_to_its_urls() {
    let site = Site::new(EVENTS, "search");
    site.example(START);
    let config = ["--config", "teleport-event-handler.toml"];
    let check = site.run(&[&["check"], &config[..]].concat()).exits_with(0);
    for line in [
        "[pipelines.audit.sink]",
        "[pipelines.sessions.sink]",
        "no problems",
    ] {
        assert!(check.stdout.contains(line), "{line}: {}", check.stdout);
    }
    let url = format!("url = \"https://{}/events.log\"", site.host());
    assert!(check.stdout.contains(&url), "{}", check.stdout);
    assert!(
        check.stderr.contains("`batch` has no effect"),
        "{}",
        check.stderr
    );

    // As in its systemd unit.
    let start = [
        "start",
        config[0],
        config[1],
        "--teleport-refresh-enabled=true",
    ];
    let start = [&start[..], &["--exit-on-last-event"]].concat();
    let ended = site.run(&start).exits_with(0);
    assert!(
        ended.stderr.contains("accepted without effect"),
        "{}",
        ended.stderr
    );
    let captured = site.captured();
    let of_print = captured.iter().filter(|it| it["event"] == "print");
    assert_eq!(of_print.count(), 0, "`print` is skipped in recordings");
    let totals = site.receiver.stop();
    assert_eq!(totals.by_path["/events.log"], EVENTS, "{totals:?}");
    assert_eq!(totals.requests, totals.documents, "one event a request");
    let of_sessions = |path: &&String| path.starts_with("/session.") && path.ends_with(".log");
    // The receiver counts the paths after the first twenty together.
    let named = totals.by_path.keys().filter(|path| path.starts_with('/'));
    let others = named.filter(|path| *path != "/events.log");
    let others: Vec<_> = others.collect();
    assert!(
        !others.is_empty() && others.iter().all(of_sessions),
        "{others:?}"
    );
}

/// The order of the Event Handler: the command line, the file, the environment.
#[test]
fn options_come_before_the_file_and_the_file_before_the_environment() {
    let site = Site::new(EVENTS, "search");
    site.example("types = \"user.login\"\nstart-time = \"2026-01-01T00:00:00Z\"");
    let host = site.host();
    let ended = site.run_with(
        &[
            "--config",
            "teleport-event-handler.toml",
            "start",
            "--exit-on-last-event=true",
            &format!("--fluentd-url=https://{host}/from-the-option"),
        ],
        |command| {
            command
                .env("FDFWD_FLUENTD_URL", "https://localhost:1/from-a-variable")
                .env("FDFWD_TYPES", "session.start");
        },
    );
    ended.exits_with(0);
    let captured = site.captured();
    assert!(!captured.is_empty());
    assert!(captured.iter().all(|it| it["event"] == "user.login"));
    let totals = site.receiver.stop();
    let paths: Vec<&String> = totals.by_path.keys().collect();
    assert_eq!(paths, ["/from-the-option"]);
}

/// Also the spelling that only some of the Event Handler's variables have.
#[test]
fn variables_and_options_are_enough_without_a_file() {
    let site = Site::new(EVENTS, "search");
    let host = site.host();
    let ended = site.run_with(
        &[
            "start",
            "--start-time",
            "2026-01-01T00:00:00Z",
            "--types",
            "user.login",
            "--exit-on-last-event",
        ],
        |command| {
            command
                .env("FDFWD_STORAGE", "storage")
                .env("FDFWD_FLUENTD_URL", format!("https://{host}/events.log"))
                .env(
                    "FDWRD_FLUENTD_SESSION_URL",
                    format!("https://{host}/session"),
                )
                .env("FDWRD_FLUENTD_CA", "receiver/ca.crt")
                .env("FDWRD_FLUENTD_CERT", "receiver/client.crt")
                .env("FDFWD_FLUENTD_KEY", "receiver/client.key")
                .env("FDFWD_TELEPORT_ADDR", &site.auth.addr)
                .env("FDFWD_TELEPORT_IDENTITY", "auth/identity");
        },
    );
    ended.exits_with(0);
    let totals = site.receiver.stop();
    assert!(
        totals.documents > 0 && totals.by_path.contains_key("/events.log"),
        "{totals:?}"
    );
}

#[test]
fn a_dry_run_reads_everything_and_sends_and_keeps_nothing() {
    let site = Site::new(EVENTS, "export");
    site.example(START);
    let start = ["start", "--config", "teleport-event-handler.toml"];
    let options = ["--dry-run", "--exit-on-last-event"];
    let ended = site.run(&[&start[..], &options].concat()).exits_with(0);
    assert!(ended.stderr.contains("dry run"), "{}", ended.stderr);
    let kept = fs::read_dir(site.state().join("dry_run")).unwrap().count();
    assert_eq!(kept, 0, "its store is gone");
    assert!(!site.state().join("lockgate").exists(), "it moves nothing");
    assert_eq!(site.receiver.stop().documents, 0);
}

/// Polling: the state names the last event that was sent.
#[test]
fn polling_goes_on_after_the_last_event_that_was_sent() {
    let site = Site::new(EVENTS, "search");
    let (log, last) = (log(EVENTS), 1_000);
    site.example(START);
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        ("window_time", time(log.time(0)).as_bytes()),
        ("cursor", b"a key that the server has forgotten"),
        ("id", log.uid(last).as_bytes()),
    ]);
    let start = [
        "start",
        "--config",
        "teleport-event-handler.toml",
        "--exit-on-last-event",
        // These have the ids of events of the audit log.
        "--skip-session-types=session.start,session.end,session.join,session.leave,exec,print,resize",
    ];
    // The second start goes on from the store.
    for _ in 0..2 {
        let ended = site.run(&start).exits_with(0);
        assert!(!ended.stderr.contains("sent twice"), "{}", ended.stderr);
    }
    let captured = site.captured_uids();
    for position in 0..EVENTS {
        let is_sent = captured.contains(&log.uid(position));
        let expected = log.time(position) >= log.time(last) && position != last;
        assert_eq!(is_sent, expected, "{position}");
    }
    let totals = site.receiver.stop();
    let sent = (0..EVENTS)
        .filter(|it| log.time(*it) >= log.time(last))
        .count() as u64
        - 1;
    assert_eq!(totals.by_path["/events.log"], sent, "none twice");
}

#[test]
fn an_unknown_last_event_repeats_its_time_range_and_says_so() {
    let site = Site::new(EVENTS, "search");
    let log = log(EVENTS);
    let window = log.time(2_000) - log.time(2_000) % 1000;
    site.example("");
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        ("window_time", time(window).as_bytes()),
        ("id", b"nobody-knows-it"),
    ]);
    let start = [
        "start",
        "--config",
        "teleport-event-handler.toml",
        "--exit-on-last-event",
    ];
    let ended = site.run(&start).exits_with(0);
    assert!(
        ended.stderr.contains("`nobody-knows-it`, was not found"),
        "{}",
        ended.stderr
    );
    let expected = (0..EVENTS).filter(|position| log.time(*position) >= window);
    let totals = site.receiver.stop();
    assert_eq!(totals.by_path["/events.log"], expected.count() as u64);
}

/// Bulk export: a chunk that was read, one that was begun and one that was not.
#[test]
fn an_export_goes_on_in_its_chunks() {
    let events = CHUNK * 3;
    let site = Site::new(events, "export");
    let log = log(events);
    let first_day = |chunk: u64| lockgate_model::Day::of(log.time(chunk * CHUNK)).to_string();
    assert_eq!(first_day(0), first_day(2), "all chunks are of one day");
    let day = first_day(0);
    let completed = format!("cursor_v2/{day}/completed-chunks");
    let begun = format!("cursor_v2/{day}/{}.chunk", log.chunk_id(1));
    site.example("skip-event-types = [\"session.upload\"]");
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        (&completed, format!("{}\n", log.chunk_id(0)).as_bytes()),
        (&begun, b"a1:4000"),
    ]);
    let imported = site.run(&["import"]).exits_with(0);
    assert!(
        imported.stdout.contains("1 chunks read, 1 begun"),
        "{}",
        imported.stdout
    );
    site.run(&["start", "--exit-on-last-event"]).exits_with(0);
    let uploads = |uids: &BTreeSet<String>| {
        let expected = (CHUNK + 4_000..events).map(|position| log.uid(position));
        let expected: BTreeSet<String> = expected.collect();
        assert!(uids.is_subset(&expected), "nothing is sent again");
        expected.len() - uids.len()
    };
    let captured = site.captured_uids();
    let skipped = uploads(&captured);
    assert!(
        skipped > 0 && skipped < 1_000,
        "{skipped} events are of a skipped type"
    );
    assert_eq!(
        site.receiver.stop().documents,
        captured.len() as u64,
        "none twice"
    );
}

/// Recordings: one that was sent in part, and one that was not found yet.
#[test]
fn recordings_go_on_where_they_were_left() {
    let site = Site::new(EVENTS, "search");
    let log = log(EVENTS);
    let mut uploads = log.json_lines(EVENTS).filter_map(|line| {
        let event: Value = serde_json::from_str(&line).unwrap();
        let is_upload = event["event"] == "session.upload";
        is_upload.then(|| event["sid"].as_str().unwrap().to_owned())
    });
    let (begun, missing) = (uploads.next().unwrap(), uploads.next().unwrap());
    let recorded = log.recording(&begun).unwrap().len() as u64;
    site.example("skip-session-types = \"\"");
    let text = fs::read_to_string(site.path("teleport-event-handler.toml")).unwrap();
    let text = text.replacen(
        "skip-session-types = [\"print\", \"desktop.recording\"]\n",
        "",
        1,
    );
    fs::write(site.path("teleport-event-handler.toml"), text).unwrap();
    let last = log.uid(EVENTS - 1);
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        ("window_time", time(log.time(EVENTS - 1)).as_bytes()),
        ("id", last.as_bytes()),
        (&format!("session{begun}"), &2_u64.to_be_bytes()),
        (
            &format!("missing_recording{missing}"),
            br#"{"Index":0,"Attempt":1,"Timestamp":"2026-01-05T01:00:00Z"}"#,
        ),
    ]);
    let start = [
        "start",
        "--config",
        "teleport-event-handler.toml",
        "--exit-on-last-event",
    ];
    site.run(&start).exits_with(0);
    let totals = site.receiver.stop();
    let of = |sid: &str| totals.by_path.get(&format!("/session.{sid}.log")).copied();
    assert_eq!(
        of(&begun),
        Some(recorded - 3),
        "indexes 0 to 2 were sent: {totals:?}"
    );
    let whole = log.recording(&missing).unwrap().len() as u64;
    assert_eq!(of(&missing), Some(whole), "{totals:?}");
}

#[test]
fn a_changed_start_time_is_refused_at_its_place() {
    let site = Site::new(100, "search");
    site.example(START);
    site.write_state(&[("start_time", b"2026-01-02T00:00:00Z")]);
    let ended = site
        .run(&["start", "--config", "teleport-event-handler.toml"])
        .exits_with(2);
    for part in [
        "The start time cannot be changed",
        "start-time = \"2026-01-01T00:00:00Z\"",
        "hint: remove `start-time`",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[test]
fn import_writes_a_configuration_once_and_only_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new(EVENTS, "search");
    let log = log(EVENTS);
    let file = site.example(START);
    let url = format!("https://{}/events.log", site.host());
    let with_password = url.replace("https://", "https://siem:hunter2@");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace(&url, &with_password);
    fs::write(&file, text).unwrap();
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        ("window_time", time(log.time(0)).as_bytes()),
        ("id", log.uid(2_500).as_bytes()),
    ]);
    // The state was moved.
    fs::rename(site.path("storage"), site.path("moved")).unwrap();
    let arguments = ["import", "--state", "moved", "--out", "new.toml"];
    let ended = site.run(&arguments).exits_with(0);
    assert!(
        ended.stdout.contains("Took over the position"),
        "{}",
        ended.stdout
    );
    assert!(!(ended.stdout + &ended.stderr).contains("hunter2"));
    let check = site.run(&["check", "teleport-event-handler.toml"]);
    assert!(!(check.stdout + &check.stderr).contains("hunter2"));
    let out = site.path("new.toml");
    let mode = fs::metadata(&out).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let written = fs::read_to_string(&out).unwrap();
    assert!(
        written.contains("hunter2") && !written.contains("start-time"),
        "{written}"
    );
    site.run(&arguments).exits_with(2);
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        written,
        "it is not overwritten"
    );

    site.run(&["start", "--config", "new.toml", "--exit-on-last-event"])
        .exits_with(0);
    let sent = (0..EVENTS)
        .filter(|it| log.time(*it) >= log.time(2_500))
        .count() as u64
        - 1;
    assert_eq!(site.receiver.stop().by_path["/events.log"], sent);
}

#[test]
fn options_of_the_event_handler_with_a_file_of_ours_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lockgate.toml");
    fs::write(&file, "[store]\npath = \"store\"\n").unwrap();
    let ended = start(&file, &["--types", "user.login"]).exits_with(2);
    assert!(
        ended.stderr.contains("`--types` belongs to"),
        "{}",
        ended.stderr
    );
    let ended = Running::start(
        "import",
        lockgate().arg("import").arg("--config").arg(&file),
    );
    let ended = ended.ended().exits_with(2);
    assert!(!dir.path().join("store").exists(), "{}", ended.stderr);
}

#[track_caller]
fn start(config: &Path, arguments: &[&str]) -> Ended {
    lockgate_tests::start(config, arguments).ended()
}
