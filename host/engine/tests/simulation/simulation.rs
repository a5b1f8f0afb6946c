//! A pipeline, its ledger and its receivers, under one schedule. Larger than other files because
//! each step works on the state of all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lockgate_engine::{
    Action, BatchError, BatchLimits, BrakeLimits, EndpointIndex, EndpointSettings, Input, Pipeline,
    RequestId, Settings, Sink, SinkSettings, StageSettings, Step, StreamIndex, StreamSettings,
    Uptime,
};
use lockgate_ledger::Registration;
use lockgate_ledger::memory::{Appended, MemoryCore};
use lockgate_model::contract::{CallError, Inspect, StageKind};
use lockgate_model::request::Response;
use lockgate_model::{
    Append, Batch, BlockBuilder, Commit, FeedKind, Generation, Head, Seq, SeqRange, Slice, StateMap,
};

use crate::answers_seen::AnswersSeen;
use crate::brake::BrakeCounts;
use crate::order::SessionOrder;
use crate::plugins::{self, Grouping, ModelSink, ModelStage};
use crate::random::Random;
use crate::receiver::{Behaviour, Receiver};
use crate::sending::Sending;

pub const PIPELINE: &str = "p";

/// The parameters of a schedule.
#[derive(Debug)]
pub struct Scenario {
    pub feeds: Vec<FeedKind>,
    pub grouping: Grouping,
    pub inspect: Inspect,
    pub with_state: bool,
    pub batch_events: usize,
    pub in_flight: usize,
    pub behaviours: Vec<BTreeMap<Uptime, Behaviour>>,
    /// Per event.
    pub bad_share: f64,
    /// Memory for one batch: others wait for it.
    pub scarce_memory: bool,
    /// Per step.
    pub crashes: f64,
    pub redrives: f64,
    pub releases: f64,
    /// Per call: a component fails for all of a batch, or while it reads an answer.
    pub plugin_faults: f64,
}

/// Something that the engine asked for and that has not been answered.
pub struct Pending {
    due: Uptime,
    pub work: Work,
}

pub enum Work {
    Answer(Input),
    /// An answer of the receiver, or its failure to answer.
    Reacted {
        input: Input,
        request: RequestId,
    },
    /// The sink's judgement of a response.
    Classified {
        input: Input,
        request: RequestId,
        response: Arc<Response>,
    },
    Commit {
        batch: lockgate_engine::BatchId,
        commit: Box<Commit>,
    },
}

/// A document of a request: stream, key, sequence.
pub type Carried = (usize, String, Seq);

/// The request for a batch: sequences, events, bytes.
type Collect = (Vec<SeqRange>, usize, usize);

/// Memory of the batches in flight, if it is scarce.
#[derive(Default)]
pub struct Memory {
    pub held: BTreeSet<(StreamIndex, Seq)>,
    /// Batches that were asked for and wait.
    pub waiting: BTreeMap<StreamIndex, Collect>,
}

pub struct Simulation {
    pub scenario: Scenario,
    pub random: Random,
    pub now: Uptime,
    pub core: MemoryCore,
    pub engine: Option<Pipeline>,
    pub stages: Vec<ModelStage>,
    pub sink: ModelSink,
    pub receivers: Vec<Receiver>,
    pub pending: Vec<Pending>,
    pub alarm: Option<Uptime>,
    pub events: u64,
    /// Documents whose acceptance this engine has heard of; cleared by a crash and by a redrive.
    pub acknowledged: BTreeSet<(usize, String)>,
    /// The documents of each request that was sent.
    pub out: HashMap<RequestId, Vec<Carried>>,
    /// Documents of requests that the engine has not judged.
    pub in_flight: BTreeSet<(usize, String)>,
    pub order: SessionOrder,
    pub sending: Sending,
    pub brake: BrakeCounts,
    pub ever_taken: BTreeSet<(usize, String)>,
    pub redriven: BTreeSet<(usize, Seq)>,
    pub mapped: u64,
    pub memory: Memory,
    pub answers_seen: AnswersSeen,
    /// The number of the configuration that batches are given.
    pub generation: u32,
    /// The configuration that each entry was last given with.
    pub given: HashMap<(usize, Seq), u32>,
    pub configurations: u32,
    pub drained: bool,
    /// When something last became final, as far as the engine knows, or nothing waited.
    pub progress_at: Uptime,
    pub crashes: u64,
    pub releases: u64,
}

impl Simulation {
    pub fn new(scenario: Scenario, random: Random) -> Simulation {
        let receivers = scenario
            .behaviours
            .iter()
            .cloned()
            .map(Receiver::new)
            .collect();
        let mut simulation = Simulation {
            stages: vec![
                ModelStage::new(StageKind::Filter),
                ModelStage::new(StageKind::Mapper),
            ],
            sink: ModelSink::new(scenario.grouping, scenario.inspect),
            scenario,
            random,
            now: Uptime::ZERO,
            core: MemoryCore::new(None),
            engine: None,
            receivers,
            pending: Vec::new(),
            alarm: None,
            events: 0,
            acknowledged: BTreeSet::new(),
            out: HashMap::new(),
            in_flight: BTreeSet::new(),
            order: SessionOrder::default(),
            sending: Sending::default(),
            brake: BrakeCounts::default(),
            ever_taken: BTreeSet::new(),
            redriven: BTreeSet::new(),
            mapped: 0,
            memory: Memory::default(),
            answers_seen: AnswersSeen::default(),
            generation: 0,
            given: HashMap::new(),
            configurations: 0,
            drained: false,
            progress_at: Uptime::ZERO,
            crashes: 0,
            releases: 0,
        };
        simulation.start();
        simulation
    }

    pub fn stream(&self, index: usize) -> String {
        format!("teleport/{}", self.scenario.feeds[index].name())
    }

    /// A process starts with what is durable.
    pub fn start(&mut self) {
        let streams: Vec<String> = (0..self.scenario.feeds.len())
            .map(|index| self.stream(index))
            .collect();
        let registration = self.register(&streams);
        let two_endpoints = self.scenario.behaviours.len() > 1;
        let stage = |owner: &str, label: &str, quota: Option<usize>| StageSettings {
            label: label.into(),
            state_owner: owner.into(),
            state_quota: quota,
            state: registration
                .state
                .get(owner)
                .map(StateMap::from)
                .unwrap_or_default(),
        };
        let settings = Settings {
            pipeline: PIPELINE.into(),
            epoch: registration.epoch,
            streams: registration
                .streams
                .iter()
                .zip(&self.scenario.feeds)
                .map(|(progress, &feed)| StreamSettings {
                    name: progress.stream.as_str().into(),
                    source: "teleport".into(),
                    endpoint: EndpointIndex::new(usize::from(
                        two_endpoints && feed == FeedKind::Sessions,
                    )),
                    in_session_order: feed == FeedKind::Sessions,
                    watermark: progress.watermark,
                    done: progress.done.clone(),
                })
                .collect(),
            endpoints: ["url", "session-url"][..self.scenario.behaviours.len()]
                .iter()
                .map(|&name| EndpointSettings {
                    name: name.into(),
                    in_flight: 3,
                })
                .collect(),
            batch: BatchLimits {
                events: self.scenario.batch_events,
                bytes: 4_000,
                age: Duration::from_secs(1),
            },
            batches_in_flight: self.scenario.in_flight,
            sink: SinkSettings {
                label: self.sink.label().into(),
                types: Arc::default(),
                inspect: self.scenario.inspect,
                max_documents: 1_000,
                max_bytes: 1 << 20,
            },
            stages: vec![
                stage("filter", "stage 1 (filter)", None),
                stage(
                    "mapper",
                    "stage 2 (mapper)",
                    self.scenario.with_state.then_some(1 << 20),
                ),
            ],
            cpu_budget: Duration::from_secs(30),
            brake: BrakeLimits::default(),
            brake_text: registration.brake,
            dead_bytes: registration.dead_bytes,
            seed: self.random.next(),
        };
        self.engine = Some(Pipeline::new(settings, self.now));
        self.memory = Memory::default();
        self.answers_seen =
            AnswersSeen::new(self.scenario.behaviours.len(), self.scenario.feeds.len());
        self.drained = false;
        self.progressed();
        self.tell_heads();
    }

    pub fn register(&mut self, streams: &[String]) -> Registration {
        let generation = Generation {
            pipeline: PIPELINE.into(),
            description: format!("{{\"number\":{}}}", self.configurations),
        };
        let registration = self.core.register(generation, streams);
        let registration = registration.expect("it can register");
        self.generation = registration.generation;
        registration
    }

    pub fn tell_heads(&mut self) {
        for index in 0..self.scenario.feeds.len() {
            let next = self.core.next(&self.stream(index));
            let stream = StreamIndex::new(index);
            self.give(Input::Head {
                stream,
                next,
                ended: false,
            });
        }
    }

    /// New events are read. `bad_share`: the share of those that are not good.
    pub fn append(&mut self, count: u64, bad_share: f64) {
        if self.waiting() == 0 {
            self.progressed();
        }
        let index = self.random.below(self.scenario.feeds.len() as u64) as usize;
        let feed = self.scenario.feeds[index];
        let mut builder = BlockBuilder::new();
        let next = self.core.next(&self.stream(index));
        for seq in next..next + count {
            self.events += 1;
            let event_type = if self.random.chance(bad_share) {
                self.random.pick(&[
                    plugins::DROPPED,
                    plugins::TRAPS,
                    plugins::REJECTED,
                    plugins::POISON_400,
                    plugins::POISON_500,
                    plugins::HUGE,
                ])
            } else {
                self.random
                    .pick(&[plugins::GOOD, plugins::GOOD, plugins::GOOD, plugins::THREE])
            };
            let key = format!("e{}", self.events);
            // One in five belongs to no session.
            let session = match self.random.below(5) {
                4 => String::new(),
                number => format!("s{number}"),
            };
            self.order_read(index, &session, seq);
            let head = Head {
                key: &key,
                event_type,
                code: "",
                time: 0,
                index: 0,
                session: &session,
            };
            if self.random.chance(0.001) {
                builder.push_raw(head, b"\xff");
            } else {
                builder.push(head, &format!("{{\"k\":\"{key}\"}}"));
            }
        }
        let append = Append {
            source: "teleport".into(),
            feed,
            read_at: 0,
            events: builder.take(),
            cursors: Vec::new(),
            gaps: Vec::new(),
            duplicates: 0,
        };
        let appended = self.core.append(append);
        assert!(matches!(appended, Appended::Done(_)), "there is room");
        self.tell_heads();
    }

    /// Gives the engine an input and carries out its actions.
    pub fn give(&mut self, input: Input) {
        let mut actions = Vec::new();
        let before = self.open_since();
        if let Some(engine) = &mut self.engine {
            engine.handle(self.now, input, &mut actions);
        }
        self.check_probes(&before, &actions);
        self.check_ready();
        for action in actions {
            self.carry_out(action);
        }
    }

    pub fn carry_out(&mut self, action: Action) {
        let soon = self.now + Duration::from_millis(self.random.below(30));
        match action {
            Action::Collect {
                stream,
                within,
                events,
                bytes,
            } => {
                let collect = (within, events, bytes);
                if self.scenario.scarce_memory && !self.memory.held.is_empty() {
                    self.memory.waiting.insert(stream, collect);
                } else {
                    self.collect(stream, collect);
                }
            }
            Action::CollectNow { stream, bytes } => {
                if let Some((within, events, _)) = self.memory.waiting.remove(&stream) {
                    self.collect(stream, (within, events, bytes));
                }
            }
            Action::RunStages { batch, mut run, .. } => {
                let result = loop {
                    if self.plugin_fails() {
                        break Err(self.random_fault());
                    }
                    match run.step(&self.stages) {
                        Step::More => {}
                        Step::Done => break Ok(run.into_output()),
                        Step::Failed(error) => break Err(error),
                    }
                };
                self.pend(soon, Work::Answer(Input::StagesRan { batch, result }));
            }
            Action::Encode { encoding, mut work } => {
                let result = loop {
                    if self.plugin_fails() {
                        break Err(component_fault());
                    }
                    match work.step(&self.sink) {
                        Step::More => {}
                        Step::Done => break Ok(work.into_output()),
                        Step::Failed(error) => break Err(error),
                    }
                };
                self.pend(soon, Work::Answer(Input::Encoded { encoding, result }));
            }
            Action::Send {
                request,
                endpoint,
                outgoing,
                documents,
                ..
            } => {
                let carried: Vec<Carried> = outgoing
                    .documents
                    .iter()
                    .map(|&document| {
                        let seq = documents.seq(documents.entry(document));
                        let event = documents.event(document);
                        let feeds = &self.scenario.feeds;
                        let stream = feeds.iter().position(|&feed| feed == event.feed);
                        (stream.expect("a stream"), event.key.to_owned(), seq)
                    })
                    .collect();
                self.check_sendable(&carried);
                self.order_send(&carried);
                let inspected = self.scenario.inspect == Inspect::Always;
                let receiver = &self.receivers[endpoint.get()];
                let reaction =
                    receiver.react(self.now, &mut self.random, &outgoing, &documents, inspected);
                self.order_take(&carried, &reaction);
                for &place in &reaction.took {
                    let (stream, key, _) = carried[place].clone();
                    self.ever_taken.insert((stream, key));
                }
                let keys = carried.iter();
                let keys = keys.map(|(stream, key, _)| (*stream, key.clone()));
                self.in_flight.extend(keys);
                self.out.insert(request, carried);
                let due = self.now + reaction.after;
                let input = match reaction.answer {
                    Ok(response) => Input::Answered { request, response },
                    Err(failure) => Input::NotSent { request, failure },
                };
                self.pend(due, Work::Reacted { input, request });
            }
            Action::Classify {
                request,
                context,
                sent,
                response,
            } => {
                let mut result = self.sink.classify(&context, &sent, &response).result;
                if self.plugin_fails() {
                    result = Err(trap());
                }
                let input = Input::Classified { request, result };
                self.pend(
                    soon,
                    Work::Classified {
                        input,
                        request,
                        response,
                    },
                );
            }
            Action::WakeAt(at) => self.alarm = at,
            Action::ShowCondition(_) | Action::Warn(_) => {}
            Action::Commit { batch, commit } => {
                self.pend(soon, Work::Commit { batch, commit });
            }
            Action::BatchShrunk { stream, first, .. } => self.free_memory(stream, first),
            Action::BatchHalved { stream, halves } => {
                let batches = halves.map(|(first, _)| (stream, first));
                self.memory.held.extend(batches);
            }
            Action::BatchEnded {
                stream,
                first,
                is_redrive,
            } => {
                if !is_redrive {
                    self.free_memory(stream, first);
                }
            }
            Action::Drained => self.drained = true,
        }
    }

    fn free_memory(&mut self, stream: StreamIndex, first: Seq) {
        self.memory.held.remove(&(stream, first));
        if self.memory.held.is_empty()
            && let Some((stream, collect)) = self.memory.waiting.pop_first()
        {
            self.collect(stream, collect);
        }
    }

    pub fn collect(&mut self, stream: StreamIndex, collect: Collect) {
        if self.random.chance(0.01) {
            self.replace_database();
        }
        let (within, events, bytes) = collect;
        let batch = self.batch(stream, within, events, bytes);
        for seq in batch.seqs() {
            self.given.insert((stream.get(), seq), self.generation);
        }
        self.order_give(stream.get(), batch.seqs());
        self.brake.passed += batch.len() as u64;
        if !batch.is_empty() {
            self.memory.held.insert((stream, batch.range().start));
        }
        let input = Input::Batch {
            stream,
            batch,
            generation: self.generation,
        };
        let soon = self.now + Duration::from_millis(self.random.below(30));
        self.pend(soon, Work::Answer(input));
    }

    pub fn pend(&mut self, due: Uptime, work: Work) {
        self.pending.push(Pending { due, work });
    }

    pub fn batch(
        &self,
        stream: StreamIndex,
        within: Vec<SeqRange>,
        events: usize,
        bytes: usize,
    ) -> Batch {
        let name = self.stream(stream.get());
        let mut batch = Batch::default();
        let mut size = 0;
        for seq in within.into_iter().flatten().take(events) {
            let Some(block) = self.core.block_at(&name, seq) else {
                break;
            };
            let row = (seq - block.first_seq) as usize;
            size += block.payload_len(row);
            if size > bytes && !batch.is_empty() {
                break;
            }
            batch.slices.push(Slice {
                rows: row..row + 1,
                block,
            });
        }
        batch
    }

    /// One step of the schedule: an answer arrives, or time passes. False if nothing is left to
    /// happen.
    pub fn step(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.pending.len())
            .filter(|&at| self.pending[at].due <= self.now)
            .collect();
        if !ready.is_empty() {
            let pending = self.pending.swap_remove(self.random.pick(&ready));
            self.finish(pending.work);
            return true;
        }
        let next = self
            .pending
            .iter()
            .map(|pending| pending.due)
            .chain(self.alarm)
            .min();
        let Some(next) = next else { return false };
        self.now = self.now.max(next);
        if self.alarm.is_some_and(|at| at <= self.now) {
            self.alarm = None;
            self.give(Input::Elapsed);
        }
        true
    }

    pub fn finish(&mut self, work: Work) {
        match work {
            Work::Answer(input) => self.give(input),
            Work::Reacted { input, request } => {
                match &input {
                    Input::Answered { response, .. } if !self.is_inspected(response) => {
                        self.judge(request, Ok(response));
                    }
                    Input::NotSent { failure, .. } => self.judge(request, Err(failure)),
                    _ => {}
                }
                self.give(input);
            }
            Work::Classified {
                input,
                request,
                response,
            } => {
                // If the sink cannot read an acceptance, it is asked again.
                let is_read = matches!(&input, Input::Classified { result: Ok(_), .. });
                if is_read || !(200..300).contains(&response.status) {
                    self.judge(request, Ok(&response));
                }
                self.give(input);
            }
            Work::Commit { batch, commit } => {
                let entries = commit.entries.clone();
                let dead_bytes = self.commit(*commit);
                self.progressed();
                self.give(Input::Committed {
                    batch,
                    entries,
                    dead_bytes,
                });
            }
        }
    }

    fn plugin_fails(&mut self) -> bool {
        let share = self.scenario.plugin_faults;
        share > 0.0 && self.random.chance(share)
    }

    /// A batch of a mapper that makes too much passes in halves.
    fn random_fault(&mut self) -> BatchError {
        if self.random.chance(0.5) {
            return component_fault();
        }
        BatchError::TooMuch {
            label: "stage 2 (mapper)".into(),
            made: "20000 documents".into(),
        }
    }

    pub fn endpoint_of(&self, stream: usize) -> usize {
        usize::from(
            self.scenario.behaviours.len() > 1 && self.scenario.feeds[stream] == FeedKind::Sessions,
        )
    }

    pub fn commit(&mut self, commit: Commit) -> u64 {
        let stream =
            (0..self.scenario.feeds.len()).find(|&index| *self.stream(index) == *commit.stream);
        let stream = stream.expect("a stream");
        for seq in commit.entries.iter() {
            let given = self.given.get(&(stream, seq));
            assert_eq!(given, Some(&commit.generation), "of the batch with {seq}");
        }
        let endpoint = self.endpoint_of(stream);
        for letter in &commit.dead {
            self.answers_seen.check(self.now, endpoint, stream, letter);
        }
        self.check_brake(stream, &commit);
        self.commit_durably(commit)
    }

    pub fn commit_durably(&mut self, commit: Commit) -> u64 {
        for seq in commit.entries.iter() {
            let block = self
                .core
                .block_at(&commit.stream, seq)
                .expect("nothing is removed");
            let row = (seq - block.first_seq) as usize;
            let is_mapped = plugins::is_mapped(block.view(row).event_type);
            self.mapped += u64::from(is_mapped && block.raw(row).is_none());
        }
        let name = commit.stream.clone();
        let stream = (0..self.scenario.feeds.len()).find(|&index| *self.stream(index) == *name);
        let entries: Vec<Seq> = commit.entries.iter().collect();
        let committed = self
            .core
            .commit(commit)
            .expect("an entry gets its outcome once");
        self.order_commit(stream.expect("a stream"), entries.into_iter());
        self.check_books();
        committed.dead_bytes
    }

    pub fn engine(&self) -> Option<&Pipeline> {
        self.engine.as_ref()
    }
}

fn component_fault() -> BatchError {
    BatchError::Component {
        label: "sink (model)".into(),
        error: trap(),
    }
}

fn trap() -> CallError {
    CallError::Trap {
        message: "unreachable".into(),
    }
}
