//! Each `tests/cases/config/*.toml` is a broken configuration, and the `.stderr` next to it holds
//! the expected messages. Each `valid/*.toml` is correct, and the `.config` next to it holds the
//! expected result. `UPDATE_EXPECT=1` rewrites the expected files.

use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use lockgate_config::{Environment, load};

/// The directory of the cases, as an operator's working directory.
struct CaseDirectory {
    root: PathBuf,
}

/// The variables that are set while a case is read. Every test of these cases sets the same.
const VARIABLES: [(&str, &str); 4] = [
    ("LOCKGATE_CASE_ADDR", "teleport.example.com:443"),
    ("LOCKGATE_CASE_TOKEN", "t0ken-from-the-environment"),
    ("LOCKGATE_CASE_BROKEN", "broken\nvalue"),
    ("LOCKGATE_CASE_EMPTY", ""),
];

/// The secrets of all cases, which no message and no `Debug` text may contain.
const SECRETS: [&str; 4] = [
    "t0ken-from-the-environment",
    "broken\nvalue",
    "hunter2",
    "p4ssword-from-a-file",
];

impl Environment for CaseDirectory {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        let found = VARIABLES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, value)| (*value).to_owned())
            .ok_or(VarError::NotPresent)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(self.root.join(path))
    }
}

fn cases(directory: &str) -> (CaseDirectory, Vec<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/cases/config")
        .join(directory);
    let files = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    cases.sort();
    (CaseDirectory { root }, cases)
}

fn check_secrets_are_absent(case: &Path, text: &str) {
    for secret in SECRETS {
        assert!(
            !text.contains(secret),
            "{}: `{secret}` must not be shown:\n{text}",
            case.display()
        );
    }
}

#[test]
fn broken_configurations_are_explained() {
    let (directory, cases) = cases("");
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    for case in cases {
        let report = load(Path::new(case.file_name().unwrap()), &directory)
            .expect_err(&format!("{} has no problem", case.display()));
        let text = report.render(false);
        check_secrets_are_absent(&case, &text);
        check_secrets_are_absent(&case, &report.render(true));
        expect_file![case.with_extension("stderr")].assert_eq(&text);
    }
}

#[test]
fn good_configurations_are_read() {
    let (directory, cases) = cases("valid");
    assert!(!cases.is_empty());
    for case in cases {
        let config = load(Path::new(case.file_name().unwrap()), &directory)
            .unwrap_or_else(|report| panic!("{report}"));
        let text = format!("{config:#?}\n");
        check_secrets_are_absent(&case, &text);
        expect_file![case.with_extension("config")].assert_eq(&text);
    }
}
