//! Any JSON object gives a document, and no value is lost except those that a row deletes.
//!
//! 20,000 events; `PROPTEST_CASES=1000000 cargo test --release -p lockgate-plugin-ecs --test
//! property` for more.

#[path = "support/promise.rs"]
mod promise;

use ecs::mapping::{GROUPS, INTAKE, LEFTOVERS};
use ecs::row::{Op, Row, Test};
use promise::{MAY_COLLIDE, MAY_GO, check, mappings};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

/// Names from the rows, and some unknown ones.
fn key() -> impl Strategy<Value = String> {
    let rows = INTAKE.iter().chain(GROUPS).chain(LEFTOVERS);
    let paths = rows
        .clone()
        .flat_map(|row| [row.from, row.only[0].path(), row.only[1].path()]);
    let first = |path: &'static str| path.strip_prefix('.')?.split('.').next();
    let mut names: Vec<String> = paths
        .filter_map(first)
        .chain(rows.filter_map(Row::literal_key))
        .map(str::to_owned)
        .collect();
    names.retain(|name| name != "addr aside");
    // Also targets of rows, because an event may already contain them.
    names.extend(
        [
            "database",
            "session",
            "user",
            "server",
            "mfa_device",
            "app",
            "nobody",
            "x.y",
            "",
        ]
        .map(str::to_owned),
    );
    names.sort();
    names.dedup();
    prop::sample::select(names)
}

/// Texts that parsers look for, each with a unique number.
fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<u32>().prop_map(|n| Value::from(format!("v{n:010}"))),
        1 => any::<u32>().prop_map(|n| Value::from(format!("node{n:010}.example.com:3022"))),
        1 => (any::<u32>(), any::<u8>()).prop_map(|(n, b)| Value::from(format!("tcp://u:p@h{n:010}.example.com/{b}?q=%41"))),
        1 => any::<u8>().prop_map(|n| Value::from(format!("192.0.2.{n}:{n}"))),
        1 => Just(Value::from("2026-01-05T08:00:00.123456Z")),
        1 => Just(Value::from("80:25")),
        1 => Just(Value::from("eyJhIjpbMSxudWxsXX0=")),
        1 => "[ -~é\\n\\\\\"]{0,12}".prop_map(Value::from),
        1 => (0..4i64).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        let name = prop_oneof![
            Just("uuid"),
            Just("uri"),
            Just("local"),
            Just("remote"),
            Just("name"),
            Just("kind"),
            Just("os_type"),
            Just("tcp_version"),
            Just("identity"),
            Just("logins"),
            Just("client_ip"),
            Just("mfa_device_uuid"),
            Just("labels"),
            Just("hostname"),
            Just("user"),
            Just("a"),
            Just(""),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

fn event() -> impl Strategy<Value = Value> {
    let actions: Vec<&str> = include_str!("golden/events.ndjson")
        .lines()
        .filter_map(|line| line.split(r#""event":""#).nth(1)?.split('"').next())
        .collect();
    let action = prop_oneof![
        12 => prop::sample::select(actions).prop_map(|action| Some(Value::from(action))),
        1 => Just(None),
        1 => value().prop_map(Some),
    ];
    let code = prop_oneof![6 => "T[0-9]{4}[IWE]".prop_map(|code| Some(Value::from(code))), 1 => Just(None), 1 => leaf().prop_map(Some)];
    (
        prop::collection::btree_map(key(), value(), 0..14),
        action,
        code,
    )
        .prop_map(|(mut map, action, code)| {
            map.remove("event");
            map.remove("code");
            map.extend(action.map(|action| ("event".to_owned(), action)));
            map.extend(code.map(|code| ("code".to_owned(), code)));
            map.into_iter().collect()
        })
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how many cases is a choice of who runs it"
)]
fn any_event_becomes_a_document() {
    let given = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: given.unwrap_or(20_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mappings = mappings();
    let strategy = (event(), 0..mappings.len());
    if let Err(failure) = TestRunner::new(config).run(&strategy, |(event, number)| {
        holds(check(&event.to_string(), &mappings[number]))
    }) {
        panic!("{failure}");
    }
}

fn holds(promise: Result<(), String>) -> Result<(), TestCaseError> {
    promise.map_err(TestCaseError::fail)
}

/// Even payloads that the host would never pass must not cause a trap.
#[test]
fn foreign_text_never_panics() {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "null",
            "é",
            "\"event\":",
            "\"time\":",
            "\"addr.local\":",
            "\"data\":"
        ])
        .prop_map(str::to_owned),
        "\"[ -~é]{0,10}\"",
        "[ -~é]{0,6}",
    ];
    let text = prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat());
    let config = ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mappings = mappings();
    let strategy = (any::<bool>(), text, 0..mappings.len());
    let outcome = TestRunner::new(config).run(&strategy, |(braced, text, number)| {
        let text = if braced { format!("{{{text}}}") } else { text };
        holds(check(&text, &mappings[number]))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// A text that may confuse any parser.
#[test]
fn odd_texts_in_known_fields_never_panic() {
    let config = ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mappings = mappings();
    let text = prop_oneof![
        "[0-9]{0,4}[-T:.+Z0-9é]{0,24}",
        "[a-z0-9:/@?#%\\[\\]é._+-]{0,24}",
        "[A-Za-z0-9+/=é]{0,16}"
    ];
    let strategy = (
        prop::collection::btree_map(key(), text, 1..6),
        0..mappings.len(),
    );
    let outcome = TestRunner::new(config).run(&strategy, |(map, number)| {
        let event: Value = map
            .into_iter()
            .map(|(key, text)| (key, Value::from(text)))
            .collect();
        holds(check(&event.to_string(), &mappings[number]))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn only_the_listed_rows_lose_values() {
    for row in INTAKE.iter().chain(GROUPS).chain(LEFTOVERS) {
        if matches!(row.op, Op::Delete | Op::Claim) {
            let key = row.from.trim_start_matches('.');
            let known = MAY_GO.contains(&key)
                || MAY_COLLIDE.contains(&key)
                || MAY_COLLIDE.contains(&key.split('.').next().unwrap());
            // The values that these rows delete exist elsewhere, or have no meaning.
            let copied = matches!(row.id, "L13" | "G108");
            assert!(
                known || copied || matches!(row.only[0], Test::Empty(_)),
                "{} {key}",
                row.id
            );
        }
    }
}
