//! What `status`, `/readyz` and the log say when something is not well: never that it is.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockgate_model::{Append, BlockBuilder, CursorUpdate, FeedKind, Generation, Head};
use lockgate_sim::auth::{AuthOptions, issue_identity};
use lockgate_sim::receiver::Fault;
use lockgate_store::{Ledger, Options, Retention, Store};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Running, Signal, admin_address, books, configuration, get, listen_on_any_port, lockgate,
    reload, start, status, until,
};
use serde_json::Value;

pub(crate) fn pipeline(name: &str, receiver: &LocalReceiver, keys: &str) -> String {
    format!(
        "[pipelines.{name}]\n{keys}\n[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        receiver.endpoint(name)
    )
}

fn status_text(config: &Path) -> String {
    let mut command = lockgate();
    command.args(["status", "--config"]).arg(config);
    Running::start("status", &mut command)
        .ended()
        .exits_with(0)
        .stdout
}

/// The lines of the table that begin with a pipeline's name, and those below it.
fn row<'t>(text: &'t str, pipeline: &str) -> Vec<&'t str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(pipeline));
    let first = lines.next();
    let rest = lines.take_while(|line| line.starts_with("  "));
    first.into_iter().chain(rest).collect()
}

/// A condition of the source as `status` shows it.
fn condition(status: &Value, kind: &str) -> Option<Value> {
    let conditions = &status["host"]["sources"]["teleport"]["conditions"];
    let mut conditions = conditions.as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["kind"] == kind)
        .cloned()
}

/// A running host with a listener.
struct Watched {
    host: Running,
    admin: String,
}

impl Watched {
    fn start(config: &Path) -> Watched {
        listen_on_any_port(config);
        let host = start(config, &[]);
        let admin = admin_address(&host);
        Watched { host, admin }
    }

    fn readyz(&self) -> String {
        get(&self.admin, "/readyz")
    }

    #[track_caller]
    fn until_ready(&self, config: &Path) {
        let shown = || format!("{}\n{}", status(config), self.host.stderr());
        until("everything is well", shown, || {
            let shown = status(config);
            let source = &shown["host"]["sources"]["teleport"];
            let is_known = shown["pipelines"]["main"]["lag_known"] == true;
            shown["ready"] == true && source["unknown_since"].is_null() && is_known
        });
        let ready = self.readyz();
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    }

    /// Until the source has a condition of this kind, and nothing says that all is well.
    #[track_caller]
    fn until_source_is_not_ready(&self, config: &Path, kind: &str) -> Value {
        let mut seen = Value::Null;
        let shown = || format!("{}\n{}", status(config), self.host.stderr());
        until("the condition shows", shown, || {
            seen = status(config);
            condition(&seen, kind).is_some() && seen["ready"] == false
        });
        let ready = self.readyz();
        let reason = format!(r#""source":"teleport","kind":"{kind}""#);
        assert!(
            ready.starts_with("HTTP/1.1 503") && ready.contains(&reason),
            "{ready}"
        );
        seen
    }
}

/// A store that holds so many bytes of events, which cannot be compressed, for a pipeline.
pub(crate) fn fill(directory: &Path, holder: &str, bytes: u64) {
    const EVENT: usize = 700_000;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = Options {
            retention: Retention::default(),
            ..Options::new(directory)
        };
        let store = Store::open(options).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let generation = Generation {
            pipeline: holder.into(),
            description: "{}".to_owned(),
        };
        let streams = ["teleport/audit".to_owned()];
        store.register(generation, &streams, 1).await.unwrap();
        let mut random = 1_u64;
        let mut text = String::new();
        for nth in 0.. {
            let streams = store.reads().streams().unwrap();
            if streams.first().is_some_and(|stream| stream.bytes > bytes) {
                break;
            }
            text.clear();
            text.push_str("{\"x\":\"");
            text.extend((0..EVENT).map(|_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // 64 characters that JSON does not escape.
                char::from(
                    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
                        [(random >> 58) as usize],
                )
            }));
            text.push_str("\"}");
            let mut block = BlockBuilder::new();
            let head = Head {
                key: &format!("large-{nth}"),
                event_type: "large",
                code: "",
                time: 1_767_225_600_000,
                index: nth,
                session: "",
            };
            block.push(head, &text);
            let append = Append {
                source: "teleport".into(),
                feed: FeedKind::Audit,
                read_at: now.as_millis() as i64,
                events: block.take(),
                cursors: vec![CursorUpdate {
                    key: "start".to_owned(),
                    value: Some("2026-01-01T00:00:00Z".to_owned()),
                }],
                gaps: Vec::new(),
                duplicates: 0,
            };
            store.append(append).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

#[test]
fn an_outage_of_teleport_is_shown_while_it_lasts_and_no_longer() {
    for backend in ["export", "search"] {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--events", "1000", "--backend", backend];
        let auth = Auth::start(dir.path(), &arguments);
        let receiver = LocalReceiver::start(dir.path());
        let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, ""));
        let watched = Watched::start(&config);
        watched.until_ready(&config);
        let shown = || status(&config).to_string();
        until("everything is delivered", shown, || {
            books(&status(&config), "main").delivered == 1000
        });
        let text = status_text(&config);
        assert!(text.contains("\nready: everything works\n"), "{text}");
        assert!(row(&text, "main")[0].ends_with(" none"), "{text}");

        let address = auth.addr.clone();
        auth.process.stop();
        let seen = watched.until_source_is_not_ready(&config, "connection");
        let source = &seen["host"]["sources"]["teleport"];
        assert_eq!(source["state"], "not reading", "{source}");
        assert!(source["unknown_since"].is_i64(), "{source}");
        let main = &seen["pipelines"]["main"];
        assert_eq!(main["lag_known"], false, "{main}");
        assert!(main["lag_unknown_since"].is_i64(), "{main}");
        let text = status_text(&config);
        for line in ["NOT READY", "source teleport: not reading"] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        let row = row(&text, "main");
        assert!(row[0].ends_with(" unknown"), "{text}");
        assert!(row[1].starts_with("  lag unknown since "), "{text}");

        let mut again = lockgate();
        again
            .args(["sim", "auth", "--listen", &address, "--out"])
            .arg(&auth.dir)
            .args(arguments);
        let again = Running::start("sim auth", &mut again);
        watched.until_ready(&config);
        assert!(condition(&status(&config), "connection").is_none());
        assert!(!status_text(&config).contains("cannot be reached"));
        let stderr = watched.host.stop().exits_with(0).stderr;
        let lines = |text: &str| stderr.lines().filter(|line| line.contains(text)).count();
        let logged = (
            lines("place=connection lasted_s="),
            lines("place=connection"),
        );
        assert_eq!(logged, (1, 2), "begin and end:\n{stderr}");
        again.stop();
    }
}

#[test]
fn a_teleport_that_no_longer_answers_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, ""));
    let watched = Watched::start(&config);
    watched.until_ready(&config);
    auth.process.signal(Signal::STOP);
    let seen = watched.until_source_is_not_ready(&config, "connection");
    let message = condition(&seen, "connection").unwrap()["message"].to_string();
    assert!(message.contains("answer"), "{message}");
    auth.process.signal(Signal::CONT);
    watched.until_ready(&config);
    watched.host.stop().exits_with(0);
}

#[test]
fn a_dead_pipeline_past_its_lag_limit_loses_the_oldest_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "8000"]);
    let receiver = LocalReceiver::start(dir.path());
    let dead_dir = tempfile::tempdir().unwrap();
    let dead = LocalReceiver::start(dead_dir.path());
    dead.always(Fault::Status(503));
    let filter =
        "[[pipelines.main.stage]]\nplugin = \"builtin:filter\"\nwith = { skip = [\"large\"] }\n";
    let limit = "lag-limit = { bytes = \"16 MiB\" }";
    let pipelines = pipeline("main", &receiver, "") + filter + &pipeline("dead", &dead, limit);
    let config = configuration(dir.path(), &auth, &pipelines);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[admin]", "retain = { bytes = \"64 MiB\" }\n\n[admin]");
    std::fs::write(&config, text).unwrap();
    fill(&dir.path().join("store"), "dead", 65 << 20);
    let watched = Watched::start(&config);
    let shown = || format!("{}\n{}", status(&config), watched.host.stderr());
    until("the healthy one has delivered everything", shown, || {
        books(&status(&config), "main").delivered == 8000
    });
    let line = watched
        .host
        .line_with("because it has reached its `lag-limit`");
    assert!(line.contains("pipeline=dead"), "{line}");
    let given_up = status(&config)["pipelines"]["dead"]["given_up"].as_u64();
    let given_up = given_up.expect("a count");
    let figures = books(&status(&config), "dead");
    assert!(given_up > 0 && figures.dropped == given_up, "{figures:?}");
    let metrics = get(&watched.admin, "/metrics");
    for line in [
        format!("lockgate_pipeline_given_up_events_total{{pipeline=\"dead\"}} {given_up}"),
        "lockgate_store_stream_limit_bytes{stream=\"teleport/audit\"} 67108864".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no `{line}` in:\n{metrics}");
    }
    let remark = format!("  {given_up} of the dropped were given up");
    let text = status_text(&config);
    assert!(text.contains(&remark), "{text}");
    // It goes on with what is left.
    dead.recover();
    until("the dead one has caught up", shown, || {
        books(&status(&config), "dead").waiting == 0
    });
    watched.host.stop().exits_with(0);
    let mut audit = lockgate();
    audit.args(["audit", "--config"]).arg(&config);
    let audit = Running::start("audit", &mut audit).ended().exits_with(0);
    assert!(audit.stdout.contains("given up"), "{}", audit.stdout);
}

#[test]
fn a_running_pipeline_past_its_lag_limit_begins_again_at_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--rate", "2000"]);
    let receiver = LocalReceiver::start(dir.path());
    receiver.always(Fault::Status(503));
    let limit = "lag-limit = { bytes = \"16 MiB\" }";
    let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, limit));
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[admin]", "retain = { bytes = \"64 MiB\" }\n\n[admin]");
    std::fs::write(&config, text).unwrap();
    fill(&dir.path().join("store"), "main", 64 << 20);
    let watched = Watched::start(&config);
    let again = "this pipeline has reached its `lag-limit`: the oldest events";
    let line = watched.host.line_with(again);
    assert!(line.contains("pipeline=main"), "{line}");
    receiver.recover();
    let shown = || format!("{}\n{}", status(&config), watched.host.stderr());
    until("it delivers what is left", shown, || {
        books(&status(&config), "main").delivered > 1000
    });
    let figures = books(&status(&config), "main");
    assert!(figures.dropped > 0, "{figures:?}");
    watched.host.stop().exits_with(0);
    let mut audit = lockgate();
    audit.args(["audit", "--config"]).arg(&config);
    Running::start("audit", &mut audit).ended().exits_with(0);
}

#[test]
fn reading_that_waits_for_one_dead_pipeline_is_shown_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = LocalReceiver::start(dir.path());
    let dead_dir = tempfile::tempdir().unwrap();
    let dead = LocalReceiver::start(dead_dir.path());
    dead.always(Fault::Status(503));
    let filter =
        "[[pipelines.main.stage]]\nplugin = \"builtin:filter\"\nwith = { skip = [\"large\"] }\n";
    let pipelines = pipeline("main", &receiver, "") + filter + &pipeline("dead", &dead, "");
    let config = configuration(dir.path(), &auth, &pipelines);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[admin]", "retain = { bytes = \"64 MiB\" }\n\n[admin]");
    std::fs::write(&config, text).unwrap();
    fill(&dir.path().join("store"), "dead", 65 << 20);
    let watched = Watched::start(&config);
    let seen = watched.until_source_is_not_ready(&config, "retention");
    let condition = condition(&seen, "retention").unwrap();
    assert_eq!(condition["subject"], "teleport/audit", "{condition}");
    let shown = || status(&config).to_string();
    until("only the dead one is named", shown, || {
        let message = self::condition(&status(&config), "retention");
        message.is_some_and(|condition| {
            let message = condition["message"].as_str().unwrap();
            message.contains("until `dead` has finished")
        })
    });
    until("the healthy one has delivered what was read", shown, || {
        let books = books(&status(&config), "main");
        books.read > 0 && books.waiting == 0
    });
    let seen = status(&config);
    assert_eq!(seen["pipelines"]["main"]["lag_known"], false, "{seen}");
    let text = status_text(&config);
    assert!(row(&text, "main")[0].ends_with(" unknown"), "{text}");

    dead.recover();
    watched.until_ready(&config);
    until("everything is delivered", shown, || {
        let seen = status(&config);
        books(&seen, "main").delivered == 1000 && books(&seen, "dead").waiting == 0
    });
    let stderr = watched.host.stop().exits_with(0).stderr;
    assert!(stderr.contains("at its retention limit"), "{stderr}");
    assert!(
        stderr.contains("there is room in the stream again"),
        "{stderr}"
    );
}

/// It has never run, so once it held every stream of every source.
#[test]
fn a_pipeline_that_cannot_start_does_not_keep_another_source_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let other = Auth::start(&dir.path().join("other"), &["--events", "10"]);
    let receiver = LocalReceiver::start(dir.path());
    let from = |source: &str| format!("from = [\"{source}/audit\"]");
    let pipelines = pipeline("main", &receiver, &from("teleport"))
        + "\n[[pipelines.main.stage]]\nplugin = \"builtin:filter\"\nwith = { skip = [\"large\"] }\n"
        + &pipeline("broken", &receiver, &from("other"))
        + "\n[[pipelines.broken.stage]]\nplugin = \"builtin:filter\"\nwith = { no-such = 1 }\n";
    let config = configuration(dir.path(), &auth, &pipelines);
    let text = std::fs::read_to_string(&config).unwrap();
    let source = format!(
        "[sources.other]\naddr = \"{}\"\nidentity = \"{}/identity\"\n\
         start-time = \"2026-01-01T00:00:00Z\"\n\n[store]",
        other.addr,
        other.dir.display()
    );
    let text = text.replace("[store]", &source);
    let text = text.replace("[admin]", "retain = { bytes = \"64 MiB\" }\n\n[admin]");
    std::fs::write(&config, text).unwrap();
    fill(&dir.path().join("store"), "main", 65 << 20);
    let watched = Watched::start(&config);
    let shown = || format!("{}\n{}", status(&config), watched.host.stderr());
    until("everything is read and delivered", shown, || {
        books(&status(&config), "main").delivered == 1000
    });
    let seen = status(&config);
    assert_eq!(seen["pipelines"]["broken"]["state"]["state"], "failed");
    assert!(condition(&seen, "retention").is_none(), "{seen}");
    watched.host.stop().exits_with(0);
}

#[test]
fn a_pipeline_that_cannot_start_and_one_that_is_gone_are_listed_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let broken = pipeline("broken", &receiver, "")
        + "\n[[pipelines.broken.stage]]\nplugin = \"builtin:filter\"\nwith = { no-such = 1 }\n";
    let both = pipeline("main", &receiver, "") + &pipeline("gone", &receiver, "");
    let config = configuration(dir.path(), &auth, &both);
    let watched = Watched::start(&config);
    watched.until_ready(&config);
    let shown = || status(&config).to_string();
    until("everything is delivered", shown, || {
        let seen = status(&config);
        ["main", "gone"].map(|name| books(&seen, name).delivered) == [100; 2]
    });
    watched.host.stop().exits_with(0);

    let pipelines = pipeline("main", &receiver, "") + &broken;
    let config = configuration(dir.path(), &auth, &pipelines);
    // Before the start: the figures are those of the store.
    let text = status_text(&config);
    assert!(text.starts_with("not running"), "{text}");
    assert!(row(&text, "main")[0].ends_with(" unknown"), "{text}");
    assert!(row(&text, "broken")[0].contains("has never run"), "{text}");
    assert!(
        row(&text, "gone")[1].contains("no longer configured"),
        "{text}"
    );

    let watched = Watched::start(&config);
    let shown = || format!("{}\n{}", status(&config), watched.host.stderr());
    until("it has failed", shown, || {
        status(&config)["pipelines"]["broken"]["state"]["state"] == "failed"
    });
    let seen = status(&config);
    assert_eq!(seen["ready"], false, "{seen}");
    assert_eq!(seen["pipelines"]["broken"]["registered"], false, "{seen}");
    let gone = &seen["pipelines"]["gone"];
    assert_eq!(
        (&gone["configured"], &gone["lag_seconds"]),
        (&false.into(), &Value::Null)
    );
    let text = status_text(&config);
    let broken = row(&text, "broken");
    assert!(broken[0].contains("failed"), "{text}");
    assert!(
        broken
            .concat()
            .contains("start configuration: it could not start: "),
        "{text}"
    );
    // What was wrong when it was tried, and the way out: the cause may be gone by now.
    let message = &seen["pipelines"]["broken"]["state"]["conditions"][0]["message"];
    let message = message.as_str().unwrap();
    assert!(
        message.contains("lockgate.toml:") && message.contains("no-such"),
        "{message}"
    );
    assert!(
        message.ends_with("; once that is solved, `lockgate reload` tries again"),
        "{message}"
    );
    let gone = row(&text, "gone");
    assert!(
        gone[0].ends_with(" -") && gone[1].contains("no longer configured"),
        "{text}"
    );
    let ready = watched.readyz();
    assert!(
        ready.contains(r#""pipeline":"broken","kind":"start""#)
            && ready.contains("`lockgate reload` tries again")
            && !ready.contains("no-such"),
        "{ready}"
    );
    // As it says.
    let mended = pipeline("main", &receiver, "") + &pipeline("broken", &receiver, "");
    configuration(dir.path(), &auth, &mended);
    reload(&config).exits_with(0);
    watched.until_ready(&config);
    watched.host.stop().exits_with(0);
}

#[test]
fn credentials_that_are_missing_hold_the_source_until_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, ""));
    let (identity, away) = (auth.dir.join("identity"), auth.dir.join("away"));
    std::fs::rename(&identity, &away).unwrap();
    let watched = Watched::start(&config);
    let seen = watched.until_source_is_not_ready(&config, "credentials");
    let main = &seen["pipelines"]["main"];
    assert!(main.is_null() || main["lag_known"] == false, "{main}");
    std::fs::rename(&away, &identity).unwrap();
    watched.until_ready(&config);
    let stderr = watched.host.stop().exits_with(0).stderr;
    let lines = |text: &str| stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("the credentials cannot be used"), 1, "{stderr}");
    assert_eq!(lines("the credentials can be used"), 1, "{stderr}");
}

/// The store names a recording that Teleport does not have.
#[test]
fn a_run_that_ends_without_all_recordings_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let keys = "from = [\"audit\", \"sessions\"]";
    let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, keys));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Options::new(dir.path().join("store"))).unwrap();
        let pending = CursorUpdate {
            key: "session/5c0e".to_owned(),
            value: Some(format!(
                r#"{{"next":0,"uploaded":{},"attempts":0,"not_before":0}}"#,
                i64::MAX / 2
            )),
        };
        let append = Append {
            source: "teleport".into(),
            feed: FeedKind::Sessions,
            read_at: 1,
            events: BlockBuilder::new().take(),
            cursors: vec![pending],
            gaps: Vec::new(),
            duplicates: 0,
        };
        store.append(append).await.unwrap();
        store.close().await.unwrap();
    });
    let ended = start(&config, &["--exit-on-last-event"])
        .ended()
        .exits_with(1);
    let message =
        "Not everything was read from the source `teleport`: 1 recording is still to be downloaded";
    assert!(ended.stderr.contains(message), "{}", ended.stderr);
    assert!(
        !ended.stderr.contains("caught up with Teleport"),
        "{}",
        ended.stderr
    );
    let books = books(&status(&config), "main");
    assert!(books.waiting == 0 && books.delivered >= 100, "{books:?}");

    // A host that goes on shows what is pending, and why.
    let host = start(&config, &[]);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the recording is shown as pending", shown, || {
        let shown = status(&config);
        shown["host"]["sources"]["teleport"]["reader"]["recordings_pending"] == 1
    });
    let text = status_text(&config);
    assert!(
        text.contains("recordings: 0 downloaded, 1 pending, 0 given up"),
        "{text}"
    );
    host.stop().exits_with(0);
}

#[test]
fn credentials_that_have_expired_make_the_source_unready_until_they_are_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, ""));
    let watched = Watched::start(&config);
    watched.until_ready(&config);
    let issue = |expires| {
        let options = AuthOptions {
            out: auth.dir.clone(),
            identity_expires: expires,
            ..AuthOptions::default()
        };
        issue_identity(&options).unwrap();
    };
    // Ahead of time it is a warning. The simulator's certificates are valid for a day.
    issue(Some(SystemTime::now() + Duration::from_secs(2 * 3600)));
    watched
        .host
        .line_with_all(&["the credentials expire at ", "without a restart"]);
    watched.until_ready(&config);
    issue(Some(SystemTime::now() - Duration::from_secs(3600)));
    let seen = watched.until_source_is_not_ready(&config, "credentials");
    let condition = condition(&seen, "credentials").unwrap();
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.starts_with("the credentials expired at "),
        "{message}"
    );
    issue(None);
    watched.until_ready(&config);
    watched.host.stop().exits_with(0);
}

/// Events of types that were skipped are not read again: a report says so, and stays.
#[test]
fn reports_and_filtered_events_are_shown_and_do_not_make_unready_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = LocalReceiver::start(dir.path());
    let config = configuration(dir.path(), &auth, &pipeline("main", &receiver, ""));
    let all = std::fs::read_to_string(&config).unwrap();
    let logins = all.replace("[store]", "types = [\"user.login\"]\n\n[store]");
    std::fs::write(&config, logins).unwrap();
    let watched = Watched::start(&config);
    watched.until_ready(&config);
    let shown = || status(&config).to_string();
    until("all is filtered", shown, || {
        let reader = &status(&config)["host"]["sources"]["teleport"]["reader"];
        let figure = |name: &str| reader[name].as_u64().unwrap_or_default();
        let (read, filtered) = (figure("audit_events"), figure("filtered"));
        read > 0 && filtered > 0 && read + filtered == 1000
    });
    assert!(status_text(&config).contains(" filtered\n"));
    watched.host.stop().exits_with(0);

    std::fs::write(&config, &all).unwrap();
    let watched = Watched::start(&config);
    watched.until_ready(&config);
    let source = status(&config)["host"]["sources"]["teleport"].clone();
    assert_eq!(
        (&source["reports"], &source["ready"]),
        (&1.into(), &true.into()),
        "{source}"
    );
    let text = status_text(&config);
    let line = text
        .lines()
        .find(|line| line.starts_with("  1 report, the last "));
    assert!(
        line.is_some_and(|line| line.contains("now includes every type")),
        "{text}"
    );
    let stderr = watched.host.stop().exits_with(0).stderr;
    assert_eq!(
        stderr.matches("now includes every type").count(),
        1,
        "{stderr}"
    );
}
