//! Golden documents: `golden/events.ndjson` has one event of every type in Teleport's list,
//! `golden/documents.ndjson` their documents line by line, and `golden/editions.ndjson` the
//! documents of other configurations for some of them.
//!
//! After an intended change, run `UPDATE_EXPECT=1 cargo test --manifest-path plugins/Cargo.toml -p
//! lockgate-plugin-ecs --test golden`, and review the difference.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ecs::Config;
use ecs::mapper::Mapping;
use serde_json::{Value, json};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(name: &str) -> String {
    fs::read_to_string(dir().join(name)).unwrap_or_default()
}

fn mapping(with: &Value) -> Mapping<support::Table> {
    let config: Config = lockgate_plugin::config::parse(&with.to_string()).unwrap();
    config.mapping(support::Table::of(&read("places.json")))
}

/// Compares line by line, or writes what was found.
#[allow(
    clippy::disallowed_methods,
    reason = "the documents are written on demand"
)]
fn check(name: &str, found: &[Value]) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let mut text = String::new();
        found
            .iter()
            .for_each(|line| writeln!(text, "{line}").unwrap());
        fs::write(dir().join(name), text).unwrap();
        return;
    }
    let expected: Vec<Value> = read(name)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut wrong = vec![];
    for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
        if expected != found {
            wrong.push(format!("{name}:{}", number + 1));
            support::differences("  ", expected, found, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(expected.len(), found.len(), "lines of {name}");
}

#[test]
fn every_event_type_becomes_the_document_that_was_reviewed() {
    let mapping = mapping(&json!({}));
    let found: Vec<Value> = read("events.ndjson")
        .lines()
        .map(|event| serde_json::from_str(&mapping.map(event)).unwrap())
        .collect();
    check("documents.ndjson", &found);
}

#[test]
fn editions_give_the_reviewed_documents() {
    let found: Vec<Value> = read("editions.ndjson")
        .lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).unwrap();
            let document: Value =
                serde_json::from_str(&mapping(&case["with"]).map(&case["event"].to_string()))
                    .unwrap();
            json!({"event": case["event"], "with": case["with"], "document": document})
        })
        .collect();
    check("editions.ndjson", &found);
}
