//! Carries out what an engine wants done, and tells it what happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockgate_egress::{EndpointClient, RateLimiter, SendError};
use lockgate_engine::{
    Action, ConditionChange, Documents, EndpointIndex, Input, OutgoingRequest, Pipeline,
    SendFailure, StreamIndex, Uptime,
};
use lockgate_ledger::{Ledger, LedgerError};
use lockgate_model::{Batch, Commit, FeedKind, Millis, Seq, SeqRange};
use lockgate_runtime::{MemoryShare, Queue, Reserved};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::clock::now;
use crate::collect;
use crate::components;
use crate::condition_log::ConditionLog;
use crate::generation::Current;
use crate::plugins::{BoundSink, BoundStage};
use crate::shutdown::Shutdown;
use crate::status::{Board, ConditionStatus};

/// Memory that a batch takes for each byte of its payload: the documents that are made of it, and
/// the bodies of the requests that are out.
const MEMORY_FACTOR: usize = 3;

/// Dead letters of one commit that are logged one by one.
const LOGGED_LETTERS: usize = 16;

/// Events of one redrive.
const REDRIVE_EVENTS: usize = 500;

/// Bytes of one redrive's payloads.
const REDRIVE_BYTES: usize = 1 << 20;

/// One pipeline, running.
pub(crate) struct Driver<L> {
    pub(crate) engine: Pipeline,
    pub(crate) pipeline: Arc<str>,
    pub(crate) ledger: L,
    pub(crate) streams: Vec<Arc<str>>,
    pub(crate) stages: Vec<lockgate_runtime::Stage>,
    pub(crate) sink: BoundSink,
    pub(crate) client: Arc<EndpointClient>,
    pub(crate) rate: Option<Arc<RateLimiter>>,
    pub(crate) queue: Queue,
    pub(crate) memory: MemoryShare,
    pub(crate) current: Arc<tokio::sync::Mutex<Current>>,
    pub(crate) board: Board,
    /// What the operator asks of this pipeline.
    pub(crate) requests: mpsc::UnboundedReceiver<OperatorRequest>,
}

/// What an operator asks of a running pipeline.
#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// [`Input::Release`], where anything waits for that. Answered with how many documents do;
    /// `None`: nothing.
    Release(oneshot::Sender<Option<usize>>),
}

/// The parts of a driver that its tasks share.
struct Shared<L> {
    pipeline: Arc<str>,
    ledger: L,
    streams: Vec<Arc<str>>,
    client: Arc<EndpointClient>,
    rate: Option<Arc<RateLimiter>>,
    queue: Queue,
    sink: BoundSink,
    response_max: usize,
    memory: MemoryShare,
    /// Memory of the batches in flight, by stream and first sequence.
    reserved: Mutex<BTreeMap<(StreamIndex, Seq), Reserved>>,
    /// Memory of each stream's redrive.
    reserved_for_redrive: Mutex<BTreeMap<StreamIndex, Reserved>>,
    /// Streams whose next batch is being collected, and how to say that it is urgent.
    collecting: Mutex<BTreeMap<StreamIndex, oneshot::Sender<usize>>>,
    current: Arc<tokio::sync::Mutex<Current>>,
    stages: Vec<lockgate_runtime::Stage>,
}

type Done = Result<Answer, LedgerError>;

/// What a task answers the engine.
struct Answer {
    input: Input,
    /// The stages of the generation that the batch in `input` names.
    stages: Option<Arc<[BoundStage]>>,
}

impl From<Input> for Answer {
    fn from(input: Input) -> Answer {
        Answer {
            input,
            stages: None,
        }
    }
}

impl<L: Ledger> Driver<L> {
    /// Runs until stopped, or until the streams have ended and everything is final. Fails only with
    /// the ledger. `ended`: one for each stream.
    pub(crate) async fn run(
        self,
        ended: Vec<watch::Receiver<bool>>,
        mut stop: Shutdown,
    ) -> Result<(), LedgerError> {
        let Driver {
            mut engine,
            board,
            mut requests,
            pipeline,
            ..
        } = self;
        let shared = Arc::new(Shared {
            response_max: self.sink.sink.setup().max_response_bytes as usize,
            pipeline: pipeline.clone(),
            ledger: self.ledger,
            streams: self.streams,
            client: self.client,
            rate: self.rate,
            queue: self.queue,
            sink: self.sink,
            memory: self.memory,
            reserved: Mutex::default(),
            reserved_for_redrive: Mutex::default(),
            collecting: Mutex::default(),
            current: self.current,
            stages: self.stages,
        });
        let mut stop_now = stop.clone();
        let began = Instant::now();
        let (notices, mut noticed) = mpsc::unbounded_channel();
        // Both end with this function.
        let mut watchers = JoinSet::new();
        for (index, ended) in ended.into_iter().enumerate() {
            let head = shared.ledger.head(&shared.streams[index]);
            watchers.spawn(watch_head(
                StreamIndex::new(index),
                head,
                ended,
                notices.clone(),
            ));
        }
        let mut redriven = shared.ledger.redriven(&pipeline);
        let mut dead_bytes = shared.ledger.dead_bytes(&pipeline);
        // They may have changed since the pipeline was registered.
        dead_bytes.mark_changed();
        // A stream has one redrive in flight at a time.
        let mut redriving = vec![true; shared.streams.len()];
        // Of the batches in flight, by generation: all of a batch is looked up in the same content.
        let mut stages: BTreeMap<u32, Arc<[BoundStage]>> = BTreeMap::new();
        let mut tasks: JoinSet<Done> = JoinSet::new();
        let mut alarm: Option<Uptime> = None;
        let mut log = ConditionLog::new(pipeline.clone());
        let mut draining = false;
        let mut actions = Vec::new();
        for index in 0..redriving.len() {
            redrive(&shared, index, &mut tasks);
        }
        loop {
            let input = tokio::select! {
                Some(done) = tasks.join_next(), if !tasks.is_empty() => match finished(done)? {
                    Some(answer) => {
                        if let Input::Batch { generation, .. } | Input::Redrive { generation, .. } =
                            answer.input
                        {
                            stages.extend(answer.stages.map(|stages| (generation, stages)));
                        }
                        answer.input
                    }
                    None => continue,
                },
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
                            redrive(&shared, index, &mut tasks);
                        }
                    }
                    continue;
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
                () = stop_now.abandoned() => return Ok(()),
            };
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
                    Action::Report(change) => report(&pipeline, &board, &mut log, began, &change),
                    Action::Warn(message) => tracing::warn!(%pipeline, "{message}"),
                    Action::Drained => drained = true,
                    Action::Commit { batch, commit } => {
                        log_letters(&commit);
                        let finished = commit.entries.len();
                        board.pipeline(&pipeline, |status| status.finished += finished);
                        let shared = shared.clone();
                        tasks.spawn(async move { shared.commit(batch, *commit).await });
                    }
                    Action::BatchEnded {
                        stream,
                        is_redrive: true,
                        ..
                    } => {
                        lock(&shared.reserved_for_redrive).remove(&stream);
                        // There may be more of it, or a later one.
                        redrive(&shared, stream.get(), &mut tasks);
                    }
                    Action::BatchEnded { stream, first, .. } => {
                        lock(&shared.reserved).remove(&(stream, first));
                    }
                    Action::RunStages {
                        batch,
                        generation,
                        run,
                    } => {
                        let stages = stages.get(&generation).cloned();
                        let stages = stages.expect("a batch in flight keeps its stages");
                        let shared = shared.clone();
                        tasks.spawn(async move {
                            let result = components::run_stages(&shared.queue, stages, run).await;
                            Ok(Input::StagesRan { batch, result }.into())
                        });
                    }
                    action => shared.clone().begin(action, &mut tasks),
                }
            }
            board.pipeline(&pipeline, |status| {
                status.in_flight = engine.batches_in_flight()
            });
            if drained || engine.is_finished() && tasks.is_empty() {
                break;
            }
        }
        if !draining {
            board.pipeline(&pipeline, |status| status.state = "finished".into());
        }
        Ok(())
    }
}

/// A task's answer. A panic of one is a bug: it ends the pipeline's run, so that nothing is left
/// waiting for an answer that cannot come.
fn finished(done: Result<Done, JoinError>) -> Result<Option<Answer>, LedgerError> {
    match done {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(error)) => Err(error),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(None),
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

/// Memory for a batch of so many bytes, and its bytes: as many once there is room for it, or fewer
/// as soon as it is urgent.
async fn memory_for(
    share: &MemoryShare,
    bytes: usize,
    hurried: oneshot::Receiver<usize>,
) -> (Reserved, usize) {
    tokio::select! {
        memory = share.acquire(bytes.saturating_mul(MEMORY_FACTOR)) => (memory, bytes),
        Ok(fewer) = hurried => (share.take(fewer.saturating_mul(MEMORY_FACTOR)), fewer),
    }
}

/// Memory that a batch takes until it is committed.
fn memory_of(batch: &Batch) -> usize {
    let payload = batch.rows().map(|(block, row)| block.payload_len(row));
    payload.sum::<usize>().saturating_mul(MEMORY_FACTOR)
}

/// Asks for dead letters of a stream that wait again. [`Input::Redrive`] answers, perhaps with none.
fn redrive<L: Ledger>(shared: &Arc<Shared<L>>, index: usize, tasks: &mut JoinSet<Done>) {
    let shared = shared.clone();
    tasks.spawn(async move {
        let stream = StreamIndex::new(index);
        let name = &shared.streams[index];
        let redrive = shared
            .ledger
            .redrive(&shared.pipeline, name, REDRIVE_EVENTS, REDRIVE_BYTES)
            .await?;
        let (generation, stages) = shared.generation().await?;
        let batch = redrive.map(|redrive| redrive.batch).unwrap_or_default();
        // What the operator asks for does not wait, but it counts.
        let memory = shared.memory.take(memory_of(&batch));
        lock(&shared.reserved_for_redrive).insert(stream, memory);
        let input = Input::Redrive {
            stream,
            batch,
            generation,
        };
        Ok(Answer {
            input,
            stages: Some(stages),
        })
    });
}

impl<L: Ledger> Shared<L> {
    fn begin(self: Arc<Self>, action: Action, tasks: &mut JoinSet<Done>) {
        match action {
            Action::Collect {
                stream,
                within,
                events,
                bytes,
            } => {
                let (hurry, hurried) = oneshot::channel();
                lock(&self.collecting).insert(stream, hurry);
                tasks.spawn(async move {
                    let (memory, bytes) = memory_for(&self.memory, bytes, hurried).await;
                    self.collect(stream, within, events, bytes, memory).await
                });
            }
            Action::CollectNow { stream, bytes } => {
                if let Some(hurry) = lock(&self.collecting).remove(&stream) {
                    // Nobody listens if memory was granted meanwhile.
                    let _ = hurry.send(bytes);
                }
            }
            Action::Encode { encoding, work } => {
                tasks.spawn(async move {
                    let result = components::encode(&self.queue, self.sink.clone(), work).await;
                    Ok(Input::Encoded { encoding, result }.into())
                });
            }
            Action::Send {
                request,
                endpoint,
                outgoing,
                documents,
            } => {
                tasks.spawn(async move {
                    let input = match self.send(endpoint, &outgoing, &documents).await {
                        Ok(response) => Input::Answered { request, response },
                        Err(failure) => Input::NotSent { request, failure },
                    };
                    Ok(input.into())
                });
            }
            Action::Classify {
                request,
                info,
                sent,
                response,
            } => {
                tasks.spawn(async move {
                    let sink = self.sink.clone();
                    let result =
                        components::classify(&self.queue, sink, info, sent, response).await;
                    Ok(Input::Classified { request, result }.into())
                });
            }
            // The driver's own.
            Action::RunStages { .. }
            | Action::WakeAt(_)
            | Action::Report(_)
            | Action::Warn(_)
            | Action::Commit { .. }
            | Action::BatchEnded { .. }
            | Action::Drained => {}
        }
    }

    async fn collect(
        &self,
        stream: StreamIndex,
        within: Vec<SeqRange>,
        events: usize,
        bytes: usize,
        mut memory: Reserved,
    ) -> Done {
        let name = &self.streams[stream.get()];
        let batch = collect::batch(&self.ledger, name, within, events, bytes).await?;
        memory.resize(memory_of(&batch));
        if !batch.is_empty() {
            lock(&self.reserved).insert((stream, batch.range().start), memory);
        }
        let (generation, stages) = self.generation().await?;
        let input = Input::Batch {
            stream,
            batch,
            generation,
        };
        Ok(Answer {
            input,
            stages: Some(stages),
        })
    }

    /// The generation of a batch that begins now, and its stages.
    async fn generation(&self) -> Result<(u32, Arc<[BoundStage]>), LedgerError> {
        let mut current = self.current.lock().await;
        current.renew(&self.ledger).await?;
        let (generation, lookups) = (current.generation, current.lookups.clone());
        drop(current);
        let bind = |stage: &lockgate_runtime::Stage| BoundStage {
            stage: stage.clone(),
            lookups: lookups.clone(),
        };
        Ok((generation, self.stages.iter().map(bind).collect()))
    }

    async fn send(
        &self,
        endpoint: EndpointIndex,
        outgoing: &OutgoingRequest,
        documents: &Documents,
    ) -> Result<lockgate_model::request::Response, SendFailure> {
        if let Some(rate) = &self.rate {
            rate.take(outgoing.documents.len()).await;
        }
        // The second endpoint is `session-url`.
        let feed = if endpoint.get() == 0 {
            FeedKind::Audit
        } else {
            FeedKind::Sessions
        };
        let body = || outgoing.body(documents);
        let sent = self
            .client
            .send(&outgoing.request, body, feed, self.response_max)
            .await;
        sent.map_err(|error| {
            let message = match error.hint() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            };
            match error {
                SendError::Timeout(_) => SendFailure::Timeout(message),
                SendError::Tls { .. } => SendFailure::Tls(message),
                SendError::Request(_) => SendFailure::Contract(message),
                SendError::Connect(_) | SendError::Closed | SendError::Other(_) => {
                    SendFailure::Connection(message)
                }
            }
        })
    }

    async fn commit(&self, batch: lockgate_engine::BatchId, mut commit: Commit) -> Done {
        commit.batch.at = now();
        let entries = commit.entries.clone();
        let committed = self.ledger.commit(commit).await?;
        let input = Input::Committed {
            batch,
            entries,
            dead_bytes: committed.dead_bytes,
        };
        Ok(input.into())
    }
}

/// A condition in the log and on the board.
fn report(
    pipeline: &str,
    board: &Board,
    log: &mut ConditionLog,
    began: Instant,
    change: &ConditionChange,
) {
    let wall = |at: Uptime| -> Millis {
        let elapsed = began.elapsed();
        let millis = |span: Duration| span.as_millis() as Millis;
        now() - millis(elapsed) + millis(at)
    };
    let (condition, is_over) = match change {
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
        kind: condition.kind.name().to_owned(),
        subject: condition.subject.clone(),
        message: condition.message.clone(),
        since: wall(condition.since),
        next_attempt: condition.next_attempt.map(wall),
        not_ready_from: wall(condition.not_ready_from),
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use lockgate_runtime::MemoryBudget;

    use super::*;

    #[test]
    fn an_urgent_batch_does_not_wait_for_memory_that_its_own_pipeline_holds() {
        let share = MemoryBudget::new(1000).share();
        let held = share.take(900);
        let (hurry, hurried) = oneshot::channel();
        let mut memory = pin!(memory_for(&share, 300, hurried));
        let mut context = Context::from_waker(Waker::noop());
        assert!(memory.as_mut().poll(&mut context).is_pending());
        hurry.send(10).expect("it is waited for");
        let Poll::Ready((memory, bytes)) = memory.poll(&mut context) else {
            panic!("an urgent batch waits");
        };
        assert_eq!((memory.bytes(), bytes), (10 * MEMORY_FACTOR, 10));
        drop((memory, held));
        assert_eq!(share.used(), 0, "nothing of the request for more is left");
    }
}
