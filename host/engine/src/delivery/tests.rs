//! The rules of delivery, one after the other. Each test plays the receiver. They are in one file,
//! to be read next to "Rules of delivery" in ARCHITECTURE.md.

mod answers;
mod brake;
mod cpu_budget;
mod narrowing;

use std::time::Duration;

use lockgate_model::contract::{Holder, Inspect, SharedMemory, Shortage};

use crate::ConditionKind::{Brake, Documents, Endpoint, Plugin, Stalled};
use crate::brake::BrakeLimits;
use crate::testing::{TestPipeline, TestSettings};
use crate::{Input, Uptime};

fn pipeline() -> TestPipeline {
    TestPipeline::new(TestSettings::default())
}

const WAITS_FOR_RELEASE: &str = "1 document waits for the receiver to accept another: the receiver answered \
                       400; `lockgate dlq release p` lets it be dead-lettered without waiting";

/// A pipeline that keeps sessions in order.
fn in_session_order() -> TestPipeline {
    TestPipeline::new(TestSettings {
        in_session_order: true,
        ..TestSettings::default()
    })
}

const REFUSED: &str =
    "the receiver refused it 3 times while it accepted others: the receiver answered 400";

#[test]
fn a_document_refused_alone_is_dead_lettered_after_three_refusals_with_others_accepted_between() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", ""), ("a", ""), ("b", ""), ("c", "")]);
    for good in ["a", "b"] {
        pipeline.answer("bad", 400);
        assert!(!pipeline.sent().contains(&"bad".to_owned()), "it waits");
        pipeline.answer(good, 200);
    }
    assert!(pipeline.commits.is_empty());
    pipeline.answer("bad", 400);
    pipeline.answer("c", 200);
    let outcomes: Vec<String> = pipeline.outcomes().into_values().collect();
    assert_eq!(outcomes, [REFUSED, "delivered", "delivered", "delivered"]);
}

#[test]
fn a_commit_has_the_requests_that_carried_its_entries_and_no_others() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", ""), ("a", ""), ("b", "")]);
    for good in ["c", "d", "e", "f"] {
        pipeline.read(&[(good, "")]);
        for _ in 0..20 {
            match pipeline.sent().first() {
                Some(keys) if keys.contains("bad") => pipeline.answer(&keys.clone(), 400),
                Some(keys) => pipeline.answer(&keys.clone(), 200),
                None => break,
            }
        }
        if pipeline.waits() {
            pipeline.wait();
        }
    }
    assert_eq!(pipeline.outcomes()[&1], REFUSED);
    for commit in &pipeline.commits {
        for request in &commit.batch.requests {
            assert!(request.carried_any(&commit.entries), "{commit:?}");
            assert_eq!(request.method, "POST");
        }
    }
    let of = |seq| {
        let mut commits = pipeline.commits.iter();
        let commit = commits.find(|commit| commit.entries.iter().any(|other| other == seq));
        let requests = commit.expect("it is final").batch.requests.iter();
        let requests = requests.map(|request| (request.status, request.entries.clone()));
        requests.collect::<Vec<_>>()
    };
    let own = |seq: u64| lockgate_model::ranges(std::iter::once(seq));
    assert!(of(1).contains(&(400, own(1))), "{:?}", of(1));
    assert!(of(2).contains(&(200, own(2))), "{:?}", of(2));
    assert_eq!(of(4), [(200, own(4))]);
}

#[test]
fn a_document_refused_alone_lets_the_next_batch_be_sent_as_a_probe() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", "")]);
    pipeline.answer("bad", 400);
    for next in ["a", "b"] {
        pipeline.read(&[(next, "")]);
        pipeline.answer(next, 200);
        pipeline.answer("bad", 400);
    }
    assert_eq!(pipeline.outcomes()[&1], REFUSED);
}

#[test]
fn a_receiver_that_refuses_every_document_gets_probes_only() {
    let mut pipeline = pipeline();
    pipeline.read(&[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]);
    while pipeline.answer_first(400) {}
    assert_eq!(
        pipeline.conditions(Endpoint),
        [
            "one request is sent at a time, because the receiver refused several documents in a \
             row: the receiver answered 400; `lockgate dlq release p` lets what it refuses be \
             dead-lettered and the others be sent"
        ]
    );
    for _ in 0..100 {
        pipeline.wait();
        assert!(pipeline.sent().len() <= 1, "{:?}", pipeline.sent());
        pipeline.answer_first(400);
    }
    assert!(pipeline.commits.is_empty(), "nothing is dead-lettered");
    assert!(pipeline.engine.waiting_for_release(pipeline.now).is_some());
    pipeline.give(Input::Release);
    while pipeline.answer_first(400) {}
    assert_eq!(pipeline.outcomes().len(), 5, "a release does not wait");
    for reason in pipeline.outcomes().into_values() {
        assert!(reason.contains("and it was released"), "{reason}");
    }
}

#[test]
fn an_outage_ends_with_the_first_success() {
    let mut pipeline = pipeline();
    pipeline.read(&[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]);
    pipeline.lose_all();
    assert_eq!(pipeline.began(Endpoint), 1);
    pipeline.wait();
    assert_eq!(pipeline.sent().len(), 1, "a probe");
    pipeline.answer_first(200);
    while pipeline.answer_first(200) {}
    assert_eq!(pipeline.outcomes().len(), 5);
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

#[test]
fn a_request_that_fails_while_no_other_can_tell_is_split_after_five_failures() {
    let mut pipeline = TestPipeline::new(TestSettings {
        documents_in_request: 2,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", "")]);
    for _ in 0..5 {
        pipeline.wait_until_sent();
        pipeline.answer("a b", 500);
    }
    pipeline.wait_until_sent();
    assert_eq!(pipeline.sent(), ["a"]);
}

#[test]
fn a_document_that_fails_for_ten_minutes_while_others_are_accepted_is_dead_lettered() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", ""), ("a", "")]);
    pipeline.answer("bad", 500);
    pipeline.answer("a", 200);
    let first_failed = pipeline.now;
    let mut number = 0;
    while !pipeline.outcomes().contains_key(&1) {
        assert!(pipeline.now < first_failed + Duration::from_secs(700));
        number += 1;
        pipeline.read(&[(&format!("good {number}"), "")]);
        pipeline.now += Duration::from_secs(5);
        pipeline.give(Input::Elapsed);
        for key in pipeline.sent() {
            pipeline.answer(&key, if key == "bad" { 500 } else { 200 });
        }
    }
    assert!(pipeline.now >= first_failed + Duration::from_secs(600));
    assert_eq!(
        pipeline.outcomes()[&1],
        "it failed for 10 minutes while others were accepted: the receiver answered 500"
    );
}

#[test]
fn documents_of_a_session_are_sent_in_their_order_and_other_sessions_go_on() {
    let mut pipeline = in_session_order();
    pipeline.read(&[("a1", "A"), ("a2", "A"), ("b1", "B"), ("b2", "B")]);
    assert_eq!(pipeline.sent(), ["a1", "b1"]);
    pipeline.answer("b1", 200);
    assert_eq!(pipeline.sent(), ["a1", "b2"]);
    pipeline.answer("a1", 200);
    assert_eq!(pipeline.sent(), ["a2", "b2"]);
}

#[test]
fn a_batch_that_others_need_as_evidence_does_not_wait_for_memory() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", "")]);
    pipeline.memory_is_used_up = true;
    for next in ["a", "b"] {
        pipeline.answer("bad", 400);
        pipeline.read(&[(next, "")]);
        assert_eq!(pipeline.sent(), [next], "all else waits for it");
        pipeline.answer(next, 200);
    }
    pipeline.answer("bad", 400);
    assert_eq!(pipeline.outcomes()[&1], REFUSED);
}

#[test]
fn a_batch_that_brings_no_evidence_waits_for_memory() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 4,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", "")]);
    pipeline.memory_is_used_up = true;
    pipeline.read(&[("b", "")]);
    assert!(
        pipeline.waits_for_memory(),
        "the first batch goes on by itself"
    );
    pipeline.lose_all();
    assert!(
        pipeline.waits_for_memory(),
        "and during an outage nothing can be sent"
    );
    pipeline.wait_until_sent();
    pipeline.answer("a", 200);
    assert_eq!(
        pipeline.outcomes().len(),
        1,
        "what was held goes on without memory"
    );
}

/// The half has memory that the next batch waited for, and waited behind it.
#[test]
fn the_second_half_of_a_batch_does_not_wait_for_one_that_waits_for_memory() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 2,
        batch_events: 2,
        stays_in_stages: true,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", "")]);
    pipeline.memory_is_used_up = true;
    pipeline.read(&[("c", ""), ("d", "")]);
    assert!(pipeline.waits_for_memory());
    pipeline.leave_stages_with_too_much();
    pipeline.leave_stages();
    pipeline.leave_stages();
    assert_eq!(pipeline.sent(), ["a", "b"]);
}

#[test]
fn a_redrive_passes_while_memory_is_used_up() {
    let mut pipeline = pipeline();
    pipeline.read(&[("dead", ""), ("bad", "")]);
    pipeline.memory_is_used_up = true;
    pipeline.answer("bad", 400);
    pipeline.redrive(&[1]);
    assert_eq!(pipeline.sent(), ["dead", "dead"]);
}

/// It was held for ever, and no other batch of a pipeline with state began.
#[test]
fn a_redrive_of_which_a_mapper_makes_too_much_passes_in_parts() {
    let mut pipeline = TestPipeline::new(TestSettings {
        max_events_in_stages: 2,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]);
    for key in ["a", "b", "c", "d", "e"] {
        pipeline.answer(key, 200);
    }
    // The ledger has what a redrive leaves for the next one.
    let mut left = vec![1, 2, 3, 4, 5];
    let mut parts = Vec::new();
    while !left.is_empty() {
        pipeline.redrive(&left);
        let part: Vec<String> = pipeline.sent().iter().map(ToString::to_string).collect();
        for key in &part {
            pipeline.answer(key, 200);
        }
        left.drain(..part.len());
        parts.push(part);
    }
    assert_eq!(parts, [vec!["a", "b"], vec!["c"], vec!["d", "e"]]);
    assert!(pipeline.conditions(Plugin).is_empty());
}

#[test]
fn a_host_that_stops_does_not_wait_for_memory() {
    let mut pipeline = pipeline();
    pipeline.memory_is_used_up = true;
    pipeline.read(&[("a", "")]);
    assert!(pipeline.waits_for_memory());
    pipeline.give(Input::Drain);
    assert!(pipeline.drained);
}

/// Waits until something is sent, and answers that the receiver refuses it.
fn refuse_next(pipeline: &mut TestPipeline, key: &str) {
    pipeline.wait_until_sent();
    assert_eq!(pipeline.sent(), [key]);
    pipeline.answer(key, 400);
}

#[test]
fn a_document_refused_in_the_only_session_waits_until_the_operator_releases_it() {
    let mut pipeline = in_session_order();
    pipeline.read(&[("bad", "A"), ("a2", "A")]);
    pipeline.read(&[("a3", "A")]);
    for _ in 0..10 {
        refuse_next(&mut pipeline, "bad");
    }
    assert_eq!(pipeline.conditions(Documents), [WAITS_FOR_RELEASE]);
    assert!(pipeline.commits.is_empty());
    let minute = Uptime::from_secs(60);
    assert!(!pipeline.engine.is_ready(pipeline.now + minute));

    pipeline.give(Input::Release);
    assert_eq!(pipeline.sent(), ["bad"], "it is tried at once");
    pipeline.answer("bad", 400);
    for next in ["a2", "a3"] {
        assert_eq!(pipeline.sent(), [next], "its session goes on");
        pipeline.answer(next, 200);
    }
    let outcomes: Vec<String> = pipeline.outcomes().into_values().collect();
    let released =
        "the receiver refused it 11 times, and it was released: the receiver answered 400";
    assert_eq!(outcomes, [released, "delivered", "delivered"]);
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

#[test]
fn batches_behind_a_refused_document_of_their_session_let_another_session_be_a_probe() {
    let mut pipeline = in_session_order();
    pipeline.read(&[("bad", "A"), ("a2", "A")]);
    pipeline.answer("bad", 400);
    pipeline.read(&[("a3", "A")]);
    pipeline.read(&[("b1", "B")]);
    assert_eq!(pipeline.sent(), ["b1"]);
    pipeline.answer("b1", 200);
    pipeline.answer("bad", 400);
    pipeline.read(&[("b2", "B")]);
    pipeline.answer("b2", 200);
    pipeline.answer("bad", 400);
    assert_eq!(pipeline.outcomes().get(&1), None, "its batch is not final");
    for next in ["a2", "a3"] {
        pipeline.answer(next, 200);
    }
    assert_eq!(pipeline.outcomes()[&1], REFUSED);
}

#[test]
fn a_document_that_nothing_follows_waits_until_the_operator_releases_it() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", "")]);
    for _ in 0..3 {
        refuse_next(&mut pipeline, "bad");
    }
    assert_eq!(pipeline.conditions(Documents), [WAITS_FOR_RELEASE]);
    pipeline.give(Input::Release);
    refuse_next(&mut pipeline, "bad");
    assert!(pipeline.outcomes()[&1].contains("it was released"));
}

#[test]
fn a_session_behind_a_request_that_fails_does_not_keep_it_from_being_split() {
    let mut pipeline = TestPipeline::new(TestSettings {
        in_session_order: true,
        documents_in_request: 2,
        ..TestSettings::default()
    });
    pipeline.read(&[("a1", "A"), ("a2", "A"), ("a3", "A"), ("a4", "A")]);
    for _ in 0..5 {
        pipeline.wait_until_sent();
        pipeline.answer("a1 a2", 500);
    }
    pipeline.wait_until_sent();
    assert_eq!(pipeline.sent(), ["a1"]);
}

#[test]
fn a_document_that_is_refused_again_and_again_begins_one_condition() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", "")]);
    for _ in 0..8 {
        refuse_next(&mut pipeline, "bad");
    }
    assert_eq!(pipeline.began(Documents), 1);
    assert_eq!(pipeline.began(Endpoint), 1);
}

/// Of `a b c`, the receiver took all but `a`.
fn with_one_document_to_send_again() -> TestPipeline {
    let mut pipeline = TestPipeline::new(TestSettings {
        documents_in_request: 3,
        inspect: Inspect::Always,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", ""), ("c", "")]);
    pipeline.answer("a b c", 207);
    pipeline
}

#[test]
fn a_partly_accepted_request_begins_one_condition() {
    let mut pipeline = with_one_document_to_send_again();
    pipeline.read(&[("d", "")]);
    pipeline.answer("d", 200);
    assert_eq!(
        pipeline.conditions(Documents),
        ["sink (test) says that some documents are to be sent again"]
    );
    assert_eq!(pipeline.began(Documents), 1);
}

#[test]
fn a_sink_that_wants_everything_again_is_not_ready_and_gets_probes_only() {
    let mut pipeline = TestPipeline::new(TestSettings {
        inspect: Inspect::Always,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", ""), ("c", "")]);
    for _ in 0..10 {
        pipeline.wait_until_sent();
        while pipeline.answer_first(208) {}
    }
    assert_eq!(
        pipeline.conditions(Endpoint),
        ["sink (test) says that all documents are to be sent again"]
    );
    pipeline.wait_until_sent();
    assert_eq!(pipeline.sent().len(), 1);
    while pipeline.outcomes().len() < 3 {
        pipeline.wait_until_sent();
        pipeline.answer_first(200);
    }
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

/// How often requests are looked at in a run in which the receiver gives each document this answer,
/// and then takes all of them.
fn visits_with(documents: usize, status: u16) -> u64 {
    let mut pipeline = TestPipeline::new(TestSettings {
        batch_events: documents,
        requests_in_flight: 64,
        inspect: Inspect::Always,
        brake: BrakeLimits::default(),
        ..TestSettings::default()
    });
    pipeline.read_keys((0..documents).map(|number| number.to_string()));
    let mut answers = 0;
    // One answer of 64 is an acceptance, so that requests are not only probes.
    while pipeline.engine.batches_in_flight() > 0 {
        if pipeline.sent().is_empty() {
            pipeline.wait();
            continue;
        }
        answers += 1;
        let accepts = answers > documents || answers % 64 == 0;
        pipeline.answer_first(if accepts { 200 } else { status });
    }
    pipeline.engine.requests.visits()
}

#[test]
fn the_work_for_an_answer_does_not_grow_with_the_requests_of_the_batch() {
    for status in [207, 400, 503] {
        let (few, many) = (visits_with(1_000, status), visits_with(10_000, status));
        assert!(many <= few * 15, "of answers with {status}: {few}, {many}");
    }
}

#[test]
fn a_batch_whose_commit_waits_for_an_earlier_one_lets_the_next_be_sent_as_evidence() {
    let mut pipeline = TestPipeline::new(TestSettings {
        with_state: true,
        batch_events: 1,
        ..TestSettings::default()
    });
    pipeline.read(&[("bad", ""), ("a", ""), ("b", "")]);
    for good in ["a", "b"] {
        pipeline.answer("bad", 400);
        pipeline.answer(good, 200);
    }
    assert!(pipeline.commits.is_empty(), "state is committed in order");
    pipeline.answer("bad", 400);
    assert_eq!(pipeline.outcomes()[&1], REFUSED);
    assert_eq!(pipeline.outcomes().len(), 3);
}

#[test]
fn a_refusing_endpoint_with_nothing_waiting_has_no_condition() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", ""), ("bad2", "")]);
    for _ in 0..6 {
        while !pipeline.answer_first(400) {
            pipeline.wait();
        }
    }
    assert_eq!(pipeline.conditions(Endpoint).len(), 1);
    pipeline.give(Input::Release);
    while pipeline.outcomes().len() < 2 {
        if !pipeline.answer_first(400) {
            pipeline.wait();
        }
    }
    assert_eq!(pipeline.engine.conditions().count(), 0);
    assert!(pipeline.engine.is_ready(pipeline.now));
}

#[test]
fn an_unavailable_endpoint_with_nothing_waiting_has_no_condition() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", "")]);
    pipeline.give(Input::Release);
    while pipeline.outcomes().is_empty() {
        if !pipeline.answer_first(500) {
            pipeline.wait();
        }
    }
    assert_eq!(pipeline.engine.conditions().count(), 0);
    pipeline.read(&[("next", "")]);
    assert_eq!(pipeline.sent(), ["next"], "the next batch shows how it is");
}

#[test]
fn a_document_that_fails_while_others_are_accepted_begins_each_condition_once() {
    let mut pipeline = pipeline();
    pipeline.read(&[("bad", "")]);
    let mut failures = 0;
    while failures < 50 && !pipeline.outcomes().contains_key(&1) {
        // Good events are rare: the document is often tried twice between them.
        if failures % 2 == 1 {
            pipeline.read(&[("good", "")]);
        }
        let before = failures;
        while failures == before {
            let sent = pipeline.sent();
            match sent.first() {
                Some(key) if key == "bad" => {
                    pipeline.answer("bad", 500);
                    failures += 1;
                }
                Some(key) => pipeline.answer(key, 200),
                None => pipeline.wait(),
            }
        }
    }
    assert!(failures > 20, "{failures}");
    assert_eq!(pipeline.began(Endpoint), 1);
    assert_eq!(pipeline.began(Documents), 1);
    assert_eq!(pipeline.conditions(Endpoint).len(), 0);
}

#[test]
fn a_document_that_always_fails_lets_batches_of_other_sessions_be_probes() {
    let mut pipeline = in_session_order();
    pipeline.read(&[("bad", "A")]);
    pipeline.read(&[("a2", "A")]);
    pipeline.read(&[("a3", "A")]);
    for _ in 0..5 {
        pipeline.wait_until_sent();
        pipeline.answer("bad", 500);
    }
    pipeline.read(&[("b1", "B")]);
    while pipeline.sent() != ["b1"] {
        if !pipeline.answer_first(500) {
            pipeline.wait();
        }
    }
    pipeline.answer("b1", 200);
    assert_eq!(pipeline.conditions(Endpoint).len(), 0);
    while pipeline.outcomes().len() < 4 {
        for key in pipeline.sent() {
            pipeline.answer(&key, if key == "bad" { 500 } else { 200 });
        }
        if pipeline.sent().is_empty() && pipeline.outcomes().len() < 4 {
            pipeline.wait();
        }
    }
    assert!(pipeline.outcomes()[&1].contains("failed for 10 minutes"));
}

#[test]
fn a_document_that_always_fails_and_that_nothing_follows_waits_for_the_operators_release() {
    let mut pipeline = in_session_order();
    pipeline.read(&[("bad", "A"), ("a2", "A")]);
    let began = pipeline.now;
    while pipeline.now < began + Duration::from_secs(700) {
        if !pipeline.answer_first(500) {
            pipeline.wait();
        }
    }
    assert_eq!(
        pipeline.conditions(Endpoint),
        [
            "the receiver answered 500; if the receiver takes other documents, `lockgate dlq \
             release p` lets what it fails on be dead-lettered"
        ]
    );
    pipeline.give(Input::Release);
    assert_eq!(pipeline.sent(), ["bad"], "it is tried at once");
    pipeline.answer("bad", 500);
    pipeline.wait_until_sent();
    pipeline.answer("a2", 200);
    assert_eq!(pipeline.outcomes().len(), 2);
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

/// The receiver answers in time to requests with at most 25 documents. Gives how often each
/// document arrived until all entries are final.
fn arrivals_at_slow_receiver(pipeline: &mut TestPipeline, batch: usize) -> Vec<usize> {
    let keys: Vec<String> = (0..100).map(|number| format!("{batch}-{number}")).collect();
    let mut arrivals = vec![0; 100];
    pipeline.read_keys(keys.iter().cloned());
    while pipeline.outcomes().len() < (batch + 1) * 100 {
        let Some(sent) = pipeline.sent().first().cloned() else {
            pipeline.wait();
            continue;
        };
        for key in sent.split(' ') {
            let at = keys.iter().position(|other| other == key);
            arrivals[at.expect("it was read")] += 1;
        }
        if sent.split(' ').count() <= 25 {
            pipeline.answer(&sent, 200);
        } else {
            pipeline.time_out(&sent);
        }
    }
    arrivals
}

#[test]
fn a_receiver_that_is_too_slow_for_large_requests_soon_gets_small_ones() {
    let mut pipeline = TestPipeline::new(TestSettings {
        documents_in_request: 100,
        ..TestSettings::default()
    });
    assert_eq!(arrivals_at_slow_receiver(&mut pipeline, 0), [7; 100]);
    for batch in 1..5 {
        assert_eq!(arrivals_at_slow_receiver(&mut pipeline, batch), [1; 100]);
    }
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

/// Each of the others is accepted after a refusal of the one.
fn refuse_while_accepting(pipeline: &mut TestPipeline, bad: &str, others: [&str; 3]) {
    for other in others {
        pipeline.answer(bad, 400);
        pipeline.answer(other, 200);
    }
}

#[test]
fn what_the_receiver_took_is_committed_while_the_brake_holds_the_rest() {
    let mut pipeline = TestPipeline::new(TestSettings {
        brake: BrakeLimits {
            share: 1,
            ..BrakeLimits::default()
        },
        ..TestSettings::default()
    });
    // The brake looks at what has died before.
    pipeline.read(&[("first", ""), ("a", ""), ("b", ""), ("c", "")]);
    refuse_while_accepting(&mut pipeline, "first", ["a", "b", "c"]);
    let delivered = || Some("delivered".to_owned());
    assert_eq!(
        pipeline.outcomes().get(&1).map(String::as_str),
        Some(REFUSED)
    );
    pipeline.read(&[("d", ""), ("bad", ""), ("e", ""), ("f", "")]);
    refuse_while_accepting(&mut pipeline, "bad", ["d", "e", "f"]);
    let outcomes = pipeline.outcomes();
    let fates: Vec<_> = (5..9).map(|seq| outcomes.get(&seq).cloned()).collect();
    assert_eq!(fates, [delivered(), None, delivered(), delivered()]);
    assert_eq!(pipeline.engine.batches_in_flight(), 1, "one waits");

    pipeline.give(Input::Release);
    pipeline.answer("bad", 400);
    assert_eq!(pipeline.outcomes().len(), 8);
    assert_eq!(pipeline.engine.batches_in_flight(), 0);
}

#[test]
fn what_the_receiver_took_is_committed_before_a_stop() {
    let mut pipeline = pipeline();
    pipeline.read(&[("a", ""), ("b", ""), ("c", "")]);
    pipeline.answer("a", 200);
    pipeline.answer("b", 503);
    pipeline.give(Input::Drain);
    assert!(!pipeline.drained, "an answer is still to come");
    pipeline.answer("c", 200);
    assert!(pipeline.drained);
    let delivered: Vec<u64> = pipeline.outcomes().into_keys().collect();
    assert_eq!(delivered, [1, 3]);
}

#[test]
fn entries_that_were_held_up_are_one_batch_after_a_restart() {
    let mut pipeline = TestPipeline::new(TestSettings {
        done: vec![2..5, 6..9],
        ..TestSettings::default()
    });
    pipeline.read_keys((1..=10).map(|number| number.to_string()));
    assert_eq!(pipeline.engine.batches_in_flight(), 1);
    while pipeline.answer_first(200) {}
    let delivered: Vec<u64> = pipeline.outcomes().into_keys().collect();
    assert_eq!(delivered, [1, 5, 9, 10]);
}

#[test]
fn a_refused_document_holds_up_its_own_session_only() {
    let mut pipeline = TestPipeline::new(TestSettings {
        in_session_order: true,
        documents_in_request: 4,
        ..TestSettings::default()
    });
    pipeline.read(&[("bad", "s1"), ("a", "s2"), ("b", "s1"), ("c", "s3")]);
    pipeline.answer("bad a b c", 400);
    assert_eq!(pipeline.sent(), ["bad a"], "the rest waits behind it");
    pipeline.answer("bad a", 400);
    pipeline.answer("bad", 400);
    pipeline.answer("a", 200);
    assert_eq!(pipeline.sent(), ["bad"], "it is tried again");
    pipeline.answer("bad", 400);
    assert_eq!(pipeline.sent(), ["c"], "another session");
    pipeline.answer("c", 200);
    pipeline.answer("bad", 400);
    assert_eq!(pipeline.sent(), ["b"]);
    pipeline.answer("b", 200);
    let outcomes: Vec<String> = pipeline.outcomes().into_values().collect();
    assert_eq!(outcomes, [REFUSED, "delivered", "delivered", "delivered"]);
}

/// Each refusal of a single document costs a wait, and a batch may hold hundreds of them.
#[test]
fn a_new_batch_is_the_next_probe_of_a_receiver_that_refuses_one_document_after_another() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batch_events: 8,
        documents_in_request: 8,
        ..TestSettings::default()
    });
    let bad: Vec<String> = (0..8).map(|number| format!("bad{number}")).collect();
    let bad: Vec<(&str, &str)> = bad.iter().map(|key| (key.as_str(), "")).collect();
    pipeline.read(&bad);
    while pipeline.conditions(Endpoint).is_empty() {
        pipeline.answer_first(400);
    }
    while pipeline.answer_first(400) {}
    pipeline.read(&[("a", ""), ("b", "")]);
    while pipeline.sent().is_empty() {
        pipeline.wait();
    }
    assert_eq!(pipeline.sent(), ["a b"]);
}

/// The key of an event that the receiver does not take, or of another.
fn key(number: u64, is_bad: bool) -> String {
    let prefix = if is_bad { "bad" } else { "" };
    format!("{prefix}{number}")
}

/// The receiver gives this answer if a request has a bad document, and accepts all others. Goes
/// on for so long, or until nothing waits.
fn answer_bad_for(pipeline: &mut TestPipeline, status: u16, duration: Uptime) {
    let end = pipeline.now + duration;
    while pipeline.now < end {
        match pipeline.sent().first() {
            Some(keys) => {
                let status = if keys.contains("bad") { status } else { 200 };
                pipeline.answer_first(status);
            }
            None if pipeline.waits() => pipeline.wait(),
            None => return,
        }
    }
}

/// After a restart, and in a redrive, the first batch may hold nothing but documents that are
/// refused.
#[test]
fn documents_that_are_refused_again_do_not_hold_up_those_after_them() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        documents_in_request: 100,
        brake: BrakeLimits::default(),
        ..TestSettings::default()
    });
    let is_bad = |number: u64| number < 100 || number.is_multiple_of(20);
    pipeline.read_keys((0..1000).map(|number| key(number, is_bad(number))));
    answer_bad_for(&mut pipeline, 400, Uptime::from_secs(60));
    let delivered = pipeline.outcomes().len();
    assert!(delivered >= 900 / 20 * 19, "{delivered}");
}

/// Nothing is accepted that could show whose fault it is, and there are too many requests to wait
/// for each of them to fail often.
#[test]
fn a_slow_receiver_gets_smaller_requests_although_many_wait() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 24,
        documents_in_request: 100,
        ..TestSettings::default()
    });
    pipeline.read_keys((0..2400).map(|number| number.to_string()));
    let end = pipeline.now + Uptime::from_secs(120);
    let mut sent_documents = 0;
    while pipeline.outcomes().len() < 2400 && pipeline.now < end {
        let Some(keys) = pipeline.sent().first().cloned() else {
            pipeline.wait();
            continue;
        };
        let documents = keys.split(' ').count();
        sent_documents += documents;
        if documents <= 25 {
            pipeline.answer(&keys, 200);
        } else {
            pipeline.now += Uptime::from_secs(1);
            pipeline.time_out(&keys);
        }
    }
    assert_eq!(pipeline.outcomes().len(), 2400);
    assert!(sent_documents < 4 * 2400, "{sent_documents}");
}

/// Requests with one document that fails each: what is accepted is in other requests.
#[test]
fn documents_that_fail_in_every_request_do_not_hold_up_the_others() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 24,
        documents_in_request: 100,
        ..TestSettings::default()
    });
    pipeline.read_keys((0..2400).map(|number| key(number, number % 100 == 42)));
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(120));
    assert_eq!(pipeline.outcomes().len(), 2400 - 24);
}

#[test]
fn a_batch_with_one_waiting_document_makes_room_for_others() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        documents_in_request: 100,
        ..TestSettings::default()
    });
    pipeline.read_keys((0..8000).map(|number| key(number, number % 100 == 42)));
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(300));
    assert_eq!(pipeline.outcomes().len(), 80 * 99);
    let one_event = "{}".len();
    let memory: Vec<usize> = pipeline.memory.values().copied().collect();
    assert_eq!(memory, [one_event; 80]);

    // The others can still become dead letters.
    for _ in 0..20 {
        pipeline.read(&[("later", "")]);
        answer_bad_for(&mut pipeline, 500, Uptime::from_secs(60));
    }
    let letters = pipeline.commits.iter().flat_map(|commit| &commit.dead);
    let keys: Vec<&str> = letters.map(|letter| letter.key.as_str()).collect();
    assert_eq!(keys.len(), 80);
    assert!(keys.iter().all(|key| key.starts_with("bad")), "{keys:?}");
}

#[test]
fn each_half_of_a_batch_keeps_its_own_memory() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        documents_in_request: 100,
        max_events_in_stages: 50,
        ..TestSettings::default()
    });
    pipeline.read_keys((0..800).map(|number| key(number, number % 50 == 42)));
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(120));
    assert_eq!(pipeline.outcomes().len(), 16 * 49);
    let one_event = "{}".len();
    let memory: Vec<usize> = pipeline.memory.values().copied().collect();
    assert_eq!(memory, [one_event; 16]);
    answer_bad_for(&mut pipeline, 200, Uptime::from_secs(1200));
    assert_eq!(pipeline.outcomes().len(), 800);
    assert!(pipeline.memory.is_empty(), "{:?}", pipeline.memory);
}

#[test]
fn a_pipeline_that_stops_at_its_limit_of_waiting_documents_says_so() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        batch_events: 2,
        ..TestSettings::default()
    });
    pipeline.read_keys((0..600).map(|number| key(number, number % 2 == 0)));
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(300));
    let conditions = pipeline.conditions(Endpoint);
    assert!(
        conditions[0].contains("no new batch begins"),
        "{conditions:?}"
    );
}

/// Each batch has one document that fails, as on a quiet day.
#[test]
fn documents_that_fail_do_not_keep_new_ones_from_being_probes() {
    let mut pipeline = pipeline();
    for number in 0..20 {
        pipeline.read(&[
            (&format!("good{number}"), ""),
            (&format!("bad{number}"), ""),
        ]);
        answer_bad_for(&mut pipeline, 500, Uptime::from_secs(15));
    }
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(90));
    assert_ne!(pipeline.conditions(Endpoint), Vec::<&str>::new());
    pipeline.read(&[("good", "")]);
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(60));
    assert_eq!(pipeline.outcomes().len(), 21);
}

/// After a restart nothing has been accepted yet, and what is left is far apart.
#[test]
fn documents_that_failed_before_a_restart_do_not_keep_new_ones_from_being_probes() {
    let bad = |number: u64| 1 + 5000 * number;
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        documents_in_request: 100,
        done: (0..10)
            .map(|number| bad(number) + 1..bad(number + 1))
            .collect(),
        ..TestSettings::default()
    });
    let is_bad = |seq: u64| seq < 50_000 && seq % 5000 == 1;
    pipeline.read_keys((1..=50_100).map(|seq| key(seq, is_bad(seq))));
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(3600));
    assert_eq!(
        pipeline.outcomes().len(),
        100 + 10,
        "the bad ones are dead letters"
    );
}

/// The oldest event that is not final bounds how far others may be ahead.
#[test]
fn a_document_that_waits_while_nothing_more_may_be_sent_says_so() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        batch_events: 1000,
        documents_in_request: 1000,
        ..TestSettings::default()
    });
    pipeline.read_keys((1..=140_000).map(|seq| key(seq, seq == 1)));
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(120));
    assert_eq!(
        pipeline.conditions(Documents),
        [
            "1 document waits, and no new batch begins until it is final: the receiver \
             answered 500"
        ]
    );
    assert_eq!(pipeline.engine.waiting_for_release(pipeline.now), None);
    let ahead = pipeline.outcomes().len();
    assert!((130_000..=132_000).contains(&ahead), "{ahead}");

    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(700));
    let outcomes = pipeline.outcomes();
    let dead = outcomes.values().filter(|outcome| *outcome != "delivered");
    assert_eq!((outcomes.len(), dead.count()), (140_000, 1));
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

#[test]
fn a_brake_that_keeps_further_events_from_being_sent_says_so() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        batch_events: 2,
        brake: BrakeLimits::default(),
        ..TestSettings::default()
    });
    pipeline.read_keys((0..600).map(|number| key(number, number % 2 == 0)));
    answer_bad_for(&mut pipeline, 400, Uptime::from_secs(300));
    let conditions = pipeline.conditions(Brake);
    assert!(
        conditions[0].starts_with("no new batch begins; "),
        "{conditions:?}"
    );
}

#[test]
fn what_a_small_limit_leaves_of_a_batch_does_not_wait_for_more_events() {
    let mut pipeline = TestPipeline::new(TestSettings {
        batch_age: Duration::from_secs(1),
        documents_in_request: 100,
        ..TestSettings::default()
    });
    let began = pipeline.now;
    // The receiver takes one document at a time.
    for round in 0..2 {
        pipeline.read_keys((0..50).map(|number| format!("{round}-{number}")));
        while pipeline.outcomes().len() < (round + 1) * 50 {
            match pipeline.sent().first() {
                Some(keys) if keys.contains(' ') => pipeline.answer_first(413),
                Some(_) => pipeline.answer_first(200),
                None => {
                    pipeline.wait();
                    true
                }
            };
        }
    }
    let took = pipeline.now - began;
    assert!(took < Uptime::from_secs(5), "{took:?}");
}

#[test]
fn events_without_a_session_do_not_wait_for_each_other() {
    let mut pipeline = in_session_order();
    pipeline.read(&[("a", "s"), ("b", "s"), ("c", ""), ("d", "")]);
    assert_eq!(pipeline.sent(), ["a", "c", "d"]);
}

#[test]
fn documents_that_fail_from_the_start_hold_up_their_own_sessions_only() {
    let mut pipeline = TestPipeline::new(TestSettings {
        in_session_order: true,
        batch_events: 10,
        documents_in_request: 100,
        ..TestSettings::default()
    });
    // The first batch is nothing but those, and each later one has an event behind one of them.
    let session = |number: u64| match number {
        0..10 => format!("bad{number}"),
        _ if number.is_multiple_of(10) => format!("bad{}", number / 10 % 10),
        _ => format!("good{number}"),
    };
    let events: Vec<(String, String)> = (0..1000)
        .map(|number| (key(number, number < 10), session(number)))
        .collect();
    let events: Vec<(&str, &str)> = events
        .iter()
        .map(|(key, session)| (key.as_str(), session.as_str()))
        .collect();
    pipeline.read(&events);
    answer_bad_for(&mut pipeline, 500, Uptime::from_secs(540));
    assert_eq!(pipeline.outcomes().len(), 990 - 99);
}

#[test]
fn a_stalled_pipeline_says_what_it_waits_for() {
    let mut pipeline = pipeline();
    pipeline.read(&[("a", "")]);
    pipeline.wait();
    assert_eq!(
        pipeline.conditions(Stalled),
        [
            "events wait, and none has become final for 60 s; a request is being sent or \
             waits for its answer"
        ]
    );
    assert!(!pipeline.engine.is_ready(pipeline.now));
    pipeline.answer("a", 200);
    assert!(pipeline.conditions(Stalled).is_empty());
    assert!(pipeline.engine.is_ready(pipeline.now));
}

/// Entries that were sent back are below the watermark.
#[test]
fn a_pipeline_whose_redrive_does_not_end_is_stalled() {
    let mut pipeline = pipeline();
    pipeline.read(&[("a", "")]);
    pipeline.answer("a", 200);
    pipeline.now += Uptime::from_secs(120);
    pipeline.redrive(&[1]);
    assert!(pipeline.engine.is_ready(pipeline.now));
    pipeline.wait();
    let [message] = pipeline.conditions(Stalled)[..] else {
        panic!("{:?}", pipeline.conditions(Stalled));
    };
    assert!(message.contains("a request is being sent"), "{message}");
    assert!(!pipeline.engine.is_ready(pipeline.now));
    pipeline.answer("a", 200);
    assert!(pipeline.conditions(Stalled).is_empty());
    assert!(pipeline.engine.is_ready(pipeline.now));
}

#[test]
fn a_stalled_pipeline_names_the_stage_at_work() {
    let mut pipeline = TestPipeline::new(TestSettings {
        stays_in_stages: true,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", "")]);
    pipeline.stays_at("stage 2 (slow)");
    pipeline.wait();
    assert_eq!(
        pipeline.conditions(Stalled),
        [
            "events wait, and none has become final for 60 s; stage 2 (slow) is at work or \
             waits for a thread"
        ]
    );
}

#[test]
fn a_stalled_pipeline_names_the_sink_at_work() {
    let mut pipeline = TestPipeline::new(TestSettings {
        stays_in_sink: true,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", "")]);
    pipeline.wait();
    let [message] = pipeline.conditions(Stalled)[..] else {
        panic!("{:?}", pipeline.conditions(Stalled));
    };
    assert!(
        message.ends_with("for 60 s; sink (test) is at work or waits for a thread"),
        "{message}"
    );
}

/// A pipeline whose component used up its limit of time in every call was ready for a minute, and
/// then said that a component was at work.
#[test]
fn calls_that_fail_for_five_seconds_are_shown_before_the_batch_is_through() {
    let mut pipeline = TestPipeline::new(TestSettings {
        stays_in_stages: true,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", "")]);
    let fail = |pipeline: &mut TestPipeline| {
        pipeline.fail_call("stage 1 (test)", "it took more than 4000 ms of CPU time");
    };
    fail(&mut pipeline);
    assert!(
        pipeline.conditions(Plugin).is_empty(),
        "it may soon be over"
    );
    pipeline.wait();
    assert!(!pipeline.engine.is_ready(pipeline.now));
    assert_eq!(
        pipeline.conditions(Plugin),
        [
            "a call for a batch failed because it took more than 4000 ms of CPU time; its events \
             are tried in smaller calls"
        ]
    );
    fail(&mut pipeline);
    assert_eq!(
        pipeline.conditions(Plugin),
        [
            "2 calls for a batch failed, the last one because it took more than 4000 ms of CPU \
             time; its events are tried in smaller calls"
        ]
    );
    let shortage = Shortage {
        holder: Box::new(Holder {
            pipeline: "p".into(),
            stage: "stage 1 (x)".into(),
            bytes: 0,
        }),
        needs: 60 << 20,
        of: SharedMemory::SlowCalls,
        taken: 200 << 20,
        limit: 256 << 20,
        kept: 0,
        is_slow: false,
        exempt: None,
    };
    pipeline.fail_call_for(shortage, "stage 1 (test)");
    assert_eq!(
        pipeline.conditions(Plugin),
        [
            "3 calls for a batch failed, the last one because it needs 60 MiB of memory, and slow \
             calls may have 256 MiB together, half of `memory` in `[limits]`: those of other \
             components have 200 MiB; it is made again when others have released \
             memory"
        ]
    );
    pipeline.leave_stages();
    assert!(pipeline.conditions(Plugin).is_empty());
    assert!(pipeline.engine.is_ready(pipeline.now));
}

/// The receiver's own outage once counted as a failure of the document "while others were
/// accepted", although nothing was accepted after it had failed.
#[test]
fn what_a_receiver_wants_again_is_not_given_up_in_an_outage() {
    let mut pipeline = with_one_document_to_send_again();
    let end = pipeline.now + Duration::from_secs(3600);
    while pipeline.now < end {
        pipeline.wait_until_sent();
        pipeline.answer("a", 503);
        assert_eq!(pipeline.conditions(Endpoint).len(), 1, "it is an outage");
    }
    pipeline.wait_until_sent();
    pipeline.answer("a", 200);
    let outcomes: Vec<String> = pipeline.outcomes().into_values().collect();
    assert_eq!(outcomes, ["delivered", "delivered", "delivered"]);
}

/// Each was an untried half for ever, and those are probed first.
#[test]
fn a_new_batch_is_probed_before_halves_that_were_refused() {
    let mut pipeline = TestPipeline::new(TestSettings {
        documents_in_request: 2,
        ..TestSettings::default()
    });
    pipeline.read(&[("a1", ""), ("a2", "")]);
    pipeline.wait_until_sent();
    while pipeline.sent() == ["a1 a2"] {
        pipeline.answer("a1 a2", 500);
        pipeline.wait_until_sent();
    }
    for half in ["a1", "a2"] {
        pipeline.wait_until_sent();
        pipeline.answer(half, 400);
    }
    pipeline.read(&[("b", "")]);
    pipeline.wait_until_sent();
    assert_eq!(pipeline.sent(), ["b"]);
}
