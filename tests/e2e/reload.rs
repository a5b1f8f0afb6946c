//! Reloads of the configuration of a running host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockgate_sim::receiver::{Fault, Rule};
use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Running, Signal, books, configuration, empty_disk, lockgate, mmdb, reload, start,
    start_with_a_full_disk, started, status, until,
};
use serde_json::{Value, json};

/// Small, so that a test reads many.
const EVENTS: u64 = 3000;

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub auth: Auth,
    receiver: LocalReceiver,
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
        let receiver = LocalReceiver::start(dir.path());
        Fixture {
            dir,
            auth,
            receiver,
        }
    }

    /// A pipeline that sends to the receiver, at the path of its name. `more` is put into it.
    pub fn pipeline(&self, name: &str, more: &str) -> String {
        self.patient_pipeline(name, more, "30s")
    }

    /// The same, with the `timeout` of its sink.
    fn patient_pipeline(&self, name: &str, more: &str, timeout: &str) -> String {
        let endpoint = self.receiver.endpoint(name);
        format!(
            "[pipelines.{name}]\n{more}\n[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n\
             timeout = \"{timeout}\"\n{endpoint}\n"
        )
    }

    pub fn write(&self, pipelines: &str) -> PathBuf {
        configuration(self.dir.path(), &self.auth, pipelines)
    }
}

fn skipping(types: &str) -> String {
    format!("stage = [{{ plugin = \"builtin:filter\", with = {{ skip = [{types}] }} }}]")
}

fn text(config: &Path) -> String {
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(config);
    Running::start("status", &mut command)
        .ended()
        .exits_with(0)
        .stdout
}

#[track_caller]
fn until_finished(host: &Running, config: &Path, pipeline: &str, events: u64) {
    let shown = || format!("{}\n{}", status(config), host.stderr());
    until("every event is final", shown, || {
        let books = books(&status(config), pipeline);
        books.delivered + books.dropped == events
    });
}

fn generation(config: &Path, pipeline: &str) -> Value {
    status(config)["pipelines"][pipeline]["generation"].clone()
}

/// The pipeline that is not changed has a request out, which hangs: it would be cut off if the
/// pipeline was started anew.
#[test]
fn a_changed_filter_is_in_force_and_the_other_pipeline_is_not_touched() {
    let fixture = Fixture::new();
    let all = fixture.patient_pipeline("all", "batch = { events = 100 }", "10m");
    let config = fixture.write(&(all.clone() + &fixture.pipeline("main", "")));
    fixture.receiver.control.set_rules(vec![Rule {
        path: "/all".to_owned(),
        ..Rule::new(Fault::Hang)
    }]);
    let host = started(&config);
    let shown = || host.stderr();
    until("a request hangs", shown, || {
        fixture.receiver.control.holding() > 0
    });
    until_finished(&host, &config, "main", EVENTS);
    let holding = fixture.receiver.control.holding();

    fixture.write(&(all + &fixture.pipeline("main", &skipping("\"session.start\""))));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(
        answer.contains("pipelines: 1 changed (main), 1 unchanged")
            && answer.contains("sources: 1 unchanged"),
        "{answer}"
    );
    assert!(
        fixture.receiver.control.holding() >= holding,
        "they are still out"
    );
    assert_eq!(generation(&config, "main"), 2);
    assert_eq!(generation(&config, "all"), 1);
    fixture.receiver.recover();
    until_finished(&host, &config, "all", EVENTS);

    // Nothing has changed.
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("pipelines: 2 unchanged"), "{answer}");
    // A change that cannot affect the output begins no generation, and neither does one that is
    // undone.
    for (more, expected) in [("in-flight = 3", 1), ("in-flight = 4", 1)] {
        let all = fixture.patient_pipeline("all", "batch = { events = 100 }", "10m");
        fixture.write(&(all + &fixture.pipeline("main", more)));
        let answer = reload(&config).exits_with(0).stdout;
        assert!(answer.contains("1 changed (main)"), "{answer}");
        assert_eq!(generation(&config, "main"), expected);
    }
    host.stop().exits_with(0);
    let totals = fixture.receiver.stop();
    assert_eq!(totals.documents, 2 * EVENTS, "nothing is sent twice");
}

#[test]
fn pipelines_are_added_removed_and_come_back() {
    let fixture = Fixture::new();
    let (first, second) = (
        fixture.pipeline("first", ""),
        fixture.pipeline("second", ""),
    );
    let config = fixture.write(&first);
    let host = started(&config);
    until_finished(&host, &config, "first", EVENTS);

    fixture.write(&(first.clone() + &second));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("1 added (second), 1 unchanged"), "{answer}");
    until_finished(&host, &config, "second", EVENTS);

    fixture.write(&second);
    let answer = reload(&config).exits_with(0).stdout;
    assert!(
        answer.contains("1 removed (first), 1 unchanged"),
        "{answer}"
    );
    let shown = text(&config);
    assert!(shown.contains("no longer configured"), "{shown}");
    let host_status = &status(&config)["host"]["pipelines"];
    assert!(host_status.get("first").is_none(), "{host_status}");

    // It goes on where it was.
    fixture.write(&(first + &second));
    reload(&config).exits_with(0);
    until_finished(&host, &config, "first", EVENTS);
    host.stop().exits_with(0);
    assert_eq!(fixture.receiver.stop().documents, 2 * EVENTS);
}

#[test]
fn sources_are_added_changed_and_removed() {
    let fixture = Fixture::new();
    let other_dir = fixture.dir.path().join("other");
    fs::create_dir(&other_dir).unwrap();
    let other = Auth::start(&other_dir, &["--events", "1000", "--seed", "7"]);
    let source = |addr: &str, types: &str| {
        format!(
            "[sources.other]\naddr = \"{addr}\"\nidentity = \"{}/identity\"\n{types}\n\
             start-time = \"2026-01-01T00:00:00Z\"\n",
            other.dir.display()
        )
    };
    let from = |streams: &str| fixture.pipeline("main", &format!("from = [{streams}]"));
    let alone = from("\"teleport/audit\"");
    let config = fixture.write(&alone);
    let host = started(&config);
    until_finished(&host, &config, "main", EVENTS);

    // Nobody listens there. The pipeline reads a stream that is still empty.
    let both = from("\"teleport/audit\", \"other/audit\"");
    fixture.write(&(source("127.0.0.1:1", "") + &both));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(
        answer.contains("sources: 1 added (other), 1 unchanged"),
        "{answer}"
    );
    assert!(answer.contains("pipelines: 1 changed (main)"), "{answer}");
    let sources = || status(&config)["host"]["sources"].clone();
    let shown = || format!("{}\n{}", sources(), host.stderr());
    until("its address fails", shown, || {
        sources()["other"]["conditions"][0]["kind"] == "connection"
    });

    fixture.write(&(source(&other.addr, "") + &both));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("1 changed (other)"), "{answer}");
    assert!(answer.contains("pipelines: 1 unchanged"), "{answer}");
    until_finished(&host, &config, "main", EVENTS + 1000);

    fixture.write(&alone);
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("1 removed (other)"), "{answer}");
    assert!(sources().get("other").is_none(), "{}", sources());
    host.stop().exits_with(0);
    assert_eq!(fixture.receiver.stop().documents, EVENTS + 1000);
}

/// Each way in which a file can be bad leaves the host as it was, and says so in three places.
#[test]
fn a_file_with_problems_changes_nothing() {
    let fixture = Fixture::new();
    let good = fixture.pipeline("main", "");
    let config = fixture.write(&good);
    let host = started(&config);
    until_finished(&host, &config, "main", EVENTS);
    let good_text = fs::read_to_string(&config).unwrap();
    let text_file = fixture.dir.path().join("text.wasm");
    fs::write(&text_file, "not a component").unwrap();
    let stage = |plugin: &Path, with: &str| {
        let stage = format!(
            "stage = [{{ plugin = \"file:{}\", {with} }}]",
            plugin.display()
        );
        good_text.replace(
            "[pipelines.main]\n",
            &format!("[pipelines.main]\n{stage}\n"),
        )
    };
    let hostile = component("hostile_filter");
    let trap = stage(&hostile, "with = { mode = \"configure-trap\" }");
    let refuse = stage(&hostile, "with = { mode = \"configure-refuse\" }");
    for (broken, problems) in [
        ("[store\n".to_owned() + &good_text, 1),
        (format!("{good_text}\nurll = \"x\"\n"), 1),
        (good_text.replace("builtin:fluentd", "builtin:fluent"), 1),
        (good_text.replace("receiver/ca.crt", "receiver/none.crt"), 1),
        (good_text.replace("auth/identity", "auth/none"), 1),
        (good_text.replace("2026-01-01", "2026-01-02"), 1),
        (good_text.replace("/store\"", "/another\""), 1),
        (stage(&text_file, "with = {}"), 1),
        (stage(Path::new("/no/such.wasm"), "with = {}"), 1),
        (trap, 1),
        (refuse, 3),
        (
            good_text.clone() + &fixture.pipeline("bad", "in-flight = 0"),
            1,
        ),
    ] {
        assert_ne!(broken, good_text);
        fs::write(&config, &broken).unwrap();
        let store = fixture.dir.path().join("store");
        let mut command = lockgate();
        command.args(["reload", "--store"]).arg(&store);
        let refused = Running::start("reload", &mut command).ended().exits_with(1);
        let count = format!("{problems} problem{}", if problems == 1 { "" } else { "s" });
        assert!(
            refused.stderr.contains(&count)
                && refused.stderr.contains("lockgate.toml:")
                && refused
                    .stderr
                    .contains("the host goes on with the configuration it has"),
            "{broken}\n{}",
            refused.stderr
        );
        let mut command = lockgate();
        command.args(["status", "--json", "--store"]).arg(&store);
        let shown = Running::start("status", &mut command).ended().exits_with(0);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        let listed = &shown["host"]["configuration"]["refused"]["problems"];
        assert_eq!(
            listed.as_array().map(Vec::len),
            Some(problems),
            "{broken}\n{shown}"
        );
        assert_eq!(shown["pipelines"]["main"]["generation"], 1);
        assert_eq!(shown["pipelines"]["main"]["state"]["ready"], true);
        assert!(host.stderr().contains("has problems and is not loaded"));
    }
    fs::write(&config, "[store\n").unwrap();
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(&config);
    let refused = Running::start("status", &mut command).ended().exits_with(2);
    assert!(
        refused
            .stderr
            .contains("`--store DIR` works without the file")
    );
    fs::write(&config, &good_text).unwrap();
    let shown = text(&config);
    assert!(
        shown.contains("the configuration file had problems when it was loaded at 20")
            && shown.contains("; the host runs with that of ")
            && shown.contains("`lockgate reload` loads it"),
        "{shown}"
    );
    reload(&config).exits_with(0);
    let shown = text(&config);
    assert!(!shown.contains("problems"), "{shown}");
    host.stop().exits_with(0);
    assert_eq!(fixture.receiver.stop().documents, EVENTS);
}

#[test]
fn what_a_reload_cannot_change_is_named_until_the_restart() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", ""));
    let host = started(&config);
    until_finished(&host, &config, "main", EVENTS);
    let good = fs::read_to_string(&config).unwrap();
    let other = good.replace("listen = \"\"", "listen = \"127.0.0.1:0\"");
    fs::write(&config, other + "\n[limits]\nmemory = \"600 MiB\"\n").unwrap();
    let answer = reload(&config).exits_with(0).stdout;
    let named = "needs a restart: `memory` in `[limits]`, `listen` in `[admin]`";
    assert!(answer.contains(named), "{answer}");
    assert!(text(&config).contains(named), "{}", text(&config));
    fs::write(&config, good).unwrap();
    reload(&config).exits_with(0);
    assert!(!text(&config).contains("needs a restart"));
    host.stop().exits_with(0);
}

/// Its pipelines finish at different times, and one of them is replaced before.
#[test]
fn a_host_that_ends_after_the_last_event_ends_after_a_reload_too() {
    let fixture = Fixture::new();
    let done = fixture.pipeline("done", "");
    let config = fixture.write(&(done.clone() + &fixture.pipeline("main", "")));
    fixture.receiver.control.set_rules(vec![Rule {
        path: "/main".to_owned(),
        ..Rule::new(Fault::Status(503))
    }]);
    let host = start(&config, &["--exit-on-last-event"]);
    host.line_with("started");
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until(
        "one pipeline has finished, and the other is held",
        shown,
        || {
            let pipelines = status(&config)["host"]["pipelines"].clone();
            pipelines["done"]["state"] == "finished"
                && pipelines["main"]["conditions"][0]["kind"] == "endpoint"
        },
    );
    // Both are changed; what has finished begins anew and finishes again.
    let done = done.replace("timeout = \"30s\"", "timeout = \"31s\"");
    fixture.write(&(done + &fixture.pipeline("main", "in-flight = 2")));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("2 changed (done, main)"), "{answer}");
    fixture.receiver.recover();
    host.ended().exits_with(0);
    let shown = status(&config);
    for name in ["done", "main"] {
        assert_eq!(books(&shown, name).delivered, EVENTS, "{shown}");
    }
    let totals = fixture.receiver.stop();
    assert_eq!(totals.documents, 2 * EVENTS, "nothing is sent twice");
}

#[test]
fn a_pipeline_that_could_not_start_starts_with_the_corrected_file() {
    let fixture = Fixture::new();
    let bad = fixture
        .pipeline("bad", "")
        .replace("builtin:fluentd", "builtin:none");
    let good = fixture.pipeline("good", "");
    let config = fixture.write(&(good.clone() + &bad));
    let host = started(&config);
    host.line_with("this pipeline does not start");
    // As long as it is not mended, it is a problem of the file.
    let refused = reload(&config).exits_with(1).stderr;
    assert!(refused.contains("builtin:none"), "{refused}");
    fixture.write(&(good + &fixture.pipeline("bad", "")));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("1 changed (bad), 1 unchanged"), "{answer}");
    until_finished(&host, &config, "good", EVENTS);
    until_finished(&host, &config, "bad", EVENTS);
    host.stop().exits_with(0);
}

/// The change comes while its components are being compiled for the first time.
#[test]
fn a_pipeline_that_is_still_starting_is_replaced() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", "in-flight = 2"));
    let host = started(&config);
    fixture.write(&(fixture.pipeline("other", "") + &fixture.pipeline("main", "")));
    let answer = reload(&config).exits_with(0).stdout;
    assert!(
        answer.contains("1 added (other), 1 changed (main)"),
        "{answer}"
    );
    until_finished(&host, &config, "main", EVENTS);
    until_finished(&host, &config, "other", EVENTS);
    fixture.write(&fixture.pipeline("other", ""));
    reload(&config).exits_with(0);
    host.stop().exits_with(0);
    assert_eq!(fixture.receiver.stop().documents, 2 * EVENTS);
}

/// The pipeline goes on with its next batch, in another generation.
#[test]
fn a_database_is_granted_by_a_reload() {
    let fixture = Fixture::new();
    let pipelines = fixture.pipeline("main", "stage = [{ plugin = \"builtin:ecs\" }]");
    let config = fixture.write(&pipelines);
    let host = started(&config);
    until_finished(&host, &config, "main", EVENTS);
    let city = fixture.dir.path().join("city.mmdb");
    let lookup = "\n[lookup]\ncity = \"city.mmdb\"\n";
    fixture.write(&(pipelines.clone() + lookup));
    let refused = reload(&config).exits_with(1).stderr;
    assert!(refused.contains("granted here"), "{refused}");
    let place = json!({ "country": { "names": { "en": "Bhutan" } } });
    mmdb(&city, "GeoLite2-City", &[("0.0.0.0/1", place)]);
    let answer = reload(&config).exits_with(0).stdout;
    assert!(
        answer.contains("pipelines: 1 unchanged") && answer.contains("also changed: `[lookup]`"),
        "{answer}"
    );
    // A batch after that is of another generation, and so is a pipeline that starts.
    let from = pipelines.replace("[pipelines.main]\n", "[pipelines.main]\nin-flight = 2\n");
    fixture.write(&(from + lookup));
    reload(&config).exits_with(0);
    let description = status(&config)["pipelines"]["main"]["description"]["lookup"].clone();
    assert!(description["city"].is_string(), "{description}");
    host.stop().exits_with(0);
}

/// A batch that cannot be delivered is given back: what the receiver took of it counts, and the
/// rest is sent to the new address.
#[test]
fn a_receiver_that_is_down_can_be_replaced() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", "batch = { events = 100 }"));
    let host = started(&config);
    let shown = || host.stderr();
    until("something is delivered", shown, || {
        books(&status(&config), "main").delivered > 0
    });
    fixture.receiver.always(Fault::Status(503));
    let second_dir = fixture.dir.path().join("second");
    fs::create_dir(&second_dir).unwrap();
    let second = LocalReceiver::start(&second_dir);
    let pipeline = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        second.endpoint("main")
    );
    fixture.write(&pipeline);
    let answer = reload(&config).exits_with(0).stdout;
    assert!(answer.contains("1 changed (main)"), "{answer}");
    until_finished(&host, &config, "main", EVENTS);
    host.stop().exits_with(0);
    let (first, second) = (fixture.receiver.stop(), second.stop());
    assert_eq!(first.documents + second.documents, EVENTS);
}

/// A condition that began in the log ends in it, also if its pipeline is replaced or stopped.
#[test]
fn no_condition_of_a_pipeline_that_ended_stays_open_in_the_log() {
    let fixture = Fixture::new();
    fixture.receiver.always(Fault::Status(503));
    let config = fixture.write(&fixture.pipeline("main", ""));
    let host = started(&config);
    host.line_with_all(&["held: ", "503", "pipeline=main", "kind=endpoint"]);
    fixture.write(&fixture.pipeline("main", "batch = { events = 100 }"));
    reload(&config).exits_with(0);
    let last = [
        "no longer held",
        "pipeline=main",
        "kind=endpoint",
        "lasted_s=",
    ];
    host.line_with_all(&last);
    host.line_with_all(&["held: ", "503", "pipeline=main", "kind=endpoint"]);
    let stderr = host.stop().stderr;
    let ended = stderr
        .lines()
        .filter(|line| last.iter().all(|text| line.contains(text)));
    let began = stderr.lines().filter(|line| line.contains("WARN  held: "));
    assert_eq!(
        ended.count(),
        began.filter(|line| line.contains("kind=endpoint")).count(),
        "{stderr}"
    );
}

/// One answer never comes: the reload waits until its time is over, and its batch is given back.
#[test]
fn a_pipeline_whose_request_hangs_is_replaced_once_it_has_timed_out() {
    let fixture = Fixture::new();
    let pipeline = |events: u32| {
        let batch = format!("batch = {{ events = {events} }}");
        fixture.patient_pipeline("main", &batch, "5s")
    };
    let config = fixture.write(&pipeline(100));
    fixture.receiver.control.hang_next(1);
    let host = started(&config);
    let shown = || host.stderr();
    until("a request hangs", shown, || {
        fixture.receiver.control.holding() == 1
    });
    fixture.write(&pipeline(200));
    reload(&config).exits_with(0);
    until_finished(&host, &config, "main", EVENTS);
    host.stop().exits_with(0);
    assert_eq!(
        fixture.receiver.stop().documents,
        EVENTS,
        "nothing is sent twice"
    );
}

#[test]
fn a_hangup_reloads_at_any_time_and_never_ends_the_host() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", ""));
    // While the host starts.
    let host = start(&config, &[]);
    host.line_with("started");
    host.signal(Signal::HUP);
    host.line_with("reloaded: ");
    until_finished(&host, &config, "main", EVENTS);

    // While others are being worked on.
    fixture.write(&fixture.pipeline("main", &skipping("\"no.such.type\"")));
    for _ in 0..5 {
        host.signal(Signal::HUP);
    }
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the change is in force", shown, || {
        generation(&config, "main") == 2
    });

    // While it stops: a request that hangs keeps it from ending.
    fixture.receiver.control.hang_next(1);
    fixture.write(&fixture.pipeline("other", ""));
    reload(&config).exits_with(0);
    until("a request hangs", shown, || {
        fixture.receiver.control.holding() == 1
    });
    host.signal(Signal::TERM);
    host.line_with("SIGTERM: stopping");
    host.signal(Signal::HUP);
    host.line_with("SIGHUP: the host is stopping");
    // What was out when the host was to stop is answered and committed.
    fixture.receiver.recover();
    reload(&config).exits_with(1);
    host.ended().exits_with(0);
    let delivered = books(&status(&config), "other").delivered;
    let totals = fixture.receiver.stop();
    assert_eq!(totals.documents, EVENTS + delivered, "{totals:?}");
}

#[test]
fn a_reload_on_a_full_disk_is_made_up_for_when_there_is_room() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", ""));
    let host = start_with_a_full_disk(&config, 300, &[]);
    host.line_with("too full");
    fixture.write(&fixture.pipeline("other", ""));
    host.signal(Signal::HUP);
    host.line_with("SIGHUP: the configuration is loaded once the store is open");
    let refused = reload(&config).exits_with(1).stderr;
    assert!(
        refused.contains("The configuration is loaded once the store is open"),
        "{refused}"
    );
    empty_disk(&host);
    host.line_with("reloaded: ");
    until_finished(&host, &config, "other", EVENTS);
    let pipelines = status(&config)["host"]["pipelines"].clone();
    assert!(pipelines.get("main").is_none(), "{pipelines}");
    host.stop().exits_with(0);
}

#[test]
fn without_a_host_there_is_nothing_to_reload() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", ""));
    let refused = reload(&config).exits_with(1).stderr;
    assert!(
        refused.contains("No host is running on the store")
            && refused.contains("start it with `lockgate start`")
            && refused.contains("`--store OLD`")
            && refused
                .contains("a second host, on another store, reads and sends everything again"),
        "{refused}"
    );
    fs::write(&config, "[store").unwrap();
    let refused = reload(&config).exits_with(1).stderr;
    assert!(
        refused.contains("problems in") && refused.contains("the host was not asked"),
        "{refused}"
    );
}

/// A start waited for somebody to write to it, and said nothing.
#[test]
fn a_configuration_that_is_a_named_pipe_is_refused() {
    let fixture = Fixture::new();
    let config = fixture.write(&fixture.pipeline("main", ""));
    let host = started(&config);
    until_finished(&host, &config, "main", EVENTS);
    let text = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    let made = Command::new("mkfifo").arg(&config).status().unwrap();
    assert!(made.success());
    let said = "The configuration cannot be read: it is a named pipe.";
    for arguments in [["start", "--config"], ["check", "--config"]] {
        let mut command = lockgate();
        command.args(arguments).arg(&config);
        let refused = Running::start(arguments[0], &mut command).ended();
        let stderr = refused.exits_with(2).stderr;
        assert!(stderr.contains(said), "{stderr}");
    }
    host.signal(Signal::HUP);
    host.line_with("has problems and is not loaded");
    fs::remove_file(&config).unwrap();
    fs::write(&config, text).unwrap();
    reload(&config).exits_with(0);
    host.stop().exits_with(0);

    // A pipe that a shell makes ends.
    let check = format!(
        "cat {0} | {1} check --config /dev/stdin",
        config.file_name().unwrap().display(),
        lockgate().get_program().display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &check]).current_dir(fixture.dir.path());
    Running::start("sh", &mut shell).ended().exits_with(0);
}
