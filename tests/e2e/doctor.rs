//! `lockgate doctor` against the simulators: all well, and with faults. `UPDATE_EXPECT=1` rewrites
//! what it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use expect_test::expect_file;
use lockgate_sim::auth::{AuthOptions, Code, Faults, ProxyOptions, issue_identity};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Ended, LocalAuth, Running, lockgate, root, started, status, until};
use serde_json::Value;

struct Fixture {
    dir: tempfile::TempDir,
    auth: LocalAuth,
    receiver: LocalReceiver,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut AuthOptions)) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AuthOptions {
            events: GeneratorOptions {
                events: 100,
                ..GeneratorOptions::default()
            },
            proxy: Some(ProxyOptions {
                balancer: Some("127.0.0.1:0".to_owned()),
                ..ProxyOptions::default()
            }),
            ..AuthOptions::default()
        };
        change(&mut options);
        Fixture {
            auth: LocalAuth::start(dir.path(), options),
            receiver: LocalReceiver::start(dir.path()),
            dir,
        }
    }

    /// With one pipeline, which reads recordings too.
    fn configuration(&self, addr: &str, endpoint: &str) -> PathBuf {
        let config = self.dir.path().join("lockgate.toml");
        let text = format!(
            r#"
[teleport]
addr = "{addr}"
identity = "{0}/identity"
proxy-ca = "{0}/proxy-ca.crt"
start-time = "2026-01-01T00:00:00Z"

[store]
path = "{1}/store"

[admin]
listen = ""

[pipelines.siem]
from = ["audit", "sessions"]

[pipelines.siem.sink]
plugin = "builtin:fluentd"
{endpoint}
"#,
            self.auth.dir.display(),
            self.dir.path().display(),
        );
        fs::write(&config, text).unwrap();
        config
    }

    /// Both URLs of the sink.
    fn endpoint(&self) -> String {
        let url = self.receiver.endpoint("audit");
        format!("{url}\n{}", self.receiver.session_url("session"))
    }

    /// What differs from run to run has names.
    fn steady(&self, text: &str) -> String {
        let (proxy, balancer) = self.auth.proxy();
        let mut text = text.to_owned();
        for (found, name) in [
            (&*self.dir.path().display().to_string(), "DIR"),
            (&*self.auth.addr, "AUTH"),
            (&*proxy, "PROXY"),
            (&*balancer, "BALANCER"),
        ] {
            text = text.replace(found, name);
        }
        for before in [" until ", " expired at "] {
            let parts: Vec<String> = text.split(before).map(str::to_owned).collect();
            let timed = |part: &String| match part.as_bytes().get(19) == Some(&b'Z') {
                true => format!("TIME{}", &part[20..]),
                false => part.clone(),
            };
            let first = parts[0].clone();
            text = std::iter::once(first)
                .chain(parts[1..].iter().map(timed))
                .collect::<Vec<_>>()
                .join(before);
        }
        text
    }

    #[track_caller]
    fn prints(&self, ended: &Ended, file: &str) {
        let file = root().join("tests/cases/doctor").join(file);
        expect_file![file].assert_eq(&self.steady(&ended.stdout));
    }
}

fn doctor(config: &Path, arguments: &[&str]) -> Ended {
    let mut command = lockgate();
    command.args(["doctor", "--config"]).arg(config);
    Running::start("doctor", command.args(arguments)).ended()
}

#[test]
fn each_way_to_teleport_is_tried_and_all_is_well() {
    let fixture = Fixture::new(|_| {});
    let (proxy, balancer) = fixture.auth.proxy();
    for (addr, file) in [
        (&fixture.auth.addr, "auth.txt"),
        (&proxy, "proxy.txt"),
        (&balancer, "balancer.txt"),
    ] {
        let config = fixture.configuration(addr, &fixture.endpoint());
        let ended = doctor(&config, &["--recordings"]).exits_with(0);
        fixture.prints(&ended, file);
        assert_eq!(ended.stderr, "");
    }
    assert!(
        !fixture.dir.path().join("store").exists(),
        "it leaves nothing"
    );
    assert_eq!(fixture.receiver.stop().documents, 0, "it sends nothing");
}

#[test]
fn a_proxy_without_tls_routing_is_reached_by_its_ssh_tunnel() {
    let fixture = Fixture::new(|options| {
        let proxy = options.proxy.as_mut().unwrap();
        proxy.tls_routing = false;
        proxy.tunnel = Some("127.0.0.1:0".to_owned());
    });
    let (proxy, _) = fixture.auth.proxy();
    let config = fixture.configuration(&proxy, &fixture.endpoint());
    let ended = doctor(&config, &["--recordings"]).exits_with(0);
    let file = root().join("tests/cases/doctor/tunnel.txt");
    let tunnel = fixture.auth.tunnel();
    expect_file![file].assert_eq(&fixture.steady(&ended.stdout).replace(&tunnel, "TUNNEL"));
}

#[test]
fn a_host_may_run_beside() {
    let fixture = Fixture::new(|_| {});
    let (proxy, _) = fixture.auth.proxy();
    let config = fixture.configuration(&proxy, &fixture.endpoint());
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("it is ready", shown, || status(&config)["ready"] == true);
    fixture.prints(&doctor(&config, &[]).exits_with(0), "running.txt");
    host.stop().exits_with(0);

    // The store has the events of another cluster then.
    let other = Fixture::new(|options| options.events.cluster = "other.example.com".to_owned());
    let config = other.configuration(&other.auth.addr, &other.endpoint());
    fs::rename(
        fixture.dir.path().join("store"),
        other.dir.path().join("store"),
    )
    .unwrap();
    other.prints(&doctor(&config, &[]).exits_with(1), "other-cluster.txt");
}

#[test]
fn each_fault_has_its_fix() {
    // What runs is reached, and refuses.
    let fixture = Fixture::new(|options| options.clock_ahead = 3600);
    fixture.auth.set_faults(Faults {
        audit_log: Some(Code::PermissionDenied),
        recordings: Some(Code::PermissionDenied),
        ..Faults::default()
    });
    let config = fixture.configuration(&fixture.auth.addr, &fixture.endpoint());
    fs::write(fixture.dir.path().join("store"), "no directory").unwrap();
    fs::write(fixture.receiver.dir.join("client.crt"), "no certificate").unwrap();
    let ended = doctor(&config, &["--recordings"]).exits_with(1);
    fixture.prints(&ended, "refused.txt");
    assert!(
        ended.stderr.contains("problems were found"),
        "{}",
        ended.stderr
    );
    let json = doctor(&config, &["--recordings", "--json"]).exits_with(1);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["ok"], &json["warnings"]), (&false.into(), &1.into()));
    let findings = json["findings"].as_array().unwrap();
    let denied = findings
        .iter()
        .find(|finding| finding["what"] == "audit log")
        .unwrap();
    assert_eq!(
        (&denied["subject"], &denied["state"]),
        (&"source".into(), &"problem".into())
    );
    assert!(
        denied["fix"]
            .as_str()
            .unwrap()
            .contains("verbs: [list, read]"),
        "{denied}"
    );

    // Nothing is reached.
    let mut fixture = Fixture::new(|_| {});
    let (proxy, _) = fixture.auth.proxy();
    let endpoint = "url = \"https://localhost:1/audit\"";
    let config = fixture.configuration(&proxy, endpoint);
    fixture.auth.stop_proxy();
    let ended = doctor(&config, &[]).exits_with(1);
    fixture.auth.start_proxy();
    fixture.prints(&ended, "away.txt");

    // Credentials that have expired, and none.
    issue_identity(&AuthOptions {
        out: fixture.auth.dir.clone(),
        identity_expires: Some(SystemTime::now() - Duration::from_secs(3600)),
        ..AuthOptions::default()
    })
    .unwrap();
    let config = fixture.configuration(&proxy, &fixture.endpoint());
    fixture.prints(&doctor(&config, &[]).exits_with(1), "expired.txt");
    fs::remove_file(fixture.auth.dir.join("identity")).unwrap();
    fixture.prints(&doctor(&config, &[]).exits_with(1), "no-credentials.txt");
}

/// `doctor` found nothing, and `start` failed.
#[test]
fn what_check_finds_in_the_file_and_its_plugins_is_found() {
    let fixture = Fixture::new(|_| {});
    let config = fixture.configuration(&fixture.auth.addr, &fixture.endpoint());
    let text = fs::read_to_string(&config).unwrap();
    let plugin = fixture.dir.path().join("plugin.wasm");
    let stage = format!(
        "[[pipelines.siem.stage]]\nplugin = \"{}\"\n\n[pipelines.siem.sink]",
        plugin.display()
    );
    let with_stage = text.replace("[pipelines.siem.sink]", &stage);
    let later = text.replace("2026-01-01", "2100-01-01");
    for (text, garbage, part) in [
        (&with_stage, None, "plugin.wasm` does not exist"),
        (&with_stage, Some("no component"), "plugin.wasm"),
        (&later, None, "This time is in the future"),
    ] {
        fs::write(&config, text).unwrap();
        if let Some(garbage) = garbage {
            fs::write(&plugin, garbage).unwrap();
        }
        let ended = doctor(&config, &["--json"]).exits_with(1);
        let found: Value = serde_json::from_str(&ended.stdout).unwrap();
        let first = &found["findings"][0];
        assert_eq!(
            (&first["subject"], &first["state"]),
            (&"configuration".into(), &"problem".into()),
            "{found}"
        );
        assert!(first["message"].as_str().unwrap().contains(part), "{found}");
        assert_eq!(found["problems"], 1, "{found}");
    }
}

/// They made the store's directory, and removed it from under each other.
#[test]
fn doctors_at_the_same_time_do_not_disturb_each_other() {
    let fixture = Fixture::new(|_| {});
    let config = fixture.configuration(&fixture.auth.addr, &fixture.endpoint());
    let doctors: Vec<Running> = (0..4)
        .map(|_| {
            let mut command = lockgate();
            Running::start("doctor", command.args(["doctor", "--config"]).arg(&config))
        })
        .collect();
    for doctor in doctors {
        doctor.ended().exits_with(0);
    }
    assert!(!fixture.dir.path().join("store").exists());
}

#[test]
fn a_store_that_start_would_refuse_is_a_problem() {
    let fixture = Fixture::new(|_| {});
    let config = fixture.configuration(&fixture.auth.addr, &fixture.endpoint());
    let mut start = lockgate();
    start.args(["start", "--exit-on-last-event", "--config"]);
    Running::start("start", start.arg(&config))
        .ended()
        .exits_with(0);
    let store = fixture.dir.path().join("store/store.db");
    let files = || fs::read_dir(store.parent().unwrap()).unwrap().count();
    let before = files();
    doctor(&config, &[]).exits_with(0);
    assert_eq!(files(), before, "it leaves no file of its own");
    let whole = fs::read(&store).unwrap();
    // Its first page is as it was.
    let damaged = [&whole[..4096], &vec![0x55; whole.len() - 4096]].concat();
    fs::write(&store, damaged).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", store.display()));
    }
    let mut start = lockgate();
    start.args(["start", "--exit-on-last-event", "--config"]);
    let refused = Running::start("start", start.arg(&config))
        .ended()
        .exits_with(1);
    assert!(refused.stderr.contains("is damaged"), "{}", refused.stderr);
    let ended = doctor(&config, &[]).exits_with(1);
    assert!(ended.stdout.contains("is damaged"), "{}", ended.stdout);
}

/// As `check` has it.
#[test]
fn a_configuration_that_cannot_be_read_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("lockgate.toml");
    fs::write(&config, "[teleport]\n").unwrap();
    let ended = doctor(&config, &[]).exits_with(2);
    assert!(
        ended.stderr.contains("lockgate.toml:1:1"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stdout, "");
}
