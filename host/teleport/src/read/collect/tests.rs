//! Tests of how events are collected into blocks.

use lockgate_model::KnownEvents;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Timestamp, Value};

use super::*;

fn event(event_type: &str, seconds: i64, fields: &[(&str, &str)]) -> EventUnstructured {
    let value = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let whole = Struct {
        fields: fields
            .iter()
            .map(|(key, text)| ((*key).to_owned(), value(text)))
            .collect(),
    };
    EventUnstructured {
        r#type: event_type.to_owned(),
        id: "id".to_owned(),
        time: Some(Timestamp {
            seconds,
            nanos: 123_456_789,
        }),
        index: 7,
        unstructured: whole.encode_to_vec().into(),
    }
}

fn audit(types: &[&str], start: Millis) -> Collector {
    let types = types.iter().map(|name| (*name).to_owned()).collect();
    Collector::new(Feed::Audit {
        types: Arc::new(types),
        start,
        own: None,
    })
}

#[test]
fn events_keep_their_fields() {
    let mut collector = audit(&[], 0);
    let known = event(
        "user.login",
        5,
        &[
            ("uid", "u-1"),
            ("code", "T1000I"),
            ("sid", "s-1"),
            ("b", "1"),
            ("a", "2"),
        ],
    );
    assert!(collector.push(&known, None));
    assert!(collector.push(&event("print", 6, &[]), None));
    let mut broken = event("odd", 7, &[]);
    broken.unstructured = vec![0xff].into();
    assert!(collector.push(&broken, None));
    let taken = collector.take();
    assert_eq!(taken.unreadable, 1);
    let parts = taken.events;
    assert_eq!(
        parts.payloads.at(0),
        r#"{"a":"2","b":"1","code":"T1000I","sid":"s-1","uid":"u-1"}"#
    );
    assert_eq!(
        (parts.keys.at(0), parts.codes.at(0), parts.sessions.at(0)),
        ("u-1", "T1000I", "s-1")
    );
    assert_eq!(
        (parts.times[0], parts.indexes[0], parts.types.at(0)),
        (5123, 7, "user.login")
    );
    assert_eq!(parts.keys.at(1), key_of(FeedRef::Audit, "", b"{}"));
    assert_eq!(parts.raw[&2], [0xff]);
    assert_eq!(parts.payloads.at(2), "");
}

#[test]
fn types_and_start_filter_events_and_an_unknown_event_is_matched_by_its_original_type() {
    let mut collector = audit(&["user.login", "new.type"], 5_000);
    let taken = [
        event("user.login", 5, &[]),
        event("user.login", 4, &[]),
        event("print", 6, &[]),
        event("unknown", 6, &[("unknown_event", "new.type")]),
        event("unknown", 6, &[("unknown_event", "other.type")]),
    ]
    .map(|event| collector.push(&event, None));
    assert_eq!(taken, [true, false, false, true, false]);
    let taken = collector.take();
    assert_eq!((taken.events.times.len(), taken.filtered), (2, 3));
}

#[test]
fn a_duplicate_has_the_same_key_and_payload() {
    let mut seen = Seen::new(9);
    let mut collector = audit(&[], 0);
    let one = event("a", 1, &[("uid", "u-1"), ("n", "1")]);
    let same_uid = event("a", 1, &[("uid", "u-1"), ("n", "2")]);
    let taken =
        [&one, &same_uid, &one, &same_uid].map(|event| collector.push(event, Some(&mut seen)));
    assert_eq!(taken, [true, true, false, false]);
    assert_eq!(collector.take().duplicates, 2);
    // After a restart, the store computes the hashes from its events.
    let mut collector = audit(&[], 0);
    collector.push(&one, None);
    let parts = collector.take().events;
    let hash = payload_hash(parts.keys.at(0), parts.payloads.at(0).as_bytes());
    let known = KnownEvents {
        events: vec![(of_proto(one.time.as_ref()), hash)],
        ..KnownEvents::default()
    };
    assert!(!collector.push(&one, Some(&mut Seen::of(0, known))));
}

#[test]
fn uploads_announce_recordings_unless_they_are_filtered() {
    let upload = event("session.upload", 5, &[("sid", "s-1"), ("uid", "u-1")]);
    let mut all = audit(&[], 0);
    all.push(&upload, None);
    all.push(&event("session.upload", 5, &[]), None);
    assert_eq!(all.take().announced, [PendingRecording::new("s-1", 5123)]);
    let mut some = audit(&["user.login"], 0);
    some.push(&upload, None);
    assert!(some.take().announced.is_empty());
}

#[test]
fn a_recording_is_not_filtered_and_its_keys_begin_with_the_session() {
    let mut collector = Collector::new(Feed::Recording { sid: "s-1".into() });
    assert!(collector.push(&event("print", 0, &[]), None));
    assert!(collector.push(
        &event("session.start", 0, &[("uid", "u-1"), ("sid", "s-1")]),
        None
    ));
    let parts = collector.take().events;
    assert!(parts.keys.at(0).starts_with("s-1/") && parts.keys.at(1) == "s-1/u-1");
    assert_eq!(parts.sessions.at(0), "s-1");
}
