use lockgate_model::request::{Delivery, DocumentFate, Method, Response};
use lockgate_runtime::{CallError, Encoded};
use serde_json::json;

use crate::support::{KEYS, context, documents, logged, sink};

/// The indexes that requests carry and those rejected, each in order.
fn indexes(encoded: &Encoded) -> (Vec<u32>, Vec<u32>) {
    let mut carried: Vec<u32> = encoded
        .requests
        .iter()
        .flat_map(|request| request.carries())
        .copied()
        .collect();
    carried.sort_unstable();
    (
        carried,
        encoded.rejected.iter().map(|(index, _)| *index).collect(),
    )
}

#[test]
fn a_sink_makes_requests_of_documents() {
    let array = sink(json!({}))
        .encode(&context(), &documents(), &[])
        .unwrap();
    let [request] = &array.requests[..] else {
        panic!("one request")
    };
    assert_eq!(
        (request.method(), request.path_suffix(), request.carries()),
        (Method::Post, "", &[0, 1, 2, 3, 4, 5, 6, 7][..])
    );
    assert_eq!(
        request.headers(),
        [("content-type".to_owned(), "application/json".to_owned())]
    );
    let body: Vec<serde_json::Value> = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(body, vec![json!({ "a": "b" }); 8]);

    let each = sink(json!({ "mode": "each" }))
        .encode(&context(), &documents(), &[])
        .unwrap();
    assert_eq!(
        (each.requests.len(), indexes(&each)),
        (8, ((0..8).collect(), vec![]))
    );
}

/// The failure table: the one document is rejected, with a reason, and every other stands in
/// exactly one request that keeps the rules.
#[test]
fn a_sink_that_cannot_take_one_document_loses_that_one_alone() {
    for (mode, reason) in [
        ("trap", "it trapped: cannot stand the document k3 panic="),
        ("loop", "it took more than 500 ms of CPU time"),
        ("huge", "it wanted more than 16777216 bytes of memory"),
        (
            "bad-method",
            "it broke the contract: the method `DELETE` is not POST, PUT or PATCH",
        ),
        (
            "bad-path",
            "it broke the contract: the path suffix `@evil.example/` has a character outside",
        ),
        (
            "bad-path-up",
            "it broke the contract: the path suffix `/../../admin` has a character outside",
        ),
        (
            "bad-header",
            "it broke the contract: the header `Authorization` is not for a component to set",
        ),
        (
            "header-injection",
            "it broke the contract: the value of the header `x-a` has a character that is not visible ASCII",
        ),
        (
            "many-headers",
            "it broke the contract: 1001 headers are more than 64",
        ),
        (
            "twice",
            "it broke the contract: index 0 is carried or rejected twice",
        ),
        (
            "missing",
            "it broke the contract: index 0 is neither carried nor rejected",
        ),
        (
            "out-of-range",
            "it broke the contract: index 4294967295 is not in the batch of 1",
        ),
        (
            "carried-and-rejected",
            "it broke the contract: index 0 is carried or rejected twice",
        ),
        ("reject", r"cannot be encoded\u{1b}[31m\nforged: line"),
    ] {
        let stage = sink(json!({ "mode": mode, "on": "k3" }));
        let encoded = stage
            .encode_isolated(&context(), &documents(), &[])
            .unwrap();
        assert_eq!(
            indexes(&encoded),
            (vec![0, 1, 2, 4, 5, 6, 7], vec![3]),
            "{mode}"
        );
        let actual = &encoded.rejected[0].1;
        assert!(actual.starts_with(reason), "{mode}: {actual}");
        for request in &encoded.requests {
            let body: Vec<serde_json::Value> = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(
                body.len(),
                request.carries().len(),
                "{mode}: a body holds the documents that it carries"
            );
        }
    }
}

#[test]
fn a_sink_s_own_word_holds_for_the_whole_batch() {
    let fails = sink(json!({ "mode": "fail", "on": "k3" }))
        .encode_isolated(&context(), &documents(), &[])
        .unwrap();
    assert_eq!(indexes(&fails), (vec![], (0..8).collect()));
    assert_eq!(fails.rejected[7].1, "this batch cannot be encoded");
    let postponed = sink(json!({ "mode": "fail-retryable" }))
        .encode_isolated(&context(), &documents(), &[])
        .unwrap_err();
    assert_eq!(postponed.message, "not yet");
    let rejected = sink(json!({ "mode": "reject-all" }))
        .encode_isolated(&context(), &documents(), &[])
        .unwrap();
    assert!(
        rejected.rejected.len() == KEYS.len()
            && rejected
                .rejected
                .iter()
                .all(|(_, reason)| reason.len() <= 1024)
    );
}

#[test]
fn headers_of_the_operator_cannot_be_set() {
    let refused = sink(json!({}))
        .encode(&context(), &documents(), &["content-type".into()])
        .unwrap_err();
    assert_eq!(
        refused,
        CallError::Contract("the header `content-type` is not for a component to set".into())
    );
}

#[test]
fn nothing_that_a_sink_returns_is_substituted() {
    let encoded = sink(json!({ "mode": "secret-placeholder" }))
        .encode(&context(), &documents(), &[])
        .unwrap();
    let request = &encoded.requests[0];
    assert_eq!(
        request.query(),
        [("placeholder".to_owned(), "${env:HOME}".to_owned())]
    );
    assert!(request.headers().contains(&(
        "x-placeholder".into(),
        "${env:HOME} ${file:/etc/passwd} ${secret:token}".into()
    )));
}

#[test]
fn classify_says_what_became_of_a_request() {
    let response = Response {
        status: 207,
        headers: vec![("content-type".into(), "text/plain".into())],
        body: "some were bad".into(),
        truncated: false,
        retry_after: None,
    };
    let classify = |mode: &str| {
        sink(json!({ "classify": mode })).classify(Method::Post, "/x", &[4, 6], &response)
    };
    for (mode, expected) in [
        ("delivered", Delivery::Delivered),
        (
            "mixed-reject",
            Delivery::Mixed(vec![(4, DocumentFate::Rejected("the first is bad".into()))]),
        ),
        (
            "mixed-retry",
            Delivery::Mixed(vec![(4, DocumentFate::Retry)]),
        ),
        ("split", Delivery::Split("too much at once".into())),
        (
            "rejected",
            Delivery::Rejected("none of them is good".into()),
        ),
        (
            "retry",
            Delivery::Retry {
                message: "not yet".into(),
                after: Some(10),
            },
        ),
    ] {
        assert_eq!(classify(mode), Ok(expected), "{mode}");
    }
    let (errors, lines) = logged(|| {
        ["trap", "loop", "foreign-index"].map(|mode| classify(mode).unwrap_err().to_string())
    });
    assert!(
        errors[0].starts_with("it trapped: cannot stand the answer 207 panic="),
        "{}",
        errors[0]
    );
    assert_eq!(errors[1], "it took more than 500 ms of CPU time");
    assert_eq!(
        errors[2],
        "it broke the contract: index 4294967295 is not in the batch of 2"
    );
    assert_eq!(
        lines.len(),
        1,
        "the panic, not twice for the second try: {lines:#?}"
    );
}
