use std::time::{Duration, Instant};

use lockgate_runtime::{CallError, Isolated, Kind, Postponed, Verdict};
use serde_json::json;

use crate::support::{
    ENGINE, context, events, filter, logged, only_the_fourth_is_dead, reused_filter, tight,
};

#[test]
fn a_filter_gives_one_verdict_for_each_event() {
    let keeps = filter(json!({}));
    assert_eq!(
        (keeps.kind(), keeps.label()),
        (Kind::Filter, "stage 1 (hostile_filter)")
    );
    assert_eq!(
        keeps.filter(&context(), &events()),
        Ok(vec![Verdict::Keep; 8])
    );
    assert_eq!(keeps.filter(&context(), &[]), Ok(vec![]));

    let drops = filter(json!({ "mode": "drop", "on": "k2" }));
    let verdicts = drops.filter(&context(), &events()).unwrap();
    assert_eq!(
        (verdicts[1], verdicts[2]),
        (Verdict::Keep, Verdict::Drop(0))
    );
    assert_eq!(drops.setup().reasons, ["on purpose"]);
}

/// The failure table's row on traps, limits and wrong numbers: the one event is dead, with a
/// reason, the rest goes on.
#[test]
fn a_filter_that_cannot_take_one_event_loses_that_one_alone() {
    for (mode, reason) in [
        (
            "trap",
            r"it trapped: cannot stand the event k3\u{1b}[31m\nforged: line panic=",
        ),
        (
            "silent-trap",
            "it trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        ("loop", "it took more than 60 ms of CPU time"),
        ("memory", "it wanted more than 16777216 bytes of memory"),
        ("stack", "it trapped: "),
        ("too-few", "it returned 0 results for 1 events"),
        ("too-many", "it returned 2 results for 1 events"),
        (
            "bad-reason",
            "it broke the contract: `drop(4000000000)` is none of the 1 reasons it declared",
        ),
        // 32 MiB are more than it may have, before they are more than it may return.
        (
            "huge-failure",
            "it wanted more than 16777216 bytes of memory",
        ),
        ("log-huge", "it returned more than 10"),
    ] {
        let stage = filter(json!({ "mode": mode, "on": "k3" }));
        let answers = stage.filter_isolated(&context(), &events()).unwrap();
        let actual = only_the_fourth_is_dead(&answers, &Verdict::Keep);
        assert!(actual.starts_with(reason), "{mode}: {actual}");
        assert!(
            !actual.chars().any(char::is_control) && actual.len() <= 1100,
            "{mode}: {actual}"
        );
        assert_eq!(
            stage.filter(&context(), &events()[4..]),
            Ok(vec![Verdict::Keep; 4]),
            "{mode}: the next batch is none the worse"
        );
    }
}

#[test]
fn a_filter_s_own_word_holds_for_the_whole_batch() {
    let fails = filter(json!({ "mode": "fail", "on": "k3" }));
    let dead = Isolated::Dead("this batch cannot be filtered".into());
    assert_eq!(
        fails.filter_isolated(&context(), &events()),
        Ok(vec![dead; 8])
    );

    let postpones = filter(json!({ "mode": "fail-retryable", "on": "k3" }));
    let postponed = Postponed {
        message: "not yet".into(),
        after: Some(Duration::from_millis(10)),
    };
    assert_eq!(
        postpones.filter_isolated(&context(), &events()),
        Err(postponed)
    );
}

#[test]
fn log_lines_carry_whose_they_are_and_are_few_and_plain() {
    let stage = filter(json!({ "mode": "log-flood", "on": "k3" }));
    let (answers, lines) = logged(|| stage.filter_isolated(&context(), &events()).unwrap());
    assert_eq!(answers, vec![Isolated::Result(Verdict::Keep); 8]);
    assert_eq!(
        lines[7],
        "INFO pipeline=siem stage=stage 1 (hostile_filter) plugin=hostile_filter batch=siem/teleport/audit/1-8: \
         line 7\\r\\nforged: line\\u{1b}[2J\\u{202e} n\\n=\\u{0}"
    );
    // More than 200 where the machine took long over it.
    let (report, written) = lines.split_last().unwrap();
    assert!((200..5000).contains(&written.len()), "{}", written.len());
    let left_out = format!(
        "{} log lines were left out: a stage may write 200 at once, and 20 a second",
        10_000 - written.len()
    );
    assert!(report.ends_with(&left_out), "{report}");
}

/// Finding 5: the limit began anew with each call, and 1,000 events made 203 MB of log.
#[test]
fn a_stage_that_floods_the_log_in_every_call_writes_few_lines() {
    let stage = filter(json!({ "mode": "log-flood", "on": "k3" }));
    let began = Instant::now();
    let ((), lines) = logged(|| {
        for _ in 0..20 {
            stage.filter(&context(), &events()).unwrap();
        }
        drop(stage);
    });
    let seconds = began.elapsed().as_secs() as usize + 1;
    let reports: Vec<u64> = lines
        .iter()
        .filter_map(|line| {
            line.split_once(" log lines were left out")?
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
fn the_message_of_a_panic_is_logged_once_however_often_the_batch_is_tried() {
    let stage = filter(json!({ "mode": "trap", "on": "k3" }));
    let (_, lines) = logged(|| stage.filter_isolated(&context(), &events()).unwrap());
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("cannot stand the event k3"));
}

#[test]
fn made_up_metrics_are_refused_and_that_is_said_once() {
    let stage = filter(json!({ "mode": "metric-flood" }));
    let (verdicts, lines) = logged(|| stage.filter(&context(), &events()));
    assert_eq!(verdicts, Ok(vec![Verdict::Keep; 8]));
    assert!(stage.metrics().is_empty());
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains(r"the metric `made up\n0` is refused"),
        "{}",
        lines[0]
    );
}

#[test]
fn a_kept_instance_does_not_survive_a_trap() {
    let stage = reused_filter(json!({ "mode": "trap", "on": "k3" }));
    for _ in 0..3 {
        assert_eq!(
            stage.filter(&context(), &events()[4..]),
            Ok(vec![Verdict::Keep; 4])
        );
        assert!(matches!(
            stage.filter(&context(), &events()),
            Err(CallError::Trap { .. })
        ));
        only_the_fourth_is_dead(
            &stage.filter_isolated(&context(), &events()).unwrap(),
            &Verdict::Keep,
        );
    }
}

#[test]
fn what_another_kind_does_is_refused_without_blame() {
    let stage = filter(json!({}));
    let postponed = stage.transform_isolated(&context(), &events()).unwrap_err();
    assert_eq!(
        postponed.message,
        "`transform` was called, but stage 1 (hostile_filter) is of the world `filter`"
    );
}

#[tokio::test]
async fn a_call_reports_its_cpu_time_and_a_time_out_makes_its_queue_slow() {
    let queue = ENGINE.scheduler().queue("siem");
    let call = |mode| {
        let stage = filter(json!({ "mode": mode }));
        queue.run(move || stage.filter(&context(), &events()))
    };
    let trapped = call("trap").await.unwrap();
    assert!(matches!(trapped.result, Err(CallError::Trap { .. })));
    assert!(trapped.cpu > Duration::ZERO);

    let looped = call("loop").await.unwrap();
    assert!(matches!(looped.result, Err(CallError::Timeout { .. })));
    assert!(looped.cpu >= tight().time && queue.is_slow());
}
