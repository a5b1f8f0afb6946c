//! Credentials that change while a host runs: identities towards Teleport, and client certificates
//! towards receivers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lockgate_sim::auth::{AuthOptions, Backend, Code, Faults, KeyKind, issue_identity};
use lockgate_sim::generate::{Generator, GeneratorOptions};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, LocalAuth, Running, books, configuration, endpoint, lockgate, reload, start, started,
    status, until,
};
use serde_json::Value;

/// `[pipelines.NAME]`, whose sink presents the client certificate in a directory of its own.
fn pipeline(name: &str, receiver: &LocalReceiver, certificates: &Path) -> String {
    let endpoint = endpoint(&receiver.address(), certificates, name);
    format!("[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{endpoint}\n")
}

/// A copy of the receiver's certificates.
fn certificates(receiver: &LocalReceiver, dir: &Path) -> PathBuf {
    let copy = dir.join("certificates");
    fs::create_dir(&copy).unwrap();
    for file in ["ca.crt", "client.crt", "client.key"] {
        fs::copy(receiver.dir.join(file), copy.join(file)).unwrap();
    }
    copy
}

/// A client certificate that expired an hour ago, in a directory of its own.
fn expired(auth: &Auth, receiver: &LocalReceiver, dir: &Path) -> PathBuf {
    let copy = dir.join("expired");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&auth.dir).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    issue_identity(&AuthOptions {
        out: copy.clone(),
        identity_expires: Some(SystemTime::now() - Duration::from_secs(3600)),
        ..AuthOptions::default()
    })
    .unwrap();
    fs::copy(receiver.dir.join("ca.crt"), copy.join("ca.crt")).unwrap();
    copy
}

fn condition(config: &Path, pipeline: &str) -> Value {
    status(config)["pipelines"][pipeline]["state"]["conditions"][0].clone()
}

/// `start` ended with status 2, after which systemd does not start it again.
#[test]
fn a_client_certificate_that_comes_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let files = certificates(&receiver, dir.path());
    let whole = fs::read_to_string(files.join("client.crt")).unwrap();
    fs::write(files.join("client.crt"), &whole[..whole.len() / 2]).unwrap();
    let text = pipeline("main", &receiver, &files);
    let config = configuration(dir.path(), &auth, &text);
    let host = started(&config);
    let shown = || format!("{}\n{}", condition(&config, "main"), host.stderr());
    let waits_for = |reason: &str| {
        until("the condition names the file", shown, || {
            let condition = condition(&config, "main");
            let message = condition["message"].as_str().unwrap_or_default();
            condition["kind"] == "start"
                && condition["subject"] == "tls"
                && condition["next_attempt"].is_i64()
                && message.contains("it cannot start yet")
                && message.contains("client.crt")
                && message.contains(reason)
        });
    };
    waits_for("is damaged");
    assert_eq!(status(&config)["ready"], false);
    // It said that the file was in force, with 1 pipeline unchanged.
    let refused = reload(&config).exits_with(1).stderr;
    assert!(refused.contains("client.crt` is damaged"), "{refused}");
    fs::remove_file(files.join("client.crt")).unwrap();
    waits_for("cannot be read");
    fs::write(files.join("client.crt"), &whole).unwrap();
    until("it delivers", shown, || {
        books(&status(&config), "main").delivered == 100
    });
    // The file that came late is the one that runs.
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("pipelines: 1 unchanged"), "{answer}");
    let stderr = host.stop().exits_with(0).stderr;
    for (line, count) in [
        // At the start, and at the reload.
        ("The endpoint cannot be used: `", 2),
        ("held: it cannot start yet", 1),
        ("no longer held", 1),
    ] {
        assert_eq!(
            stderr.matches(line).count(),
            count,
            "`{line}` in:\n{stderr}"
        );
    }
}

/// `reload` took it, and `check` did not.
#[test]
fn check_and_reload_refuse_a_client_certificate_that_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let main = pipeline("main", &receiver, &certificates(&receiver, dir.path()));
    let old = expired(&auth, &receiver, dir.path());
    let other = pipeline("other", &receiver, &old);
    let config = configuration(dir.path(), &auth, &main);
    let host = started(&config);
    configuration(dir.path(), &auth, &(main.clone() + &other));
    let mut check = lockgate();
    let checked = Running::start("check", check.args(["check", "--config"]).arg(&config)).ended();
    let message = "expired/client.crt` expired at ";
    for (command, refused) in [
        ("check", checked.exits_with(2)),
        ("reload", reload(&config).exits_with(1)),
    ] {
        assert!(
            refused.stderr.contains(message),
            "{command}: {}",
            refused.stderr
        );
        let text = "have the certificate renewed";
        assert!(
            refused.stderr.contains(text),
            "{command}: {}",
            refused.stderr
        );
    }
    host.stop().exits_with(0);

    // What runs with one is not stopped for it, and does not keep others from being changed.
    let host = start(&config, &[]);
    host.line_with_all(&["error: The client certificate", "expired at "]);
    let shown = || host.stderr();
    until("the first delivers", shown, || {
        books(&status(&config), "main").delivered == 100
    });
    let third = pipeline("third", &receiver, &receiver.dir);
    configuration(dir.path(), &auth, &(main + &other + &third));
    let answer = reload(&config).exits_with(0).stdout;
    let changes = "pipelines: 1 added (third), 2 unchanged";
    assert!(
        answer.contains(changes) && answer.contains(message),
        "{answer}"
    );
    host.stop().exits_with(0);
}

/// As `tbot` and Kubernetes do it: in place, by a link that is exchanged, and half-written between.
/// Each rotation is followed by a cut of all connections, so that the new identity is needed.
#[test]
fn identities_of_every_kind_are_rotated_while_events_come_and_none_is_lost() {
    const EVENTS: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let options = AuthOptions {
        events: GeneratorOptions {
            events: EVENTS,
            ..GeneratorOptions::default()
        },
        rate: Some(250.0),
        ..AuthOptions::default()
    };
    let auth = LocalAuth::start(dir.path(), options.clone());
    let receiver = LocalReceiver::start(dir.path());
    let secret = dir.path().join("secret");
    fs::create_dir(&secret).unwrap();
    let issued = |kind: KeyKind| {
        issue_identity(&AuthOptions {
            out: auth.dir.clone(),
            identity_key: kind,
            ..options.clone()
        })
        .unwrap();
        fs::read(auth.dir.join("identity")).unwrap()
    };
    let link = |version: &str, identity: &[u8]| {
        fs::create_dir(secret.join(version)).unwrap();
        fs::write(secret.join(version).join("identity"), identity).unwrap();
        symlink(version, secret.join("..data_tmp")).unwrap();
        fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
    };
    link("v0", &issued(KeyKind::Rsa));
    symlink("..data/identity", secret.join("identity")).unwrap();
    let config = dir.path().join("lockgate.toml");
    let text = format!(
        r#"[teleport]
addr = "{}"
identity = "{}/identity"
start-time = "2026-01-01T00:00:00Z"

[store]
path = "{}/store"

[admin]
listen = ""

[pipelines.main.sink]
plugin = "builtin:fluentd"
{}
"#,
        auth.addr,
        secret.display(),
        dir.path().display(),
        receiver.endpoint("events"),
    );
    fs::write(&config, text).unwrap();
    let host = started(&config);
    let shown = || {
        let totals = receiver.control.totals();
        format!("{totals:?}\n{}\n{}", status(&config), host.stderr())
    };
    let renewals = || host.stderr().matches("using new credentials").count();
    let arrived = |events: u64| {
        until("more events arrive", shown, || {
            receiver.control.totals().distinct >= events
        });
    };
    arrived(1);
    for (round, kind) in [KeyKind::Ecdsa, KeyKind::Ed25519, KeyKind::Rsa]
        .into_iter()
        .enumerate()
    {
        let identity = issued(kind);
        let before = renewals();
        if round == 1 {
            let file = secret.join("..data/identity");
            fs::write(&file, &identity[..identity.len() / 2]).unwrap();
            until("the half-written file is named", shown, || {
                let source = status(&config)["host"]["sources"]["teleport"].to_string();
                source.contains("the previous credentials stay in use")
            });
            fs::write(&file, &identity).unwrap();
        } else {
            link(&format!("v{}", round + 1), &identity);
        }
        until("the new identity is used", shown, || renewals() > before);
        auth.cut_connections();
        let now = receiver.control.totals().distinct;
        arrived((now + 100).min(EVENTS));
    }
    arrived(EVENTS);
    until("all of them are on the books", shown, || {
        books(&status(&config), "main").delivered == EVENTS
    });
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().documents, EVENTS);
}

#[test]
fn a_reload_refuses_a_source_whose_credentials_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let main = pipeline("main", &receiver, &receiver.dir);
    let config = configuration(dir.path(), &auth, &main);
    let host = started(&config);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/identity\"", "/no-identity\"")).unwrap();
    let refused = reload(&config).exits_with(1);
    assert!(
        refused.stderr.contains("/no-identity`"),
        "{}",
        refused.stderr
    );
    host.stop().exits_with(0);
}

#[test]
fn an_identity_is_renewed_in_the_middle_of_an_export_and_each_event_comes_once() {
    renew_in_the_middle_of(Backend::Export);
}

#[test]
fn an_identity_is_renewed_in_the_middle_of_a_search_and_each_event_comes_once() {
    renew_in_the_middle_of(Backend::Search);
}

/// In place of the Event Handler, which waits at a stretch of the log that cannot be read yet.
/// Calls fail while the identity is exchanged, so the rest is read with the new one.
#[track_caller]
fn renew_in_the_middle_of(backend: Backend) {
    const EVENTS: u64 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let options = AuthOptions {
        events: GeneratorOptions {
            events: EVENTS,
            ..GeneratorOptions::default()
        },
        backend,
        ..AuthOptions::default()
    };
    let auth = LocalAuth::start(dir.path(), options.clone());
    let receiver = LocalReceiver::start(dir.path());
    let config = dir.path().join("teleport-event-handler.toml");
    let host = receiver.address().replace("127.0.0.1", "localhost");
    let keys = receiver.dir.display();
    let text = format!(
        r#"
storage = "{}/storage"
start-time = "2026-01-01T00:00:00Z"
types = "user.login"
[forward.fluentd]
ca = "{keys}/ca.crt"
cert = "{keys}/client.crt"
key = "{keys}/client.key"
url = "https://{host}/events.log"
session-url = "https://{host}/session"
[teleport]
addr = "{}"
identity = "{}/identity"
refresh.enabled = true
"#,
        dir.path().display(),
        auth.addr,
        auth.dir.display(),
    );
    fs::write(&config, text).unwrap();
    let log = Generator::new(options.events.clone()).json_lines(EVENTS);
    let logins = log.filter(|line| line.contains("\"event\":\"user.login\""));
    let expected = logins.count() as u64;
    auth.set_faults(Faults {
        unreadable: Some((auth.time(EVENTS / 2), auth.time(EVENTS / 2 + 500))),
        ..Faults::default()
    });
    // Half of the usual stack: the deepest calls connect in the middle of a search.
    let mut command = lockgate();
    command.env("RUST_MIN_STACK", (1 << 20).to_string());
    command.args(["start", "--config"]).arg(&config);
    let host = Running::start("start", &mut command);
    host.line_with("started");
    let totals = || receiver.control.totals();
    let shown = || format!("{:?}\n{}", totals(), host.stderr());
    until("the backlog is being read", shown, || totals().distinct > 0);
    auth.set_faults(Faults {
        audit_log: Some(Code::Unavailable),
        ..Faults::default()
    });
    assert!(totals().distinct < expected, "{}", shown());
    issue_identity(&AuthOptions {
        out: auth.dir.clone(),
        identity_key: KeyKind::Ed25519,
        ..options
    })
    .unwrap();
    until("the new identity is used", shown, || {
        host.stderr().contains("using new credentials")
    });
    auth.cut_connections();
    auth.set_faults(Faults::default());
    until("everything has arrived", shown, || {
        totals().distinct == expected
    });
    host.stop().exits_with(0);
    assert_eq!(receiver.stop().documents, expected);
}
