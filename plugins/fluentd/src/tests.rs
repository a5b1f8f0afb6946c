//! Tests of the sink, natively.

use lockgate_plugin::{RequestBody, test};
use proptest::prelude::*;

use super::*;

fn encode(with: &str, documents: Vec<Document>) -> Encoded {
    test::configure::<Fluentd>(with)
        .unwrap()
        .0
        .encode(&test::batch(), documents)
        .unwrap()
}

/// Each request as `path-suffix body carries`, each rejection as `index reason`.
fn check(with: &str, documents: &[Document], expected: &[&str]) {
    let encoded = encode(with, documents.to_vec());
    let request = |request: &Request| {
        assert_eq!(request.method, "POST");
        assert_eq!(
            request.headers,
            [lockgate_plugin::Pair::new(
                "content-type",
                "application/json"
            )]
        );
        format!(
            "{}|{}|{:?}",
            request.path_suffix,
            text(&request.body, documents),
            request.carries
        )
    };
    let rejection = |rejection: &Rejection| format!("{} {}", rejection.index, rejection.reason);
    let found: Vec<_> = encoded
        .requests
        .iter()
        .map(request)
        .chain(encoded.rejected.iter().map(rejection))
        .collect();
    assert_eq!(found, expected);
}

/// The body as the host assembles it.
fn text(body: &RequestBody, documents: &[Document]) -> String {
    let RequestBody::Parts(parts) = body else {
        panic!("a JSON body consists of parts")
    };
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Document(index) => documents[*index as usize].payload.clone(),
        Part::DocumentAsString(_) => panic!("documents are not strings"),
        Part::Documents(joined) => {
            let payloads = joined.documents.iter();
            let payloads: Vec<_> = payloads
                .map(|&index| documents[index as usize].payload.as_str())
                .collect();
            payloads.join(&joined.separator)
        }
    };
    parts.iter().map(part).collect()
}

fn payload(n: u32) -> String {
    format!(r#"{{"n":{n},"time":"2026-01-05T08:00:00Z"}}"#)
}

fn audit(n: u32) -> Document {
    test::document(&payload(n))
}

fn session(id: &str, n: u32) -> Document {
    test::session_document(id, &payload(n))
}

#[test]
fn audit_documents_are_one_array() {
    let (a, b) = (payload(1), payload(2));
    check(
        "{}",
        &[audit(1), audit(2)],
        &[&format!("|[{a},{b}]|[0, 1]")],
    );
    check("{}", &[], &[]);
}

#[test]
fn a_request_never_mixes_feeds_or_sessions() {
    let p = payload(1);
    check(
        "{}",
        &[
            session("s-1", 1),
            audit(1),
            session("s-2", 1),
            session("s-1", 1),
            audit(1),
        ],
        &[
            &format!(".s-1.log|[{p},{p}]|[0, 3]"),
            &format!("|[{p},{p}]|[1, 4]"),
            &format!(".s-2.log|[{p}]|[2]"),
        ],
    );
}

#[test]
fn a_path_makes_a_request_for_each_tag() {
    let mut other = audit(1);
    other.event_type = "session.start".into();
    let p = payload(1);
    check(
        r#"{"path":"teleport.{event-type}"}"#,
        &[audit(1), other, session("s-1", 1), audit(1)],
        &[
            &format!("/teleport.~|[{p},{p}]|[0, 3]"),
            &format!("/teleport.session.start|[{p}]|[1]"),
            &format!(".s-1.log|[{p}]|[2]"),
        ],
    );
    assert_eq!(
        test::issues::<Fluentd>(r#"{"path":"a?b"}"#),
        ["path: a path cannot contain `?`."]
    );
}

#[test]
fn format_object_sends_one_event_per_request() {
    let p = payload(1);
    check(
        r#"{"format":"object"}"#,
        &[audit(1), session("s-1", 1), audit(1)],
        &[
            &format!("|{p}|[0]"),
            &format!(".s-1.log|{p}|[1]"),
            &format!("|{p}|[2]"),
        ],
    );
}

#[test]
fn requests_stay_within_the_operators_limits() {
    let p = payload(1);
    let five = vec![audit(1); 5];
    let twos = [
        format!("|[{p},{p}]|[0, 1]"),
        format!("|[{p},{p}]|[2, 3]"),
        format!("|[{p}]|[4]"),
    ];
    let twos: Vec<&str> = twos.iter().map(String::as_str).collect();
    check(r#"{"max-events":2}"#, &five, &twos);
    let room = 2 * p.len() + 3;
    check(&format!(r#"{{"max-bytes":{room}}}"#), &five, &twos);
    for request in encode(&format!(r#"{{"max-bytes":{}}}"#, room - 1), five).requests {
        assert_eq!(request.carries.len(), 1);
    }
    check(r#"{"max-bytes":1}"#, &[audit(1)], &[&format!("|[{p}]|[0]")]);
}

#[test]
fn a_bad_time_is_repaired_by_default() {
    let bad = test::document(r#"{"time":7}"#);
    check(
        "{}",
        &[audit(1), bad.clone()],
        &[&format!(
            r#"|[{},{{"time":"2026-01-05T08:00:00.000Z"}}]|[0, 1]"#,
            payload(1)
        )],
    );
    check(r#"{"time":"keep"}"#, &[bad], &[r#"|[{"time":7}]|[0]"#]);
}

#[test]
fn a_document_that_cannot_be_sent_is_rejected_and_the_others_are_sent() {
    let p = payload(1);
    check(
        "{}",
        &[
            audit(1),
            test::document("{"),
            session(&"x".repeat(300), 1),
            audit(1),
        ],
        &[
            &format!("|[{p},{p}]|[0, 3]"),
            "1 this is not valid JSON at byte 1",
            "2 the session id is too long for a path segment of 200 bytes",
        ],
    );
}

#[test]
fn answers_of_fluentd_are_classified() {
    let (sink, setup) = test::configure::<Fluentd>("{}").unwrap();
    assert_eq!(setup.inspect, lockgate_plugin::Inspect::Failures);
    let sent = Sent {
        method: "POST".into(),
        path_suffix: String::new(),
        tag: String::new(),
        carries: vec![0, 1],
    };
    for (status, body, expected) in [
        (
            400,
            "400 Bad Request\ninvalid time format: value = yesterday",
            Delivery::ByStatus,
        ),
        (
            400,
            "<center>No required SSL certificate was sent</center>",
            Delivery::Hold(
                "the receiver answered 400: <center>No required SSL certificate was sent</center>"
                    .into(),
            ),
        ),
        (413, "Too large", Delivery::ByStatus),
        (500, "buffer space has too many data", Delivery::ByStatus),
    ] {
        let found = sink.classify(&test::batch(), &sent, &test::response(status, body));
        assert_eq!(found, expected, "{status} {body}");
    }
}

#[test]
fn payloads_are_requested_only_if_needed() {
    let payload = |with| {
        let (_, setup) = test::configure::<Fluentd>(with).unwrap();
        (setup.access, setup.time_member)
    };
    assert_eq!(payload("{}"), (Access::Metadata, Some("time".into())));
    assert_eq!(payload(r#"{"time":"keep"}"#), (Access::Metadata, None));
    assert_eq!(
        payload(r#"{"max-bytes":1000}"#),
        (Access::Payload, Some("time".into()))
    );
    // Even without payloads, every body consists of documents.
    let documents = [audit(1), audit(2)].map(|document| Document {
        payload: String::new(),
        ..document
    });
    let encoded = encode("{}", documents.to_vec());
    assert_eq!(
        text(&encoded.requests[0].body, &[audit(1), audit(2)]),
        format!("[{},{}]", self::payload(1), self::payload(2))
    );
}

#[test]
fn mistakes_are_reported() {
    assert_eq!(
        test::issues::<Fluentd>(r#"{"format":"ndjson","max-events":0}"#),
        [
            "format: `format` is `ndjson`; it can be `array` or `object`.",
            "max-events: `max-events` must be a whole number above 0, not `0`.",
        ]
    );
    assert_eq!(
        test::issues::<Fluentd>(r#"{"format":"object","max-bytes":100}"#),
        [
            "max-bytes: `max-bytes` has no meaning with one event per request. (leave it out, or set `format = \"array\"`)"
        ]
    );
    assert_eq!(
        test::issues::<Fluentd>(r#"{"url":"https://x"}"#),
        ["url: Unknown key `url`. (known keys: format, time, path, max-events, max-bytes)"]
    );
}

proptest! {
    /// For any documents: every index occurs once, and every body is valid JSON of exactly these
    /// documents, with a good time.
    #[test]
    fn every_document_arrives_once_in_valid_json(
        documents in prop::collection::vec((prop::option::of("[a-z./é]{0,3}"), "\\PC{0,10}", prop_oneof![Just("null"), Just("\"2026-01-05T08:00:00Z\""), Just("{\"time\":[]}")]), 0..20),
        max in prop::option::of(1u32..5), object: bool,
    ) {
        let documents: Vec<Document> = documents.into_iter().map(|(session, text, time)| {
            let payload = format!(r#"{{"text":{},"time":{time}}}"#, serde_json::Value::from(text));
            session.map_or_else(|| test::document(&payload), |id| test::session_document(&id, &payload))
        }).collect();
        let with = match (object, max) {
            (true, _) => r#"{"format":"object"}"#.to_owned(),
            (false, Some(max)) => format!(r#"{{"max-events":{max}}}"#),
            (false, None) => "{}".to_owned(),
        };
        let encoded = encode(&with, documents.clone());
        prop_assert!(encoded.rejected.is_empty());
        let mut seen: Vec<u32> = vec![];
        for request in &encoded.requests {
            let body: serde_json::Value = serde_json::from_str(&text(&request.body, &documents)).unwrap();
            let bodies = if object { vec![body] } else { body.as_array().unwrap().clone() };
            prop_assert_eq!(bodies.len(), request.carries.len());
            let suffix = &request.path_suffix;
            prop_assert!(!suffix.contains("..") && !suffix.contains('/'), "{}", suffix);
            for (body, &index) in bodies.iter().zip(&request.carries) {
                let original: serde_json::Value = serde_json::from_str(&documents[index as usize].payload).unwrap();
                prop_assert_eq!(&body["text"], &original["text"]);
                prop_assert!(body["time"].as_str().unwrap().starts_with("2026-01-05T08:00:00"));
                let document = &documents[index as usize];
                let expected = match &document.session {
                    None => String::new(),
                    Some(id) => session::path_suffix(id).unwrap(),
                };
                prop_assert_eq!(suffix, &expected);
                seen.push(index);
            }
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..documents.len() as u32).collect::<Vec<_>>());
    }
}
