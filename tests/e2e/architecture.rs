use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use lockgate_tests::root;
use serde_json::Value;

/// A row of ARCHITECTURE.md's table of crates.
struct Row {
    /// The name of the crate's directory.
    name: String,
    /// Crates of ours that it may depend on.
    may_use: BTreeSet<String>,
    /// Libraries that only the crates whose rows name them may depend on.
    owns: BTreeSet<String>,
}

const HEADER: &str = "| Crate | May use | Owns |";

#[test]
fn no_crate_has_a_dependency_that_the_architecture_lacks() {
    let rows = rows(&document());
    let violations = violations(&rows, &crates());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn each_kind_of_violation_is_found() {
    let rows = rows(&format!(
        "text\n{HEADER}\n|---|---|---|\n| `model` | | |\n| `store` | `model` | `rusqlite`, `zstd` |\n| `gone` | | |\n\ntext"
    ));
    let on = |dependencies: &[(&str, &str)]| {
        dependencies
            .iter()
            .map(|(name, kind)| (name.to_string(), kind.to_string()))
            .collect()
    };
    let crates = vec![
        (
            "model".to_owned(),
            on(&[
                ("lockgate-store", ""),
                ("rusqlite", "build"),
                ("zstd", "dev"),
            ]),
        ),
        (
            "store".to_owned(),
            on(&[("lockgate-model", ""), ("rusqlite", "")]),
        ),
        ("new".to_owned(), on(&[])),
    ];
    assert_eq!(
        violations(&rows, &crates),
        [
            "`model` must not depend on `store`",
            "`model` must not depend on `rusqlite`, which belongs to `store`",
            "`new` has no row in the table of ARCHITECTURE.md",
            "`gone` has a row in the table of ARCHITECTURE.md, but there is no such crate",
        ]
    );
}

fn document() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is readable")
}

fn rows(document: &str) -> Vec<Row> {
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let rows: Vec<Row> = document
        .lines()
        .skip_while(|line| *line != HEADER)
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').collect();
            let [_, name, may_use, owns, _] = cells[..] else {
                panic!("a row of the table has three cells: {line}")
            };
            let name = names(name).pop_first();
            Row {
                name: name.unwrap_or_else(|| panic!("a row names a crate in backticks: {line}")),
                may_use: names(may_use),
                owns: names(owns),
            }
        })
        .collect();
    assert!(!rows.is_empty(), "ARCHITECTURE.md has a table `{HEADER}`");
    rows
}

fn violations(rows: &[Row], crates: &[Crate]) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, dependencies) in crates {
        let Some(row) = rows.iter().find(|row| row.name == *name) else {
            violations.push(format!(
                "`{name}` has no row in the table of ARCHITECTURE.md"
            ));
            continue;
        };
        for (dependency, _) in dependencies.iter().filter(|(_, kind)| kind != "dev") {
            if let Some(own) = own_name(dependency) {
                if !row.may_use.contains(&own) {
                    violations.push(format!("`{name}` must not depend on `{own}`"));
                }
                continue;
            }
            let owners: Vec<_> = rows
                .iter()
                .filter(|row| row.owns.contains(dependency))
                .map(|row| format!("`{}`", row.name))
                .collect();
            if !owners.is_empty() && !row.owns.contains(dependency) {
                let owners = owners.join(" and ");
                violations.push(format!(
                    "`{name}` must not depend on `{dependency}`, which belongs to {owners}"
                ));
            }
        }
    }
    for row in rows {
        if !crates.iter().any(|(name, _)| *name == row.name) {
            violations.push(format!(
                "`{}` has a row in the table of ARCHITECTURE.md, but there is no such crate",
                row.name
            ));
        }
    }
    violations
}

#[test]
fn unsafe_code_is_forbidden_everywhere_but_where_compiled_code_is_loaded() {
    for (name, _) in crates() {
        let manifest = std::fs::read_to_string(directory(&name).join("Cargo.toml"));
        let forbids = manifest
            .expect("a manifest")
            .contains("[lints]\nworkspace = true");
        assert!(
            forbids || name == "runtime",
            "`{name}` must take the workspace's lints, which forbid unsafe code"
        );
    }
    let uses = files_with("allow(unsafe_code)");
    assert_eq!(uses.len(), 1, "one module loads compiled code: {uses:?}");
}

#[test]
fn only_the_command_line_prints() {
    for (name, _) in crates()
        .into_iter()
        .filter(|(name, _)| !["cli", "guest-build"].contains(&name.as_str()))
    {
        let source = directory(&name).join("src");
        let printing = Command::new("grep")
            .args(["-rnE", r"\b(e?println|e?print|dbg)!"])
            .arg(&source)
            .output()
            .expect("grep runs");
        let lines = String::from_utf8_lossy(&printing.stdout).into_owned();
        let lines: Vec<_> = lines.lines().filter(|line| !line.contains("//")).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}

/// A crate lies in `host/`, if it is part of the binary, or in `tools/`.
fn directory(name: &str) -> PathBuf {
    let places = ["host", "tools"].map(|place| root().join(place).join(name));
    let found = places.into_iter().find(|place| place.is_dir());
    found.unwrap_or_else(|| panic!("`{name}` lies in neither `host/` nor `tools/`"))
}

/// The name of a crate, and its dependencies with their kinds.
type Crate = (String, Vec<(String, String)>);

fn crates() -> Vec<Crate> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let mut crates: Vec<_> = packages
        .iter()
        .filter_map(|package| {
            let name = own_name(&text(&package["name"]))?;
            let dependencies = package["dependencies"].as_array()?;
            Some((
                name,
                dependencies
                    .iter()
                    .map(|dependency| (text(&dependency["name"]), text(&dependency["kind"])))
                    .collect(),
            ))
        })
        .filter(|(name, _)| name != "tests")
        .collect();
    crates.sort();
    crates
}

/// `lockgate-store` is `store`; the binary's package is called `lockgate`.
fn own_name(package: &str) -> Option<String> {
    if package == "lockgate" {
        Some("cli".into())
    } else {
        package.strip_prefix("lockgate-").map(str::to_owned)
    }
}

fn files_with(text: &str) -> Vec<String> {
    let found = Command::new("grep")
        .args(["-rl", "--include=*.rs", text])
        .args([root().join("host"), root().join("tools")])
        .output()
        .expect("grep runs");
    String::from_utf8_lossy(&found.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
