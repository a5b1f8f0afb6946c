//! A batch from its first stage to its commit.
//!
//! One file over 600 lines: the phases of a batch hand over to each other, and each of them can be
//! held by the brake.

use std::sync::Arc;

use lockgate_model::contract::{BatchInfo, CallError};
use lockgate_model::{
    Batch, BatchRecord, Commit, Entries, Fate, RequestRecord, Seq, Slice, StateOverlay, StateWrite,
};

use crate::Uptime;
use crate::brake::Engaged;
use crate::condition::ConditionKind;
use crate::delivery::Lineage;
use crate::documents::Documents;
use crate::encoding::{Encoding, Made};
use crate::fates::Fates;
use crate::index::{DocumentIndex, EncodingId, EntryIndex, FlightId, StreamIndex};
use crate::io::Action;
use crate::passage::{Passage, Passed, Stop};
use crate::pipeline::{Pipeline, Timer};

/// Requests of a batch that its commit records one by one.
const RECORDS_MAX: usize = 64;

/// A batch in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) stream: StreamIndex,
    pub(crate) batch: Batch,
    /// Its entries are dead letters that wait again.
    pub(crate) is_redrive: bool,
    generation: u32,
    info: BatchInfo,
    pub(crate) phase: Phase,
    /// Why it does not pass the stages.
    pub(crate) hold: Option<Hold>,
    /// Times it was held in a row.
    held: u32,
    pub(crate) encodings: usize,
    pub(crate) requests: usize,
    records: Vec<RequestRecord>,
    state: Vec<StateWrite>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// It passes the stages when the batches before it have.
    Queued,
    /// The stages work on it.
    Passing,
    /// It passes them again when its timer runs out.
    Held,
    Delivering {
        documents: Arc<Documents>,
        fates: Fates,
    },
    Committing,
}

/// Something waits for a reason that a condition shows.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) kind: ConditionKind,
    /// A component's label, or a cause of dead letters.
    pub(crate) subject: String,
    pub(crate) message: String,
    pub(crate) since: Uptime,
    pub(crate) until: Uptime,
}

impl Hold {
    pub(crate) fn is_brake(&self) -> bool {
        self.kind == ConditionKind::Brake
    }
}

/// Documents that are being encoded, or will be.
#[derive(Debug)]
pub(crate) struct PendingEncoding {
    pub(crate) flight: FlightId,
    documents: Vec<DocumentIndex>,
    lineage: Lineage,
    /// Times the call was held in a row.
    held: u32,
    pub(crate) waits: Option<Hold>,
}

impl PendingEncoding {
    pub(crate) fn is_running(&self) -> bool {
        self.waits.is_none()
    }

    pub(crate) fn is_braked(&self) -> bool {
        self.waits.as_ref().is_some_and(Hold::is_brake)
    }
}

impl Flight {
    pub(crate) fn new(
        stream: StreamIndex,
        batch: Batch,
        is_redrive: bool,
        generation: u32,
        info: BatchInfo,
    ) -> Flight {
        Flight {
            stream,
            batch,
            is_redrive,
            generation,
            info,
            phase: Phase::Queued,
            hold: None,
            held: 0,
            encodings: 0,
            requests: 0,
            records: Vec::new(),
            state: Vec::new(),
        }
    }

    pub(crate) fn info(&self) -> &BatchInfo {
        &self.info
    }

    pub(crate) fn documents(&self) -> Option<&Arc<Documents>> {
        match &self.phase {
            Phase::Delivering { documents, .. } => Some(documents),
            _ => None,
        }
    }

    pub(crate) fn is_held_by_brake(&self) -> bool {
        matches!(self.phase, Phase::Held) && self.hold.as_ref().is_some_and(Hold::is_brake)
    }

    /// The sequence of a document's entry.
    pub(crate) fn seq(&self, document: DocumentIndex) -> Option<Seq> {
        let documents = self.documents()?;
        Some(documents.seq(documents.entry(document)))
    }

    pub(crate) fn record(&mut self, record: RequestRecord) {
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
            return;
        }
        // The last one stands for all that follow.
        if let Some(last) = self.records.last_mut() {
            last.documents += record.documents;
            last.bytes += record.bytes;
            last.attempts += record.attempts;
            last.excerpt = "and further requests".to_owned();
        }
    }
}

impl Pipeline {
    pub(crate) fn add_flight(&mut self, flight: Flight) {
        let id = FlightId(self.new_id());
        self.flights.insert(id, flight);
    }

    /// Sends queued batches through the stages: all of them, or one at a time where state of one
    /// builds on that of the one before.
    pub(crate) fn pass_queued(&mut self, actions: &mut Vec<Action>) {
        let one_by_one = self.settings.uses_state();
        loop {
            let mut flights = self.flights.iter();
            let passes = |flight: &Flight| matches!(flight.phase, Phase::Passing | Phase::Held);
            if one_by_one && self.flights.values().any(passes) {
                return;
            }
            let queued = flights.find(|(_, flight)| matches!(flight.phase, Phase::Queued));
            match queued.map(|(&id, _)| id) {
                Some(id) => self.pass(id, actions),
                None => return,
            }
        }
    }

    /// A held batch has its turn again.
    pub(crate) fn pass_again(&mut self, id: FlightId, actions: &mut Vec<Action>) {
        if self
            .flights
            .get(&id)
            .is_some_and(|flight| matches!(flight.phase, Phase::Held))
        {
            self.pass(id, actions);
        }
    }

    /// Sends a batch through the stages, from the first.
    pub(crate) fn pass(&mut self, id: FlightId, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.phase = Phase::Passing;
        let documents = Documents::new(flight.info.clone(), flight.batch.clone());
        // Writes of the batch before are its own: they commit with it.
        let states = self.states.iter().map(StateOverlay::continued).collect();
        let sink = (
            self.settings.sink.label.clone(),
            self.settings.sink.types.clone(),
        );
        let passage = Passage::new(documents, states, self.settings.cpu_budget, Some(sink));
        let generation = flight.generation;
        actions.push(Action::Pass {
            flight: id,
            generation,
            passage: Box::new(passage),
        });
    }

    pub(crate) fn passed(
        &mut self,
        now: Uptime,
        id: FlightId,
        result: Result<Passed, Stop>,
        actions: &mut Vec<Action>,
    ) {
        let stop = match result {
            Ok(passed) => match self.count_deaths(now, id, &passed) {
                Ok(()) => return self.begin_delivery(id, passed, actions),
                Err(hold) => return self.hold_flight(now, id, hold),
            },
            Err(stop) => stop,
        };
        if let Stop::TooManyDocuments { .. } = stop
            && self.halve(id, actions)
        {
            return;
        }
        let held = self.flights.get(&id).map_or(0, |flight| flight.held);
        let hold = self.hold_for(now, stop, held);
        self.hold_flight(now, id, hold);
    }

    /// The stages' dead letters, as the brake sees them. Nothing is counted where it engages.
    fn count_deaths(&mut self, now: Uptime, id: FlightId, passed: &Passed) -> Result<(), Hold> {
        let Some(flight) = self.flights.get(&id) else {
            return Ok(());
        };
        let Passed {
            documents, fates, ..
        } = passed;
        let mut brake = self.brake.clone();
        let mut dead_bytes = self.dead_bytes;
        let released = self.released[flight.stream.get()];
        let mut passed_in_a_row = 0;
        let labels: Vec<Arc<str>> = self
            .settings
            .stages
            .iter()
            .map(|stage| stage.label.clone())
            .collect();
        let count_passed = |brake: &mut crate::brake::Brake, entries: &mut u32| {
            labels
                .iter()
                .for_each(|label| brake.passed(label, *entries));
            *entries = 0;
        };
        for entry in (0..documents.entries()).map(EntryIndex::new) {
            let Some((cause, _)) = fates.death(entry) else {
                passed_in_a_row += 1;
                continue;
            };
            count_passed(&mut brake, &mut passed_in_a_row);
            dead_bytes += payload_len(documents, entry);
            if documents.seq(entry) >= released
                && let Err(engaged) = brake.check(cause, dead_bytes, &self.settings.brake)
            {
                let (cause, held) = (cause.to_owned(), flight.held);
                return Err(self.braked(now, cause, engaged, held));
            }
            brake.died(cause);
        }
        count_passed(&mut brake, &mut passed_in_a_row);
        self.brake = brake;
        self.dead_bytes = dead_bytes;
        Ok(())
    }

    fn begin_delivery(&mut self, id: FlightId, passed: Passed, actions: &mut Vec<Action>) {
        let Passed {
            documents,
            fates,
            states,
        } = passed;
        let open = fates.open(&documents);
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.state = state_writes(&states);
        flight.hold = None;
        flight.held = 0;
        flight.phase = Phase::Delivering {
            documents: Arc::new(documents),
            fates,
        };
        self.states = states;
        if !open.is_empty() {
            self.encode(id, open, Lineage::default(), actions);
        }
    }

    /// Asks the sink for requests that carry these documents.
    pub(crate) fn encode(
        &mut self,
        id: FlightId,
        documents: Vec<DocumentIndex>,
        lineage: Lineage,
        actions: &mut Vec<Action>,
    ) {
        let encoding = EncodingId(self.new_id());
        self.order_begin(id, Timer::Encoding(encoding), &documents);
        let pending = PendingEncoding {
            flight: id,
            documents,
            lineage,
            held: 0,
            waits: None,
        };
        self.encodings.insert(encoding, pending);
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.encodings += 1;
        }
        self.encode_again(encoding, actions);
    }

    /// Documents are encoded again at some time.
    pub(crate) fn encode_later(
        &mut self,
        id: FlightId,
        documents: Vec<DocumentIndex>,
        lineage: Lineage,
        hold: Hold,
    ) {
        let encoding = EncodingId(self.new_id());
        self.order_begin(id, Timer::Encoding(encoding), &documents);
        self.timers.insert((hold.until, Timer::Encoding(encoding)));
        let held = 0;
        let pending = PendingEncoding {
            flight: id,
            documents,
            lineage,
            held,
            waits: Some(hold),
        };
        self.encodings.insert(encoding, pending);
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.encodings += 1;
        }
    }

    pub(crate) fn encode_again(&mut self, id: EncodingId, actions: &mut Vec<Action>) {
        let Some(pending) = self.encodings.get_mut(&id) else {
            return;
        };
        pending.waits = None;
        let Some(flight) = self.flights.get(&pending.flight) else {
            return;
        };
        let Some(documents) = flight.documents().cloned() else {
            return;
        };
        let endpoint = self.settings.streams[flight.stream.get()].endpoint;
        let too_large = self.endpoints[endpoint.get()].size_limit;
        let sink = &self.settings.sink;
        let work = Encoding::new(
            documents,
            &pending.documents,
            sink.max_documents,
            sink.max_bytes
                .min(too_large.map_or(usize::MAX, |bytes| bytes / 4 * 3))
                .max(1),
            self.settings.cpu_budget,
        );
        actions.push(Action::Encode {
            encoding: id,
            work: Box::new(work),
        });
    }

    pub(crate) fn encoded(&mut self, now: Uptime, id: EncodingId, result: Result<Made, Stop>) {
        let Some(held) = self.encodings.get(&id).map(|pending| pending.held) else {
            return;
        };
        let made = match result {
            Ok(made) => made,
            Err(stop) => {
                let hold = self.hold_for(now, stop, held);
                self.timers.insert((hold.until, Timer::Encoding(id)));
                if let Some(pending) = self.encodings.get_mut(&id) {
                    pending.held += 1;
                    pending.waits = Some(hold);
                }
                return;
            }
        };
        let Some(pending) = self.encodings.remove(&id) else {
            return;
        };
        let flight = pending.flight;
        for outgoing in made.requests {
            self.add_request(flight, outgoing, pending.lineage.clone());
        }
        self.reject(now, flight, made.rejected);
        self.order_end(flight, Timer::Encoding(id), &pending.documents);
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.encodings -= 1;
        }
    }

    /// The sink rejected documents, when it encoded them or by a response. They are encoded again
    /// later where the brake holds.
    pub(crate) fn reject(
        &mut self,
        now: Uptime,
        flight: FlightId,
        rejected: Vec<(DocumentIndex, String)>,
    ) {
        let mut braked: Option<(Vec<DocumentIndex>, Engaged)> = None;
        let cause = self.settings.sink.label.to_string();
        for (document, reason) in rejected {
            if let Err(engaged) = self.dead_letter(now, flight, document, &cause, &reason) {
                braked.get_or_insert((Vec::new(), engaged)).0.push(document);
            }
        }
        if let Some((documents, engaged)) = braked {
            let hold = self.braked(now, cause, engaged, 6);
            self.encode_later(flight, documents, Lineage::default(), hold);
        }
    }

    /// Makes a document a dead letter, unless the brake holds.
    pub(crate) fn dead_letter(
        &mut self,
        now: Uptime,
        id: FlightId,
        document: DocumentIndex,
        cause: &str,
        reason: &str,
    ) -> Result<(), Engaged> {
        let Some(flight) = self.flights.get_mut(&id) else {
            return Ok(());
        };
        let Phase::Delivering { documents, fates } = &mut flight.phase else {
            return Ok(());
        };
        let entry = documents.entry(document);
        // Several documents of one event are one dead letter.
        if fates.death(entry).is_none() {
            let bytes = self.dead_bytes + payload_len(documents, entry);
            if documents.seq(entry) >= self.released[flight.stream.get()] {
                self.brake.check(cause, bytes, &self.settings.brake)?;
            }
            self.brake.died(cause);
            self.dead_bytes = bytes;
        }
        fates.settle(documents, document, cause, Fate::Dead(reason.to_owned()));
        self.something_became_final(now);
        Ok(())
    }

    pub(crate) fn delivered(&mut self, now: Uptime, id: FlightId, delivered: &[DocumentIndex]) {
        let label = self.settings.sink.label.clone();
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        if let Phase::Delivering { documents, fates } = &mut flight.phase {
            for &document in delivered {
                fates.settle(documents, document, &label, Fate::Delivered);
            }
        }
        self.brake.passed(&label, delivered.len() as u32);
        if !delivered.is_empty() {
            self.something_became_final(now);
        }
    }

    pub(crate) fn commit_finished(&mut self, actions: &mut Vec<Action>) {
        // State of a batch builds on that of the batch before.
        let in_order = self.settings.uses_state();
        for (&id, flight) in &mut self.flights {
            let Phase::Delivering { fates, .. } = &flight.phase else {
                if in_order {
                    break;
                }
                continue;
            };
            if flight.encodings > 0 || flight.requests > 0 || !fates.all_final() {
                if in_order {
                    break;
                }
                continue;
            }
            let phase = std::mem::replace(&mut flight.phase, Phase::Committing);
            let Phase::Delivering { documents, fates } = phase else {
                continue;
            };
            let finished = fates.finish(&documents);
            let entries = if flight.is_redrive {
                Entries::Redriven(flight.batch.seqs().collect())
            } else {
                Entries::Range(flight.batch.range())
            };
            let commit = Commit {
                pipeline: self.settings.pipeline.clone(),
                stream: self.settings.streams[flight.stream.get()].name.clone(),
                epoch: self.settings.epoch,
                generation: flight.generation,
                entries,
                outcomes: finished.outcomes,
                reasons: finished.reasons,
                days: finished.days,
                batch: BatchRecord {
                    id: flight.info.id.to_string(),
                    at: 0,
                    requests: std::mem::take(&mut flight.records),
                },
                dead: finished.dead,
                state: std::mem::take(&mut flight.state),
                brake: self.brake.text(),
            };
            actions.push(Action::Commit {
                flight: id,
                commit: Box::new(commit),
            });
            if in_order {
                break;
            }
        }
    }

    pub(crate) fn committed(&mut self, now: Uptime, id: FlightId, dead_bytes: u64) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        if !flight.is_redrive {
            self.streams[flight.stream.get()]
                .progress
                .finish(flight.batch.range());
        }
        self.dead_bytes = dead_bytes;
        self.something_became_final(now);
    }

    fn hold_flight(&mut self, now: Uptime, id: FlightId, hold: Hold) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.phase = Phase::Held;
        flight.held += 1;
        let since = flight.hold.as_ref().map_or(now, |before| before.since);
        self.timers.insert((hold.until, Timer::Flight(id)));
        flight.hold = Some(Hold { since, ..hold });
    }

    /// What a stop of a component means: when it is called again, and what is shown until then.
    fn hold_for(&mut self, now: Uptime, stop: Stop, held: u32) -> Hold {
        let (label, message, after) = match stop {
            Stop::Component { label, error } => {
                let after = match &error {
                    CallError::Retry { after, .. } => after.unwrap_or_default(),
                    _ => Uptime::ZERO,
                };
                (
                    label,
                    error.to_string(),
                    after.min(crate::answer::RETRY_AFTER_MAX),
                )
            }
            Stop::CpuBudget { label, budget } => {
                let budget = budget.as_millis();
                (
                    label,
                    format!("it used more than {budget} ms of CPU time for a batch"),
                    Uptime::ZERO,
                )
            }
            Stop::TooManyDocuments { label, documents } => (
                label,
                format!("it made {documents} documents of a batch"),
                Uptime::ZERO,
            ),
        };
        let until = self.retry_at(now, held, after);
        let kind = ConditionKind::Plugin;
        Hold {
            kind,
            subject: label,
            message,
            since: now,
            until,
        }
    }

    pub(crate) fn braked(
        &mut self,
        now: Uptime,
        cause: String,
        engaged: Engaged,
        held: u32,
    ) -> Hold {
        let message = format!(
            "{engaged}: nothing more is dead-lettered; `lockgate dlq release {}` lets it go on",
            self.settings.pipeline
        );
        let until = self.retry_at(now, held, Uptime::ZERO);
        Hold {
            kind: ConditionKind::Brake,
            subject: cause,
            message,
            since: now,
            until,
        }
    }

    /// Replaces a batch by its halves, one after the other. Not a redrive: its events belong
    /// together in the ledger.
    fn halve(&mut self, id: FlightId, actions: &mut Vec<Action>) -> bool {
        let Some(flight) = self
            .flights
            .get_mut(&id)
            .filter(|flight| !flight.is_redrive)
        else {
            return false;
        };
        let (first, second) = split(&flight.batch);
        let (stream, generation) = (flight.stream, flight.generation);
        flight.batch = first;
        self.put_back(stream, second, generation);
        self.pass(id, actions);
        true
    }

    /// Conditions for whatever waits for a component or the brake.
    pub(crate) fn report_holds(&mut self, now: Uptime) {
        let mut holds: Vec<Hold> = self
            .flights
            .values()
            .filter_map(|flight| flight.hold.clone())
            .chain(
                self.encodings
                    .values()
                    .filter_map(|encoding| encoding.waits.clone()),
            )
            .chain(
                self.requests
                    .values()
                    .filter_map(|request| request.lineage.braked.clone()),
            )
            .collect();
        holds.sort_by_key(|hold| (hold.kind, hold.until));
        for hold in &holds {
            let first = holds
                .iter()
                .find(|other| other.kind == hold.kind && other.subject == hold.subject);
            if first.is_some_and(|first| std::ptr::eq(first, hold)) {
                let (since, until) = (Some(hold.since), Some(hold.until));
                let Hold {
                    kind,
                    subject,
                    message,
                    ..
                } = hold;
                self.conditions
                    .set(now, *kind, subject, message, since, until);
            }
        }
        for kind in [ConditionKind::Plugin, ConditionKind::Brake] {
            self.conditions.keep(kind, |subject| {
                holds
                    .iter()
                    .any(|hold| hold.kind == kind && hold.subject == subject)
            });
        }
    }
}

fn payload_len(documents: &Documents, entry: EntryIndex) -> u64 {
    let payload = documents.original(entry).payload.len();
    documents.raw(entry).map_or(payload, <[u8]>::len) as u64
}

fn state_writes(states: &[StateOverlay]) -> Vec<StateWrite> {
    let of_stage = |(stage, state): (usize, &StateOverlay)| {
        let writes = state.writes().iter();
        writes
            .map(|(key, value)| StateWrite {
                stage: stage as u32,
                key: key.clone(),
                value: value.clone(),
            })
            .collect::<Vec<_>>()
    };
    states.iter().enumerate().flat_map(of_stage).collect()
}

fn split(batch: &Batch) -> (Batch, Batch) {
    let mut left = batch.len() / 2;
    let (mut first, mut second) = (Batch::default(), Batch::default());
    for Slice { block, rows } in &batch.slices {
        let middle = rows.start + left.min(rows.len());
        left -= middle - rows.start;
        for (half, rows) in [
            (&mut first, rows.start..middle),
            (&mut second, middle..rows.end),
        ] {
            if !rows.is_empty() {
                half.slices.push(Slice {
                    block: block.clone(),
                    rows,
                });
            }
        }
    }
    (first, second)
}
