//! Mappers, well-behaved and hostile.

use lockgate_model::contract::{CallError, Mapped, MappedDocument};
use serde_json::json;

use crate::support::{call_mapper, events, fault_of_the_fourth, mapper};

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
fn a_mapper_that_fails_on_one_event_accepts_the_others() {
    let fault = |fault: &str| {
        format!(
            "it broke the contract: a document it made of the event `k3` is not allowed: {fault}"
        )
    };
    for (mode, reason) in [
        (
            "trap",
            "it trapped: hostile component: trap on k3 panic=".to_owned(),
        ),
        ("loop", "it took more than 1000 ms of CPU time".into()),
        (
            "memory",
            "it wanted more than 16777216 bytes of memory".into(),
        ),
        // A gibibyte exceeds its memory before it exceeds its output.
        (
            "huge",
            "it wanted more than 16777216 bytes of memory".into(),
        ),
        ("many", "it gave the host more than 10".into()),
        ("too-few", "it returned 0 results for 1 events".into()),
        ("too-many", "it returned 2 results for 1 events".into()),
        (
            "bad-reason",
            "it broke the contract: `drop(4000000000)` is not one of the 1 reasons it declared".into(),
        ),
        ("not-json", fault("it is not a JSON object")),
        ("truncated", fault("it is incomplete")),
        ("empty", fault("it is not a JSON object")),
        ("list", fault("it is not a JSON object")),
        ("scalar", fault("it is not a JSON object")),
        (
            "two-objects",
            fault("there is more text after the object, at byte 3"),
        ),
        (
            "lone-surrogate",
            fault("the escape at byte 6 is a lone surrogate"),
        ),
        (
            "duplicate-keys",
            fault("the key `a` occurs twice in an object"),
        ),
        ("deep", fault("it is nested deeper than 128")),
        (
            "control-character",
            fault("the string at byte 6 has a control character"),
        ),
        ("not-utf8", "it trapped: ".into()),
        (
            "many-attributes",
            "it broke the contract: the documents it made of the event `k3` have 65 attributes of".into(),
        ),
        (
            "big-attributes",
            "it broke the contract: the documents it made of the event `k3` have 1 attributes of 5003 bytes, 64 of 4096 are allowed".into(),
        ),
        (
            "fail",
            "it cannot process something in the batch: this batch cannot be mapped".into(),
        ),
    ] {
        let stage = mapper(json!({ "mode": mode, "on": "k3" }));
        let good = Mapped::Emit(vec![document()]);
        let actual = fault_of_the_fourth(|events| call_mapper(&stage, events), &good).to_string();
        assert!(actual.starts_with(&reason), "{mode}: {actual}");
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
