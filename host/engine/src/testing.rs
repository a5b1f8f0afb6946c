//! Batches, and a pipeline whose receiver is the test, for the crate's own tests.

mod events;
mod plugins;
mod receiver;
mod settings;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lockgate_model::contract::Shortage;
use lockgate_model::{Batch, Block, Commit, Outcome, Seq, SeqRange, Slice};

use self::events::block;
pub(crate) use self::events::{documents, raw_documents};
use self::plugins::{TestSink, Traps};
pub(crate) use self::settings::TestSettings;
use crate::documents::Documents;
use crate::index::{BatchId, RequestId, StreamIndex};
use crate::{
    Action, BatchError, ConditionChange, ConditionKind, FailedCall, Input, OutgoingRequest,
    Pipeline, Sink, StageOutput, Step, Uptime,
};

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
    stays_in_sink: bool,
    stages: Vec<Traps>,
    /// Batches that stay in the stages, with what the stages made of them.
    in_stages: Vec<(BatchId, StageOutput)>,
    wake_at: Option<Uptime>,
    /// No memory is left: what is asked for is not collected unless it is urgent.
    pub(crate) memory_is_used_up: bool,
    /// The ranges, events and bytes that were asked for.
    collecting: Option<(Vec<SeqRange>, usize, usize)>,
}

impl TestPipeline {
    pub(crate) fn new(settings: TestSettings) -> TestPipeline {
        let now = Uptime::from_secs(1000);
        TestPipeline {
            engine: Pipeline::new(settings.engine(), now),
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
            stays_in_sink: settings.stays_in_sink,
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
            Action::Encode { .. } if self.stays_in_sink => {}
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
                context,
                sent,
                response,
            } => {
                let result = self.sink.classify(&context, &sent, &response).result;
                return Some(Input::Classified { request, result });
            }
            Action::WakeAt(at) => self.wake_at = at,
            Action::ShowCondition(change) => self.changes.push(change),
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

    /// The stage with this label works on the oldest batch in the stages for long.
    pub(crate) fn stays_at(&mut self, label: &str) {
        let (batch, _) = self.in_stages[0];
        let label = label.to_owned();
        self.give(Input::StageAtWork { batch, label });
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
