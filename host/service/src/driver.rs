//! Carries out an engine's actions, and reports their results to it.

mod records;
mod redrives;
#[cfg(test)]
mod tests;
mod unfinished;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use lockgate_engine::{
    Action, ConditionChange, ConditionKind, Input, Pipeline, StreamIndex, Uptime,
};
use lockgate_ledger::{Ledger, LedgerError};
use lockgate_model::Seq;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::condition_log::ConditionLog;
use crate::limits::LAG_LIMIT_GRACE;
use crate::plugins::BoundStage;
use crate::replaced::ReplacedComponents;
use crate::shutdown::Shutdown;
use crate::status::{Board, PipelineState};
use crate::worker::{Done, TaskResult, Worker};

use redrives::Redrives;
pub(crate) use unfinished::{UnfinishedPipeline, UnfinishedPipelines};

/// One pipeline, running.
pub(crate) struct Driver<L> {
    pub(crate) engine: Pipeline,
    pub(crate) worker: Arc<Worker<L>>,
    pub(crate) board: Board,
    /// The operator's requests to this pipeline.
    pub(crate) requests: mpsc::UnboundedReceiver<OperatorRequest>,
    /// Changes if the store gives up events that this pipeline has not finished.
    pub(crate) room_wanted: watch::Receiver<u64>,
    pub(crate) replaced: ReplacedComponents,
    pub(crate) unfinished: UnfinishedPipeline,
}

/// Why a pipeline does not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverEnd {
    /// It was stopped, or has finished.
    Ended,
    /// Its oldest events are to be given up: it has reached its lag limit, and the store wants
    /// room.
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

/// A request of an operator to a running pipeline.
#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// [`Input::Release`], if anything waits for that. Answered with how many documents do;
    /// `None`: nothing.
    Release(oneshot::Sender<Option<usize>>),
}

impl<L: Ledger> Driver<L> {
    /// Runs until stopped, or until the streams have ended and everything is final. Fails only with
    /// the ledger. `ended`: one for each stream.
    pub(crate) async fn run(
        self,
        ended: Vec<watch::Receiver<bool>>,
        stop: Shutdown,
    ) -> Result<DriverEnd, LedgerError> {
        Run::start(self, ended, stop).until_end().await
    }
}

/// The state of a running pipeline, from one input to the next.
struct Run<L> {
    driver: Driver<L>,
    pipeline: Arc<str>,
    began: Instant,
    /// Of the reader, for each stream: it reads nothing more.
    ended: Vec<watch::Receiver<bool>>,
    stop: Shutdown,
    stop_now: Shutdown,
    notices: mpsc::UnboundedSender<Input>,
    noticed: mpsc::UnboundedReceiver<Input>,
    retries: watch::Receiver<u64>,
    dead_bytes: watch::Receiver<u64>,
    redrives: Redrives,
    /// The stages of each generation in flight: a batch keeps the databases that it began with.
    stages: BTreeMap<u32, Arc<[BoundStage]>>,
    tasks: JoinSet<Done>,
    /// When the engine wants to be woken.
    alarm: Option<Uptime>,
    log: ConditionLog,
    draining: bool,
    /// Until when what is in flight may finish, once the store wants room.
    drains_until: Option<Instant>,
    finished: bool,
    has_warned_at_end: bool,
    /// Empty between two inputs.
    actions: Vec<Action>,
    /// They end with the run.
    _watchers: JoinSet<()>,
}

impl<L: Ledger> Run<L> {
    fn start(driver: Driver<L>, ended: Vec<watch::Receiver<bool>>, stop: Shutdown) -> Run<L> {
        let worker = &driver.worker;
        let pipeline = worker.pipeline.clone();
        let (notices, noticed) = mpsc::unbounded_channel();
        let mut watchers = JoinSet::new();
        for (index, ended) in ended.iter().cloned().enumerate() {
            let head = worker.ledger.head(&worker.streams[index]);
            let stream = StreamIndex::new(index);
            watchers.spawn(watch_head(stream, head, ended, notices.clone()));
        }
        if let Some(credentials) = worker.credentials.clone() {
            watchers.spawn(credentials.watch(driver.board.clone()));
        }
        let retries = worker.ledger.retries(&pipeline);
        let mut dead_bytes = worker.ledger.dead_bytes(&pipeline);
        // They may have changed since the pipeline was registered.
        dead_bytes.mark_changed();
        let mut tasks = JoinSet::new();
        for stream in (0..worker.streams.len()).map(StreamIndex::new) {
            worker.clone().redrive(stream, &mut tasks);
        }
        let began = Instant::now();
        Run {
            redrives: Redrives::asked_all(worker.streams.len()),
            log: ConditionLog::new(pipeline.clone(), began),
            pipeline,
            driver,
            began,
            ended,
            stop_now: stop.clone(),
            stop,
            notices,
            noticed,
            retries,
            dead_bytes,
            stages: BTreeMap::new(),
            tasks,
            alarm: None,
            draining: false,
            drains_until: None,
            finished: false,
            has_warned_at_end: false,
            actions: Vec::new(),
            _watchers: watchers,
        }
    }

    /// Nothing of it is under way afterwards: a commit that reached the ledger once the pipeline
    /// is registered again would be of entries that the next run delivers, too.
    async fn until_end(&mut self) -> Result<DriverEnd, LedgerError> {
        let end = loop {
            let input = match self.next_input().await? {
                ControlFlow::Continue(input) => input,
                ControlFlow::Break(end) => break end,
            };
            if let ControlFlow::Break(end) = self.handle(input) {
                break end;
            }
        };
        self.tasks.shutdown().await;
        Ok(end)
    }

    /// Waits for what the engine has to know next.
    async fn next_input(&mut self) -> Result<ControlFlow<DriverEnd, Input>, LedgerError> {
        loop {
            let input = tokio::select! {
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    match finished(done) {
                        // Of events that were given up.
                        Err(LedgerError::Conflict(_)) if self.is_past_lag_limit() => {
                            return Ok(ControlFlow::Break(DriverEnd::past_lag_limit(&self.stop)));
                        }
                        Err(error) => return Err(error),
                        Ok(None) => continue,
                        Ok(Some(answer)) => self.take(answer),
                    }
                }
                Some(notice) = self.noticed.recv() => notice,
                Some(OperatorRequest::Release(reply)) = self.driver.requests.recv() => {
                    let released = self.driver.engine.waiting_for_release(self.began.elapsed());
                    // The caller may have gone.
                    let _ = reply.send(released);
                    if released.is_none() {
                        continue;
                    }
                    Input::Release
                }
                Ok(()) = self.retries.changed() => {
                    self.redrive_all();
                    Input::Elapsed
                }
                Ok(()) = self.dead_bytes.changed() => {
                    Input::DeadBytes(*self.dead_bytes.borrow_and_update())
                }
                () = sleep_until(self.began, self.alarm), if self.alarm.is_some() => {
                    self.alarm = None;
                    Input::Elapsed
                }
                () = sleep_until(self.began, self.log.log_due_at()),
                    if self.log.log_due_at().is_some() =>
                {
                    self.log.log_due(self.began.elapsed());
                    continue;
                }
                () = self.stop.draining(), if !self.draining => {
                    self.draining = true;
                    Input::Drain
                }
                Ok(()) = self.driver.room_wanted.changed(), if !self.draining => {
                    self.driver.room_wanted.borrow_and_update();
                    self.draining = true;
                    self.drains_until = Some(Instant::now() + LAG_LIMIT_GRACE);
                    Input::Drain
                }
                () = sleep_until_instant(self.drains_until), if self.drains_until.is_some() => {
                    return Ok(ControlFlow::Break(DriverEnd::past_lag_limit(&self.stop)));
                }
                () = self.stop_now.abandoned() => return Ok(ControlFlow::Break(DriverEnd::Ended)),
                () = self.driver.unfinished.all_finished(), if self.finished => {
                    return Ok(ControlFlow::Break(self.end()));
                }
            };
            return Ok(ControlFlow::Continue(input));
        }
    }

    /// Gives an input to the engine, and carries out what it wants done.
    fn handle(&mut self, input: Input) -> ControlFlow<DriverEnd> {
        let mut checks_end = matches!(input, Input::Head { ended: true, .. });
        let mut drained = false;
        let mut actions = std::mem::take(&mut self.actions);
        let engine = &mut self.driver.engine;
        engine.handle(self.began.elapsed(), input, &mut actions);
        self.stages
            .retain(|&generation, _| engine.has_generation(generation));
        for action in actions.drain(..) {
            checks_end |= matches!(action, Action::ShowCondition(_));
            drained |= matches!(action, Action::Drained);
            self.carry_out(action);
        }
        self.actions = actions;
        let in_flight = self.driver.engine.batches_in_flight();
        let board = &self.driver.board;
        board.pipeline(&self.pipeline, |status| status.in_flight = in_flight);
        if drained {
            return ControlFlow::Break(self.end());
        }
        self.note_whether_finished();
        if checks_end {
            self.warn_at_end();
        }
        ControlFlow::Continue(())
    }

    fn carry_out(&mut self, action: Action) {
        let worker = self.driver.worker.clone();
        let tasks = &mut self.tasks;
        match action {
            Action::WakeAt(at) => self.alarm = at,
            Action::ShowCondition(change) => self.report(change),
            Action::Warn(message) => {
                tracing::warn!(pipeline = %self.pipeline, "{message}");
            }
            // The caller ends the run.
            Action::Drained => {}
            Action::Commit { batch, commit } => {
                self.driver.replaced.finished();
                records::log_letters(&commit);
                records::count_commit(&worker.recorder, &commit);
                let entries = commit.entries.len();
                let board = &self.driver.board;
                board.pipeline(&self.pipeline, |status| status.finished += entries);
                worker.commit(batch, commit, tasks);
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
                    self.redrives.asked_again(stream);
                    worker.redrive(stream, tasks);
                }
            }
            Action::RunStages {
                batch,
                generation,
                run,
            } => {
                let stages = self.stages.get(&generation).cloned();
                let stages = stages.expect("a batch in flight keeps its stages");
                worker.run_stages(batch, stages, run, self.notices.clone(), tasks);
            }
            Action::Collect {
                stream,
                within,
                events,
                bytes,
            } => worker.collect(stream, within, events, bytes, tasks),
            Action::CollectNow { stream, bytes } => worker.hurry(stream, bytes),
            Action::Encode { encoding, work } => {
                worker.encode(encoding, work, self.notices.clone(), tasks);
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
                worker.send(request, endpoint, outgoing, documents, tasks);
            }
            Action::Classify {
                request,
                context,
                sent,
                response,
            } => worker.classify(request, context, sent, response, tasks),
        }
    }

    /// The input that a task has answered.
    fn take(&mut self, answer: TaskResult) -> Input {
        if let Input::Batch { generation, .. } | Input::Redrive { generation, .. } = answer.input {
            let stages = answer.stages.map(|stages| (generation, stages));
            self.stages.extend(stages);
        }
        match answer.input {
            Input::Redrive { stream, batch, .. } if batch.is_empty() => {
                if self.redrives.had_none(stream) {
                    let worker = self.driver.worker.clone();
                    worker.redrive(stream, &mut self.tasks);
                }
                Input::Elapsed
            }
            input => input,
        }
    }

    /// Asks for retried entries of each stream that has no redrive in flight.
    fn redrive_all(&mut self) {
        self.retries.borrow_and_update();
        for stream in self.redrives.retried() {
            let worker = self.driver.worker.clone();
            worker.redrive(stream, &mut self.tasks);
        }
    }

    /// A condition in the log, on the board and in the metrics.
    fn report(&mut self, mut change: ConditionChange) {
        records::count_condition(&self.driver.worker.recorder, &self.pipeline, &change);
        let (ConditionChange::Began(condition)
        | ConditionChange::Changed(condition)
        | ConditionChange::Ended(condition)) = &mut change;
        if condition.kind == ConditionKind::Plugin {
            let replaced = &self.driver.replaced;
            condition.message = replaced.explain(&condition.subject, &condition.message);
        }
        let elapsed = self.began.elapsed();
        match &change {
            ConditionChange::Began(condition) => self.log.began(elapsed, condition),
            ConditionChange::Changed(condition) => self.log.changed(elapsed, condition),
            ConditionChange::Ended(condition) => self.log.ended(elapsed, condition),
        }
        records::show_condition(&self.driver.board, &self.pipeline, elapsed, &change);
    }

    fn note_whether_finished(&mut self) {
        let finished = self.driver.engine.is_finished() && self.tasks.is_empty();
        if finished == self.finished {
            return;
        }
        self.finished = finished;
        self.driver.unfinished.set(!finished);
        let state = match finished {
            true => PipelineState::Finished,
            false => PipelineState::Running,
        };
        let board = &self.driver.board;
        board.pipeline(&self.pipeline, |status| status.state = state);
    }

    /// Warns once if only the operator can let this pipeline finish.
    fn warn_at_end(&mut self) {
        let now = self.began.elapsed();
        let engine = &self.driver.engine;
        let nothing_more = || self.ended.iter().all(|ended| *ended.borrow());
        if self.has_warned_at_end || engine.is_ready(now) || !nothing_more() {
            return;
        }
        let documents = engine.waiting_for_release(now);
        let Some(documents) = documents.filter(|&documents| documents > 0) else {
            return;
        };
        self.has_warned_at_end = true;
        let pipeline = &self.pipeline;
        tracing::warn!(
            %pipeline, documents,
            "nothing more is read, but this pipeline has not finished: its documents wait until \
             others are delivered or you run `lockgate dlq release {pipeline}`"
        );
    }

    /// Whether the store has given up events of the pipeline, perhaps only a moment ago.
    fn is_past_lag_limit(&self) -> bool {
        self.drains_until.is_some() || self.driver.room_wanted.has_changed().unwrap_or(false)
    }

    /// How a run ends that has nothing left to do.
    fn end(&self) -> DriverEnd {
        match self.drains_until {
            Some(_) => DriverEnd::past_lag_limit(&self.stop),
            None => DriverEnd::Ended,
        }
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

/// A stream that has ended goes on if a reload starts its reader again.
async fn watch_head(
    stream: StreamIndex,
    mut head: watch::Receiver<Seq>,
    mut ended: watch::Receiver<bool>,
    notices: mpsc::UnboundedSender<Input>,
) {
    let mut may_change = true;
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
        tokio::select! {
            changed = head.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
            changed = ended.changed(), if may_change => may_change = changed.is_ok(),
        }
    }
}
