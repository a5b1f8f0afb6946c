//! Tests of the sink, natively.

use lockgate_plugin::{Pair, test};

use super::*;

fn document(n: u32) -> Document {
    test::document(&format!(
        r#"{{"uid":"k-{n}","event":"user.login","code":"T1000I","text":"a\"b"}}"#
    ))
}

/// Each request as `path body`.
fn check(with: &str, documents: &[Document], expected: &[&str]) {
    let encoded = test::encode::<Http>(with, documents);
    let request = |request: &Request| {
        format!(
            "{} {}",
            request.path_suffix,
            test::body_text(request, documents)
        )
    };
    let found: Vec<String> = encoded.requests.iter().map(request).collect();
    assert_eq!(found, expected, "{with}");
}

#[test]
fn bodies_are_arrays_lines_or_objects() {
    let documents = [document(1), document(2)];
    let (a, b) = (&documents[0].payload, &documents[1].payload);
    check("{}", &documents, &[&format!(" [{a},{b}]")]);
    check(
        r#"{"format":"lines"}"#,
        &documents,
        &[&format!(" {a}\n{b}\n")],
    );
    check(
        r#"{"format":"object"}"#,
        &documents,
        &[&format!(" {a}"), &format!(" {b}")],
    );
    check(
        r#"{"max-events":1}"#,
        &documents,
        &[&format!(" [{a}]"), &format!(" [{b}]")],
    );
    check("{}", &[], &[]);
}

#[test]
fn envelopes_and_wrappings_are_around_documents() {
    let mut documents = [document(1), document(2)];
    documents[1].session = Some("s\"".into());
    documents[1].attributes.push(Pair::new("severity", "high"));
    let (a, b) = (&documents[0].payload, &documents[1].payload);
    check(
        r#"{"envelope":"{\"source\":{},\"events\":{documents}}"}"#,
        &documents,
        &[&format!(r#" {{"source":{{}},"events":[{a},{b}]}}"#)],
    );
    let head = r#""type":"user.login""#;
    check(
        r#"{"format":"lines","document":"{\"type\":{event-type},\"s\":{session},\"ms\":{time-ms},\"severity\":{attributes.severity},\"event\":{document}}"}"#,
        &documents,
        &[&format!(
            " {{{head},\"s\":null,\"ms\":1767600000000,\"severity\":null,\"event\":{a}}}\n\
             {{{head},\"s\":\"s\\\"\",\"ms\":1767600000000,\"severity\":\"high\",\"event\":{b}}}\n"
        )],
    );
    let [request] = &test::encode::<Http>(
        r#"{"document":"{\"line\":{document-text}}"}"#,
        &documents[..1],
    )
    .requests[..] else {
        panic!("one request")
    };
    let body: Value = serde_json::from_str(&test::body_text(request, &documents)).unwrap();
    assert_eq!(body[0]["line"], Value::from(a.as_str()));
}

#[test]
fn requests_have_the_operators_method_type_and_path() {
    let mut documents = [document(1), document(2), document(3)];
    documents[1].event_type = "session.start".into();
    let with = r#"{"method":"PUT","content-type":"text/x-json","path":"{event-type}/{date}"}"#;
    let encoded = test::encode::<Http>(with, &documents);
    let found: Vec<_> = encoded
        .requests
        .iter()
        .map(|it| (&*it.path_suffix, &*it.carries))
        .collect();
    assert_eq!(
        found,
        [
            ("/user.login/2026-01-05", &[0, 2][..]),
            ("/session.start/2026-01-05", &[1]),
        ]
    );
    assert_eq!(encoded.requests[0].method, "PUT");
    let content_type = [Pair::new("content-type", "text/x-json")];
    assert_eq!(encoded.requests[0].headers, content_type);
    let mut long = document(1);
    long.event_type = "é".repeat(1000);
    let encoded = test::encode::<Http>(with, &[long]);
    assert_eq!(encoded.rejected.len(), 1);
}

#[test]
fn a_success_is_what_the_operator_says() {
    let delivery = |with: &str, status, body| {
        let (sink, setup) = test::configure::<Http>(with).unwrap();
        let request = Request::post("application/json", String::new(), vec![0]);
        let sent = test::sent(&request);
        let delivery = sink.classify(&test::batch(), &sent, &test::response(status, body));
        (setup.inspect, delivery)
    };
    assert_eq!(
        delivery("{}", 200, "anything"),
        (Inspect::Failures, Delivery::ByStatus)
    );
    let with = r#"{"success":{"result.ok":true,"errors":0}}"#;
    for (body, is_success) in [
        (r#"{"result":{"ok":true},"errors":0}"#, true),
        (r#" {"errors":0, "result":{"ok":true}}"#, true),
        (r#"{"result":{"ok":"true"},"errors":0}"#, false),
        (r#"{"result":{"ok":true}}"#, false),
        ("<html>", false),
        ("", false),
    ] {
        let (inspect, found) = delivery(with, 200, body);
        assert_eq!(inspect, Inspect::Always);
        assert_eq!(found == Delivery::ByStatus, is_success, "{body}");
        assert!(is_success || matches!(found, Delivery::Retry(_)), "{body}");
    }
    let with = r#"{"success":{"ok":true},"otherwise":"split"}"#;
    assert!(matches!(delivery(with, 202, "{}").1, Delivery::Split(_)));
    // The status decides.
    assert_eq!(delivery(with, 503, "{}").1, Delivery::ByStatus);
}

#[test]
fn each_problem_of_a_configuration_is_named() {
    for (with, expected) in [
        (
            r#"{"format":"object","envelope":"{documents}","max-events":3}"#,
            &[
                "max-events: `max-events` has no meaning with one event per request. (leave it out)",
                "envelope: `envelope` has no meaning with one event per request. (write it as \
                 `document`)",
            ][..],
        ),
        (
            r#"{"envelope":"{\"events\":[]}"}"#,
            &["envelope: `envelope` has no `{documents}`. (such as '{\"events\": {documents}}')"],
        ),
        (
            r#"{"document":"{\"time\": {time}}"}"#,
            &[
                "document: `document` needs `{document}` or `{document-text}`, once. (such as \
               '{\"event\": {document}, \"time\": {time}}')",
            ],
        ),
        (
            r#"{"document":"{\"time\": \"{time}\", \"e\": {document}}"}"#,
            &[
                "document: `document` is not JSON once its placeholders are replaced by values, \
               with the quotes of texts: `{\"time\": \"\"text\"\", \"e\": {}}`: expected `,` or \
               `}` at line 1 column 12. (such as '{\"event\": {document}, \"time\": {time}}')",
            ],
        ),
        (
            r#"{"path":"{event-type}?x"}"#,
            &["path: a path cannot contain `?`."],
        ),
        (
            r#"{"success":{"a.b":[1]},"otherwise":"split"}"#,
            &["success.\"a.b\": A value must be a text, a number, true or false."],
        ),
        (
            r#"{"otherwise":"split"}"#,
            &[
                "otherwise: `otherwise` has no meaning without `success`. (success = { status = \
               \"ok\" })",
            ],
        ),
        (
            r#"{"content-type":"a\nb"}"#,
            &["content-type: `content-type` is not a media type. (such as `application/json`)"],
        ),
    ] {
        let issues = test::issues::<Http>(with);
        let issues: Vec<&str> = issues
            .iter()
            .map(|issue| issue.strip_suffix(" ()").unwrap_or(issue))
            .collect();
        assert_eq!(issues, expected, "{with}");
    }
}

#[test]
fn the_text_of_a_member_is_a_line() {
    let documents = [
        r#"{"cef":"CEF:0|a=\\\"b\u00e9"}"#,
        r#"{"other":1}"#,
        r#"{"cef":"two\nlines"}"#,
        r#"{"cef":5}"#,
        r#"{"cef":"last"}"#,
    ];
    let documents = documents.map(test::document);
    let encoded = test::encode::<Http>(r#"{"format":"lines","text":"cef"}"#, &documents);
    let [request] = &encoded.requests[..] else {
        panic!("{encoded:?}");
    };
    assert_eq!(
        test::body_text(request, &documents),
        "CEF:0|a=\\\"b\u{e9}\nlast\n"
    );
    assert_eq!(request.carries, [0, 4]);
    assert_eq!(
        request.headers,
        [Pair::new("content-type", "text/plain; charset=utf-8")]
    );
    let rejected = encoded.rejected.iter();
    let rejected: Vec<_> = rejected.map(|it| (it.index, it.reason.as_str())).collect();
    assert_eq!(
        rejected,
        [
            (1, "the document has no text in `cef`"),
            (2, "the text in `cef` has a line break"),
            (3, "the document has no text in `cef`"),
        ]
    );
    assert_eq!(
        test::issues::<Http>(r#"{"text":"","document":"{document}"}"#),
        [
            "text: `text` is empty. (the name of a member, such as `cef`)",
            "text: `text` has no meaning without lines. (set `format = \"lines\"`)",
            "document: `document` has no meaning with `text`. (leave one of them out)",
        ]
    );
}
