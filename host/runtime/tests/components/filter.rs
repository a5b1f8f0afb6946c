//! Filters, well-behaved and hostile.

#![allow(clippy::disallowed_methods, reason = "a test measures how long it ran")]
use std::time::{Duration, Instant};

use lockgate_model::StateOverlay;
use lockgate_model::contract::{CallError, StageKind, Verdict};
use lockgate_runtime::metrics::Metric;
use lockgate_runtime::{ConfigureError, Kind, Sink, Stage};
use serde_json::json;

use crate::support::{
    ENGINE, FILTER, SINK, call_filter, context, events, filter, logged, options, reused_filter,
    tight,
};

#[test]
fn a_filter_gives_one_verdict_for_each_event() {
    let keeps = filter(json!({}));
    assert_eq!(
        (keeps.kind(), keeps.label()),
        (StageKind::Filter, "stage 1 (hostile_filter)")
    );
    assert_eq!(call_filter(&keeps, &events()), Ok(vec![Verdict::Keep; 8]));
    assert_eq!(call_filter(&keeps, &[]), Ok(vec![]));

    let drops = filter(json!({ "mode": "drop", "on": "k2" }));
    let verdicts = call_filter(&drops, &events()).unwrap();
    assert_eq!(
        (verdicts[1], verdicts[2]),
        (Verdict::Keep, Verdict::Drop(0))
    );
    assert_eq!(drops.setup().reasons, ["on purpose"]);
}

#[test]
fn a_call_reports_its_cost() {
    let mut state = StateOverlay::not_granted();
    let called = filter(json!({ "mode": "loop" })).filter(&context(), &events(), &mut state, false);
    assert_eq!(
        called.result,
        Err(CallError::Timeout {
            limit: tight().time
        })
    );
    assert!(called.cpu >= tight().time, "{:?}", called.cpu);
}

#[test]
fn a_failure_of_the_whole_batch_is_the_one_the_plugin_returned() {
    let fails = |mode| call_filter(&filter(json!({ "mode": mode, "on": "k3" })), &events());
    for (mode, expected) in [
        (
            "fail-retry",
            CallError::Retry {
                message: "not yet".into(),
                after: Some(Duration::from_millis(10)),
            },
        ),
        (
            "fail-hold",
            CallError::Hold("its licence has expired".into()),
        ),
        (
            "fail",
            CallError::Isolate("this batch cannot be filtered".into()),
        ),
    ] {
        assert_eq!(fails(mode), Err(expected));
    }
}

#[test]
fn log_lines_name_their_stage_and_are_limited_and_escaped() {
    let stage = filter(json!({ "mode": "log-flood", "on": "k3" }));
    let (verdicts, lines) = logged(|| call_filter(&stage, &events()));
    assert_eq!(verdicts, Ok(vec![Verdict::Keep; 8]));
    assert_eq!(
        lines[7],
        "INFO pipeline=siem stage=stage 1 (hostile_filter) plugin=hostile_filter batch=siem/teleport/audit/1-8: \
         line 7\\r\\nforged: line\\u{1b}[2J\\u{202e} plugin.n_=\"\\u{0}\""
    );
    // More than 200 if the machine is slow.
    let (report, written) = lines.split_last().unwrap();
    assert!((200..5000).contains(&written.len()), "{}", written.len());
    let dropped = format!(
        "{} log lines were dropped: a stage may write 200 at once, and 20 per second",
        10_000 - written.len()
    );
    assert!(report.ends_with(&dropped), "{report}");
}

/// The same batch gives the same bytes on every processor, and no field is written for a line that
/// nobody would see.
#[test]
fn a_stage_knows_which_levels_are_logged_and_computes_the_same_everywhere() {
    let stage = filter(json!({ "mode": "report", "on": "k3" }));
    let (_, lines) = logged(|| call_filter(&stage, &events()).unwrap());
    let lines: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("settings"))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = ["enabled=00111", "nan=7fc00000"];
    assert!(
        expected.iter().all(|part| lines[0].contains(part)),
        "{lines:?}"
    );
}

/// The limit used to restart with each call, so that 1,000 events wrote 203 MB of log.
#[test]
fn a_stage_that_floods_the_log_in_every_call_writes_few_lines() {
    let stage = filter(json!({ "mode": "log-flood", "on": "k3" }));
    let began = Instant::now();
    let ((), lines) = logged(|| {
        for _ in 0..20 {
            call_filter(&stage, &events()).unwrap();
        }
        drop(stage);
    });
    let seconds = began.elapsed().as_secs() as usize + 1;
    let reports: Vec<u64> = lines
        .iter()
        .filter_map(|line| {
            line.split_once(" log lines were dropped")?
                .0
                .rsplit(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    assert!(reports.len() <= 2 + seconds / 10, "{reports:?}");
    let written = lines.len() - reports.len();
    assert!(
        written <= 200 + 20 * seconds,
        "{written} lines in {seconds} s"
    );
    assert_eq!(reports.iter().sum::<u64>() + written as u64, 200_000);
}

#[test]
fn a_repeated_call_does_not_repeat_its_log_lines() {
    let stage = filter(json!({ "mode": "trap", "on": "k3" }));
    let (faults, lines) = logged(|| {
        [false, true, true].map(|fresh| {
            let mut state = StateOverlay::not_granted();
            stage
                .filter(&context(), &events(), &mut state, fresh)
                .result
                .unwrap_err()
        })
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("hostile component: trap on k3"));
    assert_eq!(faults[0], faults[2], "the reason is still returned");
}

/// It filled the log with a line for each batch.
#[test]
fn a_stage_that_traps_on_every_batch_logs_the_first_trap_and_their_number() {
    let stage = filter(json!({ "mode": "trap", "on": "k3" }));
    let (_, lines) = logged(|| {
        for _ in 0..20 {
            let fault = call_filter(&stage, &events()).unwrap_err();
            assert!(fault.to_string().contains("trap on k3"), "{fault}");
        }
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("hostile component: trap on k3"));
    let ((), lines) = logged(|| drop(stage));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let said = "its calls trapped; only the first trap was logged";
    assert!(
        lines[0].contains(said) && lines[0].contains("times=20"),
        "{lines:#?}"
    );
}

#[test]
fn metrics_are_counted_by_name() {
    let stage = filter(json!({ "mode": "measure" }));
    call_filter(&stage, &events()).unwrap();
    let metrics = stage.metrics();
    assert_eq!(metrics["seen"], Metric::Counter(8));
    let Metric::Histogram(bytes) = &metrics["bytes"] else {
        panic!("a histogram")
    };
    assert_eq!((bytes.count, bytes.sum), (8, 72.0));
}

#[test]
fn invalid_metrics_are_refused_and_the_first_names_are_logged() {
    let stage = filter(json!({ "mode": "metric-flood", "on": "k3" }));
    let (verdicts, lines) = logged(|| call_filter(&stage, &events()));
    assert_eq!(verdicts, Ok(vec![Verdict::Keep; 8]));
    assert!(stage.metrics().is_empty());
    assert_eq!(lines.len(), 16, "{lines:#?}");
    for (n, line) in lines.iter().enumerate() {
        assert!(
            line.contains(&format!(r"the metric `made up\n{n}` is refused")),
            "{line}"
        );
    }
    let ((), lines) = logged(|| drop(stage));
    assert!(
        lines.len() == 1 && lines[0].contains("at least 1008 further refused metrics"),
        "{lines:#?}"
    );
}

#[test]
fn a_kept_instance_does_not_survive_a_trap() {
    let stage = reused_filter(json!({ "mode": "trap", "on": "k3" }));
    for _ in 0..3 {
        assert_eq!(
            call_filter(&stage, &events()[4..]),
            Ok(vec![Verdict::Keep; 4])
        );
        assert!(matches!(
            call_filter(&stage, &events()),
            Err(CallError::Trap { .. })
        ));
    }
}

#[test]
fn a_component_of_another_world_is_refused() {
    let stage = Stage::configure(&ENGINE, &SINK, options("s", json!({})));
    assert_eq!(stage.unwrap_err(), ConfigureError::World(Kind::HttpSink));
    let sink = Sink::configure(&ENGINE, &FILTER, options("f", json!({})));
    assert_eq!(sink.unwrap_err(), ConfigureError::World(Kind::Filter));
    let fault = filter(json!({}))
        .transform(
            &context(),
            &events(),
            &mut StateOverlay::not_granted(),
            false,
        )
        .result;
    assert!(matches!(fault, Err(CallError::Host(_))), "{fault:?}");
}

#[tokio::test]
async fn a_call_reports_its_cpu_time_and_a_time_out_makes_its_queue_slow() {
    let queue = ENGINE.scheduler().queue("siem");
    let call = |mode| {
        let stage = filter(json!({ "mode": mode }));
        queue.run(move || call_filter(&stage, &events()))
    };
    let trapped = call("trap").await.unwrap();
    assert!(matches!(trapped.result, Err(CallError::Trap { .. })));
    assert!(trapped.cpu > Duration::ZERO);

    let looped = call("loop").await.unwrap();
    assert!(matches!(looped.result, Err(CallError::Timeout { .. })));
    assert!(looped.cpu >= tight().time && queue.is_slow());
}
