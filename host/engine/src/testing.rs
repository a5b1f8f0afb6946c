//! Batches, and a pipeline whose receiver is the test, for the crate's own tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockgate_model::contract::{
    Access, BatchInfo, CallError, Called, Encoded, Inspect, Mapped, Shortage, SinkSetup, StageKind,
    StageSetup, TypeLists, Verdict,
};
use lockgate_model::request::{
    Body, Classification, Disposition, Part, Request, RequestRules, Response, Sent,
};
use lockgate_model::{
    Batch, Block, BlockBuilder, Commit, DocumentView, EventView, FeedKind, Head, Outcome, Seq,
    SeqRange, Slice, StateMap, StateOverlay,
};

use crate::brake::BrakeLimits;
use crate::documents::Documents;
use crate::index::{BatchId, EndpointIndex, RequestId, StreamIndex};
use crate::settings::{
    BatchLimits, EndpointSettings, Settings, SinkSettings, StageSettings, StreamSettings,
};
use crate::{
    Action, BatchError, ConditionChange, ConditionKind, FailedCall, Input, OutgoingRequest,
    Pipeline, SendFailure, Sink, Stage, StageOutput, Step, Uptime,
};

/// One event for each key, sequences from 1.
pub(crate) fn documents(keys: &[&str]) -> Documents {
    let block = block(1, keys.iter().map(|&key| (key, "")));
    let batch = Batch {
        slices: vec![Slice {
            rows: 0..block.len(),
            block,
        }],
    };
    let info = BatchInfo {
        id: "p/teleport/audit/1".into(),
        pipeline: "p".into(),
        source: "teleport".into(),
        read_at: 0,
    };
    Documents::new(info, batch)
}

/// Events by key and session.
fn block<'a>(first: Seq, events: impl Iterator<Item = (&'a str, &'a str)>) -> Arc<Block> {
    let mut builder = BlockBuilder::new();
    for (key, session) in events {
        let head = Head {
            key,
            event_type: "t",
            code: "",
            time: 0,
            index: 0,
            session,
        };
        builder.push(head, "{}");
    }
    let parts = builder.take();
    let stream = "teleport/audit".into();
    Arc::new(Block::new(stream, FeedKind::Audit, first, 0, parts))
}

/// A pipeline of one stream without stages. The test answers its requests.
pub(crate) struct TestPipeline {
    pub(crate) engine: Pipeline,
    pub(crate) now: Uptime,
    sink: TestSink,
    /// Events by sequence, one in each block.
    events: BTreeMap<Seq, Arc<Block>>,
    /// Requests that are out.
    sent: BTreeMap<RequestId, (OutgoingRequest, Arc<Documents>)>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) changes: Vec<ConditionChange>,
    pub(crate) warnings: Vec<String>,
    pub(crate) drained: bool,
    /// Bytes of payload that each batch holds, by its first sequence.
    pub(crate) memory: BTreeMap<Seq, usize>,
    max_events_in_stages: usize,
    stays_in_stages: bool,
    stages: Vec<Traps>,
    /// Batches that stay in the stages, with what the stages made of them.
    in_stages: Vec<(BatchId, StageOutput)>,
    wake_at: Option<Uptime>,
    /// No memory is left: what is asked for is not collected unless it is urgent.
    pub(crate) memory_is_used_up: bool,
    /// The ranges, events and bytes that were asked for.
    collecting: Option<(Vec<SeqRange>, usize, usize)>,
}

pub(crate) struct TestSettings {
    pub(crate) in_session_order: bool,
    pub(crate) batch_events: usize,
    pub(crate) batch_age: Duration,
    pub(crate) batches_in_flight: usize,
    pub(crate) requests_in_flight: usize,
    pub(crate) documents_in_request: usize,
    /// A batch of more is too much for a stage.
    pub(crate) max_events_in_stages: usize,
    /// Batches leave the stages with [`TestPipeline::leave_stages`].
    pub(crate) stays_in_stages: bool,
    pub(crate) brake: BrakeLimits,
    pub(crate) inspect: Inspect,
    /// Batches build on the state of those before.
    pub(crate) with_state: bool,
    /// There is a stage that traps on each event whose key begins with `trap`.
    pub(crate) with_traps: bool,
    /// CPU time of each call of that stage and of the sink.
    pub(crate) call_cpu: Duration,
    /// Sequences that were final before the start.
    pub(crate) done: Vec<SeqRange>,
}

impl Default for TestSettings {
    /// One document in a request, a brake that does not engage.
    fn default() -> TestSettings {
        TestSettings {
            in_session_order: false,
            batch_events: 100,
            batch_age: Duration::ZERO,
            batches_in_flight: 1,
            requests_in_flight: 4,
            documents_in_request: 1,
            max_events_in_stages: usize::MAX,
            stays_in_stages: false,
            brake: BrakeLimits {
                in_a_row: u32::MAX,
                share: u32::MAX,
                bytes: u64::MAX,
            },
            inspect: Inspect::Never,
            with_state: false,
            with_traps: false,
            call_cpu: Duration::ZERO,
            done: Vec::new(),
        }
    }
}

impl TestPipeline {
    pub(crate) fn new(settings: TestSettings) -> TestPipeline {
        let label = "sink (test)";
        let now = Uptime::from_secs(1000);
        let stage = StageSettings {
            label: "stage 1 (test)".into(),
            state_owner: "counter".into(),
            state_quota: settings.with_state.then_some(1024),
            state: StateMap::default(),
        };
        let engine = Settings {
            pipeline: "p".into(),
            epoch: 1,
            streams: vec![StreamSettings {
                name: "teleport/audit".into(),
                source: "teleport".into(),
                endpoint: EndpointIndex::new(0),
                in_session_order: settings.in_session_order,
                watermark: 1,
                done: settings.done,
            }],
            endpoints: vec![EndpointSettings {
                name: "url".into(),
                in_flight: settings.requests_in_flight,
            }],
            batch: BatchLimits {
                events: settings.batch_events,
                bytes: 1 << 30,
                age: settings.batch_age,
            },
            batches_in_flight: settings.batches_in_flight,
            sink: SinkSettings {
                label: label.into(),
                types: Arc::default(),
                inspect: settings.inspect,
                max_documents: settings.documents_in_request,
                max_bytes: 1 << 30,
            },
            stages: (settings.with_state || settings.with_traps)
                .then_some(stage)
                .into_iter()
                .collect(),
            cpu_budget: Duration::from_secs(30),
            brake: settings.brake,
            brake_text: String::new(),
            dead_bytes: 0,
            seed: 7,
        };
        TestPipeline {
            engine: Pipeline::new(engine, now),
            now,
            sink: TestSink::new(settings.inspect, settings.call_cpu),
            events: BTreeMap::new(),
            sent: BTreeMap::new(),
            commits: Vec::new(),
            changes: Vec::new(),
            warnings: Vec::new(),
            drained: false,
            memory: BTreeMap::new(),
            max_events_in_stages: settings.max_events_in_stages,
            stays_in_stages: settings.stays_in_stages,
            stages: settings
                .with_traps
                .then(|| Traps::new(settings.call_cpu))
                .into_iter()
                .collect(),
            in_stages: Vec::new(),
            wake_at: None,
            memory_is_used_up: false,
            collecting: None,
        }
    }

    /// Events are read, by key and session.
    pub(crate) fn read(&mut self, events: &[(&str, &str)]) {
        for &event in events {
            let seq = self.next_seq();
            self.events.insert(seq, block(seq, [event].into_iter()));
        }
        let next = self.next_seq();
        let stream = StreamIndex::new(0);
        self.give(Input::Head {
            stream,
            next,
            ended: false,
        });
    }

    /// Reads events without a session.
    pub(crate) fn read_keys(&mut self, keys: impl Iterator<Item = String>) {
        let keys: Vec<String> = keys.collect();
        let events: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
        self.read(&events);
    }

    fn next_seq(&self) -> Seq {
        self.events.last_key_value().map_or(1, |(seq, _)| seq + 1)
    }

    /// The operator sends dead letters back.
    pub(crate) fn redrive(&mut self, seqs: &[Seq]) {
        let batch = self.batch(seqs.iter().copied());
        let stream = StreamIndex::new(0);
        self.give(Input::Redrive {
            stream,
            batch,
            generation: 1,
        });
    }

    fn batch(&self, seqs: impl Iterator<Item = Seq>) -> Batch {
        let slice = |seq| Slice {
            block: self.events[&seq].clone(),
            rows: 0..1,
        };
        Batch {
            slices: seqs.map(slice).collect(),
        }
    }

    /// Gives an input and carries out all actions but those that need the receiver.
    pub(crate) fn give(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut actions = Vec::new();
        while let Some(input) = inputs.pop_front() {
            self.engine.handle(self.now, input, &mut actions);
            for action in actions.drain(..) {
                inputs.extend(self.carry_out(action));
            }
            if !self.memory_is_used_up {
                inputs.extend(self.collect());
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Collect {
                within,
                events,
                bytes,
                ..
            } => self.collecting = Some((within, events, bytes)),
            Action::CollectNow { .. } => return self.collect(),
            Action::RunStages { batch, mut run, .. } => {
                let output = loop {
                    match run.step(&self.stages) {
                        Step::More => {}
                        Step::Done => break run.into_output(),
                        Step::Failed(error) => {
                            let result = Err(error);
                            return Some(Input::StagesRan { batch, result });
                        }
                    }
                };
                if self.stays_in_stages {
                    self.in_stages.push((batch, output));
                    return None;
                }
                let is_too_much = output.documents.entries() > self.max_events_in_stages;
                let result = if is_too_much {
                    Err(BatchError::TooMuch {
                        label: "mapper".to_owned(),
                        made: String::new(),
                    })
                } else {
                    Ok(output)
                };
                return Some(Input::StagesRan { batch, result });
            }
            Action::Encode { encoding, mut work } => {
                let result = loop {
                    match work.step(&self.sink) {
                        Step::More => {}
                        Step::Done => break Ok(work.into_output()),
                        Step::Failed(error) => break Err(error),
                    }
                };
                return Some(Input::Encoded { encoding, result });
            }
            Action::Send {
                request,
                outgoing,
                documents,
                ..
            } => {
                self.sent.insert(request, (outgoing, documents));
            }
            Action::Classify {
                request,
                info,
                sent,
                response,
            } => {
                let result = self.sink.classify(&info, &sent, &response).result;
                return Some(Input::Classified { request, result });
            }
            Action::WakeAt(at) => self.wake_at = at,
            Action::Report(change) => self.changes.push(change),
            Action::Warn(message) => self.warnings.push(message),
            Action::Commit { batch, commit } => {
                let entries = commit.entries.clone();
                self.commits.push(*commit);
                return Some(Input::Committed {
                    batch,
                    entries,
                    dead_bytes: 0,
                });
            }
            Action::BatchShrunk { first, bytes, .. } => {
                self.memory.insert(first, bytes);
            }
            Action::BatchHalved { halves, .. } => self.memory.extend(halves),
            Action::BatchEnded { first, .. } => {
                self.memory.remove(&first);
            }
            Action::Drained => self.drained = true,
        }
        None
    }

    /// The batch that was asked for, if one was.
    fn collect(&mut self) -> Option<Input> {
        let (within, events, bytes) = self.collecting.take()?;
        let events = events.min(bytes / "{}".len()).max(1);
        let batch = self.batch(within.into_iter().flatten().take(events));
        self.memory
            .insert(batch.range().start, batch.payload_bytes());
        let stream = StreamIndex::new(0);
        let generation = 1;
        Some(Input::Batch {
            stream,
            batch,
            generation,
        })
    }

    /// A batch has been asked for, and waits for memory.
    pub(crate) fn waits_for_memory(&self) -> bool {
        self.collecting.is_some()
    }

    /// Time passes until something is due.
    pub(crate) fn wait(&mut self) {
        let at = self.wake_at.take().expect("something waits for a time");
        self.now = self.now.max(at);
        self.give(Input::Elapsed);
    }

    /// A call for the oldest batch in the stages has failed.
    pub(crate) fn fail_call(&mut self, label: &str, reason: &str) {
        self.report_failed_call(FailedCall {
            label: label.to_owned(),
            reason: reason.to_owned(),
            shortage: None,
        });
    }

    /// The same for want of memory.
    pub(crate) fn fail_call_for(&mut self, shortage: Shortage, label: &str) {
        self.report_failed_call(FailedCall {
            label: label.to_owned(),
            reason: shortage.to_string(),
            shortage: Some(shortage),
        });
    }

    fn report_failed_call(&mut self, call: FailedCall) {
        let (batch, _) = self.in_stages[0];
        self.give(Input::StageFailed { batch, call });
    }

    /// The oldest batch in the stages has passed them.
    pub(crate) fn leave_stages(&mut self) {
        let (batch, output) = self.in_stages.remove(0);
        let result = Ok(output);
        self.give(Input::StagesRan { batch, result });
    }

    /// What the stages made of the oldest batch in them is too much.
    pub(crate) fn leave_stages_with_too_much(&mut self) {
        let (batch, _) = self.in_stages.remove(0);
        let too_much = BatchError::TooMuch {
            label: "mapper".to_owned(),
            made: String::new(),
        };
        let result = Err(too_much);
        self.give(Input::StagesRan { batch, result });
    }

    /// Something is due at some time.
    pub(crate) fn waits(&self) -> bool {
        self.wake_at.is_some()
    }

    /// Waits until a request is out.
    pub(crate) fn wait_until_sent(&mut self) {
        for _ in 0..100_000 {
            if !self.sent.is_empty() {
                return;
            }
            self.wait();
        }
        panic!("nothing is sent");
    }

    /// Keys of the documents of each request that is out, with a space between.
    pub(crate) fn sent(&self) -> Vec<String> {
        let keys = |(outgoing, documents): &(OutgoingRequest, Arc<Documents>)| {
            let key = |&document: &_| documents.event(document).key.to_owned();
            let keys: Vec<String> = outgoing.documents.iter().map(key).collect();
            keys.join(" ")
        };
        self.sent.values().map(keys).collect()
    }

    /// The receiver answers the request that carries these keys.
    pub(crate) fn answer(&mut self, keys: &str, status: u16) {
        let request = self.request(keys);
        self.respond(request, status, None);
    }

    /// The receiver answers the first request that is out. False if none is.
    pub(crate) fn answer_first(&mut self, status: u16) -> bool {
        let first = self.sent.keys().next().copied();
        if let Some(request) = first {
            self.respond(request, status, None);
        }
        first.is_some()
    }

    fn respond(&mut self, request: RequestId, status: u16, retry_after: Option<u64>) {
        self.sent.remove(&request);
        let response = Response {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            truncated: false,
            retry_after,
        };
        self.give(Input::Answered { request, response });
    }

    /// The receiver answers the request that carries these keys, and wants the next one so much
    /// later.
    pub(crate) fn answer_with_retry_after(&mut self, keys: &str, status: u16, after: Duration) {
        let request = self.request(keys);
        let after = after.as_millis() as u64;
        self.respond(request, status, Some(after));
    }

    /// No answer comes in time to the request that carries these keys.
    pub(crate) fn time_out(&mut self, keys: &str) {
        let failure = SendFailure::Timeout("no answer in time".into());
        self.fail_to_send(keys, failure);
    }

    /// The request that carries these keys does not get an answer.
    pub(crate) fn fail_to_send(&mut self, keys: &str, failure: SendFailure) {
        let request = self.request(keys);
        self.sent.remove(&request);
        self.give(Input::NotSent { request, failure });
    }

    fn request(&self, keys: &str) -> RequestId {
        let at = self.sent().iter().position(|sent| sent == keys);
        let at = at.unwrap_or_else(|| panic!("{keys} is not among {:?}", self.sent()));
        *self.sent.keys().nth(at).expect("it is there")
    }

    /// The receiver cannot be reached by any request that is out.
    pub(crate) fn lose_all(&mut self) {
        for (request, _) in std::mem::take(&mut self.sent) {
            let failure = SendFailure::Connection("refused".into());
            self.give(Input::NotSent { request, failure });
        }
    }

    /// Messages of the conditions of this kind.
    pub(crate) fn conditions(&self, kind: ConditionKind) -> Vec<&str> {
        let conditions = self.engine.conditions();
        let of_kind = conditions.filter(|condition| condition.kind == kind);
        of_kind
            .map(|condition| condition.message.as_str())
            .collect()
    }

    /// Times that a condition of this kind began.
    pub(crate) fn began(&self, kind: ConditionKind) -> usize {
        let began = |change: &&ConditionChange| match change {
            ConditionChange::Began(condition) => condition.kind == kind,
            _ => false,
        };
        self.changes.iter().filter(began).count()
    }

    /// Outcomes of the entries so far, by sequence: `delivered`, or why it is dead.
    pub(crate) fn outcomes(&self) -> BTreeMap<Seq, String> {
        let mut outcomes = BTreeMap::new();
        for commit in &self.commits {
            for (seq, outcome) in commit.entries.iter().zip(commit.outcomes.iter()) {
                let text = match outcome {
                    Outcome::Delivered => "delivered".to_owned(),
                    Outcome::Dropped(reason) | Outcome::Dead(reason) => {
                        commit.reasons[reason as usize].clone()
                    }
                };
                outcomes.insert(seq, text);
            }
        }
        outcomes
    }
}

/// A filter that traps on each event whose key begins with `trap`.
struct Traps {
    setup: StageSetup,
    call_cpu: Duration,
}

impl Traps {
    fn new(call_cpu: Duration) -> Traps {
        Traps {
            call_cpu,
            setup: StageSetup {
                types: TypeLists::default(),
                access: Access::Metadata,
                reasons: Vec::new(),
            },
        }
    }
}

impl Stage for Traps {
    fn label(&self) -> &str {
        "stage 1 (test)"
    }

    fn kind(&self) -> StageKind {
        StageKind::Filter
    }

    fn setup(&self) -> &StageSetup {
        &self.setup
    }

    fn filter(
        &self,
        _: &BatchInfo,
        events: &[EventView<'_>],
        _: &mut StateOverlay,
        _: bool,
    ) -> Called<Vec<Verdict>> {
        let traps = events.iter().any(|event| event.key.starts_with("trap"));
        let message = "unreachable".to_owned();
        let result = match traps {
            true => Err(CallError::Trap { message }),
            false => Ok(vec![Verdict::Keep; events.len()]),
        };
        let cpu = self.call_cpu;
        Called { result, cpu }
    }

    fn transform(
        &self,
        _: &BatchInfo,
        _: &[EventView<'_>],
        _: &mut StateOverlay,
        _: bool,
    ) -> Called<Vec<Mapped>> {
        unreachable!("it is a filter")
    }
}

/// Puts all documents of a call into one request.
struct TestSink {
    setup: SinkSetup,
    call_cpu: Duration,
}

impl TestSink {
    fn new(inspect: Inspect, call_cpu: Duration) -> TestSink {
        TestSink {
            call_cpu,
            setup: SinkSetup {
                types: TypeLists::default(),
                access: Access::Metadata,
                time_member: None,
                max_documents: None,
                max_bytes: None,
                inspect,
                max_response_bytes: 1024,
            },
        }
    }
}

impl Sink for TestSink {
    fn label(&self) -> &str {
        "sink (test)"
    }

    fn setup(&self) -> &SinkSetup {
        &self.setup
    }

    fn encode(&self, _: &BatchInfo, documents: &[DocumentView<'_>], _: bool) -> Called<Encoded> {
        let carries: Vec<u32> = (0..documents.len() as u32).collect();
        let request = Request {
            method: "POST".into(),
            path_suffix: String::new(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Parts(carries.iter().copied().map(Part::Document).collect()),
            tag: String::new(),
            carries,
        };
        let request = request.check(&RequestRules::default());
        Called {
            result: Ok(Encoded {
                requests: vec![request.expect("the request keeps the contract")],
                rejected: Vec::new(),
            }),
            cpu: self.call_cpu,
        }
    }

    /// 207: the receiver takes all documents but the first. 208: it takes none. 599: it has taken
    /// all of them, which a sink cannot decide on.
    fn classify(&self, _: &BatchInfo, sent: &Sent, response: &Response) -> Called<Classification> {
        let again = |indexes: &[u32]| {
            let again = indexes.iter().map(|&index| (index, Disposition::Retry));
            Classification::Mixed(again.collect())
        };
        Called::free(Ok(match response.status {
            207 => again(&sent.carries[..1]),
            208 => again(&sent.carries),
            599 => Classification::Delivered,
            _ => Classification::ByStatus,
        }))
    }
}
