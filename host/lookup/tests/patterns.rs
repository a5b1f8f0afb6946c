//! Checks that `uap-core/regexes.json` is upstream's data, unchanged, in the version that
//! `ua-parser` was tested with.

#![allow(
    clippy::disallowed_methods,
    reason = "a test finds cargo's cache and its own switches"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// SHA-256 of `uap-core/regexes.json`.
const DIGEST: &str = "0fac7ec2650bce571bf828aa3a0a6681ee9ec7186b81a41398990cbc10ab972e";

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("uap-core/regexes.json")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The version of `ua-parser` that the lock file names.
fn locked_version() -> String {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lock = fs::read_to_string(lock).expect("the lock file");
    let (_, entry) = lock
        .split_once("name = \"ua-parser\"\nversion = \"")
        .expect("ua-parser");
    entry.split('"').next().expect("a version").to_owned()
}

/// Upstream's file in cargo's cache. There is none if dependencies are vendored.
fn original() -> Option<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")))?;
    let package = format!("ua-parser-{}/uap-core/regexes.yaml", locked_version());
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    registries
        .flatten()
        .find_map(|registry| fs::read_to_string(registry.path().join(&package)).ok())
}

/// Reads the part of YAML that the file uses: lists of maps with single-quoted values.
fn read(yaml: &str) -> Value {
    let mut lists = Map::new();
    let mut current = String::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_suffix(':') {
            current = name.to_owned();
            lists.insert(current.clone(), Value::Array(Vec::new()));
            continue;
        }
        let list = lists
            .get_mut(&current)
            .and_then(Value::as_array_mut)
            .expect("a list comes first");
        let member = text.strip_prefix("- ");
        if member.is_some() {
            list.push(Value::Object(Map::new()));
        }
        let (key, value) = member
            .unwrap_or(text)
            .split_once(": ")
            .expect("a key and a value");
        let pattern = list
            .last_mut()
            .and_then(Value::as_object_mut)
            .expect("a pattern comes first");
        assert_eq!(
            pattern.insert(key.to_owned(), scalar(value)),
            None,
            "`{line}` repeats a key"
        );
    }
    Value::Object(lists)
}

fn scalar(text: &str) -> Value {
    if text == "null" {
        return Value::Null;
    }
    let (value, rest) = text
        .strip_prefix('\'')
        .and_then(|text| closing_quote(text).map(|at| (&text[..at], &text[at + 1..])))
        .unwrap_or_else(|| panic!("`{text}` is not quoted"));
    assert!(
        rest.trim().is_empty() || rest.trim().starts_with('#'),
        "`{rest}` follows a value"
    );
    Value::String(value.replace("''", "'"))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('\'')?;
        if !text[at + 1..].starts_with('\'') {
            return Some(at);
        }
        at += 2;
    }
}

/// Writes one pattern per line, so that an update can be reviewed.
fn write(patterns: &Value) -> String {
    let lists = patterns
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, patterns)| {
            let patterns = patterns.as_array().expect("a list").iter();
            let lines: Vec<String> = patterns.map(|pattern| format!("    {pattern}")).collect();
            format!("  \"{name}\": [\n{}\n  ]", lines.join(",\n"))
        });
    format!("{{\n{}\n}}\n", lists.collect::<Vec<_>>().join(",\n"))
}

#[test]
fn the_patterns_match_upstream() {
    let Some(original) = original() else {
        // The test of the digest still checks them.
        // Written to the stream itself: what `println!` writes is shown for failing tests only.
        let _ = writeln!(
            std::io::stderr(),
            "a test was skipped: the sources of ua-parser are not in cargo's cache"
        );
        return;
    };
    let patterns = read(&original);
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(committed(), write(&patterns)).expect("written");
    }
    let committed = fs::read_to_string(committed()).expect("the patterns");
    assert_eq!(
        serde_json::from_str::<Value>(&committed).expect("JSON"),
        patterns
    );
}

#[test]
fn the_patterns_are_pinned() {
    let patterns = fs::read(committed()).expect("the patterns");
    assert_eq!(hex(&Sha256::digest(patterns)), DIGEST);
}

#[test]
fn the_readme_names_the_version_in_use() {
    let readme = include_str!("../uap-core/README.md");
    let named = format!("`ua-parser` {} ", locked_version());
    assert!(
        readme.contains(&named),
        "README.md does not name {named}: write the patterns again"
    );
}

#[test]
fn yaml_is_parsed_according_to_its_specification() {
    let yaml = "# c\na:\n  # c\n  - regex: 'it''s \\d: #' # c\n    b: null\n  - regex: ''\nc:\n";
    let expected = serde_json::json!({
        "a": [{ "regex": "it's \\d: #", "b": null }, { "regex": "" }],
        "c": [],
    });
    assert_eq!(read(yaml), expected);
}
