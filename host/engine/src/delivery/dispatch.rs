//! Which requests go out, and when.

use lockgate_model::RequestRecord;

use crate::Uptime;
use crate::batches::BatchInFlight;
use crate::circuit::Allowed;
use crate::delivery::request::{History, Request, RequestState};
use crate::encoding::OutgoingRequest;
use crate::index::{BatchId, DocumentIndex, EndpointIndex, EntryIndex, RequestId};
use crate::io::Action;
use crate::pipeline::{Pipeline, WorkId};

/// Requests that are looked at to find the one that failed least, for a probe.
const PROBE_CHOICE: usize = 16;

impl Pipeline {
    pub(crate) fn add_request(
        &mut self,
        batch_id: BatchId,
        outgoing: OutgoingRequest,
        history: History,
    ) {
        let id = RequestId(self.new_id());
        let Some(batch) = self.batches.get_mut(&batch_id) else {
            return;
        };
        let Some(documents) = batch.documents().cloned() else {
            return;
        };
        let endpoint = self.settings.streams[batch.stream.get()].endpoint;
        let first = outgoing
            .documents
            .iter()
            .map(|&document| (documents.entry(document), document))
            .min()
            .unwrap_or((EntryIndex::new(0), DocumentIndex::new(0)));
        let position = (batch_id, first.0, first.1, id);
        batch.requests += 1;
        let bytes = outgoing.body_len(&documents) as u64;
        self.order_begin(batch_id, WorkId::Request(id), &outgoing.documents);
        self.endpoints[endpoint.get()].queue.insert(position, id);
        self.requests.insert(
            id,
            Request {
                batch: batch_id,
                endpoint,
                outgoing,
                position,
                history,
                state: RequestState::Queued,
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
                Allowed::Everything => self.next_queued(index),
                // Whoever is held while the host stops is left for the next start.
                Allowed::Probe if !self.is_draining() => self.probe(index),
                _ => None,
            };
            let Some(id) = next else { return };
            self.send(id, actions);
        }
    }

    pub(crate) fn next_queued(&self, index: EndpointIndex) -> Option<RequestId> {
        let endpoint = &self.endpoints[index.get()];
        endpoint
            .queue
            .values()
            .copied()
            .find(|&id| self.is_in_order(id))
    }

    /// The request that is least likely to be at fault itself.
    pub(crate) fn probe(&mut self, index: EndpointIndex) -> Option<RequestId> {
        let failures = |id: &RequestId| {
            self.requests.get(id).map_or(0, |request| {
                request.history.failures + request.history.attempts
            })
        };
        let endpoint = &self.endpoints[index.get()];
        let queued = endpoint
            .queue
            .values()
            .copied()
            .filter(|&id| self.is_in_order(id))
            .take(PROBE_CHOICE)
            .min_by_key(failures);
        queued.or_else(|| {
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
        endpoint.queue.remove(&request.position);
        if let RequestState::Waiting { until, .. } = request.state {
            self.timers.remove(&(until, WorkId::Request(id)));
        }
        endpoint.in_flight += 1;
        request.is_probe = endpoint.circuit.open().is_some();
        endpoint.circuit.begin_probe();
        request.state = RequestState::Sending;
        request.attempts += 1;
        let batch = self.batches.get(&request.batch);
        if let Some(documents) = batch.and_then(BatchInFlight::documents) {
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
                request.state = RequestState::Queued;
                let endpoint = &mut self.endpoints[request.endpoint.get()];
                endpoint.queue.insert(request.position, id);
            }
            _ => {}
        }
    }

    pub(crate) fn requeue(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.state = RequestState::Queued;
            self.endpoints[request.endpoint.get()]
                .queue
                .insert(request.position, id);
        }
    }

    pub(crate) fn split(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let batch = request.batch;
        let mut documents = request.outgoing.documents.to_vec();
        let right = documents.split_off(documents.len() / 2);
        let history = History {
            first_failed: request.history.first_failed,
            accepted_at_failure: request.history.accepted_at_failure,
            message: request.history.message.clone(),
            ..History::default()
        };
        self.encode(batch, documents, history.clone(), actions);
        self.encode(batch, right, history, actions);
        self.end(id);
    }

    /// The request is over: its documents are final, or others carry them.
    pub(crate) fn end(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        self.order_end(
            request.batch,
            WorkId::Request(id),
            &request.outgoing.documents,
        );
        if let Some(batch) = self.batches.get_mut(&request.batch) {
            batch.requests -= 1;
            batch.record(RequestRecord {
                status: request.status,
                documents: request.outgoing.documents.len() as u32,
                bytes: request.bytes,
                attempts: request.attempts,
                excerpt: request.excerpt,
            });
        }
    }
}
