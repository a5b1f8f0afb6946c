//! Carries out what takes time for an engine: each action in a task of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_egress::{Connection, Destination, RateLimiter};
use lockgate_engine::{
    BatchId, Documents, Encoding, EncodingId, EndpointIndex, Input, OutgoingRequest, RequestId,
    SendFailure, StageRun, StreamIndex,
};
use lockgate_ledger::{Ledger, LedgerError};
use lockgate_model::contract::BatchContext;
use lockgate_model::request::{Response, Sent};
use lockgate_model::{Batch, Commit, Masks, Seq, SeqRange};
use lockgate_observe::metrics::Recorder;
use lockgate_runtime::{MemoryShare, Queue, Reserved};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::{Client, NotSent};
use crate::clock::now;
use crate::collect;
use crate::components;
use crate::credentials::Credentials;
use crate::damage::{Damage, until_readable};
use crate::descriptors::DescriptorWaits;
use crate::generation::CurrentGeneration;
use crate::limits::{BATCH_MEMORY_FACTOR, DESCRIPTOR_PATIENCE, REDRIVE_BYTES, REDRIVE_EVENTS};
use crate::metrics::catalogue;
use crate::plugins::{BoundSink, BoundStage, CallMeter};
use crate::status::Board;

/// The parts of a pipeline that its tasks share.
pub(crate) struct Worker<L> {
    pub(crate) pipeline: Arc<str>,
    pub(crate) ledger: L,
    pub(crate) streams: Vec<Arc<str>>,
    pub(crate) stages: Vec<PlacedStage>,
    pub(crate) sink: BoundSink,
    pub(crate) client: Client,
    /// None for files.
    pub(crate) credentials: Option<Arc<Credentials>>,
    pub(crate) masks: Masks,
    /// By [`EndpointIndex`].
    pub(crate) destinations: &'static [Destination],
    pub(crate) descriptor_waits: DescriptorWaits,
    pub(crate) rate: Option<Arc<RateLimiter>>,
    pub(crate) queue: Queue,
    pub(crate) memory: MemoryShare,
    pub(crate) current: tokio::sync::Mutex<CurrentGeneration>,
    pub(crate) batch_memory: BatchMemory,
    pub(crate) recorder: Recorder,
    pub(crate) board: Board,
}

/// A stage, and where its calls are counted.
pub(crate) struct PlacedStage {
    pub(crate) stage: lockgate_runtime::Stage,
    pub(crate) meter: CallMeter,
}

/// Memory of the batches in flight.
#[derive(Default)]
pub(crate) struct BatchMemory {
    /// By stream and first sequence.
    batches: Mutex<BTreeMap<(StreamIndex, Seq), Reserved>>,
    /// Of each stream's redrive.
    redrives: Mutex<BTreeMap<StreamIndex, Reserved>>,
    /// Streams whose next batch is being collected, and how to say that it is urgent.
    collecting: Mutex<BTreeMap<StreamIndex, oneshot::Sender<usize>>>,
}

pub(crate) type Done = Result<TaskResult, LedgerError>;

/// The answer of a task to the engine.
pub(crate) struct TaskResult {
    pub(crate) input: Input,
    /// The stages of the generation that the batch in `input` names.
    pub(crate) stages: Option<Arc<[BoundStage]>>,
}

impl From<Input> for TaskResult {
    fn from(input: Input) -> TaskResult {
        TaskResult {
            input,
            stages: None,
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
        memory = share.acquire(bytes.saturating_mul(BATCH_MEMORY_FACTOR)) => (memory, bytes),
        Ok(fewer) = hurried => (share.take(fewer.saturating_mul(BATCH_MEMORY_FACTOR)), fewer),
    }
}

/// Memory that a batch takes until it is committed.
fn memory_of(batch: &Batch) -> usize {
    batch.payload_bytes().saturating_mul(BATCH_MEMORY_FACTOR)
}

impl<L: Ledger> Worker<L> {
    /// Asks for dead letters of a stream that wait again. [`Input::Redrive`] answers, perhaps with
    /// none.
    pub(crate) fn redrive(self: Arc<Self>, stream: StreamIndex, tasks: &mut JoinSet<Done>) {
        tasks.spawn(async move {
            let name = &self.streams[stream.get()];
            let damage = || Damage::of_letters(self.board.clone(), self.pipeline.clone(), name);
            let redrive = until_readable(damage, || {
                let (events, bytes) = (REDRIVE_EVENTS, REDRIVE_BYTES);
                self.ledger.redrive(&self.pipeline, name, events, bytes)
            });
            let redrive = redrive.await?;
            let (generation, stages) = self.generation().await?;
            let batch = redrive.map(|redrive| redrive.batch).unwrap_or_default();
            // A redrive does not wait for memory, but its memory is counted.
            let memory = self.memory.take(memory_of(&batch));
            lock(&self.batch_memory.redrives).insert(stream, memory);
            let input = Input::Redrive {
                stream,
                batch,
                generation,
            };
            Ok(TaskResult {
                input,
                stages: Some(stages),
            })
        });
    }

    pub(crate) fn run_stages(
        self: Arc<Self>,
        batch: BatchId,
        stages: Arc<[BoundStage]>,
        run: Box<StageRun>,
        notices: mpsc::UnboundedSender<Input>,
        tasks: &mut JoinSet<Done>,
    ) {
        tasks.spawn(async move {
            let failed = |call| {
                // Nobody listens while the pipeline ends.
                let _ = notices.send(Input::StageFailed { batch, call });
            };
            let at_work = |label: &str| {
                let label = label.to_owned();
                let _ = notices.send(Input::StageAtWork { batch, label });
            };
            let result = components::run_stages(&self.queue, stages, run, failed, at_work).await;
            Ok(Input::StagesRan { batch, result }.into())
        });
    }

    pub(crate) fn commit(
        self: Arc<Self>,
        batch: BatchId,
        mut commit: Box<Commit>,
        tasks: &mut JoinSet<Done>,
    ) {
        tasks.spawn(async move {
            commit.batch.at = now();
            let entries = commit.entries.clone();
            let committed = self.ledger.commit(*commit).await?;
            let input = Input::Committed {
                batch,
                entries,
                dead_bytes: committed.dead_bytes,
            };
            Ok(input.into())
        });
    }

    /// A batch has let go of most of its events: `bytes` of payload are left.
    pub(crate) fn shrink(&self, stream: StreamIndex, first: Seq, bytes: usize) {
        if let Some(memory) = lock(&self.batch_memory.batches).get_mut(&(stream, first)) {
            memory.resize(bytes.saturating_mul(BATCH_MEMORY_FACTOR));
        }
    }

    /// Two batches have taken the place of the one that the first begins with.
    pub(crate) fn halve(&self, stream: StreamIndex, halves: [(Seq, usize); 2]) {
        let halves = halves.map(|(first, bytes)| {
            let memory = self.memory.take(bytes.saturating_mul(BATCH_MEMORY_FACTOR));
            ((stream, first), memory)
        });
        // Frees that of the whole.
        lock(&self.batch_memory.batches).extend(halves);
    }

    /// A batch is over: its memory is free.
    pub(crate) fn free(&self, stream: StreamIndex, first: Seq, is_redrive: bool) {
        if is_redrive {
            lock(&self.batch_memory.redrives).remove(&stream);
        } else {
            lock(&self.batch_memory.batches).remove(&(stream, first));
        }
    }

    /// Collects a batch, once there is memory for it or [`hurry`](Self::hurry) says that it must
    /// not wait.
    pub(crate) fn collect(
        self: Arc<Self>,
        stream: StreamIndex,
        within: Vec<SeqRange>,
        events: usize,
        bytes: usize,
        tasks: &mut JoinSet<Done>,
    ) {
        let (hurry, hurried) = oneshot::channel();
        lock(&self.batch_memory.collecting).insert(stream, hurry);
        tasks.spawn(async move {
            let (mut memory, bytes) = memory_for(&self.memory, bytes, hurried).await;
            let name = &self.streams[stream.get()];
            let damage = || {
                // It may wait for ever.
                memory.resize(0);
                Damage::of_blocks(self.board.clone(), self.pipeline.clone(), name)
            };
            let batch = until_readable(damage, || {
                collect::batch(&self.ledger, name, within.clone(), events, bytes)
            });
            let batch = batch.await?;
            memory.resize(memory_of(&batch));
            if !batch.is_empty() {
                lock(&self.batch_memory.batches).insert((stream, batch.range().start), memory);
            }
            let (generation, stages) = self.generation().await?;
            let input = Input::Batch {
                stream,
                batch,
                generation,
            };
            Ok(TaskResult {
                input,
                stages: Some(stages),
            })
        });
    }

    /// The batch that is being collected must not wait for memory: `bytes` are enough.
    pub(crate) fn hurry(&self, stream: StreamIndex, bytes: usize) {
        if let Some(hurry) = lock(&self.batch_memory.collecting).remove(&stream) {
            // Nobody listens if memory was granted meanwhile.
            let _ = hurry.send(bytes);
        }
    }

    pub(crate) fn encode(
        self: Arc<Self>,
        encoding: EncodingId,
        work: Box<Encoding>,
        notices: mpsc::UnboundedSender<Input>,
        tasks: &mut JoinSet<Done>,
    ) {
        tasks.spawn(async move {
            let failed = |call| {
                // Nobody listens while the pipeline ends.
                let _ = notices.send(Input::EncodeFailed { encoding, call });
            };
            let result = components::encode(&self.queue, self.sink.clone(), work, failed).await;
            Ok(Input::Encoded { encoding, result }.into())
        });
    }

    /// Counts a request whose documents were sent before.
    pub(crate) fn record_retry(&self, endpoint: EndpointIndex) {
        let labels = [&*self.pipeline, self.destinations[endpoint.get()].name()];
        self.recorder.add(&catalogue::REQUEST_RETRIES, &labels, 1);
    }

    pub(crate) fn send(
        self: Arc<Self>,
        request: RequestId,
        endpoint: EndpointIndex,
        outgoing: OutgoingRequest,
        documents: Arc<Documents>,
        tasks: &mut JoinSet<Done>,
    ) {
        tasks.spawn(async move {
            let input = match self.attempt(endpoint, &outgoing, &documents).await {
                Ok(response) => Input::Answered { request, response },
                Err(failure) => Input::NotSent { request, failure },
            };
            Ok(input.into())
        });
    }

    pub(crate) fn classify(
        self: Arc<Self>,
        request: RequestId,
        context: BatchContext,
        sent: Sent,
        response: Arc<Response>,
        tasks: &mut JoinSet<Done>,
    ) {
        tasks.spawn(async move {
            let sink = self.sink.clone();
            let result = components::classify(&self.queue, sink, context, sent, response).await;
            Ok(Input::Classified { request, result }.into())
        });
    }

    /// The generation of a batch that begins now, and its stages.
    async fn generation(&self) -> Result<(u32, Arc<[BoundStage]>), LedgerError> {
        let mut current = self.current.lock().await;
        current.renew(&self.ledger).await?;
        let (generation, lookups) = (current.generation, current.lookups.clone());
        drop(current);
        let bind = |placed: &PlacedStage| BoundStage {
            stage: placed.stage.clone(),
            lookups: lookups.clone(),
            meter: Some(placed.meter.clone()),
        };
        Ok((generation, self.stages.iter().map(bind).collect()))
    }

    /// Sends a request, and once more if its credentials were renewed in the meantime.
    async fn attempt(
        &self,
        endpoint: EndpointIndex,
        outgoing: &OutgoingRequest,
        documents: &Documents,
    ) -> Result<Response, SendFailure> {
        let destination = self.destinations[endpoint.get()];
        self.take_rate(outgoing).await;
        // Not before: a renewal during the wait is one that this request already has.
        let renewals = self.credentials.as_ref().map(|it| (it, it.renewals()));
        let mut sent = self.send_once(destination, outgoing, documents).await;
        // Whoever renews credentials may have told the receiver first.
        if let Some((credentials, before)) = renewals
            && credentials.are_newer(before, &sent).await
        {
            self.take_rate(outgoing).await;
            sent = self.send_once(destination, outgoing, documents).await;
        }
        sent.map_err(|error: NotSent| error.into_failure(&self.masks))
    }

    /// Waits until the operator's rate allows a request.
    async fn take_rate(&self, outgoing: &OutgoingRequest) {
        if let Some(rate) = &self.rate {
            rate.take(outgoing.documents.len()).await;
        }
    }

    /// Sends a request once, and counts it.
    async fn send_once(
        &self,
        destination: Destination,
        outgoing: &OutgoingRequest,
        documents: &Documents,
    ) -> Result<Response, NotSent> {
        let response_max = self.sink.sink.setup().max_response_bytes as usize;
        let body = || outgoing.body(documents);
        let began = Instant::now();
        let connection = self.connection(destination).await;
        let request = &outgoing.request;
        let sent = (self.client)
            .send(connection, request, body, destination, response_max)
            .await;
        let labels = [&*self.pipeline, destination.name()];
        let seconds = began.elapsed().as_secs_f64();
        self.recorder
            .observe(&catalogue::REQUEST_SECONDS, &labels, seconds);
        let bytes = outgoing.body_len(documents) as u64;
        self.recorder.add(&catalogue::REQUEST_BYTES, &labels, bytes);
        let documents = outgoing.documents.len() as u64;
        self.recorder
            .add(&catalogue::REQUEST_DOCUMENTS, &labels, documents);
        let code;
        let status = match &sent {
            Ok(response) => {
                code = response.status.to_string();
                &*code
            }
            Err(error) => error.name(),
        };
        let labels = [labels[0], labels[1], status];
        self.recorder.add(&catalogue::REQUESTS, &labels, 1);
        sent
    }
}

impl<L> Worker<L> {
    /// Waits for leave to have one more connection. A condition says so if that takes long because
    /// other receivers have the file descriptors.
    async fn connection(&self, destination: Destination) -> Option<Connection<'_>> {
        let since = now();
        let connection = self.client.connection();
        tokio::pin!(connection);
        if let Ok(connection) = timeout(DESCRIPTOR_PATIENCE, &mut connection).await {
            return connection;
        }
        let is_short = self.client.is_short_of_descriptors();
        let _condition = is_short.then(|| self.descriptor_waits.begin(destination.name(), since));
        connection.await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use lockgate_runtime::BatchMemoryBudget;

    use super::*;

    #[test]
    fn an_urgent_batch_does_not_wait_for_memory_that_its_own_pipeline_holds() {
        let share = BatchMemoryBudget::new(1000).share();
        let held = share.take(900);
        let (hurry, hurried) = oneshot::channel();
        let mut memory = pin!(memory_for(&share, 300, hurried));
        let mut context = Context::from_waker(Waker::noop());
        assert!(memory.as_mut().poll(&mut context).is_pending());
        hurry.send(10).expect("it is waited for");
        let Poll::Ready((memory, bytes)) = memory.poll(&mut context) else {
            panic!("an urgent batch waits");
        };
        assert_eq!((memory.bytes(), bytes), (10 * BATCH_MEMORY_FACTOR, 10));
        drop((memory, held));
        assert_eq!(share.used(), 0, "nothing of the request for more is left");
    }
}
