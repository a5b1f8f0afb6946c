//! Carries out what an engine wants done, and tells it what happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockgate_engine::{
    Action, ConditionChange, ConditionKind, Input, Pipeline, StreamIndex, Uptime,
};
use lockgate_ledger::{Ledger, LedgerError};
use lockgate_model::{Commit, Millis, Outcome, Seq};
use lockgate_observe::metrics::Recorder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::certificate;
use crate::clock::now;
use crate::condition_log::ConditionLog;
use crate::limits::{LAG_LIMIT_GRACE, LOGGED_LETTERS};
use crate::metrics::catalogue;
use crate::plugins::BoundStage;
use crate::replaced::ReplacedComponents;
use crate::shutdown::Shutdown;
use crate::status::{Board, ConditionStatus, PipelineState};
use crate::worker::{Done, TaskResult, Worker};

/// One pipeline, running.
pub(crate) struct Driver<L> {
    pub(crate) engine: Pipeline,
    pub(crate) worker: Arc<Worker<L>>,
    pub(crate) board: Board,
    /// What the operator asks of this pipeline.
    pub(crate) requests: mpsc::UnboundedReceiver<OperatorRequest>,
    /// Changes where the store gives up events that this pipeline has not finished.
    pub(crate) room_wanted: watch::Receiver<u64>,
    pub(crate) replaced: ReplacedComponents,
    pub(crate) unfinished: UnfinishedPipeline,
}

/// Why a pipeline does not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverEnd {
    /// It was stopped, or has finished.
    Ended,
    /// Its oldest events are to be given up: it has reached its lag limit, and the store wants room.
    PastLagLimit,
}

impl DriverEnd {
    /// One that is asked to stop is not registered again.
    fn past_lag_limit(stop: &Shutdown) -> DriverEnd {
        match stop.is_draining() {
            true => DriverEnd::Ended,
            false => DriverEnd::PastLagLimit,
        }
    }
}

/// How many pipelines of the host have not finished. One that has goes on, until all have: its dead
/// letters may be retried.
#[derive(Clone, Default)]
pub(crate) struct Unfinished(watch::Sender<usize>);

/// What one pipeline counts among the unfinished: at first 1, and 0 once this is dropped.
pub(crate) struct UnfinishedPipeline {
    pipelines: Unfinished,
    counts: bool,
}

impl Unfinished {
    pub(crate) fn add(&self) -> UnfinishedPipeline {
        self.0.send_modify(|pipelines| *pipelines += 1);
        UnfinishedPipeline {
            pipelines: self.clone(),
            counts: true,
        }
    }
}

impl UnfinishedPipeline {
    fn set(&mut self, is_unfinished: bool) {
        if std::mem::replace(&mut self.counts, is_unfinished) != is_unfinished {
            self.pipelines
                .0
                .send_modify(|pipelines| match is_unfinished {
                    true => *pipelines += 1,
                    false => *pipelines -= 1,
                });
        }
    }

    /// Returns once every pipeline has finished.
    async fn all_finished(&self) {
        let mut pipelines = self.pipelines.0.subscribe();
        // It cannot fail: the sender is here.
        let _ = pipelines.wait_for(|&pipelines| pipelines == 0).await;
    }
}

impl Drop for UnfinishedPipeline {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// What an operator asks of a running pipeline.
#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// [`Input::Release`], where anything waits for that. Answered with how many documents do;
    /// `None`: nothing.
    Release(oneshot::Sender<Option<usize>>),
}

impl<L: Ledger> Driver<L> {
    /// Runs until stopped, or until the streams have ended and everything is final. Fails only with
    /// the ledger. `ended`: one for each stream.
    pub(crate) async fn run(
        self,
        ended: Vec<watch::Receiver<bool>>,
        mut stop: Shutdown,
    ) -> Result<DriverEnd, LedgerError> {
        let Driver {
            mut engine,
            worker,
            board,
            mut requests,
            mut room_wanted,
            mut replaced,
            mut unfinished,
        } = self;
        let pipeline = worker.pipeline.clone();
        let mut stop_now = stop.clone();
        let began = Instant::now();
        let (notices, mut noticed) = mpsc::unbounded_channel();
        // They end with this function.
        let mut watchers = JoinSet::new();
        for (index, ended) in ended.iter().cloned().enumerate() {
            let head = worker.ledger.head(&worker.streams[index]);
            watchers.spawn(watch_head(
                StreamIndex::new(index),
                head,
                ended,
                notices.clone(),
            ));
        }
        watchers.spawn(certificate::watch(worker.clone(), board.clone()));
        let mut redriven = worker.ledger.redriven(&pipeline);
        let mut dead_bytes = worker.ledger.dead_bytes(&pipeline);
        // They may have changed since the pipeline was registered.
        dead_bytes.mark_changed();
        // A stream has one redrive in flight at a time.
        let mut redriving = vec![true; worker.streams.len()];
        // The stages of each generation in flight: a batch keeps the databases that it began with.
        let mut stages: BTreeMap<u32, Arc<[BoundStage]>> = BTreeMap::new();
        let mut tasks: JoinSet<Done> = JoinSet::new();
        let mut alarm: Option<Uptime> = None;
        let mut log = ConditionLog::new(pipeline.clone());
        let mut draining = false;
        // Until when what is in flight may finish, once it is room_wanted.
        let mut drains_until: Option<Instant> = None;
        let mut finished_before = false;
        let mut has_warned_at_end = false;
        let mut actions = Vec::new();
        for stream in (0..redriving.len()).map(StreamIndex::new) {
            worker.clone().redrive(stream, &mut tasks);
        }
        loop {
            let input = tokio::select! {
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    let answer = match finished(done) {
                        // Of events that were given up.
                        Err(LedgerError::Conflict(_))
                            if is_past_lag_limit(&room_wanted, drains_until) =>
                        {
                            return Ok(DriverEnd::past_lag_limit(&stop));
                        }
                        Err(error) => return Err(error),
                        Ok(None) => continue,
                        Ok(Some(answer)) => answer,
                    };
                    if let Input::Batch { generation, .. } | Input::Redrive { generation, .. } =
                        answer.input
                    {
                        stages.extend(answer.stages.map(|stages| (generation, stages)));
                    }
                    answer.input
                }
                Some(notice) = noticed.recv() => notice,
                Some(OperatorRequest::Release(reply)) = requests.recv() => {
                    let released = engine.waiting_for_release(began.elapsed());
                    // Who asked may have gone.
                    let _ = reply.send(released);
                    if released.is_none() {
                        continue;
                    }
                    Input::Release
                }
                Ok(()) = redriven.changed() => {
                    redriven.borrow_and_update();
                    for (index, redriving) in redriving.iter_mut().enumerate() {
                        if !std::mem::replace(redriving, true) {
                            let stream = StreamIndex::new(index);
                            worker.clone().redrive(stream, &mut tasks);
                        }
                    }
                    Input::Elapsed
                }
                Ok(()) = dead_bytes.changed() => Input::DeadBytes(*dead_bytes.borrow_and_update()),
                () = sleep_until(began, alarm), if alarm.is_some() => {
                    alarm = None;
                    Input::Elapsed
                }
                () = sleep_until(began, log.settles_at()), if log.settles_at().is_some() => {
                    log.settle(began.elapsed());
                    continue;
                }
                () = stop.draining(), if !draining => {
                    draining = true;
                    Input::Drain
                }
                Ok(()) = room_wanted.changed(), if !draining => {
                    room_wanted.borrow_and_update();
                    draining = true;
                    drains_until = Some(Instant::now() + LAG_LIMIT_GRACE);
                    Input::Drain
                }
                () = sleep_until_instant(drains_until), if drains_until.is_some() => {
                    return Ok(DriverEnd::past_lag_limit(&stop));
                }
                () = stop_now.abandoned() => return Ok(DriverEnd::Ended),
                () = unfinished.all_finished(), if finished_before => break,
            };
            let mut checks_end = matches!(input, Input::Head { ended: true, .. });
            let input = match input {
                // No retried entries are left in this stream.
                Input::Redrive { stream, batch, .. } if batch.is_empty() => {
                    redriving[stream.get()] = false;
                    Input::Elapsed
                }
                input => input,
            };
            engine.handle(began.elapsed(), input, &mut actions);
            let mut drained = false;
            stages.retain(|&generation, _| engine.has_generation(generation));
            for action in actions.drain(..) {
                match action {
                    Action::WakeAt(at) => alarm = at,
                    Action::Report(change) => {
                        checks_end = true;
                        record_condition(&worker.recorder, &pipeline, &change);
                        report(&pipeline, &board, &mut log, began, change, &replaced);
                    }
                    Action::Warn(message) => tracing::warn!(%pipeline, "{message}"),
                    Action::Drained => drained = true,
                    Action::Commit { batch, commit } => {
                        replaced.finished();
                        log_letters(&commit);
                        record_commit(&worker.recorder, &commit);
                        let finished = commit.entries.len();
                        board.pipeline(&pipeline, |status| status.finished += finished);
                        worker.clone().commit(batch, commit, &mut tasks);
                    }
                    Action::BatchShrunk {
                        stream,
                        first,
                        bytes,
                    } => worker.shrink(stream, first, bytes),
                    Action::BatchHalved { stream, halves } => worker.halve(stream, halves),
                    Action::BatchEnded {
                        stream,
                        first,
                        is_redrive,
                    } => {
                        worker.free(stream, first, is_redrive);
                        if is_redrive {
                            // There may be more of it, or a later one.
                            worker.clone().redrive(stream, &mut tasks);
                        }
                    }
                    Action::RunStages {
                        batch,
                        generation,
                        run,
                    } => {
                        let stages = stages.get(&generation).cloned();
                        let stages = stages.expect("a batch in flight keeps its stages");
                        let notices = notices.clone();
                        worker
                            .clone()
                            .run_stages(batch, stages, run, notices, &mut tasks);
                    }
                    Action::Collect {
                        stream,
                        within,
                        events,
                        bytes,
                    } => worker
                        .clone()
                        .collect(stream, within, events, bytes, &mut tasks),
                    Action::CollectNow { stream, bytes } => worker.hurry(stream, bytes),
                    Action::Encode { encoding, work } => {
                        let notices = notices.clone();
                        worker.clone().encode(encoding, work, notices, &mut tasks);
                    }
                    Action::Send {
                        request,
                        endpoint,
                        outgoing,
                        documents,
                        is_retry,
                    } => {
                        if is_retry {
                            worker.record_retry(endpoint);
                        }
                        worker
                            .clone()
                            .send(request, endpoint, outgoing, documents, &mut tasks);
                    }
                    Action::Classify {
                        request,
                        info,
                        sent,
                        response,
                    } => worker
                        .clone()
                        .classify(request, info, sent, response, &mut tasks),
                }
            }
            board.pipeline(&pipeline, |status| {
                status.in_flight = engine.batches_in_flight()
            });
            if drained {
                break;
            }
            let is_finished = engine.is_finished() && tasks.is_empty();
            if is_finished != finished_before {
                finished_before = is_finished;
                unfinished.set(!is_finished);
                let state = if is_finished {
                    PipelineState::Finished
                } else {
                    PipelineState::Running
                };
                board.pipeline(&pipeline, |status| status.state = state);
            }
            let has_ended = || ended.iter().all(|ended| *ended.borrow());
            if checks_end && !has_warned_at_end && !engine.is_ready(began.elapsed()) && has_ended()
            {
                let documents = engine.waiting_for_release(began.elapsed());
                if let Some(documents) = documents.filter(|&documents| documents > 0) {
                    has_warned_at_end = true;
                    tracing::warn!(
                        %pipeline, documents,
                        "nothing more is read, but this pipeline has not finished: documents wait until \
                         others are delivered, or for `lockgate dlq release {pipeline}`"
                    );
                }
            }
        }
        Ok(match drains_until {
            Some(_) => DriverEnd::past_lag_limit(&stop),
            None => DriverEnd::Ended,
        })
    }
}

/// A task's answer. A panic of one is a bug: it ends the pipeline's run, so that nothing is left
/// waiting for an answer that cannot come.
fn finished(done: Result<Done, JoinError>) -> Result<Option<TaskResult>, LedgerError> {
    match done {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(error)) => Err(error),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(None),
    }
}

/// Whether the store has given up events of the pipeline, perhaps only a moment ago.
fn is_past_lag_limit(room_wanted: &watch::Receiver<u64>, until: Option<Instant>) -> bool {
    until.is_some() || room_wanted.has_changed().unwrap_or(false)
}

async fn sleep_until_instant(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

async fn sleep_until(began: Instant, at: Option<Uptime>) {
    if let Some(at) = at {
        tokio::time::sleep_until(began + at).await;
    }
}

async fn watch_head(
    stream: StreamIndex,
    mut head: watch::Receiver<Seq>,
    mut ended: watch::Receiver<bool>,
    notices: mpsc::UnboundedSender<Input>,
) {
    loop {
        // In this order: what was appended before the end is then seen.
        let is_end = *ended.borrow_and_update();
        let next = *head.borrow_and_update();
        if notices
            .send(Input::Head {
                stream,
                next,
                ended: is_end,
            })
            .is_err()
        {
            return;
        }
        let changed = tokio::select! {
            changed = head.changed() => changed.is_ok(),
            changed = ended.changed(), if !is_end => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// A condition in the log and on the board.
fn report(
    pipeline: &str,
    board: &Board,
    log: &mut ConditionLog,
    began: Instant,
    mut change: ConditionChange,
    replaced: &ReplacedComponents,
) {
    let wall = |at: Uptime| -> Millis {
        let elapsed = began.elapsed();
        let millis = |span: Duration| span.as_millis() as Millis;
        now() - millis(elapsed) + millis(at)
    };
    let (ConditionChange::Began(condition)
    | ConditionChange::Changed(condition)
    | ConditionChange::Ended(condition)) = &mut change;
    if condition.kind == ConditionKind::Plugin {
        condition.message = replaced.explain(&condition.subject, &condition.message);
    }
    let (condition, is_over) = match &change {
        ConditionChange::Began(condition) => {
            log.began(condition);
            (condition, false)
        }
        ConditionChange::Changed(condition) => (condition, false),
        ConditionChange::Ended(condition) => {
            log.ended(began.elapsed(), condition);
            (condition, true)
        }
    };
    let status = ConditionStatus {
        kind: condition.kind.into(),
        subject: condition.subject.clone(),
        message: condition.message.clone(),
        since: wall(condition.since),
        next_attempt: condition.next_attempt.map(wall),
        not_ready_from: Some(wall(condition.not_ready_from)),
        stops: false,
    };
    board.pipeline(pipeline, |pipeline| {
        pipeline
            .conditions
            .retain(|other| (&other.kind, &other.subject) != (&status.kind, &status.subject));
        if !is_over {
            pipeline.conditions.push(status);
        }
    });
}

/// Counts conditions that begin.
fn record_condition(recorder: &Recorder, pipeline: &str, change: &ConditionChange) {
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

/// Counts outcomes with their reasons. What a receiver or a component says of one event is not
/// among them: who rejected it is.
fn record_commit(recorder: &Recorder, commit: &Commit) {
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

fn log_letters(commit: &Commit) {
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
