//! Mappers, well-behaved and hostile.

use lockgate_model::contract::{CallError, Mapped, MappedDocument};
use serde_json::json;

use crate::support::{call_mapper, events, mapper};

fn document() -> MappedDocument {
    MappedDocument {
        payload: r#"{"a":"b"}"#.into(),
        attributes: vec![],
    }
}

#[test]
fn a_mapper_makes_documents_of_events() {
    for (mode, expected) in [
        ("same", Mapped::Emit(vec![document()])),
        ("two", Mapped::Emit(vec![document(), document()])),
        ("none", Mapped::Emit(vec![])),
        ("drop", Mapped::Drop(0)),
        (
            "reject",
            Mapped::Reject(r"cannot be mapped\u{1b}[31m\nforged: line".into()),
        ),
    ] {
        let stage = mapper(json!({ "mode": mode }));
        assert_eq!(
            call_mapper(&stage, &events()),
            Ok(vec![expected; 8]),
            "{mode}"
        );
    }
}

#[test]
fn documents_come_on_one_line_with_their_attributes() {
    let mapped = |mode| call_mapper(&mapper(json!({ "mode": mode })), &events()).unwrap();
    let pretty = MappedDocument {
        payload: r#"{  "a": "b\nc"}"#.into(),
        attributes: vec![],
    };
    assert_eq!(mapped("pretty")[0], Mapped::Emit(vec![pretty]));
    let attached = MappedDocument {
        attributes: vec![("tenant".into(), "k2".into())],
        ..document()
    };
    assert_eq!(mapped("attributes")[2], Mapped::Emit(vec![attached]));
}

#[test]
fn more_than_four_times_the_input_and_a_mebibyte_is_too_much() {
    let result = |bytes: usize| {
        let stage = mapper(json!({ "mode": "huge", "on": "k3", "bytes": bytes }));
        call_mapper(&stage, &events())
    };
    assert!(result(1 << 19).is_ok());
    assert!(matches!(result(3 << 20), Err(CallError::Output { .. })));
}

/// A mebibyte of reason is more than the output for eight small events, but just within that for
/// one.
#[test]
fn reasons_are_truncated_to_a_line() {
    let stage = mapper(json!({ "mode": "reject-huge", "on": "k3" }));
    let outcomes = call_mapper(&stage, &events()[3..4]).unwrap();
    let Mapped::Reject(reason) = &outcomes[0] else {
        panic!("rejected")
    };
    assert!(
        reason.len() <= 1024 && reason.starts_with("xxx"),
        "{reason}"
    );
}
