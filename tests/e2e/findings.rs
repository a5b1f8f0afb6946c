use std::path::{Path, PathBuf};

use lockgate_tests::root;

/// `tests/README.md` names, for each defect that was found in a review, its regression tests.
#[test]
fn every_test_that_a_finding_names_exists() {
    let document =
        std::fs::read_to_string(root().join("tests/README.md")).expect("tests/README.md");
    let rows: Vec<Vec<&str>> = document
        .lines()
        .skip_while(|line| !line.starts_with("| # |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "tests/README.md has a table of defects");
    let numbers: Vec<usize> = rows
        .iter()
        .map(|row| row[1].parse().expect("a row begins with its number"))
        .collect();
    assert_eq!(numbers, (1..=rows.len()).collect::<Vec<_>>());
    for row in &rows {
        let tests: Vec<&str> = row[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "finding {} has a test", row[1]);
        for test in tests {
            let (file, name) = test.split_once("::").expect("FILE::NAME");
            let text = std::fs::read_to_string(root().join(file))
                .unwrap_or_else(|error| panic!("finding {}: {file}: {error}", row[1]));
            assert!(
                text.contains(&format!("fn {name}(")),
                "finding {}: {file} has no test `{name}`",
                row[1]
            );
        }
    }
}

#[test]
fn no_test_is_ignored() {
    let marker = ["#[", "ignore"].concat();
    let mut pending: Vec<PathBuf> = ["host", "tests", "tools", "plugins", "sdk"]
        .map(|directory| root().join(directory))
        .into();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                assert!(
                    !contains(&path, &marker),
                    "{} ignores a test",
                    path.display()
                );
            }
        }
    }
}

fn contains(file: &Path, text: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|content| content.contains(text))
}
