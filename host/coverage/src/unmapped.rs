//! Finds the fields of an event that a mapper left unmapped.

use std::borrow::Cow;

use lockgate_model::escape;
use serde_json::Value;

use super::NAME;
use crate::template;

/// Objects under keys that end so are maps with keys of users' own: one field.
const MAPS: [&str; 6] = [
    "labels",
    "annotations",
    "attributes",
    "attribute_mapping",
    "traits",
    "headers",
];

/// Names of Teleport's own that the index template declares for what is left of them.
const LEFT_OVER: [&str; 4] = ["addr", "addr.local", "addr.remote", "user_traits"];

/// The value of a document at a dotted path, which may also be written as one name.
pub(super) fn at<'d>(document: &'d Value, path: &str) -> Option<&'d Value> {
    document.get(path).or_else(|| {
        path.split('.')
            .try_fold(document, |value, key| value.get(key))
    })
}

/// Null, `""`, and lists and objects in which nothing else is.
pub(super) fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(empty),
        Value::Object(object) => object.values().all(empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Calls `stayed` with the shown path of each field of the event that stands in one of `places` as
/// it does in the event.
pub(super) fn visit(event: &Value, places: &[&Value], stayed: &mut dyn FnMut(&str)) {
    let mut path = Vec::new();
    walk(event, places, &mut path, stayed);
}

fn walk<'e>(
    source: &'e Value,
    places: &[&Value],
    path: &mut Vec<&'e str>,
    stayed: &mut dyn FnMut(&str),
) {
    if places.is_empty() {
        return;
    }
    match source {
        Value::Object(members)
            if !path
                .last()
                .is_some_and(|key| MAPS.iter().any(|end| key.ends_with(end))) =>
        {
            for (key, value) in members {
                let mut inner: Vec<&Value> =
                    places.iter().filter_map(|place| place.get(key)).collect();
                if key.contains('.') {
                    inner.extend(places.iter().filter_map(|place| {
                        key.split('.').try_fold(*place, |value, key| value.get(key))
                    }));
                }
                path.push(key);
                walk(value, &inner, path, stayed);
                path.pop();
            }
        }
        leaf if !empty(leaf)
            && places.iter().any(|place| same(leaf, place))
            && !is_declared(path) =>
        {
            stayed(&shown(path))
        }
        _ => {}
    }
}

/// The index template knows the field where it stands, and not only so that what no row could read
/// does no harm in the index.
fn is_declared(path: &[&str]) -> bool {
    !path.first().is_some_and(|key| LEFT_OVER.contains(key))
        && template::is_declared(&format!("teleport.audit.{}", path.join(".")))
}

/// Equal but for what is empty.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let filled = |object: &serde_json::Map<String, Value>| {
                object.values().filter(|value| !empty(value)).count()
            };
            filled(one) == filled(other)
                && one
                    .iter()
                    .filter(|(_, value)| !empty(value))
                    .all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            let mut others = other.iter().filter(|value| !empty(value));
            one.iter()
                .filter(|value| !empty(value))
                .all(|value| others.next().is_some_and(|other| same(value, other)))
                && others.next().is_none()
        }
        (one, other) => one == other,
    }
}

/// Keys joined by dots. A key that would be read otherwise is in quotes, as JSON has it:
/// `"addr.local"`.
fn shown(path: &[&str]) -> String {
    let mut name = String::new();
    for key in path {
        if !name.is_empty() {
            name.push('.');
        }
        let plain = matches!(escape(key, NAME), Cow::Borrowed(_))
            && !key.is_empty()
            && !key.contains(['.', '"', '\\', ' ']);
        if plain {
            name.push_str(key);
        } else {
            let quoted = key.replace('\\', r"\\").replace('"', r#"\""#);
            name.extend(["\"", &escape(&quoted, NAME), "\""]);
        }
    }
    escape(&name, NAME).into_owned()
}
