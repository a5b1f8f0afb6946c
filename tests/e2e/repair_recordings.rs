//! `lockgate store repair` of damaged session recordings: Teleport still has them.

use std::path::Path;

use lockgate_sim::auth::{Code, Faults};
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{Ended, LocalAuth, Running, books, lockgate, start_and_finish, status};
use rusqlite::Connection;

const STREAM: &str = "teleport/sessions";

fn store(config: &Path, arguments: &[&str]) -> Ended {
    let mut command = lockgate();
    command.arg("store").args(arguments);
    Running::start("store", command.arg("--config").arg(config)).ended()
}

/// A store with the recordings of this log, all of them delivered by `main`.
struct Recorded {
    dir: tempfile::TempDir,
    auth: LocalAuth,
    receiver: LocalReceiver,
    config: std::path::PathBuf,
    /// The first sequence of each block, and how many events it has.
    blocks: Vec<(u64, u64)>,
}

impl Recorded {
    fn new(events: u64) -> Recorded {
        let dir = tempfile::tempdir().unwrap();
        let mut options = lockgate_sim::auth::AuthOptions::default();
        options.events.events = events;
        let auth = LocalAuth::start(&dir.path().join("auth"), options);
        let receiver = LocalReceiver::start(dir.path());
        let mut recorded = Recorded {
            config: dir.path().join("lockgate.toml"),
            dir,
            auth,
            receiver,
            blocks: Vec::new(),
        };
        recorded.configure(&["main"]);
        start_and_finish(&recorded.config);
        let sql = "SELECT first_seq, count FROM blocks WHERE stream_id = \
                   (SELECT id FROM streams WHERE name = 'teleport/sessions') ORDER BY 1";
        let database = recorded.database();
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        recorded.blocks = rows.unwrap().map(Result::unwrap).collect();
        drop(statement);
        drop(database);
        recorded
    }

    fn configure(&self, pipelines: &[&str]) {
        let pipelines = pipelines
            .iter()
            .map(|name| crate::truth::pipeline(name, &self.receiver, "from = [\"sessions\"]"));
        let text = format!(
            "[teleport]\naddr = \"{}\"\nidentity = \"{}/identity\"\n\
             start-time = \"2026-01-01T00:00:00Z\"\n[store]\npath = \"{}/store\"\n\
             [admin]\nlisten = \"\"\n",
            self.auth.addr,
            self.auth.dir.display(),
            self.dir.path().display()
        );
        std::fs::write(&self.config, text + &pipelines.collect::<String>()).unwrap();
    }

    fn database(&self) -> Connection {
        Connection::open(self.dir.path().join("store/store.db")).unwrap()
    }

    /// Changes the block at `nth` by statements in which `FIRST` is its first sequence.
    fn damage(&self, nth: usize, statements: &str) -> String {
        let (first, count) = self.blocks[nth];
        let statements = statements
            .replace(
                "STREAM",
                "(SELECT id FROM streams WHERE name = 'teleport/sessions')",
            )
            .replace("FIRST", &first.to_string());
        let database = self.database();
        database.execute_batch(&statements).unwrap();
        assert!(database.changes() > 0, "{statements}");
        format!("Entries {first} to {} of `{STREAM}`", first + count - 1)
    }
}

const PAYLOADS: &str = "UPDATE blocks SET payload = zeroblob(length(payload)) \
                        WHERE stream_id = STREAM AND first_seq = FIRST;";
const HEADS: &str = "UPDATE blocks SET heads = zeroblob(length(heads)) \
                     WHERE stream_id = STREAM AND first_seq = FIRST;";
const ROW: &str = "DELETE FROM blocks WHERE stream_id = STREAM AND first_seq = FIRST;";
const FILTER: &str = "DELETE FROM block_filters WHERE stream_id = STREAM AND first_seq = FIRST;";

#[test]
fn damaged_recordings_are_read_from_teleport_again() {
    let recorded = Recorded::new(1500);
    let blocks = recorded.blocks.len();
    assert!(blocks > 6, "{:?}", recorded.blocks);
    let places = [
        recorded.damage(0, PAYLOADS),
        recorded.damage(2, HEADS),
        recorded.damage(4, ROW),
        recorded.damage(blocks - 1, PAYLOADS),
    ];
    let config = &recorded.config;
    store(config, &["verify"]).exits_with(1);
    let opened = recorded.auth.opened_recordings();
    let repaired = store(config, &["repair"]).exits_with(0);
    let lines: String = places
        .iter()
        .map(|place| format!("{place}: restored from Teleport.\n"))
        .collect();
    assert_eq!(repaired.stdout, lines, "{}", repaired.stderr);
    // Each recording that is opened is an event in Teleport's log.
    assert_eq!(recorded.auth.opened_recordings() - opened, 4);
    store(config, &["verify"]).exits_with(0);
    recorded.configure(&["main", "late"]);
    start_and_finish(config);
    let seen = status(config);
    let late = books(&seen, "late");
    let events: u64 = recorded.blocks.iter().map(|(_, count)| count).sum();
    assert_eq!((late.delivered, late.waiting), (events, 0), "{seen}");
}

/// Nothing says whose events they had, so recordings are tried. Each that is opened is an event in
/// Teleport's log; the same one was opened for block after block, and the log was read for each.
#[test]
fn neighbouring_blocks_are_restored_and_each_recording_is_read_once() {
    let recorded = Recorded::new(150);
    let recordings = recorded.auth.opened_recordings();
    let blocks = recorded.blocks.len();
    assert!((6..=16).contains(&blocks), "{:?}", recorded.blocks);
    // When they were read lies between the times of the first and of the last.
    let places: Vec<String> = (1..blocks - 1)
        .map(|nth| recorded.damage(nth, &format!("{ROW} {FILTER}")))
        .collect();
    let config = &recorded.config;
    let repaired = store(config, &["repair"]).exits_with(0);
    let lines: String = places
        .iter()
        .map(|place| format!("{place}: restored from Teleport.\n"))
        .collect();
    assert_eq!(repaired.stdout, lines, "{}", repaired.stderr);
    let opened = recorded.auth.opened_recordings() - recordings;
    assert!(opened <= recordings, "{opened} {}", repaired.stderr);
    store(config, &["verify"]).exits_with(0);
}

#[test]
fn recordings_that_cannot_be_restored_are_named_and_can_be_given_up() {
    let recorded = Recorded::new(1500);
    let config = &recorded.config;
    // Nothing says whose events these were.
    let unknown = recorded.damage(1, &format!("{ROW} {FILTER}"));
    let refused = recorded.damage(3, PAYLOADS);
    recorded.auth.set_faults(Faults {
        recordings: Some(Code::NotFound),
        ..Faults::default()
    });
    let left = store(config, &["repair"]).exits_with(1);
    for line in [
        format!("{unknown} are not restored: nothing says to which of "),
        format!("{refused} are not restored: the recording of session "),
    ] {
        assert!(left.stderr.contains(&line), "{line}\n{}", left.stderr);
    }
    assert!(
        left.stderr.contains("2 of 2 damaged blocks"),
        "{}",
        left.stderr
    );
    assert!(left.stderr.contains("--write-off"), "{}", left.stderr);
    let written_off = store(config, &["repair", "--write-off"]).exits_with(0);
    assert!(
        written_off
            .stdout
            .contains(&format!("{refused}: no pipeline needs it any more.")),
        "{}",
        written_off.stdout
    );
}
