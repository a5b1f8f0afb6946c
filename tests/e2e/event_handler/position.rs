//! Where reading goes on in place of the Event Handler: positions that are damaged, lost or taken
//! over already, and what `check`, `doctor` and `import` say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lockgate_sim::generate::CHUNK;
use serde_json::Value;

use super::{EVENTS, START, Site, log, time};

/// The state of an export on a cluster that has none any more. Nothing was read.
#[test]
fn the_state_of_an_export_is_polled_from_where_there_is_no_export() {
    let events = CHUNK * 3;
    let log = log(events);
    let day = lockgate_model::Day::of(log.time(CHUNK)).to_string();
    let completed = format!("cursor_v2/{day}/completed-chunks");
    let export: [(&str, &[u8]); 2] = [
        ("start_time", b"2026-01-01T00:00:00Z"),
        (&completed, b"a chunk of another backend\n"),
    ];
    let last = CHUNK + 2_000;
    let window = format!("{day}T00:00:00Z");
    let id = log.uid(last);
    let polled = [("window_time", window.as_bytes()), ("id", id.as_bytes())];
    for has_polled in [false, true] {
        let site = Site::new(events, "search");
        site.example("types = \"user.login\"");
        site.write_state(&export);
        let mut from = 0;
        if has_polled {
            site.write_state(&polled);
            from = log.time(last);
        }
        let start = ["start", "--config", "teleport-event-handler.toml"];
        let start = [&start[..], &["--exit-on-last-event"]].concat();
        let ended = site.run(&start).exits_with(0);
        assert!(
            ended
                .stderr
                .contains("does not offer bulk export: reading goes on by polling"),
            "{}",
            ended.stderr
        );
        let logins = log.json_lines(events).enumerate().filter(|(at, line)| {
            let event: Value = serde_json::from_str(line).unwrap();
            let at = *at as u64;
            let is_left = at != last || !has_polled;
            event["event"] == "user.login" && log.time(at) >= from && is_left
        });
        let expected: BTreeSet<String> = logins.map(|(at, _)| log.uid(at as u64)).collect();
        assert_eq!(site.captured_uids(), expected);
        let again = site.run(&start).exits_with(0);
        assert!(!again.stderr.contains("bulk export"), "{}", again.stderr);
        assert_eq!(
            site.receiver.stop().documents,
            expected.len() as u64,
            "none twice"
        );
    }
}

/// A cursor that was written in part, and a date whose directory is gone. The rest of the chunk was
/// a gap, and the date was left out.
#[test]
fn lost_positions_of_an_export_are_read_from_the_start() {
    let events = CHUNK * 3;
    let site = Site::new(events, "export");
    let log = log(events);
    let day = lockgate_model::Day::of(log.time(0));
    assert_eq!(day, lockgate_model::Day::of(log.time(events - 1)));
    site.example("types = \"user.login\"");
    let completed = |day: i32| {
        let day = lockgate_model::Day(day).to_string();
        format!("cursor_v2/{day}/completed-chunks")
    };
    let half = format!("cursor_v2/{day}/{}.chunk", log.chunk_id(1));
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        (&completed(day.0), log.chunk_id(0).as_bytes()),
        (&half, b"a1:"),
    ]);
    let start = ["start", "--config", "teleport-event-handler.toml"];
    let start = [&start[..], &["--exit-on-last-event"]].concat();
    let ended = site.run(&start).exits_with(0);
    for part in [&log.chunk_id(1), "read from its start", "sent twice"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let logins = |from: u64| {
        let lines = log.json_lines(events).enumerate().skip(from as usize);
        let logins = lines.filter(|(_, line)| line.contains("\"event\":\"user.login\""));
        let uids = logins.map(|(at, _)| log.uid(at as u64));
        uids.collect::<BTreeSet<String>>()
    };
    assert_eq!(site.captured_uids(), logins(CHUNK));
    site.receiver.stop();

    // All events are of a date that has no directory.
    let site = Site::new(events, "export");
    site.example("types = \"user.login\"");
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        (&completed(day.0 - 1), b""),
        (&completed(day.0 + 1), b""),
    ]);
    let ended = site.run(&start).exits_with(0);
    let told = format!("no state of {day}, read from the start");
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    assert_eq!(site.captured_uids(), logins(0));
}

/// All files below a directory, with their content.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut tree = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => {
                    waiting.push(path.clone());
                    tree.insert(path, None);
                }
                false => _ = tree.insert(path.clone(), Some(fs::read(path).unwrap())),
            }
        }
    }
    tree
}

/// `doctor` found no problem.
#[test]
fn check_and_doctor_find_what_keeps_a_start_from_the_position() {
    let site = Site::new(100, "search");
    site.example("");
    let config = ["--config", "teleport-event-handler.toml"];
    let began: (&str, &[u8]) = ("start_time", b"2026-01-01T00:00:00Z");
    for (state, part) in [
        (
            vec![began, ("window_time", b"2026-01-0".as_slice())],
            "window_time` holds no time",
        ),
        (vec![("id", b"e1".as_slice())], "start_time` holds no time"),
    ] {
        site.write_state(&state);
        site.run(&[&["start"], &config[..]].concat()).exits_with(1);
        let _ = fs::remove_dir_all(site.state().join("lockgate"));
        let before = tree(&site.path("storage"));
        let check = site.run(&[&["check"], &config[..]].concat()).exits_with(2);
        assert!(check.stderr.contains(part), "{}", check.stderr);
        let doctor = site.run(&[&["doctor"], &config[..]].concat()).exits_with(1);
        assert!(doctor.stdout.contains(part), "{}", doctor.stdout);
        assert!(
            doctor.stdout.contains("fix: Restore the file"),
            "{}",
            doctor.stdout
        );
        assert_eq!(tree(&site.path("storage")), before, "nothing is changed");
        fs::remove_dir_all(site.path("storage")).unwrap();
    }

    // A position that can be taken over, and one of an export that this cluster does not have.
    let date = "cursor_v2/2026-01-05/completed-chunks";
    for (file, parts) in [
        (
            "id",
            &["goes on where Teleport's Event Handler stopped: after the event"][..],
        ),
        (
            date,
            &[
                "warning  position",
                "polls from 2026-01-05T00:00:00Z",
                "sent twice",
            ],
        ),
    ] {
        site.write_state(&[began, (file, b"e1")]);
        let before = tree(&site.path("storage"));
        let doctor = site.run(&[&["doctor"], &config[..]].concat()).exits_with(0);
        for part in parts {
            assert!(doctor.stdout.contains(part), "{part}: {}", doctor.stdout);
        }
        assert_eq!(tree(&site.path("storage")), before, "nothing is changed");
    }

    // A dry run has no store before it starts.
    site.example("dry-run = true");
    fs::remove_dir_all(site.path("storage")).unwrap();
    for command in ["check", "doctor"] {
        site.run(&[&[command], &config[..]].concat()).exits_with(0);
        assert!(!site.path("storage").exists(), "{command}");
    }
}

/// They asked for `lockgate.toml`.
#[test]
fn check_doctor_and_status_see_a_configuration_of_variables_alone() {
    let site = Site::new(100, "search");
    let host = site.host();
    let run = |arguments: &[&str]| {
        site.run_with(arguments, |command| {
            command
                .env("FDFWD_STORAGE", "storage")
                .env("FDFWD_FLUENTD_URL", format!("https://{host}/events.log"))
                .env(
                    "FDFWD_FLUENTD_SESSION_URL",
                    format!("https://{host}/session"),
                )
                .env("FDFWD_FLUENTD_CA", "receiver/ca.crt")
                .env("FDFWD_FLUENTD_CERT", "receiver/client.crt")
                .env("FDFWD_FLUENTD_KEY", "receiver/client.key")
                .env("FDFWD_TELEPORT_ADDR", &site.auth.addr)
                .env("FDFWD_TELEPORT_IDENTITY", "auth/identity")
                .env("FDFWD_START_TIME", "2026-01-01T00:00:00Z");
        })
    };
    let check = run(&["check"]).exits_with(0);
    assert!(
        check.stdout.contains("[pipelines.audit.sink]"),
        "{}",
        check.stdout
    );
    let doctor = run(&["doctor"]).exits_with(0);
    assert!(doctor.stdout.contains("0 problems"), "{}", doctor.stdout);
    run(&["start", "--exit-on-last-event"]).exits_with(0);
    let status = run(&["status"]).exits_with(0);
    assert!(status.stdout.contains("audit"), "{}", status.stdout);
    run(&["dlq", "list"]).exits_with(0);
}

/// It said that there was no position.
#[test]
fn import_onto_a_store_that_has_begun_keeps_its_position() {
    let site = Site::new(100, "search");
    let file = site.example(START);
    let start = ["start", "--config", file.to_str().unwrap()];
    site.run(&[&start[..], &["--exit-on-last-event"]].concat())
        .exits_with(0);
    let sent = site.captured().len();
    let imported = site.run(&["import"]).exits_with(0);
    let said = "The store has a position already, which was kept.";
    assert!(imported.stdout.contains(said), "{}", imported.stdout);
    site.run(&["start", "--exit-on-last-event"]).exits_with(0);
    assert_eq!(site.captured().len(), sent, "none twice");
}

/// They were announced, and nothing said that they are not sent.
#[test]
fn recordings_that_wait_are_not_announced_if_none_are_read() {
    let site = Site::new(100, "search");
    site.example("skip-event-types = [\"session.upload\"]");
    site.write_state(&[
        ("start_time", b"2026-01-01T00:00:00Z"),
        ("session5a1d1c0e-0000-4000-8000-000000000001", b""),
    ]);
    let start = ["start", "--config", "teleport-event-handler.toml"];
    let ended = site.run(&[&start[..], &["--exit-on-last-event"]].concat());
    let said = "1 recording not sent to the end, kept until `session.upload` is read";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert!(!ended.stderr.contains("to send"), "{}", ended.stderr);
}

/// Without them, `start-time` differed from where the Event Handler had stopped, and reading ended.
#[test]
fn the_event_handlers_files_do_not_matter_once_their_position_is_taken_over() {
    let site = Site::new(EVENTS, "search");
    let log = log(EVENTS);
    let types = format!("types = \"user.login\"\n{START}");
    site.example(&types);
    let (last, window) = (log.uid(2_000), time(log.time(0)));
    let files = ["start_time", "window_time", "id"];
    let content = ["2026-01-01T00:00:00Z", &window, &last];
    let state: Vec<_> = files
        .iter()
        .copied()
        .zip(content.map(str::as_bytes))
        .collect();
    site.write_state(&state);
    let start = ["start", "--config", "teleport-event-handler.toml"];
    let start = [&start[..], &["--exit-on-last-event"]].concat();
    site.run(&start).exits_with(0);
    let sent = site.captured().len();
    assert!(sent > 0);

    site.write_state(&[("window_time", b"2026-01-0")]);
    site.run(&start).exits_with(0);
    for file in files {
        fs::remove_file(site.state().join(file)).unwrap();
    }
    let ended = site.run(&start).exits_with(0);
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
    assert_eq!(site.captured().len(), sent, "none twice");
    // As before, another time is refused.
    site.example(&types.replace("2026-01-01", "2026-01-02"));
    let ended = site.run(&start).exits_with(2);
    let refused = "The start time cannot be changed";
    assert!(ended.stderr.contains(refused), "{}", ended.stderr);
    site.receiver.stop();
}

/// As the message says: it begins again where the Event Handler stopped, or, without the Event
/// Handler's files, at `start-time`. The first needs no `start-time`, and the second was refused.
#[test]
fn a_damaged_store_is_replaced_as_the_message_says_and_nothing_is_missed() {
    let site = Site::new(EVENTS, "search");
    let log = log(EVENTS);
    let types = "types = \"user.login\"";
    site.example(types);
    let (last, window) = (log.uid(2_000), time(log.time(0)));
    let files = [
        ("start_time", "2026-01-01T00:00:00Z"),
        ("window_time", &*window),
        ("id", &*last),
    ];
    site.write_state(&files.map(|(name, text)| (name, text.as_bytes())));
    let start = ["start", "--config", "teleport-event-handler.toml"];
    let start = [&start[..], &["--exit-on-last-event"]].concat();
    site.run(&start).exits_with(0);
    let first = site.captured_uids();

    let store = site.state().join("lockgate/store.db");
    fs::write(&store, "not a store").unwrap();
    let ended = site.run(&start).exits_with(1);
    for part in [
        "is damaged",
        "leave `start-time` as it is",
        "move its files aside, too",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let remove = || {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", store.display()));
        }
    };
    remove();
    site.run(&start).exits_with(0);
    let sent = site.captured();
    assert_eq!(
        (site.captured_uids(), sent.len()),
        (first.clone(), 2 * first.len())
    );

    remove();
    for (file, _) in files {
        fs::remove_file(site.state().join(file)).unwrap();
    }
    let from = log.time(2_500) - log.time(2_500) % 1000;
    site.example(&format!("{types}\nstart-time = \"{}\"", time(from)));
    site.run(&start).exits_with(0);
    let logins = log.json_lines(EVENTS).enumerate();
    let logins = logins.filter(|(at, line)| {
        log.time(*at as u64) >= from && line.contains("\"event\":\"user.login\"")
    });
    let expected: BTreeSet<String> = logins.map(|(at, _)| log.uid(at as u64)).collect();
    let again = site.captured().split_off(sent.len());
    let again = again.iter().filter_map(|it| it["uid"].as_str());
    assert_eq!(again.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    site.receiver.stop();
}
