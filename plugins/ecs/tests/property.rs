//! Any JSON object in: a document out, and nothing of the event is lost but what a row says.
//!
//! 20,000 events; `PROPTEST_CASES=1000000 cargo test --release -p lockgate-plugin-ecs --test property` for more.

mod support;

use ecs::mapper::Mapping;
use ecs::mapping::{GROUPS, INTAKE, LEFTOVERS};
use ecs::row::{Op, Test};
use ecs::{Compat, Config};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

/// Keys whose value may go: rows delete them (G113, G279), or replace them by what they read in them.
const MAY_GO: [&str; 11] =
    ["action", "data", "operation", "os_type", "status", "success", "user_kind", "version", "session_start", "session_stop", "time"];

/// Sources of rows that keep what they can read in a source and delete it in any case: addresses, and what collides.
const MAY_COLLIDE: [&str; 19] = [
    "addr",
    "addr.local",
    "addr.remote",
    "server_addr",
    "desktop_addr",
    "cluster_name",
    "uri",
    "db_uri",
    "database",
    "body",
    "user",
    "aws_region",
    "aws_service",
    "aws_host",
    "db_aws_region",
    "db_gcp_instance_id",
    "instance_id",
    "account_id",
    "region",
];

/// Names that rows know, and some of nobody's.
fn key() -> impl Strategy<Value = String> {
    let mut names: Vec<String> = INTAKE.iter().chain(GROUPS).chain(LEFTOVERS).flat_map(|row| row.triggers().map(str::to_owned)).collect();
    names.retain(|name| name != "addr aside");
    // Where rows write to, too: an event may hold that already.
    names.extend(["database", "session", "user", "server", "mfa_device", "app", "nobody", "x.y", ""].map(str::to_owned));
    names.sort();
    names.dedup();
    prop::sample::select(names)
}

/// Texts that parsers look for, each with a number that tells it from all others.
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
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()),
        ]
    })
}

fn event() -> impl Strategy<Value = Value> {
    let actions: Vec<&str> =
        include_str!("golden/events.ndjson").lines().filter_map(|line| line.split(r#""event":""#).nth(1)?.split('"').next()).collect();
    let action = prop_oneof![
        12 => prop::sample::select(actions).prop_map(|action| Some(Value::from(action))),
        1 => Just(None),
        1 => value().prop_map(Some),
    ];
    let code = prop_oneof![6 => "T[0-9]{4}[IWE]".prop_map(|code| Some(Value::from(code))), 1 => Just(None), 1 => leaf().prop_map(Some)];
    (prop::collection::btree_map(key(), value(), 0..14), action, code).prop_map(|(mut map, action, code)| {
        map.remove("event");
        map.remove("code");
        map.extend(action.map(|action| ("event".to_owned(), action)));
        map.extend(code.map(|code| ("code".to_owned(), code)));
        map.into_iter().collect()
    })
}

/// Every configuration there is.
fn mappings() -> Vec<Mapping<support::Table>> {
    let bools = [false, true];
    let configs = bools.into_iter().flat_map(|first| {
        bools.into_iter().flat_map(move |quirks| {
            bools.into_iter().map(move |preserve_original| {
                let compat = if first { Compat::First } else { Compat::Later };
                Config { compat, quirks, preserve_original }
            })
        })
    });
    configs.map(|config| config.mapping(support::Table::of("[]"))).collect()
}

/// The marks in a value, which can be found again wherever it goes.
fn marks(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() == 11 && text.starts_with('v') && text[1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            out.push(text.clone())
        }
        Value::Array(list) => list.iter().for_each(|value| marks(value, out)),
        Value::Object(map) => map.values().for_each(|value| marks(value, out)),
        _ => {}
    }
}

fn holds_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty() || list.iter().any(holds_empty),
        Value::Object(map) => map.is_empty() || map.values().any(holds_empty),
        _ => false,
    }
}

#[test]
fn any_event_becomes_a_document() {
    let given = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig { cases: given.unwrap_or(20_000), failure_persistence: None, ..ProptestConfig::default() };
    let mappings = mappings();
    let strategy = (event(), 0..mappings.len());
    if let Err(failure) = TestRunner::new(config).run(&strategy, |(event, number)| check(&event, &mappings[number])) {
        panic!("{failure}");
    }
}

fn check(event: &Value, mapping: &Mapping<support::Table>) -> Result<(), TestCaseError> {
    let payload = event.to_string();
    let text = mapping.map(&payload);
    let document: Value = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    prop_assert_eq!(&document["ecs"]["version"], "8.11.0");
    let failed = document["event"]["kind"] == "pipeline_error";
    prop_assert!(failed || document["event"]["kind"] == "event");
    prop_assert_eq!(failed, document["error"]["message"].is_array());
    prop_assert!(failed || !holds_empty(&document), "{}", text);
    let original = mapping.preserve_original || document["event"]["original"].is_string();
    prop_assert_eq!(original.then_some(payload.as_str()), document["event"]["original"].as_str());

    let mut without_original = document.clone();
    if let Some(event) = without_original["event"].as_object_mut() {
        event.remove("original");
    }
    let rest = without_original.to_string();
    for (key, value) in event.as_object().into_iter().flatten() {
        if MAY_GO.contains(&key.as_str()) || MAY_COLLIDE.contains(&key.as_str()) {
            continue;
        }
        let mut found = vec![];
        marks(value, &mut found);
        for mark in found {
            prop_assert!(rest.contains(&mark), "`{}` of `{}` is lost: {}", mark, key, text);
        }
    }
    Ok(())
}

/// What the host would never let through must not be a trap either.
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
    let config = ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() };
    let mappings = mappings();
    let strategy = (any::<bool>(), text, 0..mappings.len());
    let outcome = TestRunner::new(config).run(&strategy, |(braced, text, number)| {
        let text = if braced { format!("{{{text}}}") } else { text };
        let document = mappings[number].map(&text);
        prop_assert_eq!(document.as_bytes().first(), Some(&b'{'));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// A text that may be in the way of any parser.
#[test]
fn odd_texts_in_known_fields_never_panic() {
    let config = ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() };
    let mappings = mappings();
    let text = prop_oneof!["[0-9]{0,4}[-T:.+Z0-9é]{0,24}", "[a-z0-9:/@?#%\\[\\]é._+-]{0,24}", "[A-Za-z0-9+/=é]{0,16}"];
    let strategy = (prop::collection::btree_map(key(), text, 1..6), 0..mappings.len());
    let outcome = TestRunner::new(config).run(&strategy, |(map, number)| {
        let event: Value = map.into_iter().map(|(key, text)| (key, Value::from(text))).collect();
        check(&event, &mappings[number])
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn only_the_named_rows_lose_what_they_read() {
    for row in INTAKE.iter().chain(GROUPS).chain(LEFTOVERS) {
        if matches!(row.op, Op::Delete | Op::Claim) {
            let key = row.from.trim_start_matches('.');
            let known = MAY_GO.contains(&key) || MAY_COLLIDE.contains(&key) || MAY_COLLIDE.contains(&key.split('.').next().unwrap());
            // What these delete stands somewhere else already, or says nothing.
            let copied = matches!(row.id, "L13" | "G108");
            assert!(known || copied || matches!(row.only[0], Test::Empty(_)), "{} {key}", row.id);
        }
    }
}
