//! Sinks, well-behaved and hostile.

use bytes::Bytes;
use lockgate_model::DocumentView;
use lockgate_model::contract::{CallError, Encoded};
use lockgate_model::request::{
    Body, Classification, Disposition, Method, RequestRules, Response, Sent,
};
use serde_json::json;

use crate::support::{BATCH, KEYS, documents, encode, logged, sink};

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

fn assembled(body: &Body, documents: &[DocumentView<'_>]) -> String {
    let body = body.assemble(|index| documents[index as usize].event.payload);
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn a_sink_makes_requests_of_documents() {
    let array = encode(&sink(json!({})), &documents()).unwrap();
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
    let body: Vec<serde_json::Value> =
        serde_json::from_str(&assembled(request.body(), &documents())).unwrap();
    assert_eq!(body, vec![json!({ "a": "b" }); 8]);

    let each = encode(&sink(json!({ "mode": "each" })), &documents()).unwrap();
    assert_eq!(
        (each.requests.len(), indexes(&each)),
        (8, ((0..8).collect(), vec![]))
    );
    let tagged = encode(&sink(json!({ "mode": "tag" })), &documents()).unwrap();
    assert_eq!(tagged.requests[0].tag(), "tag of this request");
}

#[test]
fn payloads_stay_with_the_host_but_for_those_with_a_bad_time() {
    let attributes = vec![("tenant".to_owned(), "a".to_owned())];
    let mut documents = documents()[..3].to_vec();
    documents[0].attributes = &attributes;
    documents[0].event.session = Some("s-1");
    documents[1].event.payload = r#"{"time":"yesterday"}"#;
    documents[2].event.payload = r#"{"time":"2026-01-05T08:00:00Z"}"#;
    let body = |metadata| {
        let stage = sink(json!({ "mode": "parts", "metadata": metadata }));
        let encoded = encode(&stage, &documents).unwrap();
        assembled(encoded.requests[0].body(), &documents)
    };
    assert_eq!(
        body(true),
        r#"k0 T1 5 audit Some("s-1") tenant=a "" "{\"a\":\"b\"}"
k1 T1 5 audit None  "{\"time\":\"yesterday\"}" "{\"time\":\"yesterday\"}"
k2 T1 5 audit None  "" "{\"time\":\"2026-01-05T08:00:00Z\"}"
"#
    );
    assert!(
        body(false).starts_with(r#"k0 T1 5 audit Some("s-1") tenant=a "{\"a\":\"b\"}" "#),
        "{}",
        body(false)
    );
}

#[test]
fn a_sink_rejects_documents_with_a_plain_reason() {
    let encoded = encode(&sink(json!({ "mode": "reject", "on": "k3" })), &documents()).unwrap();
    assert_eq!(indexes(&encoded), (vec![0, 1, 2, 4, 5, 6, 7], vec![3]));
    assert_eq!(
        encoded.rejected[0].1,
        r"cannot be encoded\u{1b}[31m\nforged: line"
    );
    let encoded = encode(&sink(json!({ "mode": "reject-all" })), &documents()).unwrap();
    assert_eq!(encoded.rejected.len(), KEYS.len());
    assert!(
        encoded
            .rejected
            .iter()
            .all(|(_, reason)| reason.len() <= 1024)
    );
    let held = encode(&sink(json!({ "mode": "fail-hold" })), &documents());
    assert_eq!(held, Err(CallError::Hold("its licence has expired".into())));
}

#[test]
fn what_is_the_operators_cannot_be_set() {
    let encode = |rules| {
        let stage = sink(json!({ "mode": "secret-placeholder" }));
        stage.encode(&BATCH, &documents(), &rules, false).result
    };
    let allowed = RequestRules {
        allowed_headers: vec!["x-placeholder".into()],
        ..RequestRules::default()
    };
    for (rules, fault) in [
        (
            RequestRules {
                operator_headers: vec!["content-type".into()],
                ..allowed.clone()
            },
            "the header `content-type` is not one that a sink may set",
        ),
        (
            RequestRules {
                operator_query: vec!["placeholder".into()],
                ..allowed.clone()
            },
            "the query parameter `placeholder` is set by the operator's URL",
        ),
        (
            RequestRules::default(),
            "the header `x-placeholder` needs the operator's permission: `allow-headers = [\"x-placeholder\"]` in the sink",
        ),
    ] {
        assert_eq!(encode(rules), Err(CallError::Contract(fault.into())));
    }
    // Nothing that a sink returns is substituted.
    let encoded = encode(allowed).unwrap();
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
        place: None,
    };
    let sent = Sent {
        method: Method::Post,
        path_suffix: "/x".into(),
        tag: "t".into(),
        carries: vec![4, 6],
    };
    let classify = |mode: &str| {
        sink(json!({ "classify": mode }))
            .classify(&BATCH, &sent, &response)
            .result
    };
    for (mode, expected) in [
        ("by-status", Classification::ByStatus),
        ("delivered", Classification::Delivered),
        ("hold", Classification::Hold("the index is missing".into())),
        (
            "echo",
            Classification::Rejected(
                r#"siem/teleport/audit/1-8 POST /x "t" 207 [Pair { name: "content-type", value: "text/plain" }] text some were bad false"#
                    .into(),
            ),
        ),
        (
            "mixed-reject",
            Classification::Mixed(vec![(4, Disposition::Rejected("the first is bad".into()))]),
        ),
        (
            "mixed-retry",
            Classification::Mixed(vec![(4, Disposition::Retry)]),
        ),
        ("split", Classification::Split("too much at once".into())),
        (
            "rejected",
            Classification::Rejected("none of them is good".into()),
        ),
        (
            "retry",
            Classification::Retry {
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
        errors[0].starts_with("it trapped: hostile component: trap on the answer 207 panic="),
        "{}",
        errors[0]
    );
    assert_eq!(errors[1], "it took more than 1000 ms of CPU time");
    assert_eq!(
        errors[2],
        "it broke the contract: index 4294967295 is not in the batch of 2"
    );
    assert_eq!(lines.len(), 1, "the panic: {lines:#?}");
}

#[test]
fn a_response_that_is_not_utf8_is_shown_as_bytes() {
    let response = Response {
        status: 400,
        headers: vec![],
        body: Bytes::from_static(b"\xff\x00"),
        truncated: true,
        retry_after: None,
        place: None,
    };
    let sent = Sent {
        method: Method::Put,
        path_suffix: String::new(),
        tag: String::new(),
        carries: vec![0],
    };
    let stage = sink(json!({ "classify": "echo" }));
    assert_eq!(
        stage.classify(&BATCH, &sent, &response).result,
        Ok(Classification::Rejected(
            r#"siem/teleport/audit/1-8 PUT  "" 400 [] bytes [255, 0] true"#.into()
        ))
    );
}
