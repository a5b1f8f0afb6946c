//! Which requests go out, and when.

use lockgate_model::RequestRecord;

use crate::Uptime;
use crate::circuit::Allowed;
use crate::delivery::request::{Lineage, Request, RequestState};
use crate::encoding::OutgoingRequest;
use crate::flights::Flight;
use crate::index::{DocumentIndex, EndpointIndex, EntryIndex, FlightId, RequestId};
use crate::io::Action;
use crate::pipeline::{Pipeline, Timer};

/// Requests that are looked at to find the one that failed least, for a probe.
const PROBE_CHOICE: usize = 16;

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

    pub(crate) fn next_in_line(&self, index: EndpointIndex) -> Option<RequestId> {
        let endpoint = &self.endpoints[index.get()];
        endpoint
            .line
            .values()
            .copied()
            .find(|&id| self.is_in_order(id))
    }

    /// The request that is least likely to be at fault itself.
    pub(crate) fn probe(&mut self, index: EndpointIndex) -> Option<RequestId> {
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

    pub(crate) fn send(&mut self, id: RequestId, actions: &mut Vec<Action>) {
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

    pub(crate) fn back_in_line(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.state = RequestState::InLine;
            self.endpoints[request.endpoint.get()]
                .line
                .insert(request.position, id);
        }
    }

    pub(crate) fn split(&mut self, id: RequestId, actions: &mut Vec<Action>) {
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
    pub(crate) fn end(&mut self, id: RequestId) {
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
}
