use std::path::{Path, PathBuf};

use expect_test::expect_file;
use lockgate_tests::{Ended, Running, lockgate, root};

/// What tests/cases/config/README.md says is set.
const VARIABLES: [(&str, &str); 4] = [
    ("LOCKGATE_CASE_ADDR", "teleport.example.com:443"),
    ("LOCKGATE_CASE_TOKEN", "t0ken-from-the-environment"),
    ("LOCKGATE_CASE_BROKEN", "broken\nvalue"),
    ("LOCKGATE_CASE_EMPTY", ""),
];

/// The texts are those of the library's own test; this shows that the command prints them.
#[test]
fn every_broken_configuration_is_told_whole_and_ends_with_2() {
    let folder = root().join("tests/cases/config");
    for case in cases(&folder) {
        let expected = std::fs::read_to_string(folder.join(&case).with_extension("stderr")).expect("what it says is there");
        let ended = check(&folder, &[&case]).exits_with(2);
        assert!(ended.stderr.starts_with(&expected), "{}:\n{}\nbegins otherwise than\n{expected}", case.display(), ended.stderr);
        assert!(ended.stderr.ends_with("error: 1 of 1 configuration file cannot be used.\n"), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{}", case.display());
    }
}

/// What only plugins, or the files named, can tell: `check` points at the operator's line too.
#[test]
fn what_plugins_say_is_told_at_the_operator_s_line() {
    let folder = root().join("tests/cases/check");
    let cases = cases(&folder);
    assert!(cases.len() >= 6, "{cases:?}");
    for case in cases {
        let ended = check(&folder, &[&case]).exits_with(2);
        expect_file![folder.join(&case).with_extension("stderr")].assert_eq(&ended.stderr);
        assert_eq!(ended.stdout, "", "{}", case.display());
    }
}

#[test]
fn several_files_are_checked_at_once_and_the_good_ones_are_named() {
    let folder = root().join("tests/cases/config");
    let good = PathBuf::from("valid/smallest.toml");
    let ended = check(&folder, &[&good]).exits_with(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("valid/smallest.toml: correct, 1 pipeline.\n", ""));

    let ended = check(&folder, &[Path::new("units.toml"), &good, Path::new("url.toml"), Path::new("absent.toml")]).exits_with(2);
    assert_eq!(ended.stdout, "valid/smallest.toml: correct, 1 pipeline.\n");
    for text in ["units.toml:", "url.toml:", "absent.toml", "3 of 4 configuration files"] {
        assert!(ended.stderr.contains(text), "no `{text}` in:\n{}", ended.stderr);
    }
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).expect("a folder of cases").map(|entry| PathBuf::from(entry.expect("an entry").file_name()));
    let mut cases: Vec<_> = names.filter(|name| name.extension().is_some_and(|extension| extension == "toml")).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{}", folder.display());
    cases
}

fn check(folder: &Path, files: &[&Path]) -> Ended {
    Running::start("check", lockgate().arg("check").args(files).current_dir(folder).envs(VARIABLES)).ended()
}
