//! Tests of the report, from events and documents.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

/// The report of events with one document each; a document is given without `teleport.audit`.
fn report(pairs: &[(Value, Value)]) -> CoverageReport {
    let mut coverage = Coverage::default();
    for (event, document) in pairs {
        coverage.mapped(
            event["event"].as_str().unwrap_or_default(),
            &event.to_string(),
            &[document.to_string()],
        );
    }
    coverage.report("m", 0)
}

fn unmapped(event: &Value, audit: &Value) -> Vec<String> {
    let report = report(&[(event.clone(), json!({"teleport": {"audit": audit}}))]);
    report.types[0]
        .unmapped
        .iter()
        .map(|unmapped| unmapped.field.clone())
        .collect()
}

#[test]
fn a_field_is_unmapped_where_it_stands_as_it_did() {
    for (what, event, audit, fields) in [
        (
            "moved elsewhere",
            json!({"sid": "s"}),
            json!({"session": {"id": "s"}}),
            &[][..],
        ),
        (
            "stayed",
            json!({"max": 2, "ok": false}),
            json!({"max": 2, "ok": false}),
            &["max", "ok"],
        ),
        (
            "another value: written anew",
            json!({"device": {"os_type": 1}}),
            json!({"device": {"os_type": "LINUX"}}),
            &[],
        ),
        (
            "a number is not text",
            json!({"a": 1}),
            json!({"a": "1"}),
            &[],
        ),
        (
            "a target where the source had an object",
            json!({"user": {"name": "bob"}}),
            json!({"user": {"kind": "human"}}),
            &[],
        ),
        (
            "a target where the source had a text",
            json!({"user": "bob"}),
            json!({"user": {"kind": "human"}}),
            &[],
        ),
        (
            "next to what the mapper wrote",
            json!({"session": {"x": 1}}),
            json!({"session": {"id": "s", "x": 1}}),
            &["session.x"],
        ),
        (
            "one of two leaves",
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"c": 2}}),
            &["a.c"],
        ),
        (
            "an empty value is not a field",
            json!({"a": null, "b": "", "c": {}, "d": [], "e": [null, {}]}),
            json!({}),
            &[],
        ),
        (
            "not even where it stays",
            json!({"a": null, "b": "", "c": {}, "d": [{}]}),
            json!({"a": null, "b": "", "c": {}, "d": [{}]}),
            &[],
        ),
        (
            "a list is one field",
            json!({"l": [{"a": 1}, {"a": 2}]}),
            json!({"l": [{"a": 1}, {"a": 2}]}),
            &["l"],
        ),
        (
            "cleaned inside",
            json!({"l": [null, {"a": 1, "b": ""}]}),
            json!({"l": [{"a": 1}]}),
            &["l"],
        ),
        (
            "a list with more in it",
            json!({"l": [1]}),
            json!({"l": [1, 2]}),
            &[],
        ),
        (
            "a list with less in it",
            json!({"l": [1, 2]}),
            json!({"l": [1]}),
            &[],
        ),
        (
            "an object with more in it",
            json!({"labels": {"a": "x"}}),
            json!({"labels": {"a": "x", "b": "y"}}),
            &[],
        ),
        (
            "a map is one field",
            json!({"x_labels": {"a": "x", "b": "y"}}),
            json!({"x_labels": {"a": "x", "b": "y"}}),
            &["x_labels"],
        ),
        (
            "and so is a nested one",
            json!({"r": {"traits": {"a": ["x"]}}}),
            json!({"r": {"traits": {"a": ["x"]}}}),
            &["r.traits"],
        ),
        (
            "a dot in a key",
            json!({"addr.local": "x"}),
            json!({"addr.local": "x"}),
            &["\"addr.local\""],
        ),
        (
            "that was made nested",
            json!({"addr.local": "x"}),
            json!({"addr": {"local": "x"}}),
            &["\"addr.local\""],
        ),
        (
            "and a nested one",
            json!({"addr": {"local": "x"}}),
            json!({"addr": {"local": "x"}}),
            &["addr.local"],
        ),
        (
            "a key within one with a dot",
            json!({"a.b": {"c": 1}}),
            json!({"a": {"b": {"c": 1}}}),
            &["\"a.b\".c"],
        ),
        (
            "odd keys",
            json!({"": 1, "a b": 1, "q\"\\": 1}),
            json!({"": 1, "a b": 1, "q\"\\": 1}),
            &["\"\"", "\"a b\"", "\"q\\\"\\\\\""],
        ),
        (
            "control characters",
            json!({"\u{1b}[2J\n": 1}),
            json!({"\u{1b}[2J\n": 1}),
            &["\"\\u{1b}[2J\\n\""],
        ),
        (
            "a large number",
            json!({"n": 18446744073709551615u64}),
            json!({"n": 18446744073709551615u64}),
            &["n"],
        ),
    ] {
        assert_eq!(
            unmapped(&event, &audit),
            fields,
            "{what}: {event} in {audit}"
        );
    }
}

#[test]
fn an_event_has_what_one_of_its_documents_has() {
    let mut coverage = Coverage::default();
    let documents = [
        json!({"event": {"category": ["iam"], "type": [], "outcome": "success"}, "teleport": {"audit": {"x": 1}}}),
        json!({"user.name": "bob", "related": {"ip": [""], "hosts": ["h"]}}),
    ];
    coverage.mapped(
        "two",
        r#"{"x":1}"#,
        &documents.map(|document| document.to_string()),
    );
    let report = coverage.report("m", 0);
    let has: Vec<_> = report
        .total
        .has
        .iter()
        .filter(|(_, events)| **events == 1)
        .map(|(field, _)| *field)
        .collect();
    assert_eq!(
        has,
        [
            "event.category",
            "event.outcome",
            "related.hosts",
            "user.name"
        ]
    );
    assert_eq!(report.types[0].unmapped.len(), 1);
}

#[test]
fn limits_are_kept_and_told() {
    let mut coverage = Coverage::default();
    let event: Value = (0..FIELDS + 7)
        .map(|number| (format!("field{number:04}"), json!(number)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let text = event.to_string();
    let document = json!({"teleport": {"audit": event}}).to_string();
    for number in 0..TYPES + 5 {
        coverage.mapped(
            &format!("type{number:05}"),
            &text,
            std::slice::from_ref(&document),
        );
    }
    let long = "x".repeat(1 << 20);
    let named = json!({ long.as_str(): { long.as_str(): 1 } });
    coverage.mapped(
        &long,
        &named.to_string(),
        &[json!({"teleport": {"audit": named}}).to_string()],
    );
    let report = coverage.report("m", 0);
    assert_eq!(report.types.len(), TYPES);
    assert_eq!(
        (
            report.types[0].unmapped.len(),
            report.types[0].unmapped_not_listed
        ),
        (FIELDS, 7)
    );
    assert_eq!(
        report
            .other_types
            .as_ref()
            .map(|others| others.counts.events),
        Some(6)
    );
    assert_eq!(report.total.events, TYPES as u64 + 6);
    let text = report.text();
    for shown in [
        "(other types)",
        "further ones occurred 7 times",
        ">100",
        "the first 1000 event types",
    ] {
        assert!(text.contains(shown), "no `{shown}`");
    }
    assert!(
        text.lines().all(|line| line.len() < 200),
        "nothing foreign makes a line long"
    );
}

#[test]
fn long_names_are_cut_with_a_mark() {
    let key = "é".repeat(1 << 16);
    let fields = unmapped(&json!({ &key: { &key: 1 } }), &json!({ &key: { &key: 1 } }));
    assert!(
        fields.len() == 1 && fields[0].len() <= NAME && fields[0].contains("bytes)"),
        "{fields:?}"
    );
}

#[test]
fn what_is_too_deep_is_counted_and_told() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let mut coverage = Coverage::default();
    coverage.mapped("deep", &deep, &["{}".into()]);
    let report = coverage.report("m", 0);
    assert_eq!((report.total.mapped, report.unexamined), (1, 1));
    assert!(
        report.text().contains("1 event: nested too deep"),
        "{}",
        report.text()
    );
}

#[test]
fn shares_are_all_or_none_only_where_they_are() {
    for (part, whole, text) in [
        (0, 0, "-"),
        (0, 9, "0%"),
        (1, 1000, "<1%"),
        (999, 1000, "99%"),
        (9, 9, "100%"),
        (u64::MAX, u64::MAX, "100%"),
    ] {
        assert_eq!(table::share(part, whole), text);
    }
}

fn mixed() -> CoverageReport {
    let mut coverage = Coverage::default();
    let document = |rest: Value| {
        json!({"event": {"category": ["session"]}, "teleport": {"audit": rest}}).to_string()
    };
    for number in 0..3 {
        coverage.mapped(
            "session.start",
            r#"{"sid":"s","new":1}"#,
            &[document(json!({"session": {"id": "s"}, "new": number}))],
        );
    }
    coverage.mapped("exec", r#"{"a":"x"}"#, &[document(json!({"a": "x"}))]);
    let failed = json!({"event": {"kind": "pipeline_error"}, "error": {"message": ["Rule `G001` failed\n\u{1b}[31m: taken."]}});
    coverage.mapped("exec", "{}", &[failed.to_string()]);
    coverage.mapped("", "{}", &["{}".into()]);
    coverage.dropped("resize");
    coverage.failed("scp");
    coverage.report("builtin:ecs", 3)
}

#[track_caller]
fn check(actual: &str, expected: Expect) {
    let trimmed: Vec<_> = actual.lines().map(str::trim_end).collect();
    expected.assert_eq(&format!("{}\n", trimmed.join("\n")));
}

#[test]
fn most_events_come_first_and_everything_is_reported() {
    check(
        &mixed().text(),
        expect![[r#"
            coverage of builtin:ecs: 8 events, 6 mapped
              1 event: dropped by the plugin, or not wanted
              1 event: without a result
              1 event: mapped, but ended as `pipeline_error`
              2 lines: no JSON object

                                   event.                   user.  related.           unmapped
            event type     events  category  type  outcome   name    ip  hosts  user    fields
            session.start       3      100%    0%       0%     0%    0%     0%    0%         1
            exec                2       50%    0%       0%     0%    0%     0%    0%         1
            (no type)           1        0%    0%       0%     0%    0%     0%    0%         0
            resize              1         -     -        -      -     -      -     -         -
            scp                 1         -     -        -      -     -      -     -         -
            total               8       66%    0%       0%     0%    0%     0%    0%

            source fields that stayed unmapped, under `teleport.audit`, and how many events hold them:
              session.start
                    1  new
              exec
                    1  a

            events that ended as `pipeline_error`, and the first message:
                    1  exec: Rule `G001` failed\n\u{1b}[31m: taken.

            events without a result:
                    1  scp
        "#]],
    );
}

#[test]
fn the_json_has_the_same_as_counts() {
    check(
        &serde_json::to_string_pretty(&mixed()).unwrap(),
        expect![[r#"
        {
          "component": "builtin:ecs",
          "total": {
            "events": 8,
            "mapped": 6,
            "dropped": 1,
            "no_result": 1,
            "pipeline_errors": 1,
            "has": {
              "event.category": 4,
              "event.outcome": 0,
              "event.type": 0,
              "related.hosts": 0,
              "related.ip": 0,
              "related.user": 0,
              "user.name": 0
            }
          },
          "types": [
            {
              "type": "session.start",
              "events": 3,
              "mapped": 3,
              "dropped": 0,
              "no_result": 0,
              "pipeline_errors": 0,
              "has": {
                "event.category": 3,
                "event.outcome": 0,
                "event.type": 0,
                "related.hosts": 0,
                "related.ip": 0,
                "related.user": 0,
                "user.name": 0
              },
              "first_pipeline_error": null,
              "unmapped": [
                {
                  "field": "new",
                  "events": 1
                }
              ],
              "unmapped_not_listed": 0
            },
            {
              "type": "exec",
              "events": 2,
              "mapped": 2,
              "dropped": 0,
              "no_result": 0,
              "pipeline_errors": 1,
              "has": {
                "event.category": 1,
                "event.outcome": 0,
                "event.type": 0,
                "related.hosts": 0,
                "related.ip": 0,
                "related.user": 0,
                "user.name": 0
              },
              "first_pipeline_error": "Rule `G001` failed\\n\\u{1b}[31m: taken.",
              "unmapped": [
                {
                  "field": "a",
                  "events": 1
                }
              ],
              "unmapped_not_listed": 0
            },
            {
              "type": "",
              "events": 1,
              "mapped": 1,
              "dropped": 0,
              "no_result": 0,
              "pipeline_errors": 0,
              "has": {
                "event.category": 0,
                "event.outcome": 0,
                "event.type": 0,
                "related.hosts": 0,
                "related.ip": 0,
                "related.user": 0,
                "user.name": 0
              },
              "first_pipeline_error": null,
              "unmapped": [],
              "unmapped_not_listed": 0
            },
            {
              "type": "resize",
              "events": 1,
              "mapped": 0,
              "dropped": 1,
              "no_result": 0,
              "pipeline_errors": 0,
              "has": {
                "event.category": 0,
                "event.outcome": 0,
                "event.type": 0,
                "related.hosts": 0,
                "related.ip": 0,
                "related.user": 0,
                "user.name": 0
              },
              "first_pipeline_error": null,
              "unmapped": [],
              "unmapped_not_listed": 0
            },
            {
              "type": "scp",
              "events": 1,
              "mapped": 0,
              "dropped": 0,
              "no_result": 1,
              "pipeline_errors": 0,
              "has": {
                "event.category": 0,
                "event.outcome": 0,
                "event.type": 0,
                "related.hosts": 0,
                "related.ip": 0,
                "related.user": 0,
                "user.name": 0
              },
              "first_pipeline_error": null,
              "unmapped": [],
              "unmapped_not_listed": 0
            }
          ],
          "other_types": null,
          "unreadable_lines": 2,
          "unexamined": 0,
          "unmapped_known": true
        }
    "#]],
    );
}

#[test]
fn unmapped_fields_are_left_out_if_no_document_can_show_them() {
    let text = report(&[(json!({"event": "exec", "a": 1}), json!({"a": 1}))]).text();
    assert!(
        text.contains("unmapped fields are not known: no document has `teleport.audit`"),
        "{text}"
    );
    let text = Coverage::default().report("m", 0).text();
    assert_eq!(text, "coverage of m: 0 events, 0 mapped\n");
}
