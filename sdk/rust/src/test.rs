//! Constructors for the host's records, for tests of plugins.

use crate::{Batch, ConfigIssue, Document, Event, Plugin, Response, ResponseBody, config, json};

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
