//! A batch has 30 s of CPU time here, over all calls of a component for it.

use std::time::Duration;

use crate::ConditionKind::Plugin;
use crate::testing::{TestPipeline, TestSettings};

fn held_by(mut pipeline: TestPipeline, label: &str) {
    let conditions = pipeline.conditions(Plugin);
    assert_eq!(
        conditions,
        ["it used more than 30000 ms of CPU time for a batch"]
    );
    let subjects = pipeline
        .engine
        .conditions()
        .map(|condition| &*condition.subject);
    assert_eq!(subjects.collect::<Vec<_>>(), [label]);
    assert!(!pipeline.engine.is_ready(pipeline.now));
    for _ in 0..10 {
        assert_eq!(pipeline.sent(), [] as [String; 0]);
        pipeline.wait();
    }
    assert!(pipeline.commits.is_empty(), "nothing is given up");
}

#[test]
fn a_search_for_the_event_at_fault_that_costs_too_much_is_held_and_shown() {
    let with_call_cpu = |seconds| {
        let mut pipeline = TestPipeline::new(TestSettings {
            with_traps: true,
            call_cpu: Duration::from_secs(seconds),
            ..TestSettings::default()
        });
        pipeline.read_keys((0..32).map(|number| match number {
            20 => "trap".to_owned(),
            number => number.to_string(),
        }));
        pipeline
    };
    // It takes 13 calls to find it: one of all, again on a new instance, and of the halves.
    held_by(with_call_cpu(4), "stage 1 (test)");
    assert_eq!(with_call_cpu(0).sent().len(), 4, "the others are sent");
}

#[test]
fn a_sink_that_takes_too_long_to_encode_a_batch_is_held_and_shown() {
    let with_call_cpu = |seconds| {
        let mut pipeline = TestPipeline::new(TestSettings {
            call_cpu: Duration::from_secs(seconds),
            ..TestSettings::default()
        });
        pipeline.read_keys((0..20).map(|number| number.to_string()));
        pipeline
    };
    held_by(with_call_cpu(2), "sink (test)");
    assert_eq!(with_call_cpu(1).sent().len(), 4, "each document is a call");
}
