//! One pipeline as a state machine: batches in, requests and commits out.
//!
//! This file has the way in and what happens at each input; `streams` makes batches, `batches`
//! takes them through the stages to their commit, `delivery` sends and judges.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lockgate_backoff::Random;
use lockgate_model::{Seq, StateOverlay};

use crate::Uptime;
use crate::batches::{BatchInFlight, Failing, Holds, PendingEncoding, Phase};
use crate::brake::Brake;
use crate::circuit::{self, OpenReason};
use crate::condition::{Condition, ConditionKind, Conditions, Found};
use crate::delivery::{Endpoint, RequestState, Requests};
use crate::index::{BatchId, EncodingId, EndpointIndex, RequestId, StreamIndex};
use crate::io::{Action, Input};
use crate::limits::STALLED_AFTER;
use crate::settings::Settings;
use crate::streams::Stream;

/// One pipeline without I/O: the same inputs at the same times give the same actions.
///
/// The caller carries out every action in order and sends the answer to each that asks for one. To
/// stop early, drop the engine; a new one resumes from the last commit.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) settings: Settings,
    pub(crate) streams: Vec<Stream>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) batches: BTreeMap<BatchId, BatchInFlight>,
    pub(crate) requests: Requests,
    pub(crate) encodings: HashMap<EncodingId, PendingEncoding>,
    pub(crate) holds: Holds,
    pub(crate) failing: Failing,
    /// The times at which work is tried again.
    pub(crate) timers: BTreeSet<(Uptime, WorkId)>,
    pub(crate) brake: Brake,
    /// Entries below it may be dead-lettered whatever the brake says, for each stream.
    pub(crate) released: Vec<Seq>,
    pub(crate) dead_bytes: u64,
    /// State as the latest batch that passed the stages left it.
    pub(crate) states: Vec<StateOverlay>,
    pub(crate) conditions: Conditions,
    pub(crate) random: Random,
    /// It has been reported that the sink decided on a response on which it may not.
    pub(crate) override_reported: bool,
    draining: bool,
    drained: bool,
    next_id: u64,
    wake_at: Option<Uptime>,
    /// When an entry last became final, or last none waited.
    stall_timer_from: Uptime,
}

/// Work that can wait for a time or for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkId {
    Batch(BatchId),
    Encoding(EncodingId),
    Request(RequestId),
}

impl Pipeline {
    pub fn new(settings: Settings, now: Uptime) -> Pipeline {
        let states = settings
            .stages
            .iter()
            .map(|stage| match stage.state_quota {
                Some(quota) => StateOverlay::new(stage.state.clone(), quota),
                None => StateOverlay::not_granted(),
            })
            .collect();
        Pipeline {
            streams: settings.streams.iter().map(Stream::new).collect(),
            endpoints: settings.endpoints.iter().map(Endpoint::new).collect(),
            batches: BTreeMap::new(),
            requests: Requests::new(settings.endpoints.len()),
            encodings: HashMap::new(),
            holds: Holds::default(),
            failing: Failing::default(),
            timers: BTreeSet::new(),
            brake: Brake::parse(&settings.brake_text),
            released: vec![0; settings.streams.len()],
            dead_bytes: settings.dead_bytes,
            states,
            conditions: Conditions::default(),
            random: Random::seeded(settings.seed),
            override_reported: false,
            draining: false,
            drained: false,
            next_id: 0,
            wake_at: None,
            stall_timer_from: now,
            settings,
        }
    }

    /// Takes in what happened, and says what is to be done. Deterministic: no clock and no I/O.
    pub fn handle(&mut self, now: Uptime, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Head {
                stream,
                next,
                ended,
            } => self.head_moved(now, stream, next, ended),
            Input::Batch {
                stream,
                batch,
                generation,
            } => {
                self.batch_collected(stream, batch, generation);
            }
            Input::Redrive {
                stream,
                batch,
                generation,
            } => {
                self.begin_redrive(now, stream, batch, generation);
            }
            Input::StageAtWork { batch, label } => {
                if let Some(batch) = self.batches.get_mut(&batch)
                    && let Phase::InStages { at_work } = &mut batch.phase
                {
                    *at_work = Some(label);
                }
            }
            Input::StageFailed { batch, call } => {
                // It may come after the answer.
                if self
                    .batches
                    .get(&batch)
                    .is_some_and(BatchInFlight::is_in_stages)
                {
                    self.failing.add(now, WorkId::Batch(batch), call);
                }
            }
            Input::StagesRan { batch, result } => {
                self.failing.ended(WorkId::Batch(batch));
                self.stages_ran(now, batch, result, actions);
            }
            Input::EncodeFailed { encoding, call } => {
                if self.encodings.contains_key(&encoding) {
                    self.failing.add(now, WorkId::Encoding(encoding), call);
                }
            }
            Input::Encoded { encoding, result } => {
                self.failing.ended(WorkId::Encoding(encoding));
                self.encoded(now, encoding, result);
            }
            Input::Answered { request, response } => {
                self.answered(now, request, response, actions);
            }
            Input::NotSent { request, failure } => self.not_sent(now, request, failure, actions),
            Input::Classified { request, result } => {
                self.classified(now, request, result, actions);
            }
            Input::Committed {
                batch,
                entries,
                dead_bytes,
            } => self.committed(now, batch, entries, dead_bytes, actions),
            Input::DeadBytes(bytes) => self.dead_bytes = bytes,
            Input::Release => self.release(now),
            Input::Elapsed => {}
            Input::Drain => self.draining = true,
        }
        self.go_on(now, actions);
    }

    /// The conditions that keep it from delivering.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter()
    }

    /// No condition has lasted longer than its kind tolerates.
    pub fn is_ready(&self, now: Uptime) -> bool {
        self.conditions.are_ready(now)
    }

    /// Whether [`Input::Release`] would let anything go, and the documents known to wait for it, or
    /// events if they are not documents yet.
    pub fn waiting_for_release(&self, now: Uptime) -> Option<usize> {
        let by_brake = self.holds.by_brake().map(|work| match work {
            WorkId::Batch(id) => self.batches.get(&id).map_or(0, |batch| batch.events.len()),
            WorkId::Encoding(id) => self.encodings.get(&id).map_or(0, |one| one.documents.len()),
            WorkId::Request(id) => {
                let request = self.requests.get(id);
                request.map_or(0, |request| request.outgoing.documents.len())
            }
        });
        let for_evidence = self
            .requests
            .iter()
            .filter(|(_, request)| request.wait().is_some_and(|wait| wait.for_evidence))
            .map(|(_, request)| request.outgoing.documents.len());
        let documents = by_brake.sum::<usize>() + for_evidence.sum::<usize>();
        // Work that is being tried again at this moment does not wait.
        let is_braked = self
            .conditions()
            .any(|condition| condition.kind == ConditionKind::Brake);
        let mut endpoints = (0..self.endpoints.len()).map(EndpointIndex::new);
        let asks = endpoints.any(|index| self.probes_after_release(now, index));
        (documents > 0 || is_braked || asks).then_some(documents)
    }

    /// A release lets this endpoint be probed at once.
    fn probes_after_release(&self, now: Uptime, index: EndpointIndex) -> bool {
        self.endpoints[index.get()].open_reason() == Some(OpenReason::RefusesAll)
            || self.is_undecided(now, index)
    }

    /// Batches that are worked on.
    pub fn batches_in_flight(&self) -> usize {
        self.batches.len()
    }

    /// Whether a batch in flight, or a queued half of one, uses this generation.
    pub fn has_generation(&self, generation: u32) -> bool {
        let mut in_flight = self.batches.values();
        in_flight.any(|batch| batch.generation == generation)
            || self
                .streams
                .iter()
                .any(|stream| stream.has_generation(generation))
    }

    /// Everything that was read has become final, and no more will come.
    pub fn is_finished(&self) -> bool {
        self.batches.is_empty() && self.streams.iter().all(Stream::is_finished)
    }

    /// Whether entries wait, also those that were sent back: a redrive in flight has the first of
    /// them.
    pub(crate) fn has_waiting(&self) -> bool {
        self.streams.iter().any(Stream::has_waiting)
            || self.batches.values().any(|batch| batch.is_redrive)
    }

    /// Whatever can be done without a further input.
    fn go_on(&mut self, now: Uptime, actions: &mut Vec<Action>) {
        self.run_timers(now, actions);
        for endpoint in (0..self.endpoints.len()).map(EndpointIndex::new) {
            self.dispatch(now, endpoint, actions);
            self.close_idle_circuit(endpoint);
        }
        self.commit_or_shrink(actions);
        if !self.draining {
            for stream in (0..self.streams.len()).map(StreamIndex::new) {
                self.collect(now, stream, actions);
            }
            self.run_queued(actions);
            for stream in (0..self.streams.len()).map(StreamIndex::new) {
                self.collect_urgently(stream, actions);
            }
        }
        self.report(now, actions);
        self.set_wake(now, actions);
        if self.draining && !self.drained && self.is_quiet() {
            self.drained = true;
            actions.push(Action::Drained);
        }
    }

    fn run_timers(&mut self, now: Uptime, actions: &mut Vec<Action>) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                // A held batch stays held: the next start begins with it.
                WorkId::Batch(_) | WorkId::Encoding(_) if self.draining => {}
                WorkId::Batch(batch) => self.run_again(batch, actions),
                WorkId::Encoding(encoding) => self.begin_encoding(encoding, actions),
                WorkId::Request(request) => self.stop_waiting(request, actions),
            }
        }
    }

    /// Keeps the conditions as they are, and reports what changed.
    fn report(&mut self, now: Uptime, actions: &mut Vec<Action>) {
        self.report_endpoints(now);
        self.report_holds(now);
        let waiting = self.has_waiting();
        if !waiting {
            self.stall_timer_from = now;
        }
        if waiting && now >= self.stall_timer_from + STALLED_AFTER {
            let is_other = |condition: &Condition| condition.kind != ConditionKind::Stalled;
            let why = if self.conditions.iter().any(is_other) {
                "the other conditions say why".to_owned()
            } else {
                self.under_way()
            };
            let seconds = STALLED_AFTER.as_secs();
            let message = &format!("events wait, and none has become final for {seconds} s; {why}");
            self.conditions.set(
                now,
                Found {
                    kind: ConditionKind::Stalled,
                    subject: "pipeline",
                    message,
                    since: self.stall_timer_from,
                    next_attempt: None,
                    asked_by: None,
                },
            );
        } else {
            self.conditions
                .clear(now, ConditionKind::Stalled, "pipeline");
        }
        actions.extend(
            self.conditions
                .take_changes()
                .into_iter()
                .map(Action::ShowCondition),
        );
    }

    /// The work that has begun and not ended, in words.
    fn under_way(&self) -> String {
        let request_is = |is: fn(&RequestState) -> bool| {
            let mut requests = self.requests.iter();
            requests.any(|(_, request)| is(&request.state))
        };
        let at_work = self.components_at_work();
        let components = match at_work.as_slice() {
            [] => None,
            [one] => Some(format!("{one} is at work or waits for a thread")),
            [others @ .., last] => Some(format!(
                "{} and {last} are at work or wait for a thread",
                others.join(", ")
            )),
        };
        let others = [
            (
                request_is(|state| matches!(state, RequestState::Sending)),
                "a request is being sent or waits for its answer",
            ),
            (
                self.batches.values().any(|batch| batch.commits > 0),
                "the store has not committed",
            ),
            (
                self.streams.iter().any(Stream::is_collecting),
                "a batch is being read or waits for memory",
            ),
        ];
        let others = others
            .into_iter()
            .filter(|(is_under_way, _)| *is_under_way)
            .map(|(_, part)| part.to_owned());
        let parts: Vec<String> = components.into_iter().chain(others).collect();
        if parts.is_empty() {
            "nothing is under way".to_owned()
        } else {
            parts.join(", ")
        }
    }

    /// The labels of the stages and of the sink, as far as they have calls that have not ended.
    fn components_at_work(&self) -> Vec<String> {
        let sink_is_at_work = self
            .batches
            .values()
            .any(|batch| batch.running_encodings > 0)
            || self
                .requests
                .iter()
                .any(|(_, request)| matches!(request.state, RequestState::Classifying(_)));
        let stages: BTreeSet<String> = self
            .batches
            .values()
            .filter_map(|batch| match &batch.phase {
                Phase::InStages { at_work } => Some(at_work.clone()),
                _ => None,
            })
            .map(|label| label.unwrap_or_else(|| "a stage".to_owned()))
            .collect();
        let sink = sink_is_at_work.then(|| self.settings.sink.label.to_string());
        stages.into_iter().chain(sink).collect()
    }

    fn set_wake(&mut self, now: Uptime, actions: &mut Vec<Action>) {
        let timer = self.timers.first().map(|&(at, _)| at);
        let endpoints = self
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.wakes_at(now));
        let streams = self.streams.iter().filter_map(|stream| stream.close_at);
        let stalled = self
            .has_waiting()
            .then_some(self.stall_timer_from + STALLED_AFTER)
            .filter(|&at| at > now);
        let next = timer
            .into_iter()
            .chain(endpoints)
            .chain(streams)
            .chain(stalled)
            .chain(self.failing.next_shown(now))
            .min();
        if next != self.wake_at {
            self.wake_at = next;
            actions.push(Action::WakeAt(next));
        }
    }

    /// Nothing that could finish is under way: what is left waits for a time or for its turn. A
    /// batch that is being collected would not be begun any more.
    fn is_quiet(&self) -> bool {
        let works = |batch: &BatchInFlight| {
            batch.is_in_stages() || batch.running_encodings > 0 || batch.commits > 0
        };
        !self.batches.values().any(works)
            && self.endpoints.iter().all(|endpoint| endpoint.is_quiet())
    }

    fn release(&mut self, now: Uptime) {
        self.brake.release();
        for (released, stream) in self.released.iter_mut().zip(&self.streams) {
            *released = stream.head;
        }
        // Work that was held for it is tried at once.
        for index in (0..self.endpoints.len()).map(EndpointIndex::new) {
            if self.probes_after_release(now, index) {
                self.endpoints[index.get()].circuit.probe_now(now);
            }
        }
        let by_brake = self.holds.by_brake();
        let waiting = self.requests.iter().filter_map(|(id, request)| {
            let waits = request.waits_for_release();
            waits.then_some(WorkId::Request(id))
        });
        let released: BTreeSet<WorkId> = by_brake.chain(waiting).collect();
        self.timers.retain(|(_, work)| !released.contains(work));
        self.timers
            .extend(released.into_iter().map(|work| (now, work)));
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn restart_stall_timer(&mut self, now: Uptime) {
        self.stall_timer_from = now;
    }

    /// When something that failed this often is tried again.
    pub(crate) fn retry_at(&mut self, now: Uptime, failures: u32, after: Uptime) -> Uptime {
        now + after.max(circuit::backoff(&mut self.random, failures))
    }
}
