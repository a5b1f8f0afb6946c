//! What an answer, or the lack of one, means for the documents and for the endpoint.

use std::time::Duration;

use lockgate_model::contract::Inspect;

use super::pipeline;
use crate::ConditionKind::{Brake, Endpoint};
use crate::SendFailure;
use crate::brake::BrakeLimits;
use crate::testing::{TestPipeline, TestSettings};

#[test]
fn the_receiver_says_when_the_next_request_may_come() {
    let second = Duration::from_secs(1);
    for (asked, waited) in [(60, 60), (3600, 3600), (7200, 3600)] {
        for status in [429, 503] {
            let mut pipeline = pipeline();
            pipeline.read(&[("a", ""), ("b", "")]);
            pipeline.answer("b", 200);
            pipeline.answer_with_retry_after("a", status, asked * second);
            pipeline.read(&[("c", "")]);
            let answered = pipeline.now;
            pipeline.wait_until_sent();
            let after = pipeline.now - answered;
            // Waits vary a little, so that hosts do not come back at the same moment.
            let expected = waited * second..(waited + waited / 2) * second + 30 * second;
            assert!(expected.contains(&after), "{status}: {asked}, {after:?}");
            assert_eq!(pipeline.sent().len(), 1, "a probe");
        }
    }
}

/// The receiver was blamed for it, and nothing but probes was sent.
#[test]
fn a_request_that_cannot_be_sent_is_narrowed_down_to_its_document() {
    let broken = || SendFailure::Contract("the request cannot be sent: too long".into());
    let mut pipeline = TestPipeline::new(TestSettings {
        documents_in_request: 4,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", ""), ("bad", ""), ("d", "")]);
    for keys in ["a b bad d", "bad d", "bad"] {
        pipeline.fail_to_send(keys, broken());
        assert_eq!(pipeline.engine.conditions().count(), 0);
    }
    pipeline.answer("a b", 200);
    pipeline.answer("d", 200);
    let outcomes: Vec<String> = pipeline.outcomes().into_values().collect();
    let delivered = "delivered";
    let dead = "the request cannot be sent: too long";
    assert_eq!(outcomes, [delivered, delivered, dead, delivered]);

    let mut pipeline = TestPipeline::new(TestSettings {
        brake: BrakeLimits::default(),
        ..TestSettings::default()
    });
    pipeline.read_keys((0..40).map(|number| number.to_string()));
    while let Some(keys) = pipeline.sent().first() {
        pipeline.fail_to_send(&keys.clone(), broken());
    }
    assert_eq!(pipeline.conditions(Endpoint), [] as [&str; 0]);
    assert_eq!(
        pipeline.conditions(Brake).len(),
        1,
        "{:?}",
        pipeline.changes
    );
    assert!(
        pipeline
            .commits
            .iter()
            .all(|commit| commit.dead.len() <= 16)
    );
}

#[test]
fn a_sink_that_decides_what_it_cannot_is_reported_once() {
    let mut pipeline = TestPipeline::new(TestSettings {
        inspect: Inspect::Failures,
        ..TestSettings::default()
    });
    pipeline.read(&[("a", ""), ("b", "")]);
    pipeline.answer("a", 599);
    pipeline.answer("b", 599);
    assert_eq!(
        pipeline.warnings,
        [
            "sink (test) reported results for a response with status 599, which a sink cannot \
             decide on: they are ignored, here and from now on"
        ]
    );
    assert!(pipeline.commits.is_empty(), "nothing was taken");
}

#[test]
fn an_answer_that_only_the_operator_can_mend_is_shown_and_loses_nothing() {
    for status in [401, 403, 404, 405, 301] {
        let mut pipeline = TestPipeline::new(TestSettings {
            inspect: Inspect::Always,
            ..TestSettings::default()
        });
        pipeline.read(&[("a", ""), ("b", "")]);
        for _ in 0..20 {
            while pipeline.answer_first(status) {}
            pipeline.wait();
        }
        let conditions = pipeline.conditions(Endpoint);
        assert!(
            conditions[0].contains(&status.to_string()),
            "{conditions:?}"
        );
        assert!(!pipeline.engine.is_ready(pipeline.now), "{status}");
        assert!(pipeline.commits.is_empty(), "{status}");
        while pipeline.answer_first(200) {}
        assert_eq!(pipeline.outcomes().len(), 2);
        assert!(pipeline.engine.is_ready(pipeline.now));
    }
}

/// Everything used to be sent again and again: eight to ten times what was read.
#[test]
fn an_outage_in_which_no_answer_comes_costs_little_more_than_its_probes() {
    let second = Duration::from_secs(1);
    let mut pipeline = TestPipeline::new(TestSettings {
        batches_in_flight: 8,
        batch_events: 500,
        documents_in_request: 500,
        ..TestSettings::default()
    });
    pipeline.read_keys((0..4000).map(|number| number.to_string()));
    let end = pipeline.now + 600 * second;
    let (mut documents, mut requests) = (0, 0);
    while pipeline.now < end {
        let sent = pipeline.sent();
        if sent.is_empty() {
            pipeline.wait();
            continue;
        }
        pipeline.now += 5 * second;
        for keys in sent {
            documents += keys.split(' ').count();
            requests += 1;
            pipeline.time_out(&keys);
        }
    }
    assert!(documents <= 3 * 4000, "{documents} documents");
    assert!(requests <= 60, "{requests} requests");
    assert!(pipeline.commits.is_empty());
    let mut after = 0;
    while pipeline.outcomes().len() < 4000 {
        match pipeline.sent().first() {
            Some(keys) => {
                after += keys.split(' ').count();
                pipeline.answer_first(200);
            }
            None => pipeline.wait(),
        }
    }
    assert_eq!(after, 4000, "each document is accepted once");
}
