//! `lockgate assets`.

use std::fs;
use std::path::Path;

use lockgate_tests::{Ended, Running, lockgate, root};
use serde_json::Value;

fn run(dir: &Path, arguments: &[&str]) -> Ended {
    let arguments = ["assets", "elasticsearch"].iter().chain(arguments);
    Running::start("lockgate", lockgate().args(arguments).current_dir(dir)).ended()
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
