//! Events of any shape, because a later version of Teleport may send other values in a known field.

use std::collections::BTreeSet;

use ecs::Config;
use ecs::mapping::{GROUPS, INTAKE, LEFTOVERS};
use ecs::row::{Row, Test};
use serde_json::{Value, json};

use crate::outputs::MAPS;
use crate::support::Table;
use crate::template::Template;

fn shapes() -> Vec<Value> {
    vec![
        json!("a text"),
        json!("{\"in\": [\"JSON\"]}"),
        json!("x".repeat(40_000)),
        json!(7),
        json!(-2.5),
        json!(1e300),
        json!(true),
        json!(null),
        json!([]),
        json!({}),
        json!(["a", "b"]),
        json!([1, {"a": 2}]),
        json!([["a"]]),
        json!({"a": "b"}),
        json!({"a": {"b": [{"c": 1}]}}),
        json!({"text": "a", "name": 1, "ip": {}}),
    ]
}

/// An event that triggers the row.
fn event(row: &Row, shape: &Value) -> Value {
    let action = row.only.iter().find_map(|test| match test {
        Test::Action(name) => Some((*name).to_owned()),
        Test::ActionStarts(start) => Some(format!("{start}x")),
        Test::ActionEnds(end) => Some(format!("x{end}")),
        Test::ActionContains(part) => Some(format!("x{part}x")),
        _ => None,
    });
    let path = row.from.trim_start_matches('.');
    // For a row without a source, the field of its test.
    let tested = || {
        row.only
            .iter()
            .find_map(|test| test.path().strip_prefix('.')?.split('.').next())
    };
    let path = if path.is_empty() {
        tested().unwrap_or_default()
    } else {
        path
    };
    let inner = path
        .rsplit('.')
        .fold(shape.clone(), |value, key| json!({ key: value }));
    let mut event = json!({ "event": action.as_deref().unwrap_or("nobody.knows"), "code": "T0000I", "uid": "u", "time": "2026-01-05T08:00:00Z" });
    event
        .as_object_mut()
        .unwrap()
        .extend(inner.as_object().unwrap().clone());
    event
}

#[test]
fn a_field_of_any_shape_is_accepted_except_plain_values_in_maps() {
    let template = Template::read();
    let maps: BTreeSet<String> = MAPS.iter().map(|map| crate::outputs::full(map)).collect();
    let mut count = 0;
    for (compat, quirks) in [("0.1.0", true), ("1.6", true), ("1.6", false)] {
        let config: Config =
            serde_json::from_value(json!({ "compat": compat, "quirks": quirks })).unwrap();
        let mapping = config.mapping(Table::of("[]"));
        for row in INTAKE.iter().chain(GROUPS).chain(LEFTOVERS) {
            for shape in shapes() {
                let event = event(row, &shape);
                let mut document: Value =
                    serde_json::from_str(&mapping.map(&event.to_string())).unwrap();
                if document.get("@timestamp").is_none() {
                    document["@timestamp"] = json!("2026-01-05T08:00:00.000Z");
                }
                count += 1;
                for why in template.index(&document).rejected {
                    let field = why.split('`').nth(1).unwrap();
                    assert!(
                        maps.contains(field) && why.contains("accepts only objects"),
                        "{}: {why}\n  {event}\n  {document}",
                        row.id
                    );
                }
            }
        }
    }
    assert!(count > 10_000, "{count} documents");
}
