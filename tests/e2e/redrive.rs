//! `lockgate dlq` and a host that runs: the real process, and a receiver that refuses some
//! documents until it is repaired.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use lockgate_sim::generate::{Generator, GeneratorOptions};
use lockgate_sim::receiver::ReceiverOptions;
use lockgate_store::Inspector;
use lockgate_tests::components::component;
use lockgate_tests::receiver::LocalReceiver;
use lockgate_tests::{
    Auth, Books, Ended, Moments, Running, books, configuration, kill_once_it_delivers, kills,
    lockgate, start, start_and_finish, started, status, uid, until,
};
use serde_json::Value;
use tempfile::TempDir;

/// Kills in the test run. `LOCKGATE_KILLS=50 cargo test --workspace --test e2e redrive` does more.
const KILLS: u64 = 4;

/// The brake never holds.
const NO_BRAKE: &str = r#"dead-letters = { in-a-row = 1000, share = "100%" }"#;

struct Fixture {
    dir: TempDir,
    _auth: Auth,
    receiver: LocalReceiver,
    config: PathBuf,
    /// Documents that the receiver accepted, one per line.
    accepted: PathBuf,
}

impl Fixture {
    /// One pipeline, `main`. `plugins` is TOML before it, `pipeline` its keys, `stages` TOML after
    /// them.
    fn new(events: u64, plugins: &str, pipeline: &str, stages: &str) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::start(dir.path(), &["--events", &events.to_string()]);
        let accepted = dir.path().join("accepted.ndjson");
        let options = ReceiverOptions {
            latency: Duration::from_millis(2),
            capture: Some(accepted.clone()),
            ..ReceiverOptions::default()
        };
        let receiver = LocalReceiver::with(dir.path(), options);
        let sink = receiver.endpoint("main");
        let pipelines = format!(
            "{plugins}\n[pipelines.main]\n{pipeline}\n\n{stages}\n\
             [pipelines.main.sink]\nplugin = \"builtin:fluentd\"\n{sink}\n"
        );
        Fixture {
            config: configuration(dir.path(), &auth, &pipelines),
            dir,
            _auth: auth,
            receiver,
            accepted,
        }
    }

    fn dlq(&self, arguments: &[&str]) -> Running {
        let mut command = lockgate();
        command.arg("dlq").args(arguments);
        Running::start("dlq", command.arg("--config").arg(&self.config))
    }

    fn books(&self) -> Books {
        books(&status(&self.config), "main")
    }

    /// Waits until the books and the conditions are as they should be.
    #[track_caller]
    fn reaches(&self, host: &Running, what: &str, holds: impl Fn(Books, &[Condition]) -> bool) {
        let shown = || format!("{}\n{}", status(&self.config), host.stderr());
        until(what, shown, || {
            let status = status(&self.config);
            holds(books(&status, "main"), &conditions(&status))
        });
    }

    fn inspector(&self) -> Inspector {
        Inspector::open(self.dir.path().join("store")).unwrap()
    }

    /// The values that the accepted documents have in one member, each once.
    fn accepted(&self, member: &str) -> BTreeSet<String> {
        let lines = std::fs::read_to_string(&self.accepted).unwrap();
        let values = lines.lines().map(|line| {
            let document: Value = serde_json::from_str(line).expect("a document");
            document[member].as_str().expect("a text").to_owned()
        });
        values.collect()
    }
}

/// Its kind and its message.
type Condition = (String, String);

fn conditions(status: &Value) -> Vec<Condition> {
    let of = &status["pipelines"]["main"]["state"]["conditions"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let conditions = of.as_array().into_iter().flatten();
    conditions
        .map(|condition| (text(&condition["kind"]), text(&condition["message"])))
        .collect()
}

fn is_braked(conditions: &[Condition]) -> bool {
    conditions.iter().any(|(kind, _)| kind == "brake")
}

/// How many letters a command says that it sent back.
fn count_of(ended: &Ended) -> u64 {
    let count = ended.stdout.split(' ').next().expect("a number");
    count.parse().unwrap_or_else(|_| panic!("{ended:?}"))
}

#[test]
fn a_repaired_receiver_gets_each_retried_letter_once_and_no_dropped_one() {
    const EVENTS: u64 = 3000;
    let fixture = Fixture::new(EVENTS, "", NO_BRAKE, "");
    fixture.receiver.refuse(r#""uid":"0a"#);
    let host = started(&fixture.config);
    fixture.reaches(&host, "some are dead", |books, _| {
        books.read == EVENTS && books.dead >= 4
    });

    let listed = fixture.dlq(&["list", "--json", "--limit", "1"]).ended();
    let listed: Value = serde_json::from_str(&listed.exits_with(0).stdout).unwrap();
    let address = listed["dead_letters"][0]["address"].as_str().unwrap();
    let dropped = fixture
        .dlq(&["drop", address, "--yes"])
        .ended()
        .exits_with(0);
    assert_eq!(dropped.stdout, "1 dead letter dropped.\n");
    assert_eq!(fixture.books().dropped, 1);
    let again = fixture.dlq(&["retry", address]).ended().exits_with(1);
    assert!(again.stderr.contains("is not a dead letter"), "{again:?}");

    fixture.receiver.recover();
    fixture.reaches(&host, "nothing waits", |books, _| books.waiting == 0);
    let retried = fixture.dlq(&["retry", "--all"]).ended().exits_with(0);
    assert!(
        retried.stdout.ends_with(" are being sent again.\n") && count_of(&retried) >= 3,
        "{retried:?}"
    );
    let expected = Books {
        read: EVENTS,
        delivered: EVENTS - 1,
        dropped: 1,
        ..Books::default()
    };
    fixture.reaches(&host, "all are delivered", |books, conditions| {
        books == expected && conditions.is_empty()
    });
    host.stop().exits_with(0);
    let totals = fixture.receiver.stop();
    assert_eq!(
        (totals.documents, totals.distinct),
        (EVENTS - 1, EVENTS - 1),
        "each once"
    );
}

#[test]
fn letters_retried_while_no_host_runs_are_sent_by_the_next_one() {
    const EVENTS: u64 = 2000;
    let fixture = Fixture::new(EVENTS, "", NO_BRAKE, "");
    fixture.receiver.refuse(r#""uid":"0a"#);
    let host = started(&fixture.config);
    fixture.reaches(&host, "some are dead", |books, _| {
        books.read == EVENTS && books.dead >= 2
    });
    host.stop().exits_with(0);
    let dead = fixture.books().dead;

    let release = fixture.dlq(&["release", "main"]).ended().exits_with(1);
    assert!(release.stderr.contains("No host is running"), "{release:?}");
    let retried = fixture.dlq(&["retry", "--all"]).ended().exits_with(0);
    assert_eq!(
        retried.stdout,
        format!("{dead} dead letters will be sent again by the next `lockgate start`.\n")
    );
    fixture.receiver.recover();
    start_and_finish(&fixture.config);
    let expected = Books {
        read: EVENTS,
        delivered: EVENTS,
        ..Books::default()
    };
    assert_eq!(fixture.books(), expected);
    assert_eq!(fixture.accepted("uid").len() as u64, EVENTS);
}

#[test]
fn a_release_disengages_the_brake_of_a_running_host() {
    const EVENTS: u64 = 3000;
    // One in a thousand: the second one is held.
    let fixture = Fixture::new(EVENTS, "", r#"dead-letters = { share = "0.1%" }"#, "");
    fixture.receiver.refuse(r#""uid":"0a"#);
    let host = started(&fixture.config);
    fixture.reaches(&host, "the brake holds", |books, conditions| {
        books.read == EVENTS && books.waiting > 0 && is_braked(conditions)
    });
    let message = "1 of the last 1,000 events is a dead letter, and 0.1% is the limit";
    // The reason that the operator decides on.
    let reason = "The next one would say: the receiver refused it 3 times";
    host.line_with_all(&["held: ", message, "lockgate dlq release main", reason]);

    let unknown = fixture.dlq(&["release", "other"]).ended().exits_with(1);
    assert!(
        unknown.stderr.contains("No pipeline `other`"),
        "{unknown:?}"
    );
    let released = fixture.dlq(&["release", "main"]).ended().exits_with(0);
    assert!(
        released
            .stdout
            .starts_with("`main` may dead-letter everything read so far, including "),
        "{released:?}"
    );
    fixture.reaches(&host, "nothing waits", |books, conditions| {
        books.waiting == 0 && !is_braked(conditions)
    });
    let again = fixture.dlq(&["release", "main"]).ended().exits_with(0);
    assert_eq!(
        again.stdout,
        "Nothing in `main` waits for a release; nothing was changed.\n"
    );
    host.line_with_all(&["no longer held", "kind=brake"]);
    host.stop().exits_with(0);
    let books = fixture.books();
    assert!(books.dead > 1, "{books:?}");
    let totals = fixture.receiver.stop();
    assert_eq!(
        totals.distinct, books.delivered,
        "nothing else was given up"
    );
}

/// Delivered documents of a batch used to wait with its refused ones, and the next start sent all
/// of them again.
#[test]
fn a_restart_while_the_brake_holds_sends_nothing_again_that_was_taken() {
    const EVENTS: u64 = 6000;
    let fixture = Fixture::new(EVENTS, "", "", "");
    // About 1 in 64 is refused: more than the brake allows.
    fixture.receiver.refuse_each(&[
        r#""uid":"00"#,
        r#""uid":"4a"#,
        r#""uid":"8c"#,
        r#""uid":"c1"#,
    ]);
    let names_release = |(_, message): &Condition| message.contains("lockgate dlq release main");
    let is_held_up = |books: Books, conditions: &[Condition]| {
        books.read == EVENTS && books.waiting < EVENTS / 32 && conditions.iter().any(names_release)
    };
    let what = "the refused documents wait for a release, and all others are delivered";
    for _ in 0..2 {
        let host = started(&fixture.config);
        fixture.reaches(&host, what, is_held_up);
        host.stop().exits_with(0);
    }
    let host = started(&fixture.config);
    fixture.reaches(&host, what, is_held_up);
    fixture.dlq(&["release", "main"]).ended().exits_with(0);
    fixture.reaches(&host, "nothing waits", |books, _| books.waiting == 0);
    host.stop().exits_with(0);
    let books = fixture.books();
    assert_eq!(books.delivered + books.dead, EVENTS, "{books:?}");
    let totals = fixture.receiver.stop();
    assert_eq!(
        (totals.documents, totals.distinct),
        (books.delivered, books.delivered),
        "each document arrived once"
    );
}

/// Two events that trap in batches of their own, each larger than half of the quota. The second
/// one is held until the operator drops the first, although nothing else is committed meanwhile.
#[test]
fn dropping_letters_makes_room_for_others_below_the_byte_limit() {
    const EVENTS: u64 = 200;
    let options = GeneratorOptions {
        events: EVENTS,
        ..GeneratorOptions::default()
    };
    let generator = Generator::new(options);
    let mut large = (0..)
        .zip(generator.json_lines(EVENTS))
        .filter(|(_, event)| (560..1000).contains(&event.len()))
        .map(|(position, _)| position);
    let first: u64 = large.next().unwrap();
    let second = large.find(|position| *position > first + 60).unwrap();
    let plugins = format!(
        "[plugins.hostile]\nsource = \"file:{}\"\n",
        component("hostile_filter").display()
    );
    let stages: String = [first, second]
        .map(|position| {
            format!(
                "[[pipelines.main.stage]]\nplugin = \"hostile\"\n\
                 with = {{ mode = \"trap\", on = \"{}\" }}\n",
                generator.uid(position)
            )
        })
        .concat();
    let pipeline = "in-flight = 1\nbatch = { events = 20 }\n\
                    dead-letters = { in-a-row = 1000, share = \"100%\", bytes = \"1 KiB\" }";
    let fixture = Fixture::new(EVENTS, &plugins, pipeline, &stages);
    let host = started(&fixture.config);
    fixture.reaches(&host, "the quota is full", |books, conditions| {
        books.dead == 1 && is_braked(conditions)
    });
    host.line_with("dead letters fill their quota of 1 KiB");
    let dropped = fixture.dlq(&["drop", "--all", "--yes"]).ended();
    assert_eq!(dropped.exits_with(0).stdout, "1 dead letter dropped.\n");
    let expected = Books {
        read: EVENTS,
        delivered: EVENTS - 2,
        dropped: 1,
        dead: 1,
        waiting: 0,
    };
    fixture.reaches(&host, "the second one is dead", |books, conditions| {
        books == expected && conditions.is_empty()
    });
    host.stop().exits_with(0);
}

/// State, dead letters and redrives at once, and kills between them. After each kill the books
/// balance, the chain of hashes holds, and the counter's state says of each event that it was
/// counted once, and once more for each time that it was sent again.
#[test]
fn kill_9_while_dead_letters_are_sent_again_loses_and_repeats_no_outcome() {
    let kills = kills(KILLS);
    let events = 3000 + kills * 500;
    let plugins = format!(
        "[plugins.counter]\nsource = \"file:{}\"\nstate = \"1 MiB\"\n",
        component("counter").display()
    );
    let pipeline = format!("batch = {{ events = 50 }}\n{NO_BRAKE}");
    let stages = "[[pipelines.main.stage]]\nplugin = \"counter\"\n";
    let fixture = Fixture::new(events, &plugins, &pipeline, stages);
    // One event of sixteen.
    fixture.receiver.refuse(r#""key":"0"#);
    let mut moments = Moments::new(0x1234_5678_9abc_def1);
    kill_once_it_delivers(&fixture.config);
    let mut before = Books::default();
    for kill in 0..kills {
        let host = started(&fixture.config);
        moments.sleep(Duration::from_millis(1000));
        let retry = fixture.dlq(&["retry", "--all"]);
        moments.sleep(Duration::from_millis(500));
        host.kill();
        // It was done by the host, by itself after the kill, or not at all.
        let retry = retry.ended();
        assert!(matches!(retry.status.code(), Some(0 | 1)), "{retry:?}");
        let books = fixture.books();
        assert!(
            books.read >= before.read && books.delivered >= before.delivered,
            "kill {kill}: {before:?}, then {books:?}"
        );
        fixture.check(books, kill);
        before = books;
    }

    let between_kills = fixture.inspector().letter_counts("main").unwrap().retried;
    // Enough dead letters for the end, also if the kills left none.
    let host = started(&fixture.config);
    fixture.reaches(&host, "some are dead", |books, _| {
        books.read == events && books.dead > 0
    });
    host.kill();
    fixture.check(fixture.books(), kills);
    fixture.receiver.recover();
    let retried = fixture.dlq(&["retry", "--all"]).ended().exits_with(0);
    assert!(count_of(&retried) > 0, "{retried:?}");
    start_and_finish(&fixture.config);
    let expected = Books {
        read: events,
        delivered: events,
        ..Books::default()
    };
    assert_eq!(fixture.books(), expected);
    fixture.check(expected, kills);
    assert_eq!(
        fixture.accepted("key").len() as u64,
        events,
        "no event is lost"
    );
    let counts = fixture.inspector().letter_counts("main").unwrap();
    println!("{kills} kills, {events} events, {between_kills} sent again between them, {counts:?}");
}

impl Fixture {
    /// Checks what holds while no host runs. A batch that was not committed has left no trace in
    /// state.
    #[track_caller]
    fn check(&self, books: Books, kill: u64) {
        // Killed before it had made the pipeline known.
        if books.read == 0 {
            return;
        }
        let inspector = self.inspector();
        inspector
            .verify_chain("main")
            .unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        let state = inspector.state("main").unwrap();
        let counted: u64 = state
            .get("counter")
            .into_iter()
            .flat_map(|counts| counts.values())
            .map(|count| count.parse::<u64>().expect("a number"))
            .sum();
        let retried = inspector.letter_counts("main").unwrap().retried;
        assert_eq!(
            counted + books.waiting,
            books.read + retried,
            "kill {kill}: {books:?}, {retried} sent again"
        );
    }
}

#[test]
fn a_host_that_ends_with_the_last_event_says_that_documents_wait_for_a_release() {
    let fixture = Fixture::new(3000, "", r#"dead-letters = { share = "0.1%" }"#, "");
    fixture.receiver.refuse(r#""uid":"0a"#);
    let host = start(&fixture.config, &["--exit-on-last-event"]);
    host.line_with_all(&["nothing more is read", "lockgate dlq release main"]);
    // What waited then may have been tried again since.
    let shown = || host.stderr();
    until("something is released", shown, || {
        let released = fixture.dlq(&["release", "main"]).ended().exits_with(0);
        released.stdout.contains("may dead-letter")
    });
    host.ended().exits_with(0);
    assert_eq!(fixture.books().waiting, 0);
}

/// The command said that they were being sent again, and nothing was sent.
#[test]
fn a_pipeline_that_has_finished_sends_retried_letters_while_another_goes_on() {
    let other = "[pipelines.other.sink]\nplugin = \"builtin:fluentd\"\n\
                 url = \"http://127.0.0.1:1/\"\n";
    let fixture = Fixture::new(1000, other, NO_BRAKE, "");
    fixture.receiver.refuse(&uid(1000, 10));
    let host = start(&fixture.config, &["--exit-on-last-event"]);
    host.line_with("started");
    let finished = || status(&fixture.config)["host"]["pipelines"]["main"]["state"] == "finished";
    until(
        "its letter is given up, and it has finished",
        || host.stderr(),
        || {
            fixture.dlq(&["release", "main"]).ended();
            finished()
        },
    );
    assert_eq!(fixture.books().dead, 1);
    fixture.receiver.recover();
    fixture.dlq(&["retry", "--all"]).ended().exits_with(0);
    fixture.reaches(&host, "all is delivered", |books, _| {
        books.delivered == 1000
    });
    until("it has finished again", || host.stderr(), finished);
    let stopped = host.stop().exits_with(1);
    let message = "Stopped before every event was delivered, dropped or dead-lettered";
    assert!(stopped.stderr.contains(message), "{}", stopped.stderr);
    assert_eq!(fixture.books().waiting, 0);
}
