//! Conditions and commits of a pipeline, for the board, the metrics and the log.

use std::time::Duration;

use lockgate_engine::{ConditionChange, ConditionKind, Uptime};
use lockgate_model::{Commit, Millis, Outcome};
use lockgate_observe::metrics::Recorder;

use crate::clock::now;
use crate::limits::LOGGED_LETTERS;
use crate::metrics::catalogue;
use crate::status::{Board, ConditionStatus};

/// Puts a condition on the board, or takes it off. `elapsed`: how long the pipeline has run.
pub(super) fn show_condition(
    board: &Board,
    pipeline: &str,
    elapsed: Uptime,
    change: &ConditionChange,
) {
    let millis = |span: Duration| span.as_millis() as Millis;
    let wall = |at: Uptime| now() - millis(elapsed) + millis(at);
    let (ConditionChange::Began(condition)
    | ConditionChange::Changed(condition)
    | ConditionChange::Ended(condition)) = change;
    let status = ConditionStatus {
        kind: condition.kind.into(),
        subject: condition.subject.clone(),
        message: condition.message.clone(),
        since: wall(condition.since),
        next_attempt: condition.next_attempt.map(wall),
        asked_by: condition.asked_by.map(Into::into),
        not_ready_from: Some(wall(condition.not_ready_from)),
        stops: false,
    };
    board.pipeline(pipeline, |pipeline| {
        pipeline
            .conditions
            .retain(|other| (&other.kind, &other.subject) != (&status.kind, &status.subject));
        if !matches!(change, ConditionChange::Ended(_)) {
            pipeline.conditions.push(status);
        }
    });
}

/// Counts conditions that begin.
pub(super) fn count_condition(recorder: &Recorder, pipeline: &str, change: &ConditionChange) {
    let ConditionChange::Began(condition) = change else {
        return;
    };
    let kind = condition.kind.name();
    recorder.add(&catalogue::PIPELINE_CONDITIONS_BEGUN, &[pipeline, kind], 1);
    if condition.kind == ConditionKind::Endpoint {
        let labels = [pipeline, &*condition.subject];
        recorder.add(&catalogue::ENDPOINT_HOLDS, &labels, 1);
    }
}

/// Counts outcomes by their reasons. Dead letters are counted by who rejected them, and not by what
/// that said of one event: there would be too many series.
pub(super) fn count_commit(recorder: &Recorder, commit: &Commit) {
    let pipeline = &*commit.pipeline;
    recorder.add(&catalogue::PIPELINE_BATCHES, &[pipeline], 1);
    let mut dead = 0;
    for run in &commit.outcomes.runs {
        let (outcome, reason) = match run.outcome {
            Outcome::Delivered => ("delivered", ""),
            Outcome::Dropped(reason) => {
                let reason = commit.reasons.get(reason as usize);
                ("dropped", reason.map_or("", String::as_str))
            }
            Outcome::Dead(_) => {
                dead += u64::from(run.len);
                continue;
            }
        };
        let labels = [pipeline, outcome, reason];
        recorder.add(&catalogue::PIPELINE_OUTCOMES, &labels, run.len.into());
    }
    for letter in &commit.dead {
        let labels = [pipeline, "dead", &*letter.cause];
        recorder.add(&catalogue::PIPELINE_OUTCOMES, &labels, 1);
        dead = dead.saturating_sub(1);
    }
    if dead > 0 {
        // Dead letters that were retried and have died again.
        recorder.add(
            &catalogue::PIPELINE_OUTCOMES,
            &[pipeline, "dead", "redriven"],
            dead,
        );
    }
}

/// Logs the first dead letters of a commit, and how many more it has.
pub(super) fn log_letters(commit: &Commit) {
    let (pipeline, stream) = (&commit.pipeline, &commit.stream);
    for letter in commit.dead.iter().take(LOGGED_LETTERS) {
        tracing::warn!(
            %pipeline, %stream, seq = letter.seq, key = letter.key, cause = letter.cause,
            "dead letter: {}", letter.reason
        );
    }
    if let Some(more) = commit.dead.len().checked_sub(LOGGED_LETTERS + 1) {
        tracing::warn!(%pipeline, %stream, "{} more dead letters in this batch", more + 1);
    }
}
