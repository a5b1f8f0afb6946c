//! Checks documents of the mapper against the template.

use std::fs;

use serde_json::Value;

use crate::support;
use crate::template::Template;

/// Every document is accepted and completely indexed. Documents of events without a valid time get
/// one from Logstash.
fn check(documents: impl Iterator<Item = Value>) -> usize {
    let template = Template::read();
    let (mut count, mut wrong) = (0, vec![]);
    for mut document in documents {
        count += 1;
        if document.get("@timestamp").is_none() {
            assert_eq!(
                document["event"]["kind"], "pipeline_error",
                "only an event that cannot be mapped has no time: {document}"
            );
            document["@timestamp"] = "2026-01-05T08:00:00.000Z".into();
        }
        let verdict = template.index(&document);
        if !verdict.rejected.is_empty() || !verdict.ignored.is_empty() {
            wrong.push(format!("{verdict:?}\n  {document}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "the template does not accept\n{}",
        wrong.join("\n")
    );
    count
}

#[test]
fn every_golden_document_is_accepted() {
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    assert!(
        check(
            include_str!("../golden/documents.ndjson")
                .lines()
                .map(parse)
        ) > 200
    );
    assert!(
        check(
            include_str!("../golden/editions.ndjson")
                .lines()
                .map(|line| parse(line)["document"].clone())
        ) > 20
    );
}

#[test]
fn every_document_of_elastics_tests_is_accepted() {
    let Some(shared) = support::shared() else {
        return;
    };
    let expected = fs::read_to_string(
        shared.join("data/ecs-golden/test-teleport-all-events.log-expected.json"),
    )
    .unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let count = check(expected["expected"].as_array().unwrap().iter().cloned());
    println!("{count} documents are accepted");
}
