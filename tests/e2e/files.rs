//! Sinks that write to files and to standard output.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockgate_tests::{
    Auth, Moments, books, configuration, empty_disk, kill_again_and_again, kill_once_it_delivers,
    kills, lockgate, start_and_finish, start_with_a_full_disk, started, status, until,
};
use serde_json::Value;

const EVENTS: u64 = 3000;

/// A pipeline whose sink writes lines to `url`.
fn pipeline(url: &str, more: &str) -> String {
    format!(
        "[pipelines.main]\nbatch = {{ events = 100 }}\n[pipelines.main.sink]\n\
         plugin = \"builtin:http\"\nwith = {{ format = \"lines\" }}\nurl = \"{url}\"\n{more}\n"
    )
}

fn auth(dir: &Path, events: u64) -> Auth {
    Auth::start(dir, &["--events", &events.to_string()])
}

/// The ids of the events in a text. Each of its lines is a whole document.
fn uids(text: &str) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    let uid = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        event["uid"].as_str().unwrap().to_owned()
    };
    text.lines().map(uid).collect()
}

fn distinct(uids: &[String]) -> u64 {
    uids.iter().collect::<BTreeSet<_>>().len() as u64
}

/// The content of a file, unpacked.
fn text(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let mut text = String::new();
    match path.extension().is_some_and(|it| it == "zst") {
        true => zstd::Decoder::new(file).unwrap().read_to_string(&mut text),
        false => file.read_to_string(&mut text),
    }
    .unwrap();
    text
}

fn conditions(config: &Path) -> String {
    status(config)["pipelines"]["main"]["state"]["conditions"].to_string()
}

#[test]
fn kill_9_while_appending_splits_no_line_and_loses_nothing() {
    let kills = kills(4);
    let events = EVENTS + kills * 2000;
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), events);
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let open = out.join("events.ndjson");
    let url = format!("file://{}", open.display());
    let more = "rotate = { bytes = \"256 KiB\" }\ncompression = \"zstd\"\n\
                rate = { events = \"500/s\" }";
    let config = configuration(dir.path(), &auth, &pipeline(&url, more));
    let mut moments = Moments::new(0x51_7c_c1_b7_27_22_0a_95);
    kill_again_and_again(&config, kills, &mut moments, Duration::from_millis(400));
    // Past the limit of the rate, to see many rotations.
    let text_of_config = fs::read_to_string(&config).unwrap();
    fs::write(&config, text_of_config.replace("500/s", "100000/s")).unwrap();

    // As if the last kill had come in the middle of a line.
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&open)
        .unwrap();
    file.write_all(b"{\"uid\":\"half").unwrap();
    drop(file);
    let host = start_and_finish(&config);
    let line = "the last line was incomplete";
    assert!(host.stderr.contains(line), "{}", host.stderr);

    let entries = fs::read_dir(&out).unwrap();
    let parts: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let whole = parts.iter().filter(|path| {
        // A file that the end of the process left half-compressed.
        path.extension().is_none_or(|it| it != "part")
    });
    let arrived: Vec<String> = whole.flat_map(|path| uids(&text(path))).collect();
    assert_eq!(distinct(&arrived), events, "no event is lost");
    assert!(parts.len() > 3, "{parts:?}");
    let delivered = books(&status(&config), "main").delivered;
    assert_eq!(delivered, events);
}

#[test]
fn standard_output_holds_the_documents_alone() {
    for url in ["-", "file:-"] {
        let dir = tempfile::tempdir().unwrap();
        let auth = auth(dir.path(), 500);
        let config = configuration(dir.path(), &auth, &pipeline(url, ""));
        let ended = start_and_finish(&config);
        let arrived = uids(&ended.stdout);
        assert_eq!((arrived.len(), distinct(&arrived)), (500, 500));
        assert!(ended.stderr.contains("started"), "{}", ended.stderr);
    }
}

#[test]
fn a_missing_directory_is_told_and_made_good_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), EVENTS);
    let missing = dir.path().join("missing");
    let url = format!("file://{}/events.ndjson", missing.display());
    let config = configuration(dir.path(), &auth, &pipeline(&url, ""));
    let run = |command: &str| {
        let output = lockgate()
            .env("SECRET_OF_A_TEST", "missing-and-secret")
            .args([command, "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let (code, checked) = run("check");
    assert!(
        code == Some(0)
            && checked.contains("Nothing can be written: `")
            && checked.contains("/missing` cannot be used"),
        "{checked}"
    );
    let text_of_config = fs::read_to_string(&config).unwrap();
    let secret = text_of_config.replace("/missing/", "/${env:SECRET_OF_A_TEST}/");
    fs::write(&config, secret).unwrap();
    let (_, masked) = run("check");
    assert!(
        masked.contains("/***` cannot be used") && !masked.contains("missing-and-secret"),
        "{masked}"
    );
    fs::write(&config, text_of_config).unwrap();
    let (code, examined) = run("doctor");
    assert!(
        code == Some(1) && examined.contains("/missing` cannot be used"),
        "{examined}"
    );

    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the pipeline says why it is held", shown, || {
        let conditions = conditions(&config);
        conditions.contains("events.ndjson` cannot be opened: No such file")
            && conditions.contains("make the directory")
    });
    assert_eq!(
        status(&config)["pipelines"]["main"]["state"]["ready"],
        false
    );
    fs::create_dir(&missing).unwrap();
    until("it goes on by itself", shown, || {
        books(&status(&config), "main").delivered == EVENTS && conditions(&config) == "[]"
    });
    host.stop().exits_with(0);

    let path = missing.join("events.ndjson");
    let arrived = uids(&text(&path));
    assert_eq!((arrived.len() as u64, distinct(&arrived)), (EVENTS, EVENTS));
    let (code, examined) = run("doctor");
    assert!(
        examined.contains("can be written to"),
        "{code:?} {examined}"
    );

    // The request that carried an event, and the place in the file where it begins.
    let explained = lockgate()
        .args(["explain", &arrived[150], "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    let place = format!("answered 200: in `{}` at byte ", path.display());
    let (_, offset) = explained
        .split_once(&place)
        .unwrap_or_else(|| panic!("{explained}"));
    let digits = offset.find(|char: char| !char.is_ascii_digit()).unwrap();
    let offset: usize = offset[..digits].parse().unwrap();
    let request = &text(&path)[offset..];
    assert!(
        request.starts_with('{')
            && request
                .lines()
                .take(100)
                .any(|it| it.contains(&arrived[150])),
        "{explained}"
    );
}

#[test]
fn a_full_disk_is_told_and_nothing_of_a_request_is_left_behind() {
    /// In units of 512 bytes.
    const LIMIT: u32 = 64 << 11;
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), EVENTS);
    let path = dir.path().join("events.ndjson");
    let url = format!("file://{}", path.display());
    let config = configuration(dir.path(), &auth, &pipeline(&url, ""));
    // Room for a part of a request.
    let before = u64::from(LIMIT) * 512 - 10_000;
    let mut file = File::create(&path).unwrap();
    file.set_len(before - 1).unwrap();
    drop(file);
    file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\n").unwrap();
    let host = start_with_a_full_disk(&config, LIMIT, &[]);
    host.line_with("started");
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the pipeline says why it is held", shown, || {
        conditions(&config).contains("events.ndjson` cannot be written to: File too large")
    });
    assert_eq!(books(&status(&config), "main").delivered, 0);
    empty_disk(&host);
    until("it goes on by itself", shown, || {
        books(&status(&config), "main").delivered == EVENTS && conditions(&config) == "[]"
    });
    host.stop().exits_with(0);
    let mut written = Vec::new();
    File::open(&path)
        .unwrap()
        .read_to_end(&mut written)
        .unwrap();
    let arrived = uids(std::str::from_utf8(&written[before as usize..]).unwrap());
    assert_eq!((arrived.len() as u64, distinct(&arrived)), (EVENTS, EVENTS));
}

#[test]
fn requests_that_are_not_text_are_held_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), 100);
    let path = dir.path().join("events");
    let sink = format!(
        "[pipelines.main.sink]\nplugin = \"builtin:otlp\"\nurl = \"file://{}\"\n",
        path.display()
    );
    let config = configuration(dir.path(), &auth, &sink);
    let host = started(&config);
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("the pipeline says why it is held", shown, || {
        conditions(&config).contains("are not text")
    });
    host.stop().exits_with(0);
    assert!(!path.exists());
}

#[test]
fn a_reload_hands_the_file_to_the_next_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), EVENTS);
    let path = dir.path().join("events.ndjson");
    let url = format!("file://{}", path.display());
    let config = configuration(dir.path(), &auth, &pipeline(&url, "timeout = \"29s\""));
    kill_once_it_delivers(&config);
    let host = started(&config);
    for seconds in 31..34 {
        let text = fs::read_to_string(&config).unwrap();
        let from = text.find("timeout = ").unwrap();
        let to = from + text[from..].find('\n').unwrap();
        let changed = format!("{}timeout = \"{seconds}s\"{}", &text[..from], &text[to..]);
        fs::write(&config, changed).unwrap();
        lockgate_tests::reload(&config).exits_with(0);
    }
    let shown = || format!("{}\n{}", status(&config), host.stderr());
    until("everything is delivered", shown, || {
        books(&status(&config), "main").delivered == EVENTS
    });
    host.stop().exits_with(0);
    let arrived = uids(&text(&path));
    assert_eq!(distinct(&arrived), EVENTS, "no event is lost");
}

#[test]
fn events_become_lines_of_cef() {
    let dir = tempfile::tempdir().unwrap();
    let auth = auth(dir.path(), EVENTS);
    let path = dir.path().join("cef.log");
    let pipeline = format!(
        "[[pipelines.main.stage]]\nplugin = \"builtin:cef\"\n[pipelines.main.sink]\n\
         plugin = \"builtin:http\"\nwith = {{ format = \"lines\", text = \"cef\" }}\n\
         url = \"file://{}\"\n",
        path.display()
    );
    let config = configuration(dir.path(), &auth, &pipeline);
    start_and_finish(&config);
    let text = text(&path);
    assert!(text.ends_with('\n'));
    let id = |line: &str| {
        assert!(
            line.starts_with("CEF:0|Teleport|Teleport|unknown|"),
            "{line}"
        );
        let (_, rest) = line.split_once(" externalId=").unwrap();
        rest.split(' ').next().unwrap().to_owned()
    };
    let ids: BTreeSet<String> = text.lines().map(id).collect();
    let lines = text.lines().count() as u64;
    assert_eq!((lines, ids.len() as u64), (EVENTS, EVENTS));
}
