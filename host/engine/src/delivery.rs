//! Requests: which go out, what their answers mean, what happens to refused documents.
//!
//! One file over 600 lines: the rules share the circuit, the evidence and the order of an endpoint,
//! and are read side by side with the table of ARCHITECTURE.md.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use lockgate_model::RequestRecord;
use lockgate_model::contract::{CallError, Inspect};
use lockgate_model::request::{Delivery, Disposition, Response};

use crate::Uptime;
use crate::answer::{self, Judgement, SendFailure};
use crate::circuit::{Allowed, Circuit, Trouble};
use crate::condition::ConditionKind;
use crate::encoding::OutgoingRequest;
use crate::flights::{Flight, Hold, Phase};
use crate::index::{DocumentIndex, EndpointIndex, EntryIndex, FlightId, RequestId, StreamIndex};
use crate::io::Action;
use crate::pipeline::{Pipeline, Timer};
use crate::settings::EndpointSettings;

/// A document is dead-lettered when it was refused alone this often, with others accepted between.
const REFUSALS_MAX: u32 = 3;

/// One that is too large needs less: the answer says what is wrong with it.
const REFUSALS_TOO_LARGE_MAX: u32 = 2;

/// A request that fails this often while others are accepted is split.
const FAILURES_BEFORE_SPLIT: u32 = 5;

/// A single document that fails for this long while others are accepted is dead-lettered.
const FAILING_MAX: Uptime = Uptime::from_secs(600);

/// A request that failed this often keeps to its own waits when the endpoint recovers.
const FAILURES_OF_ITS_OWN: u32 = 3;

/// Single documents that are refused one after another before only probes are sent.
const REFUSED_IN_A_ROW_MAX: u32 = 2;

/// Requests that are looked at to find the one that failed least, for a probe.
const PROBE_CHOICE: usize = 16;

/// Where a request is among all of its pipeline: by batch, then by event.
type Position = (FlightId, EntryIndex, DocumentIndex, RequestId);

/// One URL, with its own evidence.
#[derive(Debug)]
pub(crate) struct Endpoint {
    name: Arc<str>,
    max_in_flight: usize,
    in_flight: usize,
    /// Requests that wait for their turn.
    line: BTreeMap<Position, RequestId>,
    pub(crate) circuit: Circuit,
    /// Answers that accepted documents so far.
    accepted: u64,
    /// Single documents refused since one was accepted.
    refused_in_a_row: u32,
    /// Bytes of a body that was too large. It grows again slowly.
    pub(crate) size_limit: Option<usize>,
    /// Unfinished work of each session, where sessions keep their order. Sessions are known by
    /// their hash: two that share one wait for each other, which harms nobody.
    sessions: HashMap<u64, BTreeSet<(Order, Timer)>>,
}

/// The order of work of one session.
type Order = (FlightId, EntryIndex, DocumentIndex);

#[derive(Debug)]
pub(crate) struct Request {
    flight: FlightId,
    endpoint: EndpointIndex,
    outgoing: OutgoingRequest,
    position: Position,
    pub(crate) lineage: Lineage,
    state: RequestState,
    attempts: u32,
    /// It was sent while the circuit was open.
    is_probe: bool,
    status: u16,
    excerpt: String,
    bytes: u64,
}

#[derive(Debug)]
enum RequestState {
    InLine,
    Sending,
    /// The sink is asked what this response means.
    Classifying(Arc<Response>),
    /// The sink could not be asked.
    ClassifyLater(Arc<Response>),
    Waiting {
        until: Uptime,
        /// For an acceptance of another: evidence against it.
        for_evidence: bool,
    },
}

/// What earlier requests tell of the documents of this one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage {
    /// Answers that may have been its documents' fault.
    pub(crate) failures: u32,
    first_failed: Option<Uptime>,
    accepted_at_failure: u64,
    /// Times that it was refused alone, with evidence.
    refusals: u32,
    accepted_at_refusal: u64,
    /// Times that it was refused at all.
    attempts: u32,
    refused_since: Option<Uptime>,
    message: String,
    /// It would be a dead letter but for the brake.
    pub(crate) braked: Option<Hold>,
}

impl Endpoint {
    pub(crate) fn new(settings: &EndpointSettings) -> Endpoint {
        Endpoint {
            name: settings.name.clone(),
            max_in_flight: settings.in_flight.max(1),
            in_flight: 0,
            line: BTreeMap::new(),
            circuit: Circuit::default(),
            accepted: 0,
            refused_in_a_row: 0,
            size_limit: None,
            sessions: HashMap::new(),
        }
    }

    /// When it must be looked at although nothing happened.
    pub(crate) fn alarm(&self, now: Uptime) -> Option<Uptime> {
        match self.circuit.allowed(now) {
            Allowed::NothingUntil(at) => Some(at),
            _ => None,
        }
    }

    /// Nothing is out. What could go out has just been sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }
}

impl Request {
    /// The operator's release lets it be tried again, and dead-lettered without evidence.
    pub(crate) fn waits_for_release(&self) -> bool {
        matches!(
            self.state,
            RequestState::Waiting {
                for_evidence: true,
                ..
            }
        ) || self.lineage.braked.is_some()
    }
}

impl Pipeline {
    pub(crate) fn add_request(
        &mut self,
        flight_id: FlightId,
        outgoing: OutgoingRequest,
        lineage: Lineage,
    ) {
        let id = RequestId(self.new_id());
        let Some(flight) = self.flights.get_mut(&flight_id) else {
            return;
        };
        let Some(documents) = flight.documents().cloned() else {
            return;
        };
        let endpoint = self.settings.streams[flight.stream.get()].endpoint;
        let first = outgoing
            .documents
            .iter()
            .map(|&document| (documents.entry(document), document))
            .min()
            .unwrap_or((EntryIndex::new(0), DocumentIndex::new(0)));
        let position = (flight_id, first.0, first.1, id);
        flight.requests += 1;
        let bytes = outgoing.body_len(&documents) as u64;
        self.order_begin(flight_id, Timer::Request(id), &outgoing.documents);
        self.endpoints[endpoint.get()].line.insert(position, id);
        self.requests.insert(
            id,
            Request {
                flight: flight_id,
                endpoint,
                outgoing,
                position,
                lineage,
                state: RequestState::InLine,
                attempts: 0,
                is_probe: false,
                status: 0,
                excerpt: String::new(),
                bytes,
            },
        );
    }

    /// Sends what may be sent.
    pub(crate) fn dispatch(
        &mut self,
        now: Uptime,
        index: EndpointIndex,
        actions: &mut Vec<Action>,
    ) {
        loop {
            let endpoint = &self.endpoints[index.get()];
            if endpoint.in_flight >= endpoint.max_in_flight {
                return;
            }
            let next = match endpoint.circuit.allowed(now) {
                Allowed::Everything => self.next_in_line(index),
                // Whoever is held while the host stops is left for the next start.
                Allowed::Probe if !self.is_draining() => self.probe(index),
                _ => None,
            };
            let Some(id) = next else { return };
            self.send(id, actions);
        }
    }

    fn next_in_line(&self, index: EndpointIndex) -> Option<RequestId> {
        let endpoint = &self.endpoints[index.get()];
        endpoint
            .line
            .values()
            .copied()
            .find(|&id| self.is_in_order(id))
    }

    /// The request that is least likely to be at fault itself.
    fn probe(&mut self, index: EndpointIndex) -> Option<RequestId> {
        let failures = |id: &RequestId| {
            self.requests.get(id).map_or(0, |request| {
                request.lineage.failures + request.lineage.attempts
            })
        };
        let endpoint = &self.endpoints[index.get()];
        let in_line = endpoint
            .line
            .values()
            .copied()
            .filter(|&id| self.is_in_order(id))
            .take(PROBE_CHOICE)
            .min_by_key(failures);
        in_line.or_else(|| {
            self.requests
                .iter()
                .filter(|(_, request)| {
                    request.endpoint == index
                        && matches!(request.state, RequestState::Waiting { .. })
                })
                .map(|(&id, _)| id)
                .filter(|&id| self.is_in_order(id))
                .min_by_key(|id| (failures(id), *id))
        })
    }

    fn send(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let endpoint = &mut self.endpoints[request.endpoint.get()];
        endpoint.line.remove(&request.position);
        if let RequestState::Waiting { until, .. } = request.state {
            self.timers.remove(&(until, Timer::Request(id)));
        }
        endpoint.in_flight += 1;
        request.is_probe = endpoint.circuit.open().is_some();
        endpoint.circuit.begin_probe();
        request.state = RequestState::Sending;
        request.attempts += 1;
        let flight = self.flights.get(&request.flight);
        if let Some(documents) = flight.and_then(Flight::documents) {
            actions.push(Action::Send {
                request: id,
                endpoint: request.endpoint,
                outgoing: request.outgoing.clone(),
                documents: documents.clone(),
            });
        }
    }

    pub(crate) fn answered(
        &mut self,
        now: Uptime,
        id: RequestId,
        response: Response,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.status = response.status;
        let accepted = (200..300).contains(&response.status);
        request.excerpt = if accepted {
            String::new()
        } else {
            answer::excerpt(&response)
        };
        let inspected = match self.settings.sink.inspect {
            Inspect::Never => false,
            Inspect::Failures => !accepted,
            Inspect::Always => true,
        };
        if inspected {
            return self.classify(id, Arc::new(response), actions);
        }
        self.judge(now, id, answer::by_status(&response), actions);
    }

    fn classify(&mut self, id: RequestId, response: Arc<Response>, actions: &mut Vec<Action>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let Some(flight) = self.flights.get(&request.flight) else {
            return;
        };
        request.state = RequestState::Classifying(response.clone());
        actions.push(Action::Classify {
            request: id,
            info: flight.info().clone(),
            sent: request.outgoing.request.sent(),
            response,
        });
    }

    pub(crate) fn not_sent(
        &mut self,
        now: Uptime,
        id: RequestId,
        failure: SendFailure,
        actions: &mut Vec<Action>,
    ) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.status = 0;
        }
        self.judge(now, id, answer::by_failure(failure), actions);
    }

    pub(crate) fn classified(
        &mut self,
        now: Uptime,
        id: RequestId,
        result: Result<Delivery, CallError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let RequestState::Classifying(response) = &request.state else {
            return;
        };
        let response = response.clone();
        let judgement = match result {
            Ok(delivery) => {
                let (judgement, disbelieved) = answer::by_sink(&response, delivery);
                if disbelieved && !std::mem::replace(&mut self.disbelief_reported, true) {
                    actions.push(Action::Warn(format!(
                        "{} settles documents on a response with status {}; the host's table \
                         decides such responses, here and from now on",
                        self.settings.sink.label, response.status
                    )));
                }
                judgement
            }
            Err(error) => {
                let judgement = answer::by_status(&response);
                if let Judgement::Taken(_) = judgement {
                    // It may report failures that nobody has read, and sending the request again
                    // would only repeat its documents: the same response is shown again.
                    return self.classify_later(now, id, response, &error);
                }
                judgement
            }
        };
        self.judge(now, id, judgement, actions);
    }

    fn classify_later(
        &mut self,
        now: Uptime,
        id: RequestId,
        response: Arc<Response>,
        error: &CallError,
    ) {
        let until = self.retry_at(now, 4, Uptime::ZERO);
        let subject = self.settings.sink.label.to_string();
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let since = request
            .lineage
            .braked
            .as_ref()
            .map_or(now, |hold| hold.since);
        request.state = RequestState::ClassifyLater(response);
        self.endpoints[request.endpoint.get()].in_flight -= 1;
        let kind = ConditionKind::Plugin;
        let message = format!("a response cannot be judged: {error}");
        request.lineage.braked = Some(Hold {
            kind,
            subject,
            message,
            since,
            until,
        });
        self.timers.insert((until, Timer::Request(id)));
    }

    /// A request's time has come, or what it waited for.
    pub(crate) fn stop_waiting(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let draining = self.is_draining();
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        match &request.state {
            RequestState::ClassifyLater(response) if !draining => {
                let response = response.clone();
                self.endpoints[request.endpoint.get()].in_flight += 1;
                self.classify(id, response, actions);
            }
            RequestState::Waiting { .. } if !draining => {
                request.state = RequestState::InLine;
                let endpoint = &mut self.endpoints[request.endpoint.get()];
                endpoint.line.insert(request.position, id);
            }
            _ => {}
        }
    }

    fn judge(
        &mut self,
        now: Uptime,
        id: RequestId,
        judgement: Judgement,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.lineage.braked = None;
        self.endpoints[request.endpoint.get()].in_flight -= 1;
        match judgement {
            Judgement::Taken(dispositions) => self.taken(now, id, dispositions),
            Judgement::AllRejected(reason) => {
                let rejected = |&index: &u32| (index, Disposition::Rejected(reason.clone()));
                let all = request
                    .outgoing
                    .request
                    .carries()
                    .iter()
                    .map(rejected)
                    .collect();
                self.taken(now, id, all);
            }
            Judgement::Refused(message) => self.refused(now, id, message, false, actions),
            Judgement::TooLarge(message) => self.refused(now, id, message, true, actions),
            Judgement::Wait {
                message,
                after,
                suspicious,
            } => {
                self.unavailable(now, id, message, after, suspicious, actions);
            }
            Judgement::Operator(message) => {
                self.fail(now, id, Trouble::Operator, message, Uptime::ZERO);
                self.back_in_line(id);
            }
        }
    }

    /// The receiver took the request, or some of it.
    fn taken(&mut self, now: Uptime, id: RequestId, dispositions: Vec<(u32, Disposition)>) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let (flight, index) = (request.flight, request.endpoint);
        let mut told: HashMap<u32, Disposition> = dispositions.into_iter().collect();
        let (mut delivered, mut rejected, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let carries = request.outgoing.request.carries();
        for (index, &document) in carries.iter().zip(request.outgoing.documents.iter()) {
            match told.remove(index) {
                None | Some(Disposition::Delivered) => delivered.push(document),
                Some(Disposition::Rejected(reason)) => rejected.push((document, reason)),
                Some(Disposition::Retry) => again.push(document),
            }
        }
        let lineage = request.lineage.clone();
        if delivered.is_empty() {
            // An answer ends an outage, but it is not evidence against another document.
            self.endpoints[index.get()].circuit.succeed();
        } else {
            self.accepted(now, index);
        }
        self.delivered(now, flight, &delivered);
        if !again.is_empty() {
            let failures = if delivered.is_empty() {
                lineage.failures + 1
            } else {
                0
            };
            let until = self.retry_at(now, failures, Uptime::ZERO);
            let hold = Hold {
                kind: ConditionKind::Documents,
                subject: self.endpoints[index.get()].name.to_string(),
                message: "the receiver took only a part of a request".to_owned(),
                since: lineage.first_failed.unwrap_or(now),
                until,
            };
            let first_failed = Some(hold.since);
            let lineage = Lineage {
                failures,
                first_failed,
                ..Lineage::default()
            };
            self.encode_later(flight, again, lineage, hold);
        }
        self.reject(now, flight, rejected);
        self.end(id);
    }

    /// The endpoint accepted documents: whatever waits for it goes, and so does what waited for
    /// evidence.
    fn accepted(&mut self, now: Uptime, index: EndpointIndex) {
        let endpoint = &mut self.endpoints[index.get()];
        endpoint.accepted += 1;
        endpoint.refused_in_a_row = 0;
        endpoint.size_limit = endpoint
            .size_limit
            .map(|bytes| bytes.saturating_add(bytes / 256 + 1))
            .filter(|&bytes| bytes < 1 << 30);
        let recovered = endpoint.circuit.succeed();
        if self.timers.is_empty() {
            return;
        }
        let freed: Vec<(Uptime, RequestId)> = self
            .timers
            .iter()
            .filter_map(|&(until, timer)| match timer {
                Timer::Request(id) => Some((until, id)),
                _ => None,
            })
            .filter(|(_, id)| {
                self.requests.get(id).is_some_and(|request| {
                    let waits = match request.state {
                        RequestState::Waiting {
                            for_evidence: true, ..
                        } => request.lineage.braked.is_none(),
                        RequestState::Waiting { .. } => {
                            recovered && request.lineage.failures < FAILURES_OF_ITS_OWN
                        }
                        _ => false,
                    };
                    request.endpoint == index && waits
                })
            })
            .collect();
        for (until, id) in freed {
            self.timers.remove(&(until, Timer::Request(id)));
            self.timers.insert((now, Timer::Request(id)));
            if let Some(request) = self.requests.get_mut(&id)
                && let RequestState::Waiting { until, .. } = &mut request.state
            {
                *until = now;
            }
        }
    }

    /// 400, 413, 422, or the sink wants it split.
    fn refused(
        &mut self,
        now: Uptime,
        id: RequestId,
        message: String,
        too_large: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let endpoint = &mut self.endpoints[request.endpoint.get()];
        if request.outgoing.documents.len() > 1 {
            if too_large {
                let bytes = request.bytes as usize;
                let smaller = endpoint
                    .size_limit
                    .map_or(bytes, |before| before.min(bytes));
                endpoint.size_limit = Some(smaller);
            }
            // Its halves say more. They are probes where only probes are sent.
            if request.is_probe {
                endpoint.circuit.probe_undecided(now);
            }
            return self.split(id, actions);
        }
        let accepted = endpoint.accepted;
        let released = self.flights.get(&request.flight).is_some_and(|flight| {
            let seq = flight.seq(request.outgoing.documents[0]);
            seq.is_some_and(|seq| seq < self.released[flight.stream.get()])
        });
        let lineage = &mut request.lineage;
        let since = *lineage.refused_since.get_or_insert(now);
        lineage.attempts += 1;
        lineage.message = message.clone();
        // An answer that blames the size needs no acceptance after it, but one at all.
        let has_evidence = lineage.refusals > 0
            && (accepted > lineage.accepted_at_refusal || released || too_large && accepted > 0);
        if lineage.refusals == 0 || has_evidence {
            lineage.refusals += 1;
            lineage.accepted_at_refusal = accepted;
        }
        let most = if too_large {
            REFUSALS_TOO_LARGE_MAX
        } else {
            REFUSALS_MAX
        };
        if lineage.refusals >= most && (has_evidence || lineage.refusals > most) {
            let reason = if too_large {
                format!("it is larger than the receiver takes: {message}")
            } else {
                format!("the receiver refused it {most} times while it accepted others: {message}")
            };
            if self.give_up(now, id, &reason, since) {
                return;
            }
        }
        self.wait_for_evidence(now, id);
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let index = request.endpoint;
        let endpoint = &mut self.endpoints[index.get()];
        endpoint.refused_in_a_row += 1;
        let is_open = endpoint.circuit.open().is_some();
        if endpoint.refused_in_a_row >= REFUSED_IN_A_ROW_MAX || is_open {
            let message = format!("the receiver refuses every document: {message}");
            self.fail(now, id, Trouble::RefusesAll, message, Uptime::ZERO);
        }
    }

    /// Waits for another document to be accepted, and is tried now and then: the receiver may be
    /// mended.
    fn wait_for_evidence(&mut self, now: Uptime, id: RequestId) {
        let attempts = self
            .requests
            .get(&id)
            .map_or(0, |request| request.lineage.attempts);
        let until = self.retry_at(now, attempts + 2, Uptime::ZERO);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if let Some(hold) = &mut request.lineage.braked {
            hold.until = until;
        }
        request.state = RequestState::Waiting {
            until,
            for_evidence: true,
        };
        self.timers.insert((until, Timer::Request(id)));
    }

    /// 5xx, 408, 425, 429, no connection, no answer.
    fn unavailable(
        &mut self,
        now: Uptime,
        id: RequestId,
        message: String,
        after: Uptime,
        suspicious: bool,
        actions: &mut Vec<Action>,
    ) {
        let alone = suspicious && self.all_others_fail(id);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let accepted = self.endpoints[request.endpoint.get()].accepted;
        let released = self.flights.get(&request.flight).is_some_and(|flight| {
            let seq = flight.seq(request.outgoing.documents[0]);
            seq.is_some_and(|seq| seq < self.released[flight.stream.get()])
        });
        let lineage = &mut request.lineage;
        lineage.message = message.clone();
        if suspicious {
            if lineage.first_failed.is_none() {
                lineage.first_failed = Some(now);
                lineage.accepted_at_failure = accepted;
            }
            lineage.failures += 1;
            let others_accepted = accepted > lineage.accepted_at_failure || released;
            let first_failed = lineage.first_failed.unwrap_or(now);
            let single = request.outgoing.documents.len() == 1;
            let often = lineage.failures >= FAILURES_BEFORE_SPLIT;
            if !single && often && (others_accepted || alone) {
                if request.is_probe {
                    let index = request.endpoint;
                    self.endpoints[index.get()].circuit.probe_undecided(now);
                }
                return self.split(id, actions);
            }
            if others_accepted && single && now >= first_failed + FAILING_MAX {
                let reason =
                    format!("it failed for ten minutes while others were accepted: {message}");
                if self.give_up(now, id, &reason, first_failed) {
                    return;
                }
            }
        }
        self.fail(now, id, Trouble::Unavailable, message, after);
        let failures = self
            .requests
            .get(&id)
            .map_or(0, |request| request.lineage.failures);
        if !suspicious {
            return self.back_in_line(id);
        }
        let until = self.retry_at(now, failures, after);
        if let Some(request) = self.requests.get_mut(&id) {
            if let Some(hold) = &mut request.lineage.braked {
                hold.until = until;
            }
            request.state = RequestState::Waiting {
                until,
                for_evidence: false,
            };
            self.timers.insert((until, Timer::Request(id)));
        }
    }

    /// No other request could show whether the endpoint or this request is at fault.
    fn all_others_fail(&self, id: RequestId) -> bool {
        let endpoint = self.requests.get(&id).map(|request| request.endpoint);
        self.requests
            .iter()
            .filter(|&(&other, request)| other != id && Some(request.endpoint) == endpoint)
            .all(|(_, request)| request.lineage.failures >= FAILURES_BEFORE_SPLIT)
    }

    /// Makes the one document of a request a dead letter. False where the brake holds.
    fn give_up(&mut self, now: Uptime, id: RequestId, reason: &str, since: Uptime) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return true;
        };
        let (flight, document) = (request.flight, request.outgoing.documents[0]);
        let (index, was_probe) = (request.endpoint, request.is_probe);
        let cause = self.settings.sink.label.to_string();
        match self.dead_letter(now, flight, document, &cause, reason) {
            Ok(()) => {
                if was_probe {
                    self.endpoints[index.get()].circuit.probe_undecided(now);
                }
                self.end(id);
                true
            }
            Err(engaged) => {
                let hold = self.braked(now, cause, engaged, 6);
                if let Some(request) = self.requests.get_mut(&id) {
                    request.lineage.braked = Some(Hold { since, ..hold });
                }
                false
            }
        }
    }

    /// The endpoint is in trouble.
    fn fail(
        &mut self,
        now: Uptime,
        id: RequestId,
        trouble: Trouble,
        message: String,
        after: Uptime,
    ) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let circuit = &mut self.endpoints[request.endpoint.get()].circuit;
        circuit.fail(
            now,
            trouble,
            message,
            after,
            request.is_probe,
            &mut self.random,
        );
    }

    fn back_in_line(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.state = RequestState::InLine;
            self.endpoints[request.endpoint.get()]
                .line
                .insert(request.position, id);
        }
    }

    fn split(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let flight = request.flight;
        let mut documents = request.outgoing.documents.to_vec();
        let right = documents.split_off(documents.len() / 2);
        let lineage = Lineage {
            first_failed: request.lineage.first_failed,
            accepted_at_failure: request.lineage.accepted_at_failure,
            message: request.lineage.message.clone(),
            ..Lineage::default()
        };
        self.encode(flight, documents, lineage.clone(), actions);
        self.encode(flight, right, lineage, actions);
        self.end(id);
    }

    /// The request is over: its documents are final, or others carry them.
    fn end(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        self.order_end(
            request.flight,
            Timer::Request(id),
            &request.outgoing.documents,
        );
        if let Some(flight) = self.flights.get_mut(&request.flight) {
            flight.requests -= 1;
            flight.record(RequestRecord {
                status: request.status,
                documents: request.outgoing.documents.len() as u32,
                bytes: request.bytes,
                attempts: request.attempts,
                excerpt: request.excerpt,
            });
        }
    }

    /// All that is left of the batch waits for itself alone, so that the stream may go on.
    pub(crate) fn only_waits(&self, id: FlightId, flight: &Flight) -> bool {
        if !matches!(flight.phase, Phase::Delivering { .. }) {
            return false;
        }
        let endpoint = &self.endpoints[self.settings.streams[flight.stream.get()].endpoint.get()];
        if flight.requests == 0 && flight.encodings == 0 {
            return false;
        }
        let mut requests = self
            .requests
            .values()
            .filter(|request| request.flight == id);
        let mut encodings = self
            .encodings
            .values()
            .filter(|encoding| encoding.flight == id);
        match endpoint.circuit.open().map(|open| open.trouble) {
            // The next batch is a probe: it can show that the requests are at fault.
            Some(Trouble::Unavailable) => {
                let failing = |request: &Request| request.lineage.failures >= FAILURES_BEFORE_SPLIT;
                flight.encodings == 0 && requests.all(failing)
            }
            Some(Trouble::Operator) => false,
            Some(Trouble::RefusesAll) | None => {
                let waits = |state: &RequestState| matches!(state, RequestState::Waiting { .. });
                requests.all(|request| waits(&request.state))
                    && encodings.all(|encoding| !encoding.is_running())
            }
        }
    }

    /// Whether the endpoint of the stream is out of reach, as far as is known.
    pub(crate) fn is_unavailable(&self, stream: StreamIndex) -> bool {
        let endpoint = self.settings.streams[stream.get()].endpoint;
        let open = self.endpoints[endpoint.get()].circuit.open();
        open.is_some_and(|open| open.trouble == Trouble::Unavailable)
    }

    // === Sessions in their order ===

    /// Work on these documents begins: later documents of their sessions wait for it.
    pub(crate) fn order_begin(
        &mut self,
        flight: FlightId,
        work: Timer,
        documents: &[DocumentIndex],
    ) {
        self.each_session(flight, documents, |sessions, session, order| {
            sessions.entry(session).or_default().insert((order, work));
        });
    }

    pub(crate) fn order_end(&mut self, flight: FlightId, work: Timer, documents: &[DocumentIndex]) {
        self.each_session(flight, documents, |sessions, session, order| {
            if let Some(line) = sessions.get_mut(&session) {
                line.remove(&(order, work));
                if line.is_empty() {
                    sessions.remove(&session);
                }
            }
        });
    }

    fn each_session(
        &mut self,
        id: FlightId,
        of: &[DocumentIndex],
        mut visit: impl FnMut(&mut HashMap<u64, BTreeSet<(Order, Timer)>>, u64, Order),
    ) {
        let Some(flight) = self.flights.get(&id) else {
            return;
        };
        let stream = &self.settings.streams[flight.stream.get()];
        let Some(documents) = flight.documents().filter(|_| stream.in_session_order) else {
            return;
        };
        let sessions = &mut self.endpoints[stream.endpoint.get()].sessions;
        for &document in of {
            let mut hasher = DefaultHasher::new();
            documents.session(document).hash(&mut hasher);
            visit(
                sessions,
                hasher.finish(),
                (id, documents.entry(document), document),
            );
        }
    }

    /// No earlier document of its sessions is unfinished.
    fn is_in_order(&self, id: RequestId) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return false;
        };
        let endpoint = &self.endpoints[request.endpoint.get()];
        if endpoint.sessions.is_empty() {
            return true;
        }
        let Some(documents) = self
            .flights
            .get(&request.flight)
            .and_then(Flight::documents)
        else {
            return false;
        };
        request.outgoing.documents.iter().all(|&document| {
            let mut hasher = DefaultHasher::new();
            documents.session(document).hash(&mut hasher);
            let line = endpoint.sessions.get(&hasher.finish());
            line.and_then(BTreeSet::first)
                .is_none_or(|&(_, first)| first == Timer::Request(id))
        })
    }

    // === Conditions ===

    pub(crate) fn report_endpoints(&mut self, now: Uptime) {
        for index in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[index];
            let name = endpoint.name.clone();
            match endpoint.circuit.open() {
                Some(open) => {
                    let (since, next) = (Some(open.since), Some(open.next_probe));
                    let message = open.message.clone();
                    let kind = ConditionKind::Endpoint;
                    self.conditions.set(now, kind, &name, &message, since, next);
                }
                None => self.conditions.clear(ConditionKind::Endpoint, &name),
            }
            let endpoint = EndpointIndex::new(index);
            let mut waiting = 0u64;
            let (mut since, mut next, mut message) = (now, None, "");
            for request in self.requests.values() {
                if request.endpoint != endpoint || request.lineage.braked.is_some() {
                    continue;
                }
                if let RequestState::Waiting { until, .. } = request.state {
                    let lineage = &request.lineage;
                    let began = lineage
                        .refused_since
                        .or(lineage.first_failed)
                        .unwrap_or(now);
                    if waiting == 0 || began < since {
                        (since, message) = (began, lineage.message.as_str());
                    }
                    waiting += request.outgoing.documents.len() as u64;
                    next = next.into_iter().chain([until]).min();
                }
            }
            if waiting == 0 || self.endpoints[index].circuit.open().is_some() {
                self.conditions.clear(ConditionKind::Documents, &name);
                continue;
            }
            let message = match waiting {
                1 => format!("1 document waits while others are sent: {message}"),
                count => format!("{count} documents wait while others are sent: {message}"),
            };
            self.conditions.set(
                now,
                ConditionKind::Documents,
                &name,
                &message,
                Some(since),
                next,
            );
        }
    }
}
