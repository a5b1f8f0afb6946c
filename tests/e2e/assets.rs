//! `lockgate assets`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lockgate_tests::{Ended, Running, lockgate, root};
use serde_json::Value;

fn run(dir: &Path, arguments: &[&str]) -> Ended {
    let arguments = ["assets", "elasticsearch"].iter().chain(arguments);
    Running::start("lockgate", lockgate().args(arguments).current_dir(dir)).ended()
}

/// A document of monitoring, and the metrics of the host that it names.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let named = words.filter(|word| {
        ["lockgate_", "process_"]
            .iter()
            .any(|start| word.starts_with(start))
    });
    let family = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let stripped = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        stripped.unwrap_or(word).to_owned()
    };
    named.map(family).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_the_host_has() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let document = read("host/service/METRICS.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let known: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    for file in [
        "assets/prometheus/alerts.yml",
        "assets/prometheus/alerts_test.yml",
        "assets/grafana/dashboard.json",
    ] {
        let named = metrics_in(&read(file));
        assert!(named.len() > 10, "{file}: {named:?}");
        for name in named {
            assert!(
                known.contains(&*name),
                "{file} names `{name}`, which the host does not have"
            );
        }
    }
    let dashboard: Value = serde_json::from_str(&read("assets/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let read =
        |name: &str| fs::read_to_string(root().join("assets/prometheus").join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "{name} is not tested"
        );
    }
}

#[test]
fn the_files_for_monitoring_are_written() {
    let dir = tempfile::tempdir().unwrap();
    for target in ["prometheus", "grafana"] {
        let arguments = ["assets", target, "--out", target];
        let mut command = lockgate();
        let command = command.args(arguments).current_dir(dir.path());
        let ended = Running::start("lockgate", command).ended().exits_with(0);
        let ours = root().join("assets").join(target);
        assert_eq!(
            names(&dir.path().join(target)),
            names(&ours),
            "{}",
            ended.stdout
        );
        for name in names(&ours) {
            let written = fs::read(dir.path().join(target).join(&name)).unwrap();
            assert!(written == fs::read(ours.join(&name)).unwrap(), "{name}");
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("the directory exists")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_reference_and_the_options_of_a_plugin_are_printed() {
    let printed = |arguments: &[&str]| {
        let mut command = lockgate();
        Running::start("lockgate", command.args(arguments)).ended()
    };
    let reference = fs::read_to_string(root().join("host/config/reference.toml")).unwrap();
    let ended = printed(&["assets", "reference"]).exits_with(0);
    assert_eq!(ended.stdout, reference);
    let readme = fs::read_to_string(root().join("plugins/filter/README.md")).unwrap();
    let ended = printed(&["plugin", "help", "filter"]).exits_with(0);
    assert_eq!(ended.stdout, readme);
    let ended = printed(&["plugin", "help", "filtre"]).exits_with(2);
    assert!(ended.stderr.contains("did you mean"), "{}", ended.stderr);
}

#[test]
fn the_files_for_elasticsearch_are_written_and_say_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let ended = run(dir.path(), &["--out", "a/new/directory"]).exits_with(0);
    let directory = dir.path().join("a/new/directory");
    assert_eq!(
        names(&directory),
        names(&root().join("assets/elasticsearch")),
        "every file of the directory, and nothing else"
    );
    for name in names(&directory) {
        let text = fs::read_to_string(directory.join(&name)).unwrap();
        assert_eq!(
            text,
            fs::read_to_string(root().join("assets/elasticsearch").join(&name)).unwrap(),
            "{name}"
        );
        assert!(
            ended
                .stdout
                .contains(&format!("wrote     a/new/directory/{name}\n")),
            "{}",
            ended.stdout
        );
        match name.rsplit_once('.').unwrap().1 {
            "json" => assert!(
                serde_json::from_str::<Value>(&text).unwrap().is_object(),
                "{name}"
            ),
            "ndjson" => assert!(
                text.lines()
                    .all(|line| serde_json::from_str::<Value>(line).unwrap().is_object()),
                "{name}"
            ),
            _ => {}
        }
    }
    assert!(
        ended
            .stdout
            .ends_with("`a/new/directory/README.md` explains how to install them, step by step.\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn what_an_operator_has_edited_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["--out", "elastic"]).exits_with(0);
    let policy = dir.path().join("elastic/ilm-policy.json");
    fs::write(&policy, "edited").unwrap();
    fs::remove_file(dir.path().join("elastic/logstash.conf")).unwrap();

    let ended = run(dir.path(), &["--out", "elastic"]).exits_with(2);
    assert!(
        ended.stdout.is_empty()
            && ended
                .stderr
                .contains("`elastic/ilm-policy.json` already exists with different content"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("hint: use `--force`"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_to_string(&policy).unwrap(), "edited");
    assert!(
        !dir.path().join("elastic/logstash.conf").exists(),
        "nothing was written"
    );

    let ended = run(dir.path(), &["--out", "elastic", "--force"]).exits_with(0);
    for line in [
        "replaced  elastic/ilm-policy.json",
        "wrote     elastic/logstash.conf",
        "unchanged elastic/index-template.json",
    ] {
        assert!(
            ended.stdout.lines().any(|printed| printed == line),
            "{line}:\n{}",
            ended.stdout
        );
    }
    assert!(fs::read_to_string(&policy).unwrap().contains("\"delete\""));
}

#[test]
fn a_file_instead_of_a_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for out in ["file", "file/below"] {
        let ended = run(dir.path(), &["--out", out]).exits_with(2);
        assert!(
            ended
                .stderr
                .contains(&format!("`--out {out}`: `file` is a file, not a directory"))
                && ended.stdout.is_empty(),
            "{}",
            ended.stderr
        );
    }
}
