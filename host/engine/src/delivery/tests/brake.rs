//! The brake: how much may be dead-lettered, whatever the receiver or a component does.

use std::time::Duration;

use crate::ConditionKind::{Brake, Plugin};
use crate::brake::BrakeLimits;
use crate::testing::{TestPipeline, TestSettings};
use crate::{Input, Uptime};

/// Refuses requests at random, and accepts the others.
fn answer_at_random(pipeline: &mut TestPipeline, refused: u64, duration: Uptime) {
    let end = pipeline.now + duration;
    let mut dice = 7_u64;
    while pipeline.now < end {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let status = if (dice >> 33) % 100 < refused {
            400
        } else {
            200
        };
        if !pipeline.answer_first(status) {
            if !pipeline.waits() {
                return;
            }
            pipeline.wait();
        }
    }
}

fn dead(pipeline: &TestPipeline) -> usize {
    pipeline
        .commits
        .iter()
        .map(|commit| commit.dead.len())
        .sum()
}

fn finished(pipeline: &TestPipeline) -> u64 {
    let commits = pipeline.commits.iter();
    commits.map(|commit| commit.entries.len()).sum()
}

/// 577 of 20,000 good events were dead letters of a receiver that refused 70% at random, and 8,200
/// at 90%.
#[test]
fn a_receiver_that_refuses_at_random_does_not_cost_many_good_events() {
    for refused in [70, 90] {
        let mut pipeline = TestPipeline::new(TestSettings {
            batches_in_flight: 8,
            batch_events: 500,
            documents_in_request: 100,
            brake: BrakeLimits::default(),
            ..TestSettings::default()
        });
        pipeline.read_keys((0..20_000).map(|number| number.to_string()));
        answer_at_random(&mut pipeline, refused, Duration::from_secs(6 * 3600));
        let (lost, known) = (dead(&pipeline), finished(&pipeline));
        // One in a hundred of what became final, and what the last thousand may have.
        assert!(
            lost as u64 <= known / 100 + 10,
            "{refused}%: {lost} of {known}"
        );
        while finished(&pipeline) < 20_000 {
            if !pipeline.answer_first(200) {
                pipeline.wait();
            }
        }
        assert!(dead(&pipeline) <= lost + 10, "{refused}%");
        assert_eq!(pipeline.engine.conditions().count(), 0);
    }
}

fn with_traps_settings(batch_events: usize) -> TestSettings {
    TestSettings {
        with_traps: true,
        batch_events,
        batches_in_flight: 8,
        brake: BrakeLimits::default(),
        ..TestSettings::default()
    }
}

fn with_traps(batch_events: usize) -> TestPipeline {
    TestPipeline::new(with_traps_settings(batch_events))
}

/// So many events, of which one in so many traps, are delivered as far as they can be.
fn deliver(pipeline: &mut TestPipeline, events: u64, one_in: u64) {
    let key = |number: u64| match number.is_multiple_of(one_in) {
        true => format!("trap{number}"),
        false => number.to_string(),
    };
    pipeline.read_keys((0..events).map(key));
    for _ in 0..10 {
        while pipeline.answer_first(200) {}
        if pipeline.waits() {
            pipeline.wait();
        }
    }
}

#[test]
fn events_on_which_a_stage_traps_count_over_batches() {
    // 1%, which is the limit, in batches of 50.
    let mut pipeline = with_traps(50);
    deliver(&mut pipeline, 2000, 100);
    assert_eq!((finished(&pipeline), dead(&pipeline)), (2000, 20));
    assert_eq!(pipeline.conditions(Brake), [] as [&str; 0]);

    // 2%: half of them are one too many.
    let mut pipeline = with_traps(50);
    deliver(&mut pipeline, 2000, 50);
    assert_eq!(dead(&pipeline), 10);
    let conditions = pipeline.conditions(Brake);
    let expected = "10 of the last 1,000 events are dead letters, and 1% is the limit; a batch with \
                    further ones is held back until more events are delivered, or until you run \
                    `lockgate dlq release p`. The next one would say: it trapped";
    assert!(conditions[0].contains(expected), "{conditions:?}");
    assert!(!pipeline.engine.is_ready(pipeline.now));

    pipeline.give(Input::Release);
    for _ in 0..10 {
        while pipeline.answer_first(200) {}
        if pipeline.waits() {
            pipeline.wait();
        }
    }
    assert_eq!((finished(&pipeline), dead(&pipeline)), (2000, 40));
    assert_eq!(pipeline.engine.conditions().count(), 0);
}

#[test]
fn a_restart_does_not_forget_the_dead_letters_before_it() {
    let mut before = with_traps(50);
    deliver(&mut before, 500, 50);
    assert_eq!((finished(&before), dead(&before)), (500, 10));

    let commit = before.commits.last().expect("batches were delivered");
    let mut after = TestPipeline::new(TestSettings {
        brake_text: commit.brake.clone(),
        ..with_traps_settings(50)
    });
    deliver(&mut after, 400, 50);
    assert_eq!(dead(&after), 0, "ten of the last thousand are the limit");
    assert!(!after.conditions(Brake).is_empty());
}

#[test]
fn a_stage_that_traps_on_everything_costs_no_event() {
    let mut pipeline = with_traps(50);
    deliver(&mut pipeline, 2000, 1);
    assert_eq!(
        dead(&pipeline),
        0,
        "a batch without an event that passes is held"
    );
    assert_eq!(
        pipeline.conditions(Plugin),
        ["it cannot work: 16 events in a row failed, the last one because it trapped: unreachable"]
    );
    assert!(!pipeline.engine.is_ready(pipeline.now));
}
