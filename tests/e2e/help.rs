//! The help of every command, as a snapshot.

use std::fmt::Write;

use expect_test::expect_file;
use lockgate_tests::{Ended, Running, lockgate, root};

/// Every command, in the order of the document.
const COMMANDS: [&str; 35] = [
    "",
    "start",
    "check",
    "import",
    "configure",
    "demo",
    "sim",
    "sim auth",
    "sim receiver",
    "doctor",
    "reload",
    "status",
    "audit",
    "explain",
    "dlq",
    "dlq list",
    "dlq show",
    "dlq export",
    "dlq retry",
    "dlq drop",
    "dlq release",
    "store",
    "store verify",
    "store backup",
    "store repair",
    "plugin",
    "plugin run",
    "plugin help",
    "assets",
    "assets elasticsearch",
    "assets prometheus",
    "assets grafana",
    "assets reference",
    "version",
    "completions",
];

/// Every change to the help shows up in the diff of a commit. `UPDATE_EXPECT=1` rewrites the file.
#[test]
fn the_help_of_every_command_matches_the_snapshot() {
    let mut text = String::new();
    for command in COMMANDS {
        let ended = run(&command
            .split_whitespace()
            .chain(["--help"])
            .collect::<Vec<_>>())
        .exits_with(0);
        assert_eq!(ended.stderr, "", "`lockgate {command} --help` is data");
        let title = format!("lockgate {command}");
        let help: String = ended
            .stdout
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        write!(text, "==> {} --help\n\n{help}\n", title.trim_end())
            .expect("a String takes everything");
    }
    expect_file![root().join("tests/cases/cli-help.txt")].assert_eq(&text);
}

#[test]
fn no_command_is_missing_from_the_snapshot() {
    for parent in COMMANDS {
        let help = run(&parent
            .split_whitespace()
            .chain(["--help"])
            .collect::<Vec<_>>())
        .exits_with(0)
        .stdout;
        let Some((_, commands)) = help.split_once("Commands:\n") else {
            continue;
        };
        let names = commands
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for name in names.filter(|name| !name.is_empty() && *name != "help") {
            let command = format!("{parent} {name}");
            assert!(
                COMMANDS.contains(&command.trim()),
                "`lockgate {}` is in no snapshot",
                command.trim()
            );
        }
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell]).exits_with(0);
        for text in ["lockgate", "start", "exit-on-last-event"] {
            assert!(ended.stdout.contains(text), "{shell} completes `{text}`");
        }
    }
}

#[test]
fn version_lists_the_plugins_that_come_with_the_binary() {
    let ended = run(&["version"]).exits_with(0);
    assert!(
        ended
            .stdout
            .starts_with(&format!("lockgate {}\n", env!("CARGO_PKG_VERSION"))),
        "{}",
        ended.stdout
    );
    for plugin in ["builtin:filter", "builtin:redact", "builtin:fluentd"] {
        let line = ended
            .stdout
            .lines()
            .find(|line| line.starts_with(plugin))
            .unwrap_or_else(|| panic!("no {plugin}:\n{}", ended.stdout));
        assert!(
            line.contains("sha256:"),
            "a digest tells one build from another: {line}"
        );
    }
}

#[test]
fn wrong_usage_exits_with_2_and_names_what_is_wrong() {
    for (arguments, text) in [
        (&["strat"][..], "start"),
        (&["start", "--exit-on-last"], "--exit-on-last-event"),
        (&["sim", "auth"], "--out"),
        (&["demo", "--latency", "25"], "25ms"),
        (
            &["sim", "receiver", "--out", "x", "--status", "often"],
            "--status",
        ),
        (&["--log", "lockgate=loud", "version"], "--log"),
        (
            &["start", "--config", "no/such/file.toml"],
            "no/such/file.toml",
        ),
    ] {
        let ended = run(arguments).exits_with(2);
        assert!(
            ended.stderr.contains(text) && ended.stdout.is_empty(),
            "{arguments:?} names `{text}`:\n{}",
            ended.stderr
        );
    }
}

/// In a directory of its own, with a terminal of a fixed width.
fn run(arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Running::start(
        "lockgate",
        lockgate()
            .args(arguments)
            .env("COLUMNS", "100")
            .current_dir(dir.path()),
    )
    .ended()
}
