//! Tests of the sink, natively.

use lockgate_plugin::{Disposition, Pair, test};

use super::*;

const WITH: &str = r#"{"data-stream":"logs-teleport.audit-default"}"#;

fn document(key: &str) -> Document {
    test::document(&format!(r#"{{"uid":"{key}","event":"user.login"}}"#))
}

fn bodies(with: &str, documents: &[Document]) -> Vec<String> {
    let encoded = test::encode::<Elasticsearch>(with, documents);
    assert_eq!(encoded.rejected, []);
    let requests = encoded.requests.iter();
    requests.map(|it| test::body_text(it, documents)).collect()
}

#[test]
fn a_body_has_an_action_and_a_document_in_turn() {
    let documents = [document("k-1"), document("k-2")];
    let (a, b) = (&documents[0].payload, &documents[1].payload);
    let action = |id: &str| {
        format!(r#"{{"create":{{"_index":"logs-teleport.audit-default","_id":"{id}"}}}}"#)
    };
    assert_eq!(
        bodies(WITH, &documents),
        [format!("{}\n{a}\n{}\n{b}\n", action("k-1"), action("k-2"))]
    );
    let one = r#"{"data-stream":"logs-teleport.audit-default","max-events":1}"#;
    assert_eq!(
        bodies(one, &documents),
        [
            format!("{}\n{a}\n", action("k-1")),
            format!("{}\n{b}\n", action("k-2"))
        ]
    );
    let encoded =
        test::encode::<Elasticsearch>(r#"{"data-stream":"x","pipeline":"geo ip"}"#, &documents);
    assert_eq!(encoded.requests[0].path_suffix, "/_bulk");
    assert_eq!(
        encoded.requests[0].query,
        [
            Pair::new("filter_path", FILTER_PATH),
            Pair::new("pipeline", "geo ip")
        ]
    );
}

#[test]
fn data_streams_may_depend_on_metadata() {
    let mut documents = [document("k-1"), document("k-2"), document("k-3")];
    documents[0].attributes.push(Pair::new("tenant", "blue"));
    documents[1].attributes.push(Pair::new("tenant", "Blue"));
    documents[2].attributes.push(Pair::new("tenant", "a/../b"));
    let with = r#"{"data-stream":"logs-teleport.{feed}-{attributes.tenant}"}"#;
    let encoded = test::encode::<Elasticsearch>(with, &documents);
    let body = test::body_text(&encoded.requests[0], &documents);
    assert!(
        body.contains(r#""_index":"logs-teleport.audit-blue""#),
        "{body}"
    );
    let reasons: Vec<&str> = encoded.rejected.iter().map(|it| &*it.reason).collect();
    assert_eq!(
        reasons,
        [
            "its data stream cannot be `logs-teleport.audit-Blue`: The name must be in lower case.",
            "its data stream cannot be `logs-teleport.audit-a/../b`: The name contains one of \
             `\\/*?\"<>| ,#:` or a control character."
        ]
    );
}

#[test]
fn an_id_is_the_key_or_its_digest() {
    assert_eq!(id("k"), "k");
    assert_eq!(id(&"k".repeat(512)), "k".repeat(512));
    let long = id(&"k".repeat(513));
    assert!(long.starts_with("sha256-") && long.len() == 71, "{long}");
    assert_ne!(long, id(&"k".repeat(514)));
    assert!(id("").starts_with("sha256-e3b0c442"));
}

#[test]
fn a_time_is_added_where_there_is_none() {
    let with = r#"{"data-stream":"x","timestamp":"add"}"#;
    for (payload, expected) in [
        (
            r#"{"uid":"1"}"#,
            r#"{"@timestamp":"2026-01-05T08:00:00.000Z","uid":"1"}"#,
        ),
        ("{}", r#"{"@timestamp":"2026-01-05T08:00:00.000Z"}"#),
        (
            r#"{"uid":"1","@timestamp":"x"}"#,
            r#"{"uid":"1","@timestamp":"x"}"#,
        ),
    ] {
        let body = &bodies(with, &[test::document(payload)])[0];
        assert_eq!(body.lines().nth(1), Some(expected));
    }
    let (_, setup) = test::configure::<Elasticsearch>(WITH).unwrap();
    assert_eq!(setup.access, Access::Metadata);
}

#[test]
fn each_document_has_its_own_answer() {
    let documents = [document("a"), document("b"), document("c"), document("d")];
    let request = &test::encode::<Elasticsearch>(WITH, &documents).requests[0];
    let (sink, _) = test::configure::<Elasticsearch>(WITH).unwrap();
    let delivery = |status, body: &str| {
        let response = test::response(status, body);
        sink.classify(&test::batch(), &test::sent(request), &response)
    };
    assert_eq!(
        delivery(200, r#"{"errors":false,"items":[]}"#),
        Delivery::Delivered
    );
    let refused = r#"{"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse"}}}"#;
    let created = r#"{"create":{"status":201}}"#;
    let conflict = r#"{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}}}"#;
    let busy = r#"{"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":null}}}"#;
    let missing = r#"{"create":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}}"#;
    let answer = |items: [&str; 4]| {
        format!(
            r#"{{"errors":true,"took":3,"items":[{}]}}"#,
            items.join(",")
        )
    };
    assert_eq!(
        delivery(200, &answer([created, refused, conflict, busy])),
        Delivery::Mixed(vec![
            (
                1,
                Disposition::Rejected(
                    "status 400, document_parsing_exception: failed to parse".into()
                )
            ),
            (3, Disposition::Retry),
        ])
    );
    assert_eq!(
        delivery(200, &answer([missing; 4])),
        Delivery::Hold("status 404, index_not_found_exception: no such index".into())
    );
    assert_eq!(
        delivery(200, &answer([created, missing, created, created])),
        Delivery::Mixed(vec![(1, Disposition::Retry)])
    );
    for body in ["<html>", "", r#"{"errors":true,"items":[]}"#, "[]"] {
        assert!(matches!(delivery(200, body), Delivery::Retry(_)), "{body}");
    }
    assert_eq!(delivery(503, "busy"), Delivery::ByStatus);
}

#[test]
fn names_that_no_data_stream_can_have_are_refused() {
    for (with, expected) in [
        ("{}", ": `data-stream` is missing."),
        (
            r#"{"data-stream":"Logs"}"#,
            "data-stream: The name must be in lower case. (such as `logs-teleport.audit-default`)",
        ),
        (
            r#"{"data-stream":"_x"}"#,
            "data-stream: The name begins with `-`, `_`, `+` or `.`. (such as \
             `logs-teleport.audit-default`)",
        ),
        (
            r#"{"data-stream":"x","pipeline":""}"#,
            "pipeline: `pipeline` is empty. (leave it out)",
        ),
    ] {
        assert!(
            test::issues::<Elasticsearch>(with)[0].ends_with(expected),
            "{:?}",
            test::issues::<Elasticsearch>(with)
        );
    }
}
