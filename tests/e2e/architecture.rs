//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a test can check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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
    let sources = [rust_files("host"), rust_files("tools")].concat();
    let uses: Vec<_> = sources
        .iter()
        .filter(|file| code(file).contains("allow(unsafe_code)"))
        .collect();
    assert_eq!(uses.len(), 1, "one module loads compiled code: {uses:?}");
}

#[test]
fn only_the_command_line_prints() {
    for (name, _) in crates()
        .into_iter()
        .filter(|(name, _)| !["cli", "guest-build"].contains(&name.as_str()))
    {
        for file in rust_files(directory(&name).join("src")) {
            let prints = printing_line(&code(&file)).map(str::to_owned);
            assert_eq!(prints, None, "{} prints", file.display());
        }
    }
}

#[test]
fn a_line_that_prints_is_found() {
    for line in [
        r#"println!("https://example.com");"#,
        r#"eprint!("…"); // why"#,
        "dbg!(value)",
    ] {
        assert_eq!(
            printing_line(&format!("fn f() {{\n    {line}\n}}")),
            Some(line)
        );
    }
    assert_eq!(printing_line("fn f() {}"), None);
}

/// The first line that writes to the standard output or the standard error.
fn printing_line(code: &str) -> Option<&str> {
    let prints = |line: &&str| {
        ["println!", "print!", "dbg!"]
            .iter()
            .any(|name| line.contains(name))
    };
    code.lines().map(str::trim).find(prints)
}

/// Columns of a line of a comment; `rustfmt` sees to the code.
const COLUMNS: usize = 100;

#[test]
fn comments_have_at_most_a_hundred_columns() {
    let mut long = Vec::new();
    for place in ["host", "tests", "tools", "plugins", "sdk", "fuzz"] {
        for file in rust_files(place) {
            let text = std::fs::read_to_string(&file).expect("a Rust file is readable");
            let is_generated = file.ends_with("bindings.rs")
                || file.parent().is_some_and(|at| at.ends_with("proto"));
            if !is_generated {
                let lines = long_comments(&text).into_iter();
                long.extend(lines.map(|line| format!("{}:{line}", file.display())));
            }
        }
    }
    assert!(long.is_empty(), "wrap these comments:\n{}", long.join("\n"));
}

#[test]
fn a_comment_that_is_too_long_is_found() {
    let words = "word ".repeat(21);
    let found = |text: &str| long_comments(text);
    assert_eq!(found(&format!("code\n// {words}\n    /// {words}")), [2, 3]);
    assert_eq!(found(&format!("// {}", "…".repeat(97))), [0; 0]);
    assert_eq!(found(&format!("let text = \"{words}\";")), [0; 0]);
    // Code and tables cannot be wrapped.
    let example = format!("//! ```text\n//! {words}\n//! ```\n//! | {words} |");
    assert_eq!(found(&example), [0; 0]);
    assert_eq!(found(&format!("{example}\n//! {words}")), [5]);
}

/// The numbers of the lines that are comments of more than [`COLUMNS`], but for examples and
/// tables.
fn long_comments(text: &str) -> Vec<usize> {
    let mut is_example = false;
    let mut long = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_example = false;
            continue;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        if comment.starts_with("```") {
            is_example = !is_example;
        } else if !is_example && !comment.starts_with('|') && line.chars().count() > COLUMNS {
            long.push(number);
        }
    }
    long
}

/// Fuzz targets are built by nobody but who fuzzes, so that they fail to compile goes unnoticed.
/// For a file that is included by its path, a module is a file next to it.
#[test]
fn files_that_fuzz_targets_include_find_their_modules() {
    let targets = root().join("fuzz/fuzz_targets");
    let mut included = 0;
    for target in rust_files("fuzz/fuzz_targets") {
        for path in paths(&code(&target)) {
            let file = targets.join(path);
            included += 1;
            let text = code(&file);
            let missing = lost_modules(&text, file.parent().unwrap());
            assert_eq!(missing, <[&str; 0]>::default(), "{}", file.display());
        }
    }
    assert!(included > 3, "fuzz targets include files");
}

#[test]
fn a_module_that_is_lost_to_a_fuzz_target_is_found() {
    let directory = root().join("host/runtime/src");
    for (code, expected) in [
        ("mod scanner;\n", &["scanner"][..]),
        ("#[path = \"json/scanner.rs\"]\nmod scanner;\n", &[]),
        ("#[path = \"json/no.rs\"]\nmod scanner;\n", &["scanner"]),
        ("#[cfg(test)]\nmod tests;\n", &[]),
        ("pub(crate) mod budget;\nmod inline {\n}\n", &[]),
    ] {
        assert_eq!(lost_modules(code, &directory), expected, "{code}");
    }
}

/// The values of `#[path = "…"]`.
fn paths(code: &str) -> Vec<&str> {
    let lines = code.lines().map(str::trim);
    let paths = lines.filter_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
    paths.collect()
}

/// The modules of a file of this directory that are not found if it is included by its path.
fn lost_modules<'a>(code: &'a str, directory: &Path) -> Vec<&'a str> {
    let mut lost = vec![];
    let mut before = "";
    for line in code.lines().map(str::trim) {
        let module = line.rsplit_once("mod ").and_then(|(visibility, name)| {
            let is_module = visibility.is_empty() || visibility.starts_with("pub");
            name.strip_suffix(';').filter(|_| is_module)
        });
        if let Some(name) = module
            && before != "#[cfg(test)]"
        {
            let files = match paths(before)[..] {
                [path] => vec![directory.join(path)],
                _ => vec![
                    directory.join(format!("{name}.rs")),
                    directory.join(name).join("mod.rs"),
                ],
            };
            if !files.iter().any(|file| file.exists()) {
                lost.push(name);
            }
        }
        before = line;
    }
    lost
}

#[test]
fn no_test_is_ignored() {
    for place in ["host", "tests", "tools", "plugins", "sdk", "fuzz"] {
        for file in rust_files(place) {
            assert!(
                !ignores_a_test(&code(&file)),
                "{} ignores a test",
                file.display()
            );
        }
    }
}

#[test]
fn an_ignored_test_is_found() {
    let attribute = |text: &str| ignores_a_test(&format!("#[{text}]\nfn test() {{}}"));
    assert!(attribute("ignore"));
    assert!(attribute("ignore = \"slow\""));
    assert!(attribute(
        "cfg_attr(\n    all(unix, feature = \"a[0]\"),\n    ignore\n)"
    ));
    assert!(!attribute("test"));
    assert!(!ignores_a_test(
        "#[test]\nfn ignore() { let ignore = [0]; }"
    ));
}

/// Whether an attribute has the word `ignore`.
fn ignores_a_test(code: &str) -> bool {
    let is_ignore = |word| word == "ignore";
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let attributes = code.split("#[").skip(1).map(attribute);
    attributes
        .flat_map(|text| text.split(|character| !is_part(character)))
        .any(is_ignore)
}

/// `text` up to the bracket that closes the attribute.
fn attribute(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|character| {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
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

/// The Rust files in a directory and those below it; a path is relative to the root.
fn rust_files(directory: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory is readable") {
            let path = entry.expect("an entry is readable").path();
            if path.is_dir() && !path.ends_with("target") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "there are Rust files");
    files
}

/// A file without the lines that are comments.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a Rust file is readable");
    let lines = text.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_document_on_fuzzing_lists_every_target_and_each_has_seeds() {
    let fuzz = root().join("fuzz");
    let document = std::fs::read_to_string(fuzz.join("README.md")).expect("it is readable");
    let rows = document.lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?;
        Some(name.split_once('`')?.0.to_owned())
    });
    let targets = std::fs::read_dir(fuzz.join("fuzz_targets")).expect("the targets");
    let targets = targets.filter_map(|file| {
        let file = file.expect("a file").file_name().into_string().ok()?;
        Some(file.strip_suffix(".rs")?.to_owned())
    });
    let (rows, targets) = (
        rows.collect::<BTreeSet<_>>(),
        targets.collect::<BTreeSet<_>>(),
    );
    assert_eq!(rows, targets);
    for target in targets {
        let seeds = fuzz.join("seeds").join(&target);
        let count = std::fs::read_dir(&seeds).map_or(0, Iterator::count);
        assert!(count > 0, "`{target}` has no seeds");
    }
}
