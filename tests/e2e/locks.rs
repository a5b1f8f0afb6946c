//! Users with too many failed logins are locked: what Teleport is asked for, and what an operator
//! sees.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_sim::auth::{AuthOptions, Backend, Code, Faults};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    LocalAuth, Running, admin_address, books, get, listen_on_any_port, lockgate, start, started,
    status, until,
};
use serde_json::Value;

/// Events a second: a position of 10 is a second after the start of the server.
const RATE: f64 = 10.0;
const MINUTE: i64 = 60_000;
/// Nothing here depends on how long a start takes: what is older than this locks nobody.
const LOCKS: &str = r#"locks = { enabled = true, period = "1h", for = "10m" }"#;

/// How the log comes about.
#[derive(Clone, Copy)]
enum Log {
    /// A thousand events of long ago.
    Old,
    /// A thousand events, one every 100 s, the last of them now.
    UpToNow,
    /// It grows, by [`RATE`].
    Growing,
}

struct Site {
    dir: tempfile::TempDir,
    auth: LocalAuth,
    receiver: LocalReceiver,
}

impl Site {
    /// A log in which these logins fail: users, and the positions of their events.
    fn new(log: Log, backend: Backend, failed: &[(&str, &[u64])]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let failed = failed.iter().flat_map(|(user, positions)| {
            let user = (*user).to_owned();
            positions.iter().map(move |at| (*at, user.clone()))
        });
        let mut events = GeneratorOptions {
            events: 1000,
            failed_logins: failed.collect::<BTreeMap<_, _>>(),
            ..GeneratorOptions::default()
        };
        match log {
            Log::Old => {}
            Log::UpToNow => {
                events.start = now() - 100_000_000;
                events.event_rate = 0.01;
            }
            Log::Growing => events.events = 100_000,
        }
        let options = AuthOptions {
            backend,
            rate: matches!(log, Log::Growing).then_some(RATE),
            events,
            ..AuthOptions::default()
        };
        Site {
            auth: LocalAuth::start(dir.path(), options),
            receiver: LocalReceiver::start(dir.path()),
            dir,
        }
    }

    fn configuration(&self, locks: &str) -> PathBuf {
        let config = self.dir.path().join("lockgate.toml");
        let text = format!(
            r#"
[teleport]
addr = "{}"
identity = "{}/identity"
start-time = "2026-01-01T00:00:00Z"
{locks}

[store]
path = "{}/store"

[admin]
listen = ""

[pipelines.main.sink]
plugin = "builtin:fluentd"
{}
"#,
            self.auth.addr,
            self.auth.dir.display(),
            self.dir.path().display(),
            self.receiver.endpoint("events"),
        );
        fs::write(&config, text).unwrap();
        config
    }

    /// The users that were locked, in order.
    fn locked(&self) -> Vec<String> {
        let locks = self.auth.made_locks().into_iter();
        locks.map(|lock| lock.user).collect()
    }

    #[track_caller]
    fn until(&self, host: &Running, config: &Path, what: &str, holds: impl FnMut() -> bool) {
        let shown = || {
            format!(
                "{:?}\n{}\n{}",
                self.auth.made_locks(),
                status(config),
                host.stderr()
            )
        };
        until(what, shown, holds);
    }

    #[track_caller]
    fn until_locked(&self, host: &Running, config: &Path, users: &[&str]) {
        self.until(host, config, "the lock is made", || self.locked() == users);
    }
}

fn source(config: &Path) -> Value {
    status(config)["host"]["sources"]["teleport"].clone()
}

fn figure(config: &Path, name: &str) -> u64 {
    let figure = &source(config)["reader"]["locks"][name];
    figure.as_u64().unwrap_or_default()
}

/// The message of the condition that says that users are not locked.
fn condition(config: &Path) -> Option<String> {
    let source = source(config);
    let mut conditions = source["conditions"].as_array()?.iter();
    let found = conditions.find(|condition| condition["kind"] == "locks")?;
    Some(found["message"].as_str()?.to_owned())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

#[test]
fn three_failed_logins_within_the_period_lock_that_user_once_and_nobody_else() {
    let site = Site::new(
        Log::UpToNow,
        Backend::Search,
        &[
            ("mallory", &[990, 992, 994]),
            ("two-only", &[991, 995]),
            // More than the period lies between the first and the third: 40,000 s and 44,000 s.
            ("slow", &[100, 540, 940]),
        ],
    );
    let locks = r#"locks = { enabled = true, period = "10h", for = "10m" }"#;
    let config = site.configuration(locks);
    listen_on_any_port(&config);
    let before = now();
    let host = started(&config);
    host.line_with("users with 3 failed logins within 10 h are locked for 10 min");
    site.until_locked(&host, &config, &["mallory"]);
    let lock = site.auth.made_locks().remove(0);
    assert_eq!(lock.name, "event-handler-auto-lock-mallory-");
    assert_eq!(
        lock.message,
        "User is locked due to too many failed login attempts"
    );
    assert_eq!(lock.login, "", "it would lock everybody with that login");
    let expires = lock.expires.expect("it ends");
    let expected = before + 10 * MINUTE..=now() + 10 * MINUTE;
    assert!(expected.contains(&expires), "{expires} {expected:?}");
    host.line_with("the user `mallory` had too many failed logins and is locked until ");
    site.until(&host, &config, "everything is delivered", || {
        books(&status(&config), "main").delivered == 1000
    });
    assert_eq!(site.locked(), ["mallory"]);
    assert!(figure(&config, "failed_logins") >= 8);
    assert_eq!(figure(&config, "made"), 1);
    assert!(source(&config)["reader"]["locks"]["made_at"].is_i64());
    let metrics = get(&admin_address(&host), "/metrics");
    for line in [
        r#"lockgate_source_locks_total{source="teleport",outcome="made"} 1"#,
        r#"lockgate_source_locks_pending{source="teleport"} 0"#,
        r#"lockgate_source_conditions{source="teleport",kind="locks"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    let mut shown = lockgate();
    shown.args(["status", "--config"]).arg(&config);
    let shown = Running::start("status", &mut shown).ended().exits_with(0);
    let text = shown.stdout;
    assert!(
        text.contains("failed logins, 1 locks made (the last "),
        "{text}"
    );
    host.stop().exits_with(0);
}

#[test]
fn an_export_locks_too() {
    let failed: &[(&str, &[u64])] = &[("mallory", &[5, 18, 30])];
    let site = Site::new(Log::Growing, Backend::Export, failed);
    let config = site.configuration(LOCKS);
    let host = started(&config);
    site.until_locked(&host, &config, &["mallory"]);
    host.stop().exits_with(0);
}

#[test]
fn a_backlog_locks_nobody_and_says_so() {
    for backend in [Backend::Search, Backend::Export] {
        let failed: &[(&str, &[u64])] = &[("mallory", &[100, 110, 120])];
        let site = Site::new(Log::Old, backend, failed);
        let config = site.configuration(LOCKS);
        let host = started(&config);
        site.until(&host, &config, "it is told", || {
            figure(&config, "too_late") >= 1
        });
        host.line_with("because these were read too late");
        site.until(&host, &config, "everything is delivered", || {
            books(&status(&config), "main").delivered == 1000
        });
        assert!(site.auth.made_locks().is_empty());
        assert_eq!(
            (figure(&config, "made"), figure(&config, "pending")),
            (0, 0)
        );
        host.stop().exits_with(0);
    }
}

#[test]
fn a_role_without_the_permission_is_told_at_once_and_events_go_on() {
    let failed: &[(&str, &[u64])] = &[("mallory", &[30, 33, 36])];
    let site = Site::new(Log::Growing, Backend::Search, failed);
    for code in [Code::PermissionDenied, Code::Unavailable] {
        site.auth.set_faults(Faults {
            locks: Some(code),
            ..Faults::default()
        });
        let config = site.configuration(LOCKS);
        let host = started(&config);
        if code == Code::PermissionDenied {
            // Also while nobody is to be locked.
            host.line_with_all(&["place=locks", "denies access"]);
        }
        site.until(&host, &config, "the condition names the user", || {
            condition(&config).is_some_and(|message| message.contains("`mallory`"))
        });
        let read = books(&status(&config), "main").delivered;
        site.until(&host, &config, "events go on", || {
            books(&status(&config), "main").delivered > read + 20
        });
        assert!(site.auth.made_locks().is_empty());
        assert_eq!(figure(&config, "pending"), 1);
        // The next one makes it.
        host.stop().exits_with(0);
    }
    let config = site.configuration(LOCKS);
    let host = started(&config);
    site.until(&host, &config, "it is told again", || {
        condition(&config).is_some()
    });
    site.auth.set_faults(Faults::default());
    site.until_locked(&host, &config, &["mallory"]);
    site.until(&host, &config, "the condition ends", || {
        condition(&config).is_none()
    });
    assert_eq!(source(&config)["last_report"], Value::Null);
    host.stop().exits_with(0);
}

#[test]
fn a_restart_in_the_middle_neither_forgets_a_failed_login_nor_locks_twice() {
    let failed: &[(&str, &[u64])] = &[("mallory", &[5, 8, 250])];
    let site = Site::new(Log::Growing, Backend::Search, failed);
    let config = site.configuration(LOCKS);
    let host = started(&config);
    site.until(&host, &config, "two are counted", || {
        figure(&config, "failed_logins") >= 2
    });
    host.kill();
    let host = started(&config);
    site.until_locked(&host, &config, &["mallory"]);
    host.kill();
    let host = started(&config);
    let delivered = books(&status(&config), "main").delivered;
    site.until(&host, &config, "it reads on", || {
        books(&status(&config), "main").delivered > delivered + 50
    });
    assert_eq!(site.locked(), ["mallory"]);
    host.stop().exits_with(0);
}

/// Its own files, options and variables.
#[test]
fn the_event_handlers_locks_are_taken_over_and_a_dry_run_makes_none() {
    let failed: &[(&str, &[u64])] = &[("mallory", &[5, 8, 11]), ("two-only", &[6, 9])];
    let site = Site::new(Log::Growing, Backend::Search, failed);
    let file = site.dir.path().join("teleport-event-handler.toml");
    let endpoint = site.receiver.endpoint("events");
    let (url, _) = endpoint.split_once('\n').expect("url and tls");
    let text = format!(
        r#"storage = "{0}/storage"
lock-failed-attempts-count = 2
start-time = "2026-01-01T00:00:00Z"

[lock]
enabled = true
period = "20m"

[forward.fluentd]
{url}
{1}
ca = "{0}/receiver/ca.crt"
cert = "{0}/receiver/client.crt"
key = "{0}/receiver/client.key"

[teleport]
addr = "{2}"
identity = "{3}/identity"
"#,
        site.dir.path().display(),
        site.receiver.session_url("session"),
        site.auth.addr,
        site.auth.dir.display(),
    );
    fs::write(&file, text).unwrap();
    let dry = start(&file, &["--dry-run"]);
    dry.line_with("started");
    dry.line_with_all(&["without effect", "lock.enabled"]);
    // It reads all that there is.
    dry.line_with("connected to Teleport");
    let host = start(
        &file,
        &["--lock-failed-attempts-count", "3", "--lock-for", "1h"],
    );
    host.line_with("users with 3 failed logins within 20 min are locked for 1 h");
    let shown = || format!("{}\n{}", host.stderr(), dry.stderr());
    until("the lock is made", shown, || site.locked() == ["mallory"]);
    dry.stop().exits_with(0);
    host.stop().exits_with(0);
    assert_eq!(
        site.locked(),
        ["mallory"],
        "as the option says, not the file"
    );
}

#[test]
fn doctor_says_whether_the_role_allows_locks() {
    let site = Site::new(Log::Old, Backend::Search, &[]);
    let config = site.configuration(LOCKS);
    let doctor = || {
        let mut command = lockgate();
        command.args(["doctor", "--config"]).arg(&config);
        Running::start("doctor", &mut command).ended().stdout
    };
    let fault = |locks, lock_reads| {
        site.auth.set_faults(Faults {
            locks,
            lock_reads,
            ..Faults::default()
        });
    };
    let said = doctor();
    assert!(said.contains("users may be locked"), "{said}");
    fault(None, Some(Code::PermissionDenied));
    let said = doctor();
    assert!(said.contains("locks may not be read"), "{said}");
    assert!(said.contains("verbs: [create, update, read]"), "{said}");
    fault(Some(Code::PermissionDenied), None);
    let said = doctor();
    assert!(said.contains("Teleport denies to lock users"), "{said}");
    assert!(site.auth.made_locks().is_empty(), "it only asks");
}
