//! `lockgate check`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use expect_test::expect_file;
use lockgate_sim::auth::{AuthOptions, issue_identity};
use lockgate_tests::{Auth, Ended, Running, lockgate, root};
use tempfile::TempDir;

/// The variables that `tests/cases/config/README.md` lists.
const VARIABLES: [(&str, &str); 4] = [
    ("LOCKGATE_CASE_ADDR", "teleport.example.com:443"),
    ("LOCKGATE_CASE_TOKEN", "t0ken-from-the-environment"),
    ("LOCKGATE_CASE_BROKEN", "broken\nvalue"),
    ("LOCKGATE_CASE_EMPTY", ""),
];

/// The expected texts are those of `lockgate-config`'s own test. This one checks that the command
/// prints them.
#[test]
fn every_broken_configuration_is_reported_in_full_and_exits_with_2() {
    let directory = root().join("tests/cases/config");
    for case in cases(&directory) {
        let expected = std::fs::read_to_string(directory.join(&case).with_extension("stderr"))
            .expect("the expected text");
        let ended = check(&directory, &[&case]).exits_with(2);
        assert!(
            ended.stderr.starts_with(&expected),
            "{}:\n{}\ndoes not begin with\n{expected}",
            case.display(),
            ended.stderr
        );
        assert!(
            ended
                .stderr
                .ends_with("error: The configuration cannot be used.\n"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "", "{}", case.display());
    }
}

/// Problems that only a plugin, or a file that the configuration names, can reveal.
#[test]
fn problems_of_plugins_and_files_point_at_the_line_of_the_configuration() {
    let (dir, cases) = copied("check");
    assert!(cases.len() >= 9, "{cases:?}");
    for case in cases {
        let ended = check(dir.path(), &[&case]).exits_with(2);
        expect_file![
            root()
                .join("tests/cases/check")
                .join(&case)
                .with_extension("stderr")
        ]
        .assert_eq(&ended.stderr);
        assert_eq!(ended.stdout, "", "{}", case.display());
    }
}

#[test]
fn several_files_are_checked_at_once_and_the_correct_ones_are_named() {
    let (dir, _) = copied("config/valid");
    let good = Path::new("smallest.toml");
    let ended = check(dir.path(), &[good]).exits_with(0);
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("smallest.toml: no problems, 1 pipeline.\n", "")
    );

    for name in ["units", "url"] {
        let file = format!("{name}.toml");
        std::fs::copy(
            root().join("tests/cases/config").join(&file),
            dir.path().join(&file),
        )
        .unwrap();
    }
    let ended = check(
        dir.path(),
        &[
            Path::new("units.toml"),
            good,
            Path::new("url.toml"),
            Path::new("absent.toml"),
        ],
    )
    .exits_with(2);
    assert_eq!(ended.stdout, "smallest.toml: no problems, 1 pipeline.\n");
    for text in [
        "units.toml:",
        "url.toml:",
        "absent.toml",
        "3 of 4 configurations",
    ] {
        assert!(
            ended.stderr.contains(text),
            "no `{text}` in:\n{}",
            ended.stderr
        );
    }
}

/// A configuration with these tables, and an identity and a client certificate that the simulator
/// issues until then. Its certificates are valid for a day at least.
fn with_credentials(dir: &TempDir, expires: SystemTime, more: &str) -> Ended {
    let options = AuthOptions {
        out: dir.path().to_owned(),
        identity_expires: Some(expires),
        ..AuthOptions::default()
    };
    issue_identity(&options).unwrap();
    let text = format!(
        r#"[teleport]
addr = "teleport.example.com:443"
identity = "identity"
{more}

[store]
path = "store"

[pipelines.siem.sink]
plugin = "builtin:fluentd"
url = "https://logs.example.com:8443/audit"
tls = {{ cert = "client.crt", key = "client.key" }}
"#
    );
    std::fs::write(dir.path().join("lockgate.toml"), text).unwrap();
    check(dir.path(), &[Path::new("lockgate.toml")])
}

#[test]
fn a_session_order_of_audit_events_gets_a_note_on_bulk_export() {
    let dir = auth_directory();
    let with_order = |from: &str| {
        let order = format!("[pipelines.siem]\nfrom = [{from}]\norder = \"session\"\n");
        let ended = with_credentials(&dir, hours_from_now(24 * 30), &order).exits_with(0);
        (ended.stderr, ended.stdout)
    };
    let (stderr, stdout) = with_order("\"audit\", \"sessions\"");
    for text in [
        "note: The events of a session are delivered in the order in which Teleport serves \
         `teleport/audit`.",
        "that is not the order of their times",
        "lockgate.toml:6:9",
        "1 note in lockgate.toml",
    ] {
        assert!(stderr.contains(text), "no `{text}` in:\n{stderr}");
    }
    assert_eq!(stdout, "lockgate.toml: no problems, 1 note, 1 pipeline.\n");
    // Recordings have the order of the recording.
    let (stderr, stdout) = with_order("\"sessions\"");
    assert_eq!(stderr, "");
    assert_eq!(stdout, "lockgate.toml: no problems, 1 pipeline.\n");
}

#[test]
fn credentials_that_have_expired_are_refused_with_the_date_and_the_way_out() {
    let dir = auth_directory();
    let ended = with_credentials(&dir, hours_from_now(-24), "").exits_with(2);
    let day = lockgate_model::Day::of(millis(hours_from_now(-24)));
    for text in [
        format!("error: The certificate for Teleport expired at {day}T"),
        "lockgate.toml:3:12".to_owned(),
        "`tctl auth sign --user=NAME --out=identity`".to_owned(),
        "(`tbot`)".to_owned(),
        format!("error: The client certificate `client.crt` expired at {day}T"),
        "lockgate.toml:12:1".to_owned(),
        "2 problems in lockgate.toml".to_owned(),
    ] {
        assert!(
            ended.stderr.contains(&text),
            "no `{text}` in:\n{}",
            ended.stderr
        );
    }
    assert_eq!(ended.stdout, "");
}

/// `start` would fail at it later.
#[test]
fn a_store_that_cannot_be_opened_is_refused_before_the_start() {
    let dir = auth_directory();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let checked = || with_credentials(&dir, hours_from_now(30 * 24), "");
    checked().exits_with(0);
    std::fs::write(store.join("store.db"), "notes").unwrap();
    let ended = checked().exits_with(2);
    for part in [
        "store.db",
        "is damaged: it has 5 bytes",
        "another directory",
    ] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    std::fs::remove_file(store.join("store.db")).unwrap();
    // Permissions do not stop root, but nobody writes into a directory.
    std::fs::create_dir(store.join("lock")).unwrap();
    let ended = checked().exits_with(2);
    for part in ["Cannot open for writing", "store/lock`"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn credentials_that_expire_soon_and_unknown_event_types_are_warnings() {
    let dir = auth_directory();
    // A fifth of a day is 4.8 hours.
    let types = "types = [\"user.logn\"]";
    let ended = with_credentials(&dir, hours_from_now(4), types);
    let ended = ended.exits_with(0);
    for text in [
        "warning: The certificate for Teleport expires at ",
        "warning: The client certificate `client.crt` expires at ",
        "warning: Unknown event type `user.logn`: it may never occur.",
        "did you mean `user.login`?",
        "3 warnings in lockgate.toml",
    ] {
        assert!(
            ended.stderr.contains(text),
            "no `{text}` in:\n{}",
            ended.stderr
        );
    }
    assert_eq!(
        ended.stdout,
        "lockgate.toml: no problems, 3 warnings, 1 pipeline.\n"
    );
    assert!(
        !dir.path().join("store").exists(),
        "`check` leaves nothing behind"
    );
}

/// A directory with the authority of a simulated cluster.
fn auth_directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1"]);
    for entry in std::fs::read_dir(&auth.dir).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn hours_from_now(hours: i64) -> SystemTime {
    let now = SystemTime::now();
    let span = Duration::from_secs(hours.unsigned_abs() * 3600);
    if hours < 0 { now - span } else { now + span }
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

/// A copy of a directory of cases, with the `identity` that its configurations name, and the cases.
fn copied(name: &str) -> (TempDir, Vec<PathBuf>) {
    let (from, dir) = (
        root().join("tests/cases").join(name),
        tempfile::tempdir().unwrap(),
    );
    std::fs::create_dir(dir.path().join("files")).unwrap();
    for directory in [Path::new(""), Path::new("files")] {
        for entry in std::fs::read_dir(from.join(directory))
            .expect("a directory of cases")
            .map(Result::unwrap)
        {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(
                    entry.path(),
                    dir.path().join(directory).join(entry.file_name()),
                )
                .unwrap();
            }
        }
    }
    let auth = Auth::start(dir.path(), &["--events", "1"]);
    std::fs::copy(auth.dir.join("identity"), dir.path().join("identity")).unwrap();
    (dir, cases(&from))
}

fn cases(directory: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(directory)
        .expect("a directory of cases")
        .map(|entry| PathBuf::from(entry.expect("an entry").file_name()));
    let mut cases: Vec<_> = names
        .filter(|name| {
            name.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{}", directory.display());
    cases
}

fn check(directory: &Path, files: &[&Path]) -> Ended {
    Running::start(
        "check",
        lockgate()
            .arg("check")
            .args(files)
            .current_dir(directory)
            .envs(VARIABLES),
    )
    .ended()
}
