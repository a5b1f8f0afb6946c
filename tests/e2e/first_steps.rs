//! What a newcomer tries first, and what an operator looks at first on a bad day.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lockgate_sim::auth::{AuthOptions, issue_identity};
use lockgate_tests::{
    Auth, Ended, ReceiverProcess, Running, Signal, lockgate, quickstart, start, status, until,
};

fn run(arguments: &[&str]) -> Ended {
    Running::start("lockgate", lockgate().args(arguments)).ended()
}

#[test]
fn a_configuration_file_without_its_option_is_told_how_to_be_named() {
    for command in ["start", "status", "audit", "reload"] {
        let ended = run(&[command, "siem.toml"]).exits_with(2);
        let hint = "to name the configuration file, write `--config siem.toml`";
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }
    let ended = run(&["version", "siem.toml"]).exits_with(2);
    assert!(!ended.stderr.contains("--config"), "{}", ended.stderr);
}

#[test]
fn a_demo_without_events_prints_no_time_per_event() {
    let ended = run(&["demo", "--events", "0"]).exits_with(0);
    let text = ended.stdout + &ended.stderr;
    assert!(text.contains("0 read = 0 delivered"), "{text}");
    assert!(!text.contains("per event"), "{text}");
}

#[test]
fn a_first_start_without_a_start_time_says_what_it_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("start-time = \"2026-01-01T00:00:00Z\"\n", "");
    fs::write(&config, text).unwrap();
    let host = start(&config, &[]);
    let line = host.line_with("older events are left out");
    // It called the time a month ago that of the newest event, and there is none.
    assert!(
        line.contains("since which Teleport has no event") && line.contains("`start-time`"),
        "{line}"
    );
    let figures = || status(&config)["host"]["sources"]["teleport"]["reader"].clone();
    until(
        "the status shows it",
        || figures().to_string(),
        || figures()["reads_from"].is_i64(),
    );
    let shown = run(&["status", "--config", config.to_str().unwrap()]).exits_with(0);
    let line = "older events are left out (`start-time` was not set)";
    assert!(shown.stdout.contains(line), "{}", shown.stdout);
    host.stop().exits_with(0);
}

#[test]
fn a_client_certificate_that_has_expired_is_named_by_start_and_status() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    // The simulator issues a certificate to Teleport's bot; here the bot is a client of a receiver.
    let other = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&auth.dir).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), other.path().join(entry.file_name())).unwrap();
    }
    let options = AuthOptions {
        out: other.path().to_owned(),
        identity_expires: Some(SystemTime::now() - Duration::from_secs(3600)),
        ..AuthOptions::default()
    };
    issue_identity(&options).unwrap();
    for file in ["client.crt", "client.key"] {
        fs::copy(other.path().join(file), receiver.dir.join(file)).unwrap();
    }
    let host = start(&config, &[]);
    host.line_with_all(&["error: The client certificate", "client.crt` expired at "]);
    let conditions = || status(&config)["pipelines"]["main"]["state"]["conditions"].to_string();
    let shown = || format!("{}\n{}", conditions(), host.stderr());
    until("both conditions name it", shown, || {
        let conditions = conditions();
        conditions.contains("the receiver refused the connection: the client certificate")
            && conditions.contains("\"kind\":\"credentials\"")
            && conditions.contains("renew it: the new one is used once its file is there")
    });
    host.stop().exits_with(0);
}

#[test]
fn every_file_in_the_store_of_a_running_host_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let store = dir.path().join("store");
    // As an earlier version left it behind.
    fs::create_dir(&store).unwrap();
    fs::write(store.join("status.new"), "{}").unwrap();
    fs::set_permissions(store.join("status.new"), fs::Permissions::from_mode(0o644)).unwrap();
    let host = start(&config, &[]);
    let has_delivered = || lockgate_tests::books(&status(&config), "main").delivered == 100;
    until(
        "it has delivered",
        || host.stderr(),
        || store.join("status.json").exists() && has_delivered(),
    );
    let mut seen = 0;
    check_private(&store, &mut seen);
    assert!(seen >= 5, "{seen} files");
    host.stop().exits_with(0);
}

fn check_private(directory: &Path, seen: &mut usize) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        // It may be replaced at any moment.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o777;
        let path = entry.path();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:04o}", path.display());
        *seen += 1;
        if metadata.is_dir() {
            check_private(&path, seen);
        }
    }
}

#[test]
fn a_log_that_was_removed_after_a_kill_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let log = dir.path().join("store/store.db-wal");
    let host = start(&config, &[]);
    until("it has a log", || host.stderr(), || log.exists());
    host.kill();
    fs::remove_file(&log).unwrap();
    let host = start(&config, &[]);
    let line = host.line_with("was removed after a host was killed");
    assert!(line.contains("store.db-wal"), "{line}");
    host.stop().exits_with(0);
}

/// Its arguments are not even read when the first hangup comes.
#[test]
fn a_hangup_in_the_first_moments_of_a_start_does_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = ReceiverProcess::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    for _ in 0..10 {
        let host = start(&config, &[]);
        let file = format!("/proc/{}/status", host.pid());
        let handles_hangups = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            caught.is_some_and(|mask| mask & 1 == 1)
        };
        while !handles_hangups() {
            std::hint::spin_loop();
        }
        host.signal(Signal::HUP);
        host.line_with("SIGHUP");
        host.line_with("started");
        host.stop().exits_with(0);
    }
}
