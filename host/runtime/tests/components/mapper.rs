use std::time::Duration;

use lockgate_runtime::{Isolated, Mapped, Postponed};
use serde_json::json;

use crate::support::{context, events, mapper, only_the_fourth_is_dead};

#[test]
fn a_mapper_makes_documents_of_events() {
    let payload = || r#"{"a":"b"}"#.to_owned();
    for (mode, expected) in [
        ("same", Mapped::Emit(vec![payload()])),
        ("two", Mapped::Emit(vec![payload(), payload()])),
        ("none", Mapped::Emit(vec![])),
        ("drop", Mapped::Drop(0)),
        (
            "reject",
            Mapped::Reject(r"cannot be mapped\u{1b}[31m\nforged: line".into()),
        ),
    ] {
        let stage = mapper(json!({ "mode": mode }));
        assert_eq!(
            stage.transform(&context(), &events()),
            Ok(vec![expected; 8]),
            "{mode}"
        );
    }
}

#[test]
fn a_mapper_that_cannot_take_one_event_loses_that_one_alone() {
    let document = |fault: &str| {
        format!(
            "it broke the contract: a document it made of event 0 of the batch is not allowed: {fault}"
        )
    };
    for (mode, reason) in [
        (
            "trap",
            "it trapped: cannot stand the event k3 panic=".to_owned(),
        ),
        ("loop", "it took more than 500 ms of CPU time".into()),
        (
            "memory",
            "it wanted more than 16777216 bytes of memory".into(),
        ),
        // A gibibyte is more than it may have, before it is more than it may return.
        (
            "huge",
            "it wanted more than 16777216 bytes of memory".into(),
        ),
        ("many", "it returned more than 10".into()),
        ("too-few", "it returned 0 results for 1 events".into()),
        ("too-many", "it returned 2 results for 1 events".into()),
        (
            "bad-reason",
            "it broke the contract: `drop(4000000000)` is none of the 1 reasons it declared".into(),
        ),
        ("not-json", document("it is not a JSON object")),
        ("truncated", document("it ends in the middle")),
        ("empty", document("it is not a JSON object")),
        ("list", document("it is not a JSON object")),
        ("scalar", document("it is not a JSON object")),
        (
            "two-objects",
            document("the object is followed by something at byte 3"),
        ),
        (
            "lone-surrogate",
            document("the escape at byte 6 is a lone surrogate"),
        ),
        (
            "duplicate-keys",
            document("the key `a` stands twice in an object"),
        ),
        ("deep", document("it is nested deeper than 128")),
        (
            "control-character",
            document("the string at byte 6 has a control character"),
        ),
        ("not-utf8", "it trapped: ".into()),
    ] {
        let stage = mapper(json!({ "mode": mode, "on": "k3" }));
        let answers = stage.transform_isolated(&context(), &events()).unwrap();
        let actual = only_the_fourth_is_dead(&answers, &Mapped::Emit(vec![r#"{"a":"b"}"#.into()]));
        assert!(actual.starts_with(&reason), "{mode}: {actual}");
    }
}

#[test]
fn more_than_four_times_the_input_and_a_mebibyte_is_too_much() {
    let result = |bytes: usize| {
        let stage = mapper(json!({ "mode": "huge", "on": "k3", "bytes": bytes }));
        only_or_none(&stage.transform_isolated(&context(), &events()).unwrap())
    };
    assert_eq!(result(1 << 19), None);
    assert!(
        result(3 << 20)
            .unwrap()
            .starts_with("it returned more than 10")
    );
}

fn only_or_none(answers: &[Isolated<Mapped>]) -> Option<String> {
    let mut dead = answers.iter().filter_map(|answer| {
        if let Isolated::Dead(reason) = answer {
            Some(reason.clone())
        } else {
            None
        }
    });
    let first = dead.next();
    assert_eq!(dead.next(), None);
    first
}

/// A mebibyte of reason is too much to return for eight small events, but not for the one, by a
/// hair.
#[test]
fn reasons_are_cut_to_a_line() {
    let stage = mapper(json!({ "mode": "reject-huge", "on": "k3" }));
    let answers = stage.transform_isolated(&context(), &events()).unwrap();
    let Isolated::Result(Mapped::Reject(reason)) = &answers[3] else {
        panic!("rejected")
    };
    assert!(
        reason.len() <= 1024 && reason.starts_with("xxx"),
        "{reason}"
    );
}

#[test]
fn a_mapper_s_own_word_holds_for_the_whole_batch() {
    let fails = mapper(json!({ "mode": "fail", "on": "k3" }));
    let dead = Isolated::Dead("this batch cannot be mapped".into());
    assert_eq!(
        fails.transform_isolated(&context(), &events()),
        Ok(vec![dead; 8])
    );
    let postpones = mapper(json!({ "mode": "fail-retryable" }));
    let postponed = Postponed {
        message: "not yet".into(),
        after: Some(Duration::from_millis(10)),
    };
    assert_eq!(
        postpones.transform_isolated(&context(), &events()),
        Err(postponed)
    );
}
