//! A stretch of Teleport's log that cannot be read: what an operator sees of it, and what is
//! delivered.

use std::fs;
use std::path::Path;

use lockgate_sim::auth::{AuthOptions, Backend, Code, Faults};
use lockgate_sim::generate::GeneratorOptions;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    LocalAuth, Running, admin_address, books, get, lockgate, started, status, until,
};
use rusqlite::Connection;
use serde_json::Value;

const EVENTS: u64 = 3000;
/// The events that cannot be read, by their positions.
const UNREADABLE: std::ops::Range<u64> = 1000..1100;

/// What a command says.
fn said(config: &Path, arguments: &[&str]) -> String {
    let mut command = lockgate();
    command.args(arguments).arg("--config").arg(config);
    let ended = Running::start(arguments[0], &mut command).ended();
    ended.exits_with(0).stdout
}

fn gap(config: &Path, source: &str) -> Option<Value> {
    let status = status(config);
    let mut gaps = status["gaps"].as_array().into_iter().flatten();
    gaps.find(|gap| gap["source"] == source).cloned()
}

fn metric(address: &str, name: &str, source: &str) -> Option<f64> {
    let series = format!("{name}{{source=\"{source}\"}} ");
    let answer = get(address, "/metrics");
    let value = answer
        .lines()
        .find_map(|line| line.strip_prefix(&series).map(str::to_owned))?;
    value.parse().ok()
}

/// A source and a pipeline of the same name.
fn text(name: &str, auth: &LocalAuth, receiver: &LocalReceiver) -> String {
    format!(
        "[sources.{name}]\naddr = \"{}\"\nidentity = \"{}\"\n\
         start-time = \"2026-01-01T00:00:00Z\"\ngap-after = \"1s\"\n\
         [pipelines.{name}]\nfrom = [\"{name}/audit\"]\n\
         [pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
        auth.addr,
        auth.dir.join("identity").display(),
        receiver.endpoint(name)
    )
}

/// Both ways of reading at once: a gap is tried again after a minute.
#[test]
fn what_teleport_does_not_return_is_on_the_books_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let auth = |name: &str, backend| {
        let options = AuthOptions {
            events: GeneratorOptions {
                events: EVENTS,
                ..GeneratorOptions::default()
            },
            backend,
            ..AuthOptions::default()
        };
        fs::create_dir_all(dir.join(name)).unwrap();
        LocalAuth::start(&dir.join(name), options)
    };
    let sources = [
        ("polled", auth("polled", Backend::Search)),
        ("exported", auth("exported", Backend::Export)),
    ];
    for (_, auth) in &sources {
        auth.set_faults(Faults {
            unreadable: Some((auth.time(UNREADABLE.start), auth.time(UNREADABLE.end) - 1)),
            ..Faults::default()
        });
    }
    let receivers = sources.each_ref().map(|(name, _)| {
        fs::create_dir_all(dir.join("receivers").join(name)).unwrap();
        LocalReceiver::start(&dir.join("receivers").join(name))
    });
    let config = dir.join("lockgate.toml");
    let mut configuration = format!(
        "[store]\npath = \"{}/store\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        dir.display()
    );
    for ((name, auth), receiver) in sources.iter().zip(&receivers) {
        configuration += &text(name, auth, receiver);
    }
    fs::write(&config, configuration).unwrap();
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    for (name, _) in &sources {
        until("the gap is on the books", shown, || {
            gap(&config, name).is_some_and(|gap| gap["state"] == "open")
        });
    }

    // Polling narrows the gap down to the millisecond. Of a chunk, it is the rest, by its day.
    let (polled, exported) = (gap(&config, "polled"), gap(&config, "exported"));
    let (polled, exported) = (polled.unwrap(), exported.unwrap());
    let auth = &sources[0].1;
    assert_eq!(
        (
            polled["from"].as_i64().unwrap(),
            polled["to"].as_i64().unwrap()
        ),
        (auth.time(UNREADABLE.start), auth.time(UNREADABLE.end) - 1)
    );
    assert!(
        exported["what"]
            .as_str()
            .unwrap()
            .contains("the rest of the chunk"),
        "{exported}"
    );
    let read = EVENTS - (UNREADABLE.end - UNREADABLE.start);
    until("everything else is delivered", shown, || {
        books(&status(&config), "polled").delivered == read
    });
    until("what comes before it is delivered", shown, || {
        books(&status(&config), "exported").delivered >= UNREADABLE.start
    });
    let address = admin_address(&host);
    for (name, _) in &sources {
        for arguments in [&["status"][..], &["audit"]] {
            let said = said(&config, arguments);
            assert!(
                said.contains(name) && said.contains("gap") && said.contains("on purpose"),
                "{said}"
            );
        }
        let open = |open: f64| metric(&address, "lockgate_source_gaps_open", name) == Some(open);
        until("the metrics show it", shown, || open(1.0));
        assert!(metric(&address, "lockgate_source_gap_seconds", name).unwrap() > 0.0);
    }
    assert!(
        said(&config, &["status"]).contains("a part of Teleport's log could not be read"),
        "it does not say that all is well"
    );
    let stderr = host.stderr();
    let reports = stderr
        .lines()
        .filter(|line| line.contains("Teleport does not return"));
    assert_eq!(reports.count(), sources.len(), "{stderr}");

    let report = dir.join("report.json").display().to_string();
    said(&config, &["audit", "--export", &report]);

    for (_, auth) in &sources {
        auth.set_faults(Faults::default());
    }
    for (name, _) in &sources {
        until("all of it is delivered", shown, || {
            books(&status(&config), name).delivered == EVENTS
        });
        until("the gap is closed", shown, || {
            gap(&config, name).is_some_and(|gap| gap["state"] == "read")
        });
        let closed = gap(&config, name).unwrap();
        assert!(
            closed["ended_at"].as_i64() >= closed["since"].as_i64(),
            "{closed}"
        );
        assert!(
            closed["events"].as_u64().unwrap() >= UNREADABLE.end - UNREADABLE.start,
            "{closed}"
        );
        until("the metrics show that it is closed", shown, || {
            metric(&address, "lockgate_source_gaps_open", name) == Some(0.0)
        });
    }
    let stderr = host.stderr();
    let closed = stderr.lines().filter(|line| line.contains("closed a gap"));
    assert_eq!(closed.count(), sources.len(), "{stderr}");
    let audited = said(&config, &["audit"]);
    assert!(!audited.contains("could not be read"), "{audited}");
    host.stop().exits_with(0);
    let verified = said(&config, &["audit", "--verify", &report]);
    assert!(
        verified.contains("gaps that agree with the report: 2\n"),
        "{verified}"
    );
    // Somebody hides that events were missing.
    let database = Connection::open(dir.join("store/store.db")).unwrap();
    let removed = database.execute("DELETE FROM gaps WHERE source = 'polled'", []);
    assert_eq!(removed, Ok(1));
    database.close().unwrap();
    let mut verify = lockgate();
    verify.args(["audit", "--verify", &report, "--config"]);
    let found = Running::start("audit", verify.arg(&config)).ended();
    let found = found.exits_with(1).stdout;
    let line = found
        .lines()
        .find(|line| line.starts_with("differs from the report: stream `polled/audit`, day 20"));
    assert!(
        line.is_some_and(|line| line.ends_with("the report has it, and the store does not")),
        "{found}"
    );
    for receiver in receivers {
        let totals = receiver.stop();
        assert_eq!(
            (totals.distinct, totals.duplicates),
            (EVENTS, 0),
            "{totals:?}"
        );
    }
}

/// Teleport limits how many recordings it sends, and each that it refused was a line of the log.
#[test]
fn many_recordings_that_cannot_be_read_are_one_line_and_one_condition() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let options = AuthOptions {
        events: GeneratorOptions {
            events: EVENTS,
            ..GeneratorOptions::default()
        },
        ..AuthOptions::default()
    };
    let auth = LocalAuth::start(dir, options);
    auth.set_faults(Faults {
        recordings: Some(Code::ResourceExhausted),
        ..Faults::default()
    });
    let receiver = LocalReceiver::start(dir);
    let config = dir.join("lockgate.toml");
    let text = format!(
        "[store]\npath = \"{}/store\"\n{}",
        dir.display(),
        text("main", &auth, &receiver)
    );
    let streams = "[\"main/audit\", \"main/sessions\"]";
    let text = text.replace("[\"main/audit\"]", streams);
    fs::write(&config, text).unwrap();
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    let source = || status(&config)["host"]["sources"]["main"].clone();
    // All of them are announced in the log that is read meanwhile.
    until("every recording was refused", shown, || {
        let source = source();
        let (reader, conditions) = (&source["reader"], source["conditions"].to_string());
        let count = reader["recordings_failing"].as_u64().unwrap_or_default();
        source["state"]
            .as_str()
            .is_some_and(|state| state.starts_with("caught up"))
            && count > 20
            && reader["recordings_pending"] == count
            && conditions.contains(&format!("{count} recordings cannot be read"))
    });
    let lines = |stderr: &str, text: &str| {
        let lines = stderr.lines().filter(|line| line.contains(text));
        lines.count()
    };
    let stderr = host.stderr();
    assert_eq!(lines(&stderr, "the recording of session"), 1, "{stderr}");

    auth.set_faults(Faults::default());
    until("every recording is read", shown, || {
        let reader = source()["reader"].clone();
        reader["recordings_pending"] == 0 && reader["recordings_failing"] == 0
    });
    let stderr = host.stderr();
    assert_eq!(lines(&stderr, "the recording of session"), 1, "{stderr}");
    assert_eq!(lines(&stderr, "no recording fails any more"), 1, "{stderr}");
    host.stop().exits_with(0);
}
