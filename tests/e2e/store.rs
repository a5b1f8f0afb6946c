use std::fs;

use lockgate_tests::{
    Auth, Receiver, Running, lockgate, quickstart, start, start_and_finish, started,
};

#[test]
fn a_second_start_on_the_same_store_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "100"]);
    let receiver = Receiver::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    let first = started(&config);
    let second = start(&config, &[]).ended().exits_with(1);
    assert!(
        second.stderr.contains(&format!("{}", first.pid())),
        "it names the process that holds the store:\n{}",
        second.stderr
    );
    first.stop().exits_with(0);
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", "3000"]);
    let receiver = Receiver::start(dir.path(), &[]);
    let config = quickstart(dir.path(), &auth, &receiver, "");
    start_and_finish(&config);
    let file = dir.path().join("store/store.db");
    let good = fs::read(&file).unwrap();
    let overwritten = |at: usize| {
        let mut bytes = good.clone();
        bytes[at..at + 64].fill(0x5a);
        bytes
    };
    for (what, bytes) in [
        ("truncated to half", good[..good.len() / 2].to_vec()),
        ("truncated in a page", good[..good.len() - 1000].to_vec()),
        ("overwritten at its head", overwritten(0)),
        ("overwritten in the schema", overwritten(16_384 - 200)),
        (
            "replaced by a text",
            b"not a database, but somebody's notes".to_vec(),
        ),
    ] {
        fs::write(&file, &bytes).unwrap();
        let ended = start(&config, &["--exit-on-last-event"])
            .ended()
            .exits_with(1);
        assert!(
            ended.stderr.contains("error: ") && ended.stderr.contains("damaged"),
            "{what}:\n{}",
            ended.stderr
        );
        assert_eq!(
            fs::read(&file).unwrap(),
            bytes,
            "{what}: the file is as it was"
        );
    }
    fs::write(&file, &good).unwrap();
    start_and_finish(&config);
    assert_eq!(receiver.stop().distinct, 3000);
}

/// A limit on the size of files stands in for a full disk: writes fail below SQLite.
#[test]
fn a_full_disk_makes_the_host_wait_and_loses_no_committed_event() {
    for blocks in [300, 900, 1500] {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(dir.path(), &["--events", "6000"]);
        let receiver = Receiver::start(dir.path(), &[]);
        let config = quickstart(dir.path(), &auth, &receiver, "");
        let limited = format!("ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &limited])
            .arg(lockgate().get_program())
            .args(["start", "--exit-on-last-event", "--config"])
            .arg(&config);
        let host = Running::start("start with a full disk", &mut shell);
        host.line_with("too full");
        host.stop();
        start_and_finish(&config);
        assert_eq!(receiver.stop().distinct, 6000, "with {blocks} blocks");
    }
}
