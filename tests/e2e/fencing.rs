//! Damage, and what it must not stop: a block that cannot be read, and a source that cannot be
//! started.

use std::fs;
use std::path::Path;

use lockgate_store::Inspector;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Books, Ended, Running, books, configuration, lockgate, start, start_and_finish, started,
    status, until,
};

use crate::dlq::{AUDIT, Fixture};

const EVENTS: u64 = 3000;

fn store(config: &Path, arguments: &[&str]) -> Ended {
    let mut command = lockgate();
    command
        .arg("store")
        .args(arguments)
        .arg("--config")
        .arg(config);
    Running::start("store", &mut command).ended()
}

/// Overwrites payloads of the block that holds an entry. Answers its entries.
fn damage(directory: &Path, seq: u64) -> std::ops::Range<u64> {
    let inspector = Inspector::open(directory).unwrap();
    let block = inspector.block_at(AUDIT, seq).unwrap().unwrap();
    let payload = inspector.stored_payload(AUDIT, seq).unwrap().unwrap();
    drop(inspector);
    let file = directory.join("store.db");
    let mut bytes = fs::read(&file).unwrap();
    // A part may lie on two pages, and then it is not there as a whole.
    let mut parts = payload.rchunks_exact(64);
    let place = |part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
    let at = parts.find_map(place).expect("the block is in the file");
    bytes[at..at + 64].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    block.range()
}

fn condition(status: &serde_json::Value, pipeline: &str) -> String {
    let condition = &status["pipelines"][pipeline]["state"]["conditions"][0];
    format!("{} {}", condition["kind"], condition["message"])
}

#[test]
fn a_damaged_block_holds_the_pipelines_that_need_it_and_nobody_else() {
    for seq in [1, 1000, EVENTS] {
        hold_at_a_damaged_block(seq);
    }
}

/// `main` is done with everything. `late` begins at the oldest event, in front of the damage.
fn hold_at_a_damaged_block(seq: u64) {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = LocalReceiver::start(dir.path());
    let sink = |name: &str| {
        format!(
            "[pipelines.{name}.sink]\nplugin = \"builtin:fluentd\"\n{}\n",
            receiver.endpoint(name)
        )
    };
    let config = configuration(dir.path(), &auth, &sink("main"));
    start_and_finish(&config);
    let directory = dir.path().join("store");
    let damaged = damage(&directory, seq);
    let place = format!("block {}..{} of `{AUDIT}`", damaged.start, damaged.end);

    let verified = store(&config, &["verify"]).exits_with(1);
    assert!(verified.stderr.contains(&place), "{}", verified.stderr);
    let config = configuration(dir.path(), &auth, &(sink("main") + &sink("late")));
    let host = start(&config, &[]);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("`late` is before the damage and holds", shown, || {
        let status = status(&config);
        books(&status, "late").delivered == damaged.start - 1
            && condition(&status, "late").contains("store")
    });
    let held = status(&config);
    let late = condition(&held, "late");
    for part in [&place, "`lockgate store repair`"] {
        assert!(late.contains(part), "{late}");
    }
    assert_eq!(held["pipelines"]["late"]["balanced"], true, "{held}");
    let main = &held["pipelines"]["main"]["state"];
    assert_eq!(
        (&main["state"], &main["ready"]),
        (&"running".into(), &true.into()),
        "{held}"
    );
    let refused = store(&config, &["repair", "--write-off"]).exits_with(1);
    assert!(
        refused.stderr.contains("stop the host first"),
        "{}",
        refused.stderr
    );
    let ended = host.stop().exits_with(0);
    let logged = ended.stderr.matches("This pipeline holds there").count();
    assert_eq!(logged, 1, "{}", ended.stderr);

    // The first block is restored, the others are given up: nothing says where to read them.
    if seq == 1 {
        let repaired = store(&config, &["repair"]).exits_with(0);
        let line = format!(
            "Entries 1 to {} of `{AUDIT}`: restored from Teleport.\n",
            damaged.end - 1
        );
        assert_eq!(repaired.stdout, line, "{}", repaired.stderr);
        store(&config, &["verify"]).exits_with(0);
        start_and_finish(&config);
        assert_eq!(books(&status(&config), "late").delivered, EVENTS);
        return;
    }
    let mut repair = lockgate();
    repair.args(["store", "repair", "--store"]).arg(&directory);
    let left = Running::start("repair", &mut repair).ended().exits_with(1);
    assert!(
        left.stderr.contains("1 of 1 damaged blocks"),
        "{}",
        left.stderr
    );
    let repaired = Running::start("repair", repair.arg("--write-off"));
    let repaired = repaired.ended().exits_with(0);
    let lost = damaged.end - damaged.start;
    let line = format!(
        "Entries {} to {} of `{AUDIT}`: {lost} dead letters.\n",
        damaged.start,
        damaged.end - 1
    );
    assert_eq!(repaired.stdout, line);
    start_and_finish(&config);
    let books_of = |pipeline| books(&status(&config), pipeline);
    assert_eq!(
        books_of("late"),
        Books {
            read: EVENTS,
            delivered: EVENTS - lost,
            dropped: 0,
            dead: lost,
            waiting: 0,
        }
    );
    assert_eq!(books_of("main").delivered, EVENTS);
}

/// Polling compares what it reads again with what it has: here it cannot know what the newest block
/// had.
#[test]
fn a_polling_reader_goes_on_although_the_newest_block_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000", "--backend", "search"]);
    let receiver = LocalReceiver::start(dir.path());
    let sink = "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n".to_owned();
    let config = configuration(dir.path(), &auth, &(sink + &receiver.endpoint("main")));
    start_and_finish(&config);
    damage(&dir.path().join("store"), 1000);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("everything is read and delivered", shown, || {
        let status = status(&config);
        let state = &status["host"]["sources"]["teleport"]["state"];
        let is_caught_up = state
            .as_str()
            .is_some_and(|state| state.contains("caught up"));
        is_caught_up && books(&status, "main").waiting == 0
    });
    let status = status(&config);
    let figures = books(&status, "main");
    // Those of the damaged block may be read, and delivered, once more.
    assert!(
        figures.read >= 1000 && figures.delivered == figures.read,
        "{status}"
    );
    host.stop().exits_with(0);
}

/// The fixture's letter of entry 3 waits again and is not what was written; new events come.
#[test]
fn a_damaged_dead_letter_holds_only_what_waits_again() {
    let fixture = Fixture::new();
    let auth = Auth::start(fixture.dir.path(), &["--events", "300"]);
    let receiver = LocalReceiver::start(fixture.dir.path());
    let sink = "[pipelines.siem.sink]\nplugin = \"builtin:fluentd\"\n".to_owned();
    let config = configuration(
        fixture.dir.path(),
        &auth,
        &(sink + &receiver.endpoint("siem")),
    );
    let mut retry = lockgate();
    retry.args(["dlq", "retry", "siem/teleport/audit/3", "--store"]);
    let retried = Running::start("retry", retry.arg(fixture.store()));
    retried.ended().exits_with(0);
    let file = fixture.store().join("store.db");
    let mut bytes = fs::read(&file).unwrap();
    let letter = br#"{"uid":"k3","ei":3.50}"#;
    let mut places = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(letter));
    let at = places.next().expect("the letter is in the file");
    drop(places);
    bytes[at + 9] = b'x';
    fs::write(&file, bytes).unwrap();
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the new events are delivered", shown, || {
        let status = status(&config);
        books(&status, "siem").delivered == 307 && condition(&status, "siem").contains("store")
    });
    let shown = condition(&status(&config), "siem");
    assert!(shown.contains("the dead letter of entry 3"), "{shown}");
    host.stop().exits_with(0);
}

#[test]
fn a_store_is_verified_and_copied_while_its_host_runs() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "1000"]);
    let receiver = LocalReceiver::start(dir.path());
    let sink = "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n".to_owned();
    let config = configuration(dir.path(), &auth, &(sink + &receiver.endpoint("main")));
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("everything is delivered", shown, || {
        books(&status(&config), "main").delivered == 1000
    });
    let sound = store(&config, &["verify"]).exits_with(0).stdout;
    assert!(sound.starts_with("The store is sound: "), "{sound}");
    assert!(sound.contains("with 1000 events"), "{sound}");
    let file = dir.path().join("backup.db");
    let backup = ["backup", file.to_str().unwrap()];
    let copied = store(&config, &backup).exits_with(0).stdout;
    assert!(copied.contains("is a sound copy of the store"), "{copied}");
    let again = store(&config, &backup).exits_with(1).stderr;
    assert!(again.contains("never overwrites"), "{again}");
    host.stop().exits_with(0);
    // As `--help` says.
    let restored = dir.path().join("restored");
    fs::create_dir(&restored).unwrap();
    fs::rename(&file, restored.join("store.db")).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/store\"", "/restored\"")).unwrap();
    assert_eq!(books(&status(&config), "main").delivered, 1000);
    start_and_finish(&config);
    assert_eq!(books(&status(&config), "main").delivered, 1000);
}

#[test]
fn a_source_that_cannot_be_read_does_not_end_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "500"]);
    let receiver = LocalReceiver::start(dir.path());
    let sink = "[pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n".to_owned();
    let config = configuration(dir.path(), &auth, &(sink + &receiver.endpoint("main")));
    start_and_finish(&config);
    let other = dir.path().join("other");
    let more = Auth::start(&other, &["--events", "300"]);
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("2026-01-01", "2025-12-01").replace(
        "[store]",
        &format!(
            "[sources.other]\naddr = \"{}\"\nidentity = \"{}/identity\"\n\
             start-time = \"2026-01-01T00:00:00Z\"\n\n[store]",
            more.addr,
            more.dir.display()
        ),
    );
    let text = text.replace(
        "[pipelines.main.sink]",
        "[pipelines.main]\nfrom = [\"teleport/audit\", \"other/audit\"]\n[pipelines.main.sink]",
    );
    fs::write(&config, text).unwrap();
    let host = start(&config, &[]);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until(
        "the events of the other source are delivered",
        shown,
        || {
            let status = status(&config);
            books(&status, "main").delivered == 800
                && status["host"]["sources"]["teleport"]["state"] == "failed"
        },
    );
    let sources = status(&config)["host"]["sources"].clone();
    let message = sources["teleport"]["conditions"][0]["message"].to_string();
    assert!(
        message.contains("`start-time` cannot be changed"),
        "{message}"
    );
    host.stop().exits_with(0);
}
