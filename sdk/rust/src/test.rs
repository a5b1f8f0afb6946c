//! Constructors for the host's records, for tests of plugins.

use crate::{
    Batch, ConfigIssue, Document, Encoded, Event, HttpSink, Part, Plugin, Request, RequestBody,
    Response, ResponseBody, Sent, config, json,
};

/// Configures a plugin as the host does: `with` is the operator's table as JSON.
pub fn configure<P: Plugin>(with: &str) -> Result<(P, P::Setup), Vec<ConfigIssue>> {
    P::configure(config::parse(with)?)
}

/// The problems of a configuration, as `path: message (help)`. Empty if there are none.
pub fn issues<P: Plugin>(with: &str) -> Vec<String> {
    let line = |issue: ConfigIssue| match issue.help {
        Some(help) => format!("{}: {} ({help})", issue.path, issue.message),
        None => format!("{}: {}", issue.path, issue.message),
    };
    configure::<P>(with)
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(line)
        .collect()
}

pub fn batch() -> Batch {
    Batch {
        id: "batch-1".into(),
        pipeline: "test".into(),
        stage: "test".into(),
        source: "teleport".into(),
        read_at: 1_767_600_000_000,
        extra: vec![],
    }
}

/// An event of the audit log. Its key, type and code are the payload's `uid`, `event` and `code`.
pub fn event(payload: &str) -> Event {
    let field = |name| {
        json::find(payload, name)
            .ok()
            .flatten()
            .and_then(json::text)
            .unwrap_or_default()
            .into_owned()
    };
    Event {
        key: field("uid"),
        event_type: field("event"),
        code: field("code"),
        time: 1_767_600_000_000,
        index: 0,
        feed: "audit".into(),
        session: None,
        payload: payload.into(),
    }
}

/// An event of a session recording.
pub fn session_event(session: &str, payload: &str) -> Event {
    Event {
        feed: "session".into(),
        session: Some(session.into()),
        ..event(payload)
    }
}

/// A document of 2026-01-05T08:00:00Z, of the audit log.
pub fn document(payload: &str) -> Document {
    let event = event(payload);
    Document {
        key: event.key,
        event_type: event.event_type,
        code: event.code,
        time: event.time,
        index: event.index,
        feed: event.feed,
        session: event.session,
        attributes: vec![],
        payload: event.payload,
    }
}

/// A document of a session recording.
pub fn session_document(session: &str, payload: &str) -> Document {
    Document {
        feed: "session".into(),
        session: Some(session.into()),
        ..document(payload)
    }
}

pub fn response(status: u16, body: &str) -> Response {
    Response {
        status,
        headers: vec![],
        body: ResponseBody::Text(body.into()),
        truncated: false,
    }
}

/// What a sink makes of documents. Panics if it refuses its configuration or the documents, or if a
/// document is not in exactly one request or rejection.
pub fn encode<S: HttpSink + Plugin>(with: &str, documents: &[Document]) -> Encoded {
    let (sink, _) = configure::<S>(with)
        .unwrap_or_else(|issues| panic!("the configuration is refused: {issues:?}"));
    let encoded = sink
        .encode(&batch(), documents.to_vec())
        .unwrap_or_else(|failure| panic!("the documents are refused: {failure:?}"));
    let carried = encoded.requests.iter().flat_map(|it| it.carries.iter());
    let rejected = encoded.rejected.iter().map(|it| &it.index);
    let mut indices: Vec<u32> = carried.chain(rejected).copied().collect();
    indices.sort_unstable();
    let all: Vec<u32> = (0..).take(documents.len()).collect();
    assert_eq!(indices, all, "each document is carried or rejected once");
    encoded
}

/// The body of a request, as the host assembles it.
pub fn body(request: &Request, documents: &[Document]) -> Vec<u8> {
    let payload = |index: &u32| documents[*index as usize].payload.as_str();
    let parts = match &request.body {
        RequestBody::Bytes(bytes) => return bytes.clone(),
        RequestBody::Parts(parts) => parts,
    };
    let mut body = String::new();
    for part in parts {
        match part {
            Part::Text(text) => body.push_str(text),
            Part::Document(index) => body.push_str(payload(index)),
            Part::DocumentAsString(index) => json::write_text(&mut body, payload(index)),
            Part::Documents(joined) => {
                let payloads: Vec<&str> = joined.documents.iter().map(payload).collect();
                body.push_str(&payloads.join(&joined.separator));
            }
        }
    }
    body.into_bytes()
}

/// The same as text.
pub fn body_text(request: &Request, documents: &[Document]) -> String {
    String::from_utf8(body(request, documents)).expect("the body is text")
}

/// What `classify` is told of a request.
pub fn sent(request: &Request) -> Sent {
    Sent {
        method: request.method.clone(),
        path_suffix: request.path_suffix.clone(),
        tag: request.tag.clone(),
        carries: request.carries.clone(),
    }
}
