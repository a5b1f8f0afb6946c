//! Each `tests/cases/config/*.toml` is a broken configuration, and the `.stderr` beside it what an
//! operator is told. Each `valid/*.toml` is a good one, and the `.config` beside it what is made of
//! it. `UPDATE_EXPECT=1` writes what is expected anew.

use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use lockgate_config::{Environment, load};

/// The folder of cases, as the working folder of an operator would be.
struct CaseFolder {
    root: PathBuf,
}

/// What is set while a case is read. Every test that reads the folder sets the same.
const VARIABLES: [(&str, &str); 4] = [
    ("LOCKGATE_CASE_ADDR", "teleport.example.com:443"),
    ("LOCKGATE_CASE_TOKEN", "t0ken-from-the-environment"),
    ("LOCKGATE_CASE_BROKEN", "broken\nvalue"),
    ("LOCKGATE_CASE_EMPTY", ""),
];

/// Texts that no message and no `Debug` may hold: the secrets of all cases.
const SECRETS: [&str; 4] = [
    "t0ken-from-the-environment",
    "broken\nvalue",
    "hunter2",
    "p4ssword-from-a-file",
];

impl Environment for CaseFolder {
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

fn cases(folder: &str) -> (CaseFolder, Vec<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/cases/config")
        .join(folder);
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
    (CaseFolder { root }, cases)
}

fn check_secrets_are_absent(case: &Path, text: &str) {
    for secret in SECRETS {
        assert!(
            !text.contains(secret),
            "{}: `{secret}` is shown:\n{text}",
            case.display()
        );
    }
}

#[test]
fn broken_configurations_are_explained() {
    let (folder, cases) = cases("");
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    for case in cases {
        let report = load(Path::new(case.file_name().unwrap()), &folder)
            .expect_err(&format!("{} is fine", case.display()));
        let text = report.render(false);
        check_secrets_are_absent(&case, &text);
        check_secrets_are_absent(&case, &report.render(true));
        expect_file![case.with_extension("stderr")].assert_eq(&text);
    }
}

#[test]
fn good_configurations_are_read() {
    let (folder, cases) = cases("valid");
    assert!(!cases.is_empty());
    for case in cases {
        let config = load(Path::new(case.file_name().unwrap()), &folder)
            .unwrap_or_else(|report| panic!("{report}"));
        let text = format!("{config:#?}\n");
        check_secrets_are_absent(&case, &text);
        expect_file![case.with_extension("config")].assert_eq(&text);
    }
}
