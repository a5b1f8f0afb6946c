//! The Event Handler's own tests of its configuration, with the same expectations.

use std::collections::BTreeMap;
use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{HandlerOption, HandlerOptions};
use crate::{Config, Credentials, Environment, Issues, Locks, load_with};

const FILE: &str = r#"
storage = "./storage"
timeout = "10s"
batch = 20
[forward.fluentd]
cert = "client.crt"
key = "client.key"
ca = "ca.crt"
url = "https://localhost:8888/test.log"
session-url = "https://localhost:8888/session"
[teleport]
addr = "localhost:3025"
identity = "identity"
refresh.enabled = true
refresh.interval = "2m"
"#;

/// A working directory in which every file exists.
struct Directory {
    text: String,
    variables: BTreeMap<&'static str, &'static str>,
}

impl Environment for Directory {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        let value = self.variables.get(name).ok_or(VarError::NotPresent)?;
        Ok((*value).to_owned())
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let is_config = path == Path::new("config.toml");
        Ok(if is_config {
            self.text.clone().into()
        } else {
            Vec::new()
        })
    }

    fn working_directory(&self) -> PathBuf {
        "/srv".into()
    }
}

fn start(text: &str, options: &[(&str, &str)]) -> Result<Config, Issues> {
    let mut given = HandlerOptions::default();
    for (name, value) in options {
        given.give(HandlerOption::named(name), *value);
    }
    let directory = Directory {
        text: text.to_owned(),
        variables: BTreeMap::new(),
    };
    load_with(Some(Path::new("config.toml")), &given, &directory)
}

#[test]
fn the_standard_file_has_the_event_handlers_settings() {
    let config = start(FILE, &[]).unwrap();
    let source = &config.sources[0];
    assert_eq!(source.addr, "localhost:3025");
    assert_eq!(
        source.credentials,
        Credentials::Identity("/srv/identity".into())
    );
    assert_eq!(
        (source.concurrency, source.window),
        (5, Duration::from_secs(86_400))
    );
    let handler = config.event_handler.as_ref().unwrap();
    assert_eq!(handler.state, Path::new("/srv/storage/localhost_3025"));
    assert!(!handler.debug && !handler.dry_run && !handler.exit_on_last_event);
    let [audit, sessions] = &config.pipelines[..] else {
        panic!("{:?}", config.pipelines);
    };
    assert_eq!(audit.sink.url.expose(), "https://localhost:8888/test.log");
    let session_url = sessions.sink.session_url.as_ref().unwrap();
    assert_eq!(session_url.expose(), "https://localhost:8888/session");
    for pipeline in [audit, sessions] {
        let tls = &pipeline.sink.tls;
        let client = tls.client.as_ref().unwrap();
        assert_eq!(tls.ca.as_deref(), Some(Path::new("/srv/ca.crt")));
        assert_eq!(client.cert, Path::new("/srv/client.crt"));
        assert_eq!(client.key, Path::new("/srv/client.key"));
        assert_eq!(pipeline.sink.rate.in_flight, 10, "twice the concurrency");
    }
    assert!(audit.stages.is_empty(), "no event type is skipped");
    let skipped = format!("{:?}", sessions.stages[0].with);
    assert!(
        skipped.contains(r#"["print","desktop.recording"]"#),
        "{skipped}"
    );
}

#[test]
fn debug_is_an_option_and_a_key() {
    let debug = |config: Config| config.event_handler.unwrap().debug;
    assert!(debug(start(FILE, &[("debug", "true")]).unwrap()));
    assert!(debug(start(&format!("debug = true\n{FILE}"), &[]).unwrap()));
}

#[test]
fn an_identity_or_all_three_files_are_needed() {
    let trio = "cert = \"a.crt\"\nkey = \"a.key\"\nca = \"a.cas\"";
    for (credentials, is_accepted) in [
        ("identity = \"identity\"", true),
        (trio, true),
        ("cert = \"a.crt\"\nkey = \"a.key\"", false),
        (&format!("identity = \"identity\"\n{trio}"), false),
        ("", false),
    ] {
        let text = FILE.replace("identity = \"identity\"", credentials);
        let started = start(&text, &[]);
        assert_eq!(started.is_ok(), is_accepted, "{credentials}: {started:?}");
    }
}

#[test]
fn options_come_before_the_file_and_the_file_before_either_spelling_of_a_variable() {
    let load =
        |options: &HandlerOptions, text: &str, variables: &[(&'static str, &'static str)]| {
            let directory = Directory {
                text: text.to_owned(),
                variables: variables.iter().copied().collect(),
            };
            let config = load_with(Some(Path::new("config.toml")), options, &directory).unwrap();
            config.sources[0].concurrency
        };
    let variables = [("FDFWD_CONCURRENCY", "7")];
    let other = [("FDWRD_CONCURRENCY", "8")];
    let none = HandlerOptions::default();
    let mut given = HandlerOptions::default();
    given.give(HandlerOption::named("concurrency"), "9");
    let file = format!("concurrency = 6\n{FILE}");
    assert_eq!(load(&none, FILE, &[]), 5);
    assert_eq!(load(&none, FILE, &variables), 7);
    assert_eq!(load(&none, FILE, &other), 8);
    assert_eq!(load(&none, &file, &variables), 6);
    assert_eq!(load(&given, &file, &variables), 9);
}

const fn locks(failed_attempts: u32, seconds: u64, duration: Option<u64>) -> Locks {
    Locks {
        enabled: true,
        failed_attempts,
        period: Duration::from_secs(seconds),
        duration: match duration {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => None,
        },
    }
}

#[test]
fn locks_have_the_event_handlers_defaults_keys_and_variables() {
    let off = Locks::default();
    assert_eq!(
        (off.enabled, off.failed_attempts, off.period),
        (false, 3, Duration::from_secs(60))
    );
    let variables = [
        ("FDFWD_LOCKING_ENABLED", "true"),
        ("FDWRD_LOCKING_FAILED_ATTEMPTS", "5"),
        ("FDFWD_LOCKING_PERIOD", "2m"),
        ("FDWRD_LOCKING_FOR", "1h30m"),
    ];
    let lines = "lock-enabled = true\nlock-failed-attempts-count = 4\nlock-period = \"90s\"\n\
                 lock-for = \"10m\"\n";
    let tables = "\n[lock]\nenabled = true\nfor = \"5m\"\nfailed.attempts.count = 7\n";
    let options = [("lock-enabled", "true"), ("lock-for", "1h")];
    for (before, after, options, variables, expected) in [
        ("", "", &[][..], &[][..], off),
        ("", "", &[], &variables, locks(5, 120, Some(5400))),
        (lines, "", &[], &variables, locks(4, 90, Some(600))),
        ("", tables, &[], &[], locks(7, 60, Some(300))),
        (lines, "", &options, &variables, locks(4, 90, Some(3600))),
        ("lock-enabled = true\n", "", &[], &[], locks(3, 60, None)),
        (
            "lock-enabled = true\nlock-for = 0\n",
            "",
            &[],
            &[],
            locks(3, 60, None),
        ),
        (
            "lock-enabled = true\nlock-for = \"0s\"\n",
            "",
            &[],
            &[],
            locks(3, 60, None),
        ),
        // A bare number counts nanoseconds.
        (
            "lock-enabled = true\nlock-period = 30000000000\n",
            "",
            &[],
            &[],
            locks(3, 30, None),
        ),
        ("lock-enabled = false\n", "", &[], &variables, off),
        (lines, "", &[("lock-enabled", "false")], &[], off),
        (lines, "", &[("dry-run", "true")], &[], off),
        (lines, "", &[("types", "session.start")], &[], off),
        (
            lines,
            "",
            &[("types", "user.login,session.start")],
            &[],
            locks(4, 90, Some(600)),
        ),
        (
            lines,
            "",
            &[("skip-event-types", "user.login")],
            &[],
            locks(4, 90, Some(600)),
        ),
    ] {
        let mut given = HandlerOptions::default();
        for (name, value) in options {
            given.give(HandlerOption::named(name), *value);
        }
        let directory = Directory {
            text: format!("{before}{FILE}{after}"),
            variables: variables.iter().copied().collect(),
        };
        let config = load_with(Some(Path::new("config.toml")), &given, &directory).unwrap();
        let of_file = config.sources[0].locks;
        assert_eq!(
            of_file, expected,
            "{before} {after} {options:?} {variables:?}"
        );
    }
}

#[test]
fn locks_that_have_no_effect_are_named() {
    let said = |text: &str, options: &[(&str, &str)]| {
        let config = start(&format!("{text}\n{FILE}"), options).unwrap();
        let handler = config.event_handler.as_ref().unwrap();
        (
            config.warnings().render(false),
            handler.without_effect.join(" "),
        )
    };
    let (_, unused) = said("lock-period = \"5m\"", &[]);
    assert!(unused.contains("lock-period"), "{unused}");
    let (warnings, unused) = said("lock-enabled = true", &[("types", "session.start")]);
    assert!(
        warnings.contains("`types` lacks `user.login`"),
        "{warnings}"
    );
    assert!(unused.contains("lock-enabled"), "{unused}");
    let (warnings, _) = said("lock-enabled = true\nlock-failed-attempts-count = 0", &[]);
    assert!(warnings.contains("out of range: 1 is used"), "{warnings}");
    // It was said to be out of range.
    let (warnings, _) = said("lock-enabled = true\nlock-period = \"1s500us\"", &[]);
    let rounded = "is not a number of whole milliseconds: 1s is used instead";
    assert!(warnings.contains(rounded), "{warnings}");
}
