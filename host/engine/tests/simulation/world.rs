//! A pipeline, its ledger and its receivers, under one schedule.
//!
//! One file over 600 lines: every check needs the whole state of the world.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lockgate_engine::{
    Action, BatchLimits, BrakeLimits, EndpointIndex, EndpointSettings, Input, Pipeline, RequestId,
    SendFailure, Settings, Sink, SinkSettings, StageKind, StageSettings, Step, StreamIndex,
    StreamSettings, Uptime,
};
use lockgate_ledger::memory::{Appended, MemoryCore, Recorded};
use lockgate_ledger::{LetterQuery, Registration};
use lockgate_model::contract::Inspect;
use lockgate_model::request::Response;
use lockgate_model::{
    Append, Batch, BlockBuilder, Books, Commit, FeedKind, Generation, Head, Seq, SeqRange, Slice,
};

use crate::evidence::Evidence;
use crate::plugins::{self, Grouping, ModelSink, ModelStage};
use crate::random::Random;
use crate::receiver::{Mood, Receiver};

pub const PIPELINE: &str = "p";

/// What a schedule is about.
#[derive(Debug)]
pub struct Plan {
    pub feeds: Vec<FeedKind>,
    pub grouping: Grouping,
    pub inspect: Inspect,
    pub with_state: bool,
    pub batch_events: usize,
    pub in_flight: usize,
    pub moods: Vec<BTreeMap<Uptime, Mood>>,
    /// Per event.
    pub odd: f64,
    /// Memory for one batch: others wait for it.
    pub scarce_memory: bool,
    /// Per step.
    pub crashes: f64,
    pub redrives: f64,
    pub releases: f64,
}

/// Something that the engine asked for and that has not been answered.
struct Pending {
    due: Uptime,
    work: Work,
}

enum Work {
    Answer(Input),
    /// An answer of the receiver, with the documents it took.
    Reacted {
        input: Input,
        request: RequestId,
    },
    /// What the sink says of a response.
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

/// What a batch was asked for with: sequences, events, bytes.
type Collect = (Vec<SeqRange>, usize, usize);

/// Memory of the batches in flight, where it is scarce.
#[derive(Default)]
struct Memory {
    held: BTreeSet<(StreamIndex, Seq)>,
    /// Batches that were asked for and wait.
    waiting: BTreeMap<StreamIndex, Collect>,
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub now: Uptime,
    pub core: MemoryCore,
    engine: Option<Pipeline>,
    stages: Vec<ModelStage>,
    sink: ModelSink,
    receivers: Vec<Receiver>,
    pending: Vec<Pending>,
    alarm: Option<Uptime>,
    events: u64,
    /// Documents whose acceptance this engine has heard of; cleared by a crash and by a redrive.
    acknowledged: BTreeSet<(usize, String)>,
    /// Carried by each request that is out: (stream, key, sequence).
    out: HashMap<RequestId, Vec<(usize, String, Seq)>>,
    /// Sequences in the order in which the receiver first took them, by session.
    taken: HashMap<String, Vec<Seq>>,
    ever_taken: BTreeSet<(usize, String)>,
    redriven: BTreeSet<(usize, Seq)>,
    mapped: u64,
    memory: Memory,
    evidence: Evidence,
    /// The number of the configuration that batches are given.
    generation: u32,
    /// The configuration that each entry was last given with.
    given: HashMap<(usize, Seq), u32>,
    configurations: u32,
    drained: bool,
    pub crashes: u64,
    releases: u64,
    starts: u64,
}

impl World {
    pub fn new(plan: Plan, random: Random) -> World {
        let receivers = plan.moods.iter().cloned().map(Receiver::new).collect();
        let mut world = World {
            stages: vec![
                ModelStage::new(StageKind::Filter),
                ModelStage::new(StageKind::Mapper),
            ],
            sink: ModelSink::new(plan.grouping, plan.inspect),
            plan,
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
            taken: HashMap::new(),
            ever_taken: BTreeSet::new(),
            redriven: BTreeSet::new(),
            mapped: 0,
            memory: Memory::default(),
            evidence: Evidence::default(),
            generation: 0,
            given: HashMap::new(),
            configurations: 0,
            drained: false,
            crashes: 0,
            releases: 0,
            starts: 0,
        };
        world.start();
        world
    }

    fn stream(&self, index: usize) -> String {
        format!("teleport/{}", self.plan.feeds[index].name())
    }

    /// A process starts with what is durable.
    fn start(&mut self) {
        self.starts += 1;
        let streams: Vec<String> = (0..self.plan.feeds.len())
            .map(|index| self.stream(index))
            .collect();
        let registration = self.register(&streams);
        let two_endpoints = self.plan.moods.len() > 1;
        let stage = |index: usize, label: &str, quota: Option<usize>| StageSettings {
            label: label.into(),
            state_quota: quota,
            state: Arc::new(
                registration
                    .state
                    .get(&(index as u32))
                    .cloned()
                    .unwrap_or_default(),
            ),
        };
        let settings = Settings {
            pipeline: PIPELINE.into(),
            epoch: registration.epoch,
            streams: registration
                .streams
                .iter()
                .zip(&self.plan.feeds)
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
            endpoints: ["url", "session-url"][..self.plan.moods.len()]
                .iter()
                .map(|&name| EndpointSettings {
                    name: name.into(),
                    in_flight: 3,
                })
                .collect(),
            batch: BatchLimits {
                events: self.plan.batch_events,
                bytes: 4_000,
                age: Duration::from_secs(1),
            },
            batches_in_flight: self.plan.in_flight,
            sink: SinkSettings {
                label: self.sink.label().into(),
                types: Arc::default(),
                inspect: self.plan.inspect,
                max_documents: 1_000,
                max_bytes: 1 << 20,
            },
            stages: vec![
                stage(0, "stage 1 (filter)", None),
                stage(
                    1,
                    "stage 2 (mapper)",
                    self.plan.with_state.then_some(1 << 20),
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
        self.evidence = Evidence::new(self.plan.moods.len(), self.plan.feeds.len());
        self.drained = false;
        self.tell_heads();
    }

    fn register(&mut self, streams: &[String]) -> Registration {
        let generation = Generation {
            pipeline: PIPELINE.into(),
            description: format!("{{\"number\":{}}}", self.configurations),
        };
        let registration = self.core.register(generation, streams);
        let registration = registration.expect("it can register");
        self.generation = registration.generation;
        registration
    }

    /// A database was replaced: batches from now on belong to another configuration.
    fn replace_database(&mut self) {
        self.configurations += 1;
        let streams: Vec<String> = (0..self.plan.feeds.len())
            .map(|index| self.stream(index))
            .collect();
        self.register(&streams);
    }

    fn tell_heads(&mut self) {
        for index in 0..self.plan.feeds.len() {
            let next = self.core.next(&self.stream(index));
            let stream = StreamIndex::new(index);
            self.give(Input::Head {
                stream,
                next,
                ended: false,
            });
        }
    }

    /// New events are read. `odd`: the share of those that are not good.
    pub fn append(&mut self, count: u64, odd: f64) {
        let index = self.random.below(self.plan.feeds.len() as u64) as usize;
        let feed = self.plan.feeds[index];
        let mut builder = BlockBuilder::new();
        for _ in 0..count {
            self.events += 1;
            let event_type = if self.random.chance(odd) {
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
            let session = format!("s{}", self.random.below(4));
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
            duplicates: 0,
        };
        let appended = self.core.append(append);
        assert!(matches!(appended, Appended::Done(_)), "there is room");
        self.tell_heads();
    }

    /// Gives the engine an input and carries out its actions.
    fn give(&mut self, input: Input) {
        let mut actions = Vec::new();
        if let Some(engine) = &mut self.engine {
            engine.handle(self.now, input, &mut actions);
        }
        for action in actions {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        let soon = self.now + Duration::from_millis(self.random.below(30));
        match action {
            Action::Collect {
                stream,
                within,
                events,
                bytes,
            } => {
                let collect = (within, events, bytes);
                if self.plan.scarce_memory && !self.memory.held.is_empty() {
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
                    match run.step(&self.stages) {
                        Step::More => {}
                        Step::Done => break Ok(run.into_output()),
                        Step::Stopped(stop) => break Err(stop),
                    }
                };
                self.pend(soon, Work::Answer(Input::StagesRan { batch, result }));
            }
            Action::Encode { encoding, mut work } => {
                let result = loop {
                    match work.step(&self.sink) {
                        Step::More => {}
                        Step::Done => break Ok(work.into_output()),
                        Step::Stopped(stop) => break Err(stop),
                    }
                };
                self.pend(soon, Work::Answer(Input::Encoded { encoding, result }));
            }
            Action::Send {
                request,
                endpoint,
                outgoing,
                documents,
            } => {
                let carried: Vec<(usize, String, Seq)> = outgoing
                    .documents
                    .iter()
                    .map(|&document| {
                        let seq = documents.seq(documents.entry(document));
                        let event = documents.event(document);
                        let feeds = &self.plan.feeds;
                        let stream = feeds.iter().position(|&feed| feed == event.feed);
                        (stream.expect("a stream"), event.key.to_owned(), seq)
                    })
                    .collect();
                for (stream, key, _) in &carried {
                    let known = self.acknowledged.contains(&(*stream, key.clone()));
                    assert!(
                        !known,
                        "{key} is sent again although its acceptance was heard"
                    );
                }
                let inspected = self.plan.inspect == Inspect::Always;
                let receiver = &self.receivers[endpoint.get()];
                let reaction =
                    receiver.react(self.now, &mut self.random, &outgoing, &documents, inspected);
                for &place in &reaction.took {
                    let (stream, key, seq) = carried[place].clone();
                    let document = outgoing.documents[place];
                    let session = documents.event(document).session.unwrap_or("");
                    if self.ever_taken.insert((stream, key))
                        && self.plan.feeds[stream] == FeedKind::Sessions
                        && !self.redriven.contains(&(stream, seq))
                    {
                        self.taken.entry(session.to_owned()).or_default().push(seq);
                    }
                }
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
                info,
                sent,
                response,
            } => {
                self.hear(request, &response);
                let result = self.sink.classify(&info, &sent, &response).result;
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
            Action::Report(_) | Action::Warn(_) => {}
            Action::Commit { batch, commit } => {
                self.pend(soon, Work::Commit { batch, commit });
            }
            Action::BatchEnded {
                stream,
                first,
                is_redrive,
            } => {
                if !is_redrive {
                    self.memory.held.remove(&(stream, first));
                }
                if self.memory.held.is_empty()
                    && let Some((stream, collect)) = self.memory.waiting.pop_first()
                {
                    self.collect(stream, collect);
                }
            }
            Action::Drained => self.drained = true,
        }
    }

    fn collect(&mut self, stream: StreamIndex, collect: Collect) {
        if self.random.chance(0.01) {
            self.replace_database();
        }
        let (within, events, bytes) = collect;
        let batch = self.batch(stream, within, events, bytes);
        for seq in batch.seqs() {
            self.given.insert((stream.get(), seq), self.generation);
        }
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

    fn pend(&mut self, due: Uptime, work: Work) {
        self.pending.push(Pending { due, work });
    }

    /// The engine hears that documents were taken: it must not send them again.
    fn hear(&mut self, request: RequestId, response: &Response) {
        if !(200..300).contains(&response.status) {
            return;
        }
        let text = std::str::from_utf8(&response.body).unwrap_or("");
        let again: BTreeSet<usize> = text
            .strip_prefix("again ")
            .unwrap_or("")
            .split_whitespace()
            .filter_map(|place| place.parse().ok())
            .collect();
        for (place, (stream, key, _)) in self.out[&request].iter().enumerate() {
            if !again.contains(&place) {
                self.acknowledged.insert((*stream, key.clone()));
            }
        }
    }

    fn batch(
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

    /// One step of the schedule: an answer arrives, or time passes. False where nothing is left to
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

    fn finish(&mut self, work: Work) {
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
                if self.plan.inspect != Inspect::Always
                    && let Input::Answered { response, .. } = &input
                {
                    let response = response.clone();
                    self.hear(request, &response);
                }
                self.give(input);
            }
            Work::Classified {
                input,
                request,
                response,
            } => {
                self.judge(request, Ok(&response));
                self.give(input);
            }
            Work::Commit { batch, commit } => {
                let entries = commit.entries.clone();
                let dead_bytes = self.commit(*commit);
                self.give(Input::Committed {
                    batch,
                    entries,
                    dead_bytes,
                });
            }
        }
    }

    fn is_inspected(&self, response: &Response) -> bool {
        match self.plan.inspect {
            Inspect::Never => false,
            Inspect::Failures => !(200..300).contains(&response.status),
            Inspect::Always => true,
        }
    }

    /// The engine draws its conclusions from an answer.
    fn judge(&mut self, request: RequestId, answer: Result<&Response, &SendFailure>) {
        let carried = &self.out[&request];
        let endpoint = self.endpoint_of(carried[0].0);
        self.evidence.hear(self.now, endpoint, carried, answer);
    }

    fn endpoint_of(&self, stream: usize) -> usize {
        usize::from(self.plan.moods.len() > 1 && self.plan.feeds[stream] == FeedKind::Sessions)
    }

    fn commit(&mut self, commit: Commit) -> u64 {
        let stream =
            (0..self.plan.feeds.len()).find(|&index| *self.stream(index) == *commit.stream);
        let stream = stream.expect("a stream");
        for seq in commit.entries.iter() {
            let given = self.given.get(&(stream, seq));
            assert_eq!(given, Some(&commit.generation), "of the batch with {seq}");
        }
        let endpoint = self.endpoint_of(stream);
        for letter in &commit.dead {
            self.evidence.check(self.now, endpoint, stream, letter);
        }
        self.commit_durably(commit)
    }

    fn commit_durably(&mut self, commit: Commit) -> u64 {
        for seq in commit.entries.iter() {
            let block = self
                .core
                .block_at(&commit.stream, seq)
                .expect("nothing is removed");
            let row = (seq - block.first_seq) as usize;
            let is_mapped = plugins::is_mapped(block.view(row).event_type);
            self.mapped += u64::from(is_mapped && block.raw(row).is_none());
        }
        let committed = self
            .core
            .commit(commit)
            .expect("an entry gets its outcome once");
        self.check_books();
        committed.dead_bytes
    }

    /// The process is killed. A commit that is on its way may be durable or not.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.memory.waiting.clear();
        for pending in std::mem::take(&mut self.pending) {
            if let Work::Commit { commit, .. } = pending.work
                && self.random.chance(0.5)
            {
                self.commit(*commit);
            }
        }
        self.engine = None;
        self.forget();
        self.check_books();
        self.start();
    }

    /// The pipeline is stopped and started again with another configuration.
    pub fn reload(&mut self) {
        self.stop();
        self.configurations += 1;
        self.plan.batch_events = 1 + self.random.below(20) as usize;
        self.plan.in_flight = 1 + self.random.below(4) as usize;
        let groupings = [Grouping::All, Grouping::Three, Grouping::Session];
        self.plan.grouping = self.random.pick(&groupings);
        self.sink = ModelSink::new(self.plan.grouping, self.plan.inspect);
        self.start();
    }

    /// The host is stopped and started again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn stop(&mut self) {
        self.give(Input::Drain);
        for _ in 0..10_000 {
            if self.drained {
                break;
            }
            assert!(self.step(), "a drain ends");
        }
        assert!(self.drained, "a drain ends");
        self.check_acknowledged();
        self.pending.clear();
        self.engine = None;
        self.forget();
    }

    /// What the receiver is known to have does not wait for the next start, where it would be sent
    /// again. A batch that changes state commits as a whole.
    fn check_acknowledged(&self) {
        if self.plan.with_state {
            return;
        }
        for index in 0..self.plan.feeds.len() {
            let name = self.stream(index);
            for seq in 1..self.core.next(&name) {
                let outcomes = self.core.outcomes(PIPELINE, &name, seq);
                if !matches!(outcomes.last(), None | Some(Recorded::Retried)) {
                    continue;
                }
                let block = self.core.block_at(&name, seq).expect("nothing is removed");
                let event = block.view((seq - block.first_seq) as usize);
                let is_known = |key: String| self.acknowledged.contains(&(index, key));
                let is_delivered = if event.event_type == plugins::THREE {
                    (0..3).all(|ordinal| is_known(format!("{}#{ordinal}", event.key)))
                } else {
                    is_known(event.key.to_owned())
                };
                assert!(!is_delivered, "{} is delivered, and waits", event.key);
            }
        }
    }

    fn forget(&mut self) {
        self.alarm = None;
        self.acknowledged.clear();
        self.out.clear();
    }

    /// The operator sends some dead letters back.
    pub fn redrive(&mut self) {
        let query = LetterQuery {
            limit: 20,
            ..LetterQuery::default()
        };
        let letters = self.core.dead_letters(&query);
        if letters.is_empty() {
            return;
        }
        let letter = &letters[self.random.below(letters.len() as u64) as usize];
        let (stream, seq) = (letter.stream.clone(), letter.letter.seq);
        let index = (0..self.plan.feeds.len()).find(|&index| self.stream(index) == stream);
        let index = index.expect("a stream");
        // One redrive of a stream at a time.
        if self.core.redrive(PIPELINE, &stream, 1, 1).is_some() {
            return;
        }
        self.core
            .retry(PIPELINE, &stream, &[seq])
            .expect("it is a dead letter");
        self.redriven.insert((index, seq));
        // What an event was before says nothing of what it is sent for now.
        let key = &letter.letter.key;
        self.evidence.forget(index, key);
        self.acknowledged
            .retain(|(_, known)| known.split('#').next() != Some(key));
        self.check_books();
        self.take_redrive(index);
    }

    pub fn take_redrives(&mut self) {
        (0..self.plan.feeds.len()).for_each(|index| self.take_redrive(index));
    }

    fn take_redrive(&mut self, index: usize) {
        let name = self.stream(index);
        if let Some(redrive) = self.core.redrive(PIPELINE, &name, 100, 100_000) {
            let stream = StreamIndex::new(index);
            let (batch, generation) = (redrive.batch, self.generation);
            for seq in batch.seqs() {
                self.given.insert((index, seq), generation);
            }
            self.give(Input::Redrive {
                stream,
                batch,
                generation,
            });
        }
    }

    /// A condition names the command that releases what waits.
    pub fn asks_for_operator(&self) -> bool {
        let mut conditions = self.engine.iter().flat_map(Pipeline::conditions);
        conditions.any(|condition| condition.message.contains("lockgate dlq release"))
    }

    pub fn release(&mut self) {
        self.releases += 1;
        for index in 0..self.plan.feeds.len() {
            self.evidence.released[index] = self.core.next(&self.stream(index));
        }
        self.give(Input::Release);
    }

    /// read = delivered + dropped + dead + waiting, by recount.
    pub fn check_books(&self) {
        for (stream, books) in self.core.books(PIPELINE) {
            assert!(books.balance(), "{stream}: {books:?}");
        }
    }

    pub fn waiting(&self) -> u64 {
        self.books().map(|books| books.waiting).sum()
    }

    pub fn delivered(&self) -> u64 {
        self.books().map(|books| books.delivered).sum()
    }

    fn books(&self) -> impl Iterator<Item = Books> {
        let books = self.core.books(PIPELINE).into_iter();
        books.map(|(_, books)| books)
    }

    pub fn engine(&self) -> Option<&Pipeline> {
        self.engine.as_ref()
    }

    /// What must hold when everything is final.
    pub fn check_end(&self) {
        self.check_books();
        let mut dead_good = 0;
        for index in 0..self.plan.feeds.len() {
            let name = self.stream(index);
            for seq in 1..self.core.next(&name) {
                let block = self.core.block_at(&name, seq).expect("nothing is removed");
                let row = (seq - block.first_seq) as usize;
                let event = block.view(row);
                let recorded = self.core.outcomes(PIPELINE, &name, seq);
                let last = recorded.last().expect("it is final");
                let taken = |key: &str| self.ever_taken.contains(&(index, key.to_owned()));
                match last {
                    Recorded::Delivered if event.event_type == plugins::THREE => {
                        for ordinal in 0..3 {
                            let key = format!("{}#{ordinal}", event.key);
                            assert!(taken(&key), "{key} is delivered, and nobody has it");
                        }
                    }
                    Recorded::Delivered => {
                        assert!(
                            taken(event.key),
                            "{} is delivered, and nobody has it",
                            event.key
                        );
                    }
                    Recorded::Dropped(reason) => {
                        assert_eq!(event.event_type, plugins::DROPPED, "{reason}");
                    }
                    Recorded::Dead(reason) => {
                        let may_die = plugins::may_die(event.event_type);
                        let was_released = reason.contains("it was released");
                        if !may_die && !was_released && block.raw(row).is_none() {
                            dead_good += 1;
                            assert!(self.refuses_at_random(), "{}: {reason}", event.key);
                        }
                    }
                    Recorded::Retried => panic!("{} waits", event.key),
                    Recorded::Expired => panic!("{}: nothing here expires letters", event.key),
                }
            }
        }
        // The brake: 16 in a row or 1 % of 1,000, for each time the operator let it go.
        assert!(
            dead_good <= 16 * (1 + self.crashes + self.releases),
            "{dead_good} good events are dead"
        );
        if self.plan.with_state {
            let generation = Generation {
                pipeline: PIPELINE.into(),
                description: "{}".into(),
            };
            let streams: Vec<String> = (0..self.plan.feeds.len())
                .map(|index| self.stream(index))
                .collect();
            let mut core = self.core.clone();
            let registration = core
                .register(generation, &streams)
                .expect("it can register");
            let count = registration
                .state
                .get(&1)
                .and_then(|state| state.get("count"));
            let count: u64 = count.map_or(0, |count| count.parse().expect("a number"));
            assert_eq!(count, self.mapped, "state counts each event once");
        }
        if !self.may_reorder() {
            for (session, seqs) in &self.taken {
                assert!(
                    seqs.is_sorted(),
                    "session {session} is out of order: {seqs:?}"
                );
            }
        }
    }

    fn refuses_at_random(&self) -> bool {
        let at_random = |mood: &Mood| matches!(mood, Mood::RefusesAtRandom(_));
        self.receivers
            .iter()
            .any(|receiver| receiver.has_moods(at_random))
    }

    /// A receiver that takes parts of a request breaks the order by itself. And where a process
    /// ends after it gave an event up and before that was durable, the event is tried again, after
    /// those that followed it.
    fn may_reorder(&self) -> bool {
        let takes_parts = |mood: &Mood| *mood == Mood::TakesParts;
        let refuses = |mood: &Mood| matches!(mood, Mood::RefusesAtRandom(_) | Mood::Small(_));
        self.receivers.iter().any(|receiver| {
            receiver.has_moods(takes_parts) || (self.starts > 1 && receiver.has_moods(refuses))
        })
    }
}
