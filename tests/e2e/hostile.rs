use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use lockgate_sim::generate::{Generator, GeneratorOptions};
use lockgate_tests::{
    Auth, Books, Receiver, Running, books, configuration, endpoint, lockgate, status,
};

use crate::components::components;

const EVENTS: u64 = 120;

/// Position of the event that sets the hostile components off.
const VICTIM: u64 = 77;

/// One pipeline. `stages` and `with` are TOML; a `%` in them stands for the key of the victim.
struct Case {
    name: &'static str,
    /// A plugin of tests/components, and its `with` table. None: no stage.
    stage: Option<(&'static str, &'static str)>,
    sink: Option<&'static str>,
    /// [delivered, dropped, dead, waiting] of [`EVENTS`].
    books: [u64; 4],
    /// What the log of this pipeline says of it: a dead letter names stage and plugin, and why.
    log: &'static [&'static str],
}

const ONE_DEAD: [u64; 4] = [EVENTS - 1, 0, 1, 0];
const NONE_DEAD: [u64; 4] = [EVENTS, 0, 0, 0];

const fn filter(
    name: &'static str,
    with: &'static str,
    books: [u64; 4],
    log: &'static [&'static str],
) -> Case {
    Case {
        name,
        stage: Some(("hostile-filter", with)),
        sink: None,
        books,
        log,
    }
}

const fn mapper(
    name: &'static str,
    with: &'static str,
    books: [u64; 4],
    log: &'static [&'static str],
) -> Case {
    Case {
        name,
        stage: Some(("hostile-mapper", with)),
        sink: None,
        books,
        log,
    }
}

const fn sink(
    name: &'static str,
    with: &'static str,
    books: [u64; 4],
    log: &'static [&'static str],
) -> Case {
    Case {
        name,
        stage: None,
        sink: Some(with),
        books,
        log,
    }
}

const STAGE: &str = "stage 1 (hostile-filter)";
const MAPPER: &str = "stage 1 (hostile-mapper)";
const SINK: &str = "sink (hostile-sink)";

/// Each contained as the failure table says. `healthy` runs among them.
const CASES: [Case; 23] = [
    Case {
        name: "healthy",
        stage: None,
        sink: None,
        books: NONE_DEAD,
        log: &[],
    },
    filter(
        "trap",
        r#"{ mode = "trap", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "cannot stand the event"],
    ),
    filter(
        "silent-trap",
        r#"{ mode = "silent-trap", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "unreachable"],
    ),
    filter(
        "loop",
        r#"{ mode = "loop", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "200"],
    ),
    filter(
        "memory",
        r#"{ mode = "memory", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "memory"],
    ),
    filter(
        "stack",
        r#"{ mode = "stack", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "stack"],
    ),
    filter(
        "too-few",
        r#"{ mode = "too-few", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "results"],
    ),
    filter(
        "too-many",
        r#"{ mode = "too-many", on = "%" }"#,
        ONE_DEAD,
        &[STAGE, "results"],
    ),
    filter(
        "log-flood",
        r#"{ mode = "log-flood", on = "%" }"#,
        NONE_DEAD,
        &[STAGE, "left out"],
    ),
    filter(
        "drop",
        r#"{ mode = "drop", on = "%" }"#,
        [EVENTS - 1, 1, 0, 0],
        &[],
    ),
    mapper(
        "not-json",
        r#"{ mode = "not-json", on = "%" }"#,
        ONE_DEAD,
        &[MAPPER],
    ),
    mapper(
        "lone-surrogate",
        r#"{ mode = "lone-surrogate", on = "%" }"#,
        ONE_DEAD,
        &[MAPPER],
    ),
    mapper(
        "duplicate-keys",
        r#"{ mode = "duplicate-keys", on = "%" }"#,
        ONE_DEAD,
        &[MAPPER],
    ),
    mapper(
        "huge",
        r#"{ mode = "huge", on = "%" }"#,
        ONE_DEAD,
        &[MAPPER],
    ),
    mapper(
        "large",
        r#"{ mode = "huge", on = "%", bytes = 16_000_000 }"#,
        ONE_DEAD,
        &[MAPPER],
    ),
    mapper(
        "reject",
        r#"{ mode = "reject", on = "%" }"#,
        ONE_DEAD,
        &[MAPPER, "cannot be mapped"],
    ),
    sink(
        "huge-body",
        r#"{ mode = "huge", on = "%" }"#,
        ONE_DEAD,
        &[SINK],
    ),
    sink(
        "bad-path",
        r#"{ mode = "bad-path", on = "%" }"#,
        ONE_DEAD,
        &[SINK, "path"],
    ),
    sink(
        "bad-path-up",
        r#"{ mode = "bad-path-up", on = "%" }"#,
        ONE_DEAD,
        &[SINK, "path"],
    ),
    sink(
        "bad-header",
        r#"{ mode = "bad-header", on = "%" }"#,
        ONE_DEAD,
        &[SINK, "header"],
    ),
    sink(
        "header-injection",
        r#"{ mode = "header-injection", on = "%" }"#,
        ONE_DEAD,
        &[SINK, "header"],
    ),
    sink(
        "twice",
        r#"{ mode = "twice", on = "%" }"#,
        ONE_DEAD,
        &[SINK],
    ),
    sink(
        "missing",
        r#"{ mode = "missing", on = "%" }"#,
        ONE_DEAD,
        &[SINK],
    ),
];

#[test]
fn each_hostile_component_is_contained_and_no_other_pipeline_feels_it() {
    let dir = tempfile::tempdir().unwrap();
    let victim = Generator::new(GeneratorOptions {
        events: EVENTS,
        ..GeneratorOptions::default()
    })
    .uid(VICTIM);
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = Receiver::start(dir.path(), &[]);
    let mut pipelines = plugins();
    for case in &CASES {
        pipelines += &case.toml(&receiver, &victim);
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let ended = start(&config, &["--exit-on-last-event"])
        .ended()
        .exits_with(0);

    let status = status(&config);
    let received = receiver.stop();
    for case in &CASES {
        let [delivered, dropped, dead, waiting] = case.books;
        let name = case.name;
        assert_eq!(
            books(&status, name),
            Books {
                read: EVENTS,
                delivered,
                dropped,
                dead,
                waiting
            },
            "{name}:\n{}",
            ended.stderr
        );
        assert_eq!(
            received.by_path.get(&format!("/{name}")),
            Some(&delivered),
            "{name}: the receiver has what is on the books"
        );
        let lines: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.contains(&format!("pipeline={name} ")))
            .collect();
        for text in case.log {
            assert!(
                lines.iter().any(|line| line.contains(text)),
                "{name}: no `{text}` in:\n{}",
                lines.join("\n")
            );
        }
        let letters: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("dead letter"))
            .collect();
        assert_eq!(letters.len() as u64, dead, "{name}: {letters:?}");
        assert!(
            letters.iter().all(|line| line.contains(&victim)),
            "{name}: it is the victim that is dead: {letters:?}"
        );
    }
    assert_eq!(
        received.documents, received.distinct,
        "nothing was sent twice"
    );
    // Text from guests is in the log, but cannot write lines of its own or move the cursor.
    assert!(
        !ended.stderr.contains('\u{1b}') && !ended.stderr.contains('\u{202e}'),
        "control characters are escaped"
    );
    assert!(
        ended.stderr.lines().all(|line| !line.starts_with("forged")),
        "a line break in a guest's text makes no line"
    );
    let flood = ended
        .stderr
        .lines()
        .filter(|line| line.contains("forged: line"))
        .count();
    assert!(flood < 1000, "{flood} lines of a flood of 10,000");
}

/// A component that fails for every event is broken, not the events: its pipeline holds, and
/// nothing is given up.
#[test]
fn a_component_that_takes_nothing_holds_its_pipeline_and_the_others_finish() {
    let cases = [
        Case {
            name: "healthy",
            stage: None,
            sink: None,
            books: NONE_DEAD,
            log: &[],
        },
        filter(
            "trap",
            r#"{ mode = "trap" }"#,
            [0, 0, 0, EVENTS],
            &["16 events in a row", "cannot stand the event"],
        ),
        mapper(
            "not-json",
            r#"{ mode = "not-json" }"#,
            [0, 0, 0, EVENTS],
            &["16 events in a row"],
        ),
        sink(
            "bad-header",
            r#"{ mode = "bad-header" }"#,
            [0, 0, 0, EVENTS],
            &["16 events in a row"],
        ),
        // A 2xx that the plugin wanted to see and could not may report failures that nobody has
        // read: it is held too.
        sink(
            "classify-trap",
            r#"{ classify = "trap" }"#,
            [0, 0, 0, EVENTS],
            &["a response cannot be judged", "cannot stand the answer"],
        ),
        filter(
            "not-yet",
            r#"{ mode = "fail-retry" }"#,
            [0, 0, 0, EVENTS],
            &["not yet"],
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = Receiver::start(dir.path(), &[]);
    let pipelines = cases
        .iter()
        .fold(plugins(), |text, case| text + &case.toml(&receiver, ""));
    let config = configuration(dir.path(), &auth, &pipelines);
    let host = start(&config, &["--exit-on-last-event"]);
    host.line_with("started");
    let deadline = Instant::now() + Duration::from_secs(60);
    while books(&status(&config), "healthy").delivered < EVENTS {
        assert!(
            Instant::now() < deadline,
            "the healthy pipeline does not finish:\n{}",
            host.stderr()
        );
    }
    for case in &cases[1..] {
        for text in case.log {
            host.line_with_all(&[text, &format!("pipeline={} ", case.name), "held: "]);
        }
    }
    // The held pipelines keep the host from ending by itself; they do not keep it from being
    // stopped.
    let ended = host.stop().exits_with(0);
    let status = status(&config);
    for Case {
        name,
        books: [delivered, dropped, dead, waiting],
        ..
    } in cases
    {
        assert_eq!(
            books(&status, name),
            Books {
                read: EVENTS,
                delivered,
                dropped,
                dead,
                waiting
            },
            "{name}:\n{}",
            ended.stderr
        );
    }
    let received = receiver.stop();
    assert_eq!(received.by_path.get("/healthy"), Some(&EVENTS));
    assert!(
        received
            .by_path
            .keys()
            .all(|path| path == "/healthy" || path == "/classify-trap"),
        "{:?}",
        received.by_path
    );
}

#[test]
fn a_plugin_that_refuses_its_configuration_stops_its_own_pipeline_only() {
    let refused = [
        (
            r#"{ mode = "configure-refuse" }"#,
            r#"with = { mode = "configure-refuse" }"#,
            "This mode refuses its configuration.",
        ),
        (
            r#"{ mode = "configure-refuse-empty" }"#,
            r#"with = { mode = "configure-refuse-empty" }"#,
            "reported by hostile-filter",
        ),
        (
            r#"{ mode = "configure-trap" }"#,
            r#"with = { mode = "configure-trap" }"#,
            "no configuration pleases me",
        ),
        (
            r#"{ mode = "configure-loop" }"#,
            r#"with = { mode = "configure-loop" }"#,
            "200",
        ),
        (
            r#"{ mode = "configure-memory" }"#,
            r#"with = { mode = "configure-memory" }"#,
            "memory",
        ),
        (
            r#"{ made = "trap" }"#,
            r#"with = { made = "trap" }"#,
            "did you mean `mode`?",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::start(dir.path(), &["--events", &EVENTS.to_string()]);
    let receiver = Receiver::start(dir.path(), &[]);
    let names: Vec<String> = (1..=refused.len())
        .map(|number| format!("refused-{number}"))
        .collect();
    let healthy = Case {
        name: "healthy",
        stage: None,
        sink: None,
        books: NONE_DEAD,
        log: &[],
    };
    let mut pipelines = plugins() + &healthy.toml(&receiver, "");
    for (name, (with, ..)) in names.iter().zip(&refused) {
        pipelines += &pipeline(name, Some(("hostile-filter", with)), None, &receiver);
    }
    let config = configuration(dir.path(), &auth, &pipelines);
    let text = std::fs::read_to_string(&config).unwrap();
    // What could be delivered is; that something could not is no success.
    let ended = start(&config, &["--exit-on-last-event"])
        .ended()
        .exits_with(1);
    assert!(
        ended.stderr.contains("6 of the pipelines could not start"),
        "{}",
        ended.stderr
    );
    for (name, (_, line, message)) in names.iter().zip(&refused) {
        assert!(
            ended.stderr.contains(message),
            "no `{message}` in:\n{}",
            ended.stderr
        );
        let number = text
            .lines()
            .position(|written| written == *line)
            .expect("the line is in the file")
            + 1;
        assert!(
            ended.stderr.contains(&format!("lockgate.toml:{number}:")),
            "it points at line {number}:\n{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(&format!("{number} │ {line}")),
            "it shows the line `{line}`:\n{}",
            ended.stderr
        );
        assert!(
            ended
                .stderr
                .lines()
                .any(|line| line.contains(&format!("pipeline={name}"))
                    && line.contains("does not start")),
            "{name}"
        );
    }
    let status = status(&config);
    assert_eq!(
        books(&status, "healthy"),
        Books {
            read: EVENTS,
            delivered: EVENTS,
            ..Books::default()
        }
    );
    assert_eq!(receiver.stop().documents, EVENTS);

    // With no pipeline left there is nothing to start.
    let config = configuration(
        dir.path(),
        &auth,
        &(plugins()
            + &pipeline(
                "refused-1",
                Some(("hostile-filter", refused[0].0)),
                None,
                &Receiver::start(dir.path(), &[]),
            )),
    );
    let ended = start(&config, &[]).ended().exits_with(2);
    assert!(ended.stderr.contains(refused[0].2), "{}", ended.stderr);
}

impl Case {
    fn toml(&self, receiver: &Receiver, victim: &str) -> String {
        let stage = self
            .stage
            .map(|(plugin, with)| (plugin, with.replace('%', victim)));
        let sink = self.sink.map(|with| with.replace('%', victim));
        pipeline(
            self.name,
            stage
                .as_ref()
                .map(|(plugin, with)| (*plugin, with.as_str())),
            sink.as_deref(),
            receiver,
        )
    }
}

/// A pipeline with an address of its own. Without a hostile sink it has the built-in one.
fn pipeline(
    name: &str,
    stage: Option<(&str, &str)>,
    sink: Option<&str>,
    receiver: &Receiver,
) -> String {
    let mut text = String::new();
    if let Some((plugin, with)) = stage {
        writeln!(
            text,
            "[[pipelines.{name}.stage]]\nplugin = \"{plugin}\"\nwith = {with}\n"
        )
        .unwrap();
    }
    let plugin = if sink.is_some() {
        "hostile-sink"
    } else {
        "builtin:fluentd"
    };
    writeln!(
        text,
        "[pipelines.{name}.sink]\nplugin = \"{plugin}\"\n{}",
        endpoint(&receiver.addr, &receiver.dir, name)
    )
    .unwrap();
    if let Some(with) = sink {
        writeln!(text, "with = {with}").unwrap();
    }
    text + "\n"
}

/// The `[plugins]` of tests/components, with little time, so that an endless loop costs little.
fn plugins() -> String {
    let mut text = String::new();
    for name in ["filter", "mapper", "sink"] {
        let file = components()
            .iter()
            .find(|path| path.ends_with(format!("hostile_{name}.wasm")))
            .expect("it is built");
        writeln!(
            text,
            "[plugins.hostile-{name}]\nsource = \"file:{}\"\nlimits = {{ time = \"200ms\" }}\n",
            file.display()
        )
        .unwrap();
    }
    text
}

fn start(config: &Path, arguments: &[&str]) -> Running {
    Running::start(
        "start",
        lockgate()
            .args(["start", "--config"])
            .arg(config)
            .args(arguments),
    )
}
