//! `tests/README.md` names regression tests for each defect that was found in a review, and tests
//! that expect the same as those of Teleport's Event Handler.

use lockgate_tests::root;

#[test]
fn every_test_that_a_defect_names_exists() {
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
        assert!(!tests.is_empty(), "defect {} has a test", row[1]);
        for test in tests {
            let (file, name) = test.split_once("::").expect("FILE::NAME");
            let text = std::fs::read_to_string(root().join(file))
                .unwrap_or_else(|error| panic!("defect {}: {file}: {error}", row[1]));
            assert!(
                has_test(&text, name),
                "defect {}: {file} has no test `{name}`",
                row[1]
            );
        }
    }
}

/// Each row of the tests of the Event Handler names tests, or says why there are none.
#[test]
fn every_test_that_matches_one_of_the_event_handler_exists() {
    let document =
        std::fs::read_to_string(root().join("tests/README.md")).expect("tests/README.md");
    let rows = document
        .lines()
        .skip_while(|line| !line.starts_with("| Theirs |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        count += 1;
        let here = row.split('|').nth(3).expect("three columns");
        let quoted = here.split('`').skip(1).step_by(2);
        let tests: Vec<&str> = quoted.filter(|text| text.contains(".rs::")).collect();
        assert!(
            !tests.is_empty() || here.contains("Not applicable: "),
            "{row}"
        );
        for test in tests {
            let (file, name) = test.split_once("::").expect("FILE::NAME");
            let text = std::fs::read_to_string(root().join(file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(has_test(&text, name), "{file} has no test `{name}`");
        }
    }
    assert!(count > 20, "tests/README.md has a table of them");
}

#[test]
fn only_a_function_with_the_attribute_of_a_test_is_one() {
    assert!(has_test("#[test]\nfn name() {}", "name"));
    let flavour = "    #[tokio::test(start_paused = true)]\n    async fn name() {}";
    assert!(has_test(flavour, "name"));
    assert!(!has_test("#[test]\nfn other() {}\n\nfn name() {}", "name"));
    assert!(!has_test("// #[test]\n// fn name() {}", "name"));
    assert!(!has_test("#[test]\nfn name_of_another() {}", "name"));
}

/// Whether the attributes right above a function of this name make it a test.
fn has_test(code: &str, name: &str) -> bool {
    let starts = [format!("fn {name}("), format!("async fn {name}(")];
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let functions = (0..lines.len()).filter(|&at| {
        let is_start = |start: &String| lines[at].starts_with(start);
        starts.iter().any(is_start)
    });
    let is_test = |line: &&str| *line == "#[test]" || line.starts_with("#[tokio::test");
    functions.into_iter().any(|at| {
        let above = lines[..at].iter().rev();
        let mut attributes = above.take_while(|line| line.starts_with("#["));
        attributes.any(is_test)
    })
}
