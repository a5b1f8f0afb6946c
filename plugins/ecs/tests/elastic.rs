//! Compares with the documents of Elastic's own tests, if they are available. They are not part of
//! this project.

mod support;

use std::fs;

use ecs::{Compat, Config};
use serde_json::Value;

#[test]
fn every_document_of_elastics_tests_is_reproduced_exactly() {
    let Some(shared) = support::shared() else {
        return;
    };
    let read = |name: &str| fs::read_to_string(shared.join("data").join(name)).unwrap();
    let table = support::Table::of(&read("geoip/geo-table.json"));
    let mapping = Config {
        compat: Compat::First,
        quirks: true,
        preserve_original: true,
    }
    .mapping(table);
    let events = read("ecs-golden/test-teleport-all-events.log");
    let expected: Value = serde_json::from_str(&read(
        "ecs-golden/test-teleport-all-events.log-expected.json",
    ))
    .unwrap();
    let expected = expected["expected"].as_array().unwrap();
    let events: Vec<&str> = events.lines().collect();
    assert_eq!(events.len(), expected.len());

    let mut wrong = vec![];
    for (number, (event, expected)) in events.iter().zip(expected).enumerate() {
        let document = mapping.map(event);
        let found: Value =
            serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}"));
        if found != *expected {
            let mut lines = vec![];
            support::differences("", expected, &found, &mut lines);
            wrong.push(format!("event {}\n  {}", number + 1, lines.join("\n  ")));
        }
    }
    println!(
        "{} of {} documents are equal",
        events.len() - wrong.len(),
        events.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn uris_of_elastics_tests_are_parsed_like_in_java() {
    let Some(shared) = support::shared() else {
        return;
    };
    let mapping = Config {
        compat: Compat::First,
        quirks: true,
        preserve_original: false,
    }
    .mapping(support::Table::of("[]"));
    for line in fs::read_to_string(shared.join("data/ecs-golden/uri-vectors.jsonl"))
        .unwrap()
        .lines()
    {
        let vector: Value = serde_json::from_str(line).unwrap();
        let event =
            serde_json::json!({"event": "session.upload", "code": "T2005I", "url": vector["s"]})
                .to_string();
        let document: Value = serde_json::from_str(&mapping.map(&event)).unwrap();
        let url = &document["url"];
        if vector["ok"] == false {
            assert_eq!(
                url,
                &serde_json::json!({"original": vector["s"]}),
                "{vector}"
            );
            continue;
        }
        for (key, name) in [
            ("dom", "domain"),
            ("fr", "fragment"),
            ("path", "path"),
            ("port", "port"),
            ("q", "query"),
            ("sch", "scheme"),
            ("ui", "user_info"),
        ] {
            let absent = vector[key] == "" || vector[key] == -1;
            let expected = if absent { &Value::Null } else { &vector[key] };
            assert_eq!(&url[name], expected, "{name} of {vector}");
        }
    }
}
