//! Each alert of `assets/prometheus`, in a real Prometheus, over hosts that are in its situation;
//! and each panel of the dashboard of `assets/grafana`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockgate_model::{Append, BlockBuilder, CursorUpdate, FeedKind};
use lockgate_sim::auth::{AuthOptions, Backend, Code, Faults, issue_identity};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_sim::receiver::Fault;
use lockgate_store::{Ledger, Options, Store};
use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, LocalAuth, Running, admin_address, configuration, empty_disk, listen_on_any_port, reload,
    root, start, start_with_a_full_disk, until,
};
use serde_json::{Value, json};

use crate::truth::{fill, pipeline};

/// The rules, with waits and ranges that a test can wait for.
fn quick_rules() -> String {
    let text = fs::read_to_string(root().join("assets/prometheus/alerts.yml")).unwrap();
    let lines = text.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s\n"),
        _ => {
            let line = line.replace("[1h]", "[20s]").replace("[15m]", "[1m]");
            line.replace("> 900", "> 10").replace("< 3600", "< 60") + "\n"
        }
    });
    lines.collect()
}

/// A Prometheus that scrapes hosts, each with the label `situation`.
struct Prometheus {
    process: Running,
    address: String,
}

impl Prometheus {
    fn is_installed() -> bool {
        match Command::new("prometheus").arg("--version").output() {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            found => found.unwrap().status.success(),
        }
    }

    fn start(dir: &Path, targets: &[(&str, &str)]) -> Prometheus {
        fs::write(dir.join("alerts.yml"), quick_rules()).unwrap();
        let mut configuration =
            "global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }\n\
             rule_files: [alerts.yml]\nscrape_configs:\n- job_name: lockgate\n  static_configs:\n"
                .to_owned();
        for (situation, address) in targets {
            let target = format!("targets: [\"{address}\"], labels: {{ situation: {situation} }}");
            configuration += &format!("  - {{ {target} }}\n");
        }
        fs::write(dir.join("prometheus.yml"), configuration).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let mut command = Command::new("prometheus");
        command
            .current_dir(dir)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"));
        let process = Running::start("prometheus", &mut command);
        process.line_with("Server is ready");
        Prometheus { process, address }
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is answered");
        let (_, body) = answer.split_once("\r\n\r\n").expect("it has a body");
        serde_json::from_str(body).expect("it is JSON")
    }

    /// The number of series that an expression has now.
    fn series(&self, expression: &str) -> usize {
        let encoded = expression.bytes().map(|byte| format!("%{byte:02X}"));
        let answer = self.get(&format!(
            "/api/v1/query?query={}",
            encoded.collect::<String>()
        ));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("results").len()
    }

    /// The alerts that fire, with their situations.
    fn firing(&self) -> BTreeSet<(String, String)> {
        let answer = self.get("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array().expect("alerts").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| {
                let label = |name: &str| alert["labels"][name].as_str().unwrap().to_owned();
                (label("alertname"), label("situation"))
            })
            .collect()
    }
}

/// The expressions of the dashboard, with the values that Grafana puts in for its variables.
fn dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("assets/grafana/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let expressions = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "1m");
            let expression = expression.replace("$instance", ".*");
            let expression = expression.replace("$pipeline", ".*");
            assert!(!expression.contains('$'), "{expression}");
            (panel["title"].as_str().unwrap().to_owned(), expression)
        })
    });
    expressions.collect()
}

fn named(alert: &str, situation: &str) -> (String, String) {
    (alert.to_owned(), situation.to_owned())
}

/// The names of all rules.
fn names() -> BTreeSet<String> {
    let rules = quick_rules();
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// A host of many sources and pipelines, each of which gets into one situation.
struct Many {
    config: PathBuf,
    host: Option<Running>,
    gone: LocalAuth,
    unreadable: LocalAuth,
    gaps: LocalAuth,
    lost: LocalAuth,
    expired: LocalAuth,
    ahead: LocalAuth,
    recorded: LocalAuth,
    live: LocalAuth,
    good: LocalReceiver,
    held: LocalReceiver,
    behind: LocalReceiver,
    braked: LocalReceiver,
    refuses: LocalReceiver,
}

/// Events per second of the logs that go on.
const RATE: u64 = 40;

impl Many {
    fn start(dir: &Path) -> Many {
        let auth = |name: &str, options: AuthOptions| LocalAuth::start(&dir.join(name), options);
        let log = |events| GeneratorOptions {
            events,
            ..GeneratorOptions::default()
        };
        let short = || AuthOptions {
            events: log(100),
            ..AuthOptions::default()
        };
        let live = |backend| AuthOptions {
            events: log(1_000_000),
            rate: Some(RATE as f64),
            backend,
            ..AuthOptions::default()
        };
        let receiver = |name: &str| {
            let dir = dir.join(name);
            fs::create_dir_all(&dir).unwrap();
            LocalReceiver::start(&dir)
        };
        let mut many = Many {
            config: dir.join("lockgate.toml"),
            host: None,
            gone: auth("gone", short()),
            unreadable: auth("unreadable", live(Backend::Search)),
            gaps: auth("gaps", live(Backend::Search)),
            lost: auth("lost", short()),
            expired: auth("expired", short()),
            ahead: auth("ahead", live(Backend::Search)),
            recorded: auth(
                "recorded",
                AuthOptions {
                    events: log(2000),
                    ..AuthOptions::default()
                },
            ),
            live: auth("live", live(Backend::Search)),
            good: receiver("good"),
            held: receiver("held"),
            behind: receiver("behind"),
            braked: receiver("braked"),
            refuses: receiver("refuses"),
        };
        many.recorded.set_faults(Faults {
            recordings: Some(Code::ResourceExhausted),
            ..Faults::default()
        });
        // What is behind from the start on is behind by the age of its events.
        many.behind.always(Fault::Status(503));
        fs::write(&many.config, many.configuration(dir)).unwrap();
        pending_for_three_days(&dir.join("store"), "lost");
        many.host = Some(start(&many.config, &[]));
        many
    }

    fn configuration(&self, dir: &Path) -> String {
        let mut text = format!(
            "[store]\npath = \"{}/store\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
            dir.display()
        );
        for (name, auth, keys) in [
            ("gone", &self.gone, ""),
            ("unreadable", &self.unreadable, ""),
            ("gaps", &self.gaps, "gap-after = \"1s\"\n"),
            ("lost", &self.lost, ""),
            ("expired", &self.expired, ""),
            ("ahead", &self.ahead, ""),
            ("recorded", &self.recorded, ""),
            ("live", &self.live, ""),
        ] {
            let (addr, identity) = (&auth.addr, auth.dir.join("identity"));
            text += &format!(
                "[sources.{name}]\naddr = \"{addr}\"\nidentity = \"{}\"\n\
                 start-time = \"2026-01-01T00:00:00Z\"\n{keys}",
                identity.display()
            );
        }
        let from = |streams: &str| format!("from = [{streams}]");
        let failing = format!(
            "[plugins.odd]\nsource = \"file:{}\"\n[[pipelines.failing.stage]]\nplugin = \"odd\"\n\
             with = {{ mode = \"keep\" }}\n",
            component("hostile_filter").display()
        );
        let quiet =
            ["unreadable", "gaps", "expired", "ahead"].map(|name| format!("\"{name}/audit\""));
        let recordings = [
            "recorded/audit",
            "recorded/sessions",
            "lost/audit",
            "lost/sessions",
        ];
        let recordings = recordings.map(|name| format!("\"{name}\""));
        [
            text,
            pipeline("quiet", &self.good, &from(&quiet.join(", "))),
            pipeline("unknown", &self.good, &from("\"gone/audit\"")),
            pipeline("recordings", &self.good, &from(&recordings.join(", "))),
            pipeline("behind", &self.behind, &from("\"gone/audit\"")),
            pipeline("held", &self.held, &from("\"live/audit\"")),
            pipeline("braked", &self.braked, &from("\"live/audit\"")),
            pipeline("refused", &self.refuses, &from("\"live/audit\"")),
            pipeline("failing", &self.good, &from("\"live/audit\"")),
            failing,
        ]
        .concat()
    }

    fn begin(&mut self) {
        self.gone.stop();
        self.unreadable.set_faults(Faults {
            audit_log: Some(Code::Internal),
            ..Faults::default()
        });
        let soon = self.gaps.time(self.gaps.visible() + 2 * RATE);
        self.gaps.set_faults(Faults {
            unreadable: Some((soon, soon + 100)),
            ..Faults::default()
        });
        self.issue(Some(SystemTime::now() - Duration::from_secs(3600)));
        self.ahead.restart_with(|options| options.clock_ahead = 45);
        self.held.always(Fault::Status(503));
        self.braked.refuse("user.login");
        let next = self.live.visible() + 2 * RATE;
        self.refuses.refuse(&self.live.uid(next));
        change(&self.config, "mode = \"keep\"", "mode = \"fail-retry\"");
        // A report: what is admitted from here on was not before.
        let (all, some) = (
            "[sources.live]\n",
            "[sources.live]\ntypes = [\"user.login\"]\n",
        );
        change(&self.config, all, some);
        change(&self.config, some, all);
    }

    fn end(&mut self) {
        self.gone.go_on();
        for auth in [&self.unreadable, &self.gaps, &self.recorded] {
            auth.set_faults(Faults::default());
        }
        self.issue(None);
        self.ahead.restart_with(|options| options.clock_ahead = 0);
        for receiver in [&self.held, &self.behind, &self.braked, &self.refuses] {
            receiver.recover();
        }
        change(&self.config, "mode = \"fail-retry\"", "mode = \"keep\"");
    }

    fn issue(&self, expires: Option<SystemTime>) {
        let options = AuthOptions {
            out: self.expired.dir.clone(),
            identity_expires: expires,
            ..AuthOptions::default()
        };
        issue_identity(&options).unwrap();
    }
}

/// Loads the configuration with another text in it.
fn change(config: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(config).unwrap();
    assert!(text.contains(from), "{from}:\n{text}");
    fs::write(config, text.replace(from, to)).unwrap();
    reload(config).exits_with(0);
}

/// A store in which a recording, of which Teleport knows nothing, was announced three days ago.
fn pending_for_three_days(store: &Path, source: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Options::new(store)).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let uploaded = (now - Duration::from_secs(3 * 86_400)).as_millis();
        let state =
            json!({ "next": 0, "uploaded": uploaded as u64, "attempts": 1, "not_before": 0 });
        let append = Append {
            source: source.into(),
            feed: FeedKind::Sessions,
            read_at: now.as_millis() as i64,
            events: BlockBuilder::new().take(),
            cursors: vec![CursorUpdate {
                key: "session/5c0e".to_owned(),
                value: Some(state.to_string()),
            }],
            duplicates: 0,
            gaps: Vec::new(),
        };
        store.append(append).await.unwrap();
        store.close().await.unwrap();
    });
}

/// A host with one pipeline and a listener.
fn host(dir: &Path, auth: &Auth, receiver: &LocalReceiver) -> PathBuf {
    let config = configuration(dir, auth, &pipeline("main", receiver, ""));
    listen_on_any_port(&config);
    config
}

#[test]
fn every_alert_fires_and_resolves_and_every_panel_shows_something() {
    if !Prometheus::is_installed() {
        eprintln!("skipped: `prometheus` is not installed, so no alert was raised");
        return;
    }
    let dirs = ["many", "down", "disk", "full"].map(|_| tempfile::tempdir().unwrap());
    let [many, down, disk, full] = dirs.each_ref().map(|dir| dir.path());

    // Hosts that are well, and two that are not from the start on.
    let mut many = Many::start(many);
    let many_address = admin_address(many.host.as_ref().unwrap());
    let down_auth = Auth::start(down, &["--events", "100"]);
    let down_receiver = LocalReceiver::start(down);
    let down_config = host(down, &down_auth, &down_receiver);
    let down_host = start(&down_config, &[]);
    let down_address = admin_address(&down_host);
    let text = fs::read_to_string(&down_config).unwrap();
    fs::write(&down_config, text.replace("127.0.0.1:0", &down_address)).unwrap();
    let disk_auth = Auth::start(disk, &["--events", "100"]);
    let disk_receiver = LocalReceiver::start(disk);
    let disk_host = start_with_a_full_disk(&host(disk, &disk_auth, &disk_receiver), 300, &[]);
    let disk_address = admin_address(&disk_host);
    let full_auth = Auth::start(full, &["--events", "100"]);
    let full_receiver = LocalReceiver::start(full);
    full_receiver.always(Fault::Status(503));
    let full_config = host(full, &full_auth, &full_receiver);
    let text = fs::read_to_string(&full_config).unwrap();
    let text = text.replace("[admin]", "retain = { bytes = \"64 MiB\" }\n\n[admin]");
    fs::write(&full_config, text).unwrap();
    fill(&full.join("store"), "main", 65 << 20);
    let full_host = start(&full_config, &[]);
    let full_address = admin_address(&full_host);

    let dir = tempfile::tempdir().unwrap();
    let targets = [
        ("many", &*many_address),
        ("down", &down_address),
        ("disk", &disk_address),
        ("full", &full_address),
    ];
    let prometheus = Prometheus::start(dir.path(), &targets);
    let shown = || {
        format!(
            "{:?}\n{}\n{}",
            prometheus.firing(),
            many.host.as_ref().unwrap().stderr(),
            prometheus.process.stderr()
        )
    };
    let mut fired = BTreeSet::new();
    until(
        "every host was scraped, and two are not well",
        shown,
        || {
            fired.extend(prometheus.firing());
            let counted = prometheus.get("/api/v1/query?query=count_over_time(up[1m])");
            let results = counted["data"]["result"].as_array().expect("results");
            let count =
                |result: &Value| result["value"][1].as_str().unwrap().parse::<u64>().unwrap();
            let is_scraped = results.iter().filter(|result| count(result) >= 2).count();
            let fires = |alert: &str, situation: &str| fired.contains(&named(alert, situation));
            is_scraped == targets.len()
                && fires("LockgateStoreClosed", "disk")
                && fires("LockgateReadingWaits", "full")
        },
    );
    let is_well = fired.iter().all(|(_, situation)| situation != "down");
    assert!(is_well, "{fired:?}");

    many.begin();
    down_host.stop().exits_with(0);
    let limited = "[pipelines.main]\nlag-limit = { bytes = \"16 MiB\" }\n";
    change(&full_config, "[pipelines.main]\n", limited);
    let elsewhere = [
        ("LockgateDown", "down"),
        ("LockgateStoreClosed", "disk"),
        ("LockgateReadingWaits", "full"),
        ("LockgateLagLimit", "full"),
    ];
    let expected = names().into_iter().map(|alert| {
        let place = elsewhere.iter().find(|(name, _)| *name == alert);
        named(&alert, place.map_or("many", |(_, situation)| situation))
    });
    let expected: BTreeSet<(String, String)> = expected.collect();
    let host = many.host.as_ref().unwrap();
    let missing = std::cell::RefCell::new(expected.clone());
    let shown = || format!("never fired: {:?}\n{}", missing.borrow(), host.stderr());
    until("every alert has fired", shown, || {
        fired.extend(prometheus.firing());
        missing.borrow_mut().retain(|alert| !fired.contains(alert));
        missing.borrow().is_empty()
    });

    let panels = dashboard();
    assert!(panels.len() > 25, "{panels:?}");
    let missing = std::cell::RefCell::new(panels);
    let shown = || format!("show nothing: {:?}", missing.borrow());
    until(
        "every panel of the dashboard shows something",
        shown,
        || {
            missing
                .borrow_mut()
                .retain(|(_, expression)| prometheus.series(expression) == 0);
            missing.borrow().is_empty()
        },
    );

    many.end();
    let down_host = start(&down_config, &[]);
    empty_disk(&disk_host);
    full_receiver.recover();
    let host = many.host.as_ref().unwrap();
    let shown = || format!("{:?}\n{}", prometheus.firing(), host.stderr());
    until("every alert is resolved", shown, || {
        prometheus.firing().is_empty()
    });

    for host in [down_host, disk_host, full_host, many.host.take().unwrap()] {
        host.stop().exits_with(0);
    }
    prometheus.process.stop();
}
