//! Which requests go out, and when.

use lockgate_model::ranges;

use crate::Uptime;
use crate::batches::BatchInFlight;
use crate::circuit::Allowed;
use crate::delivery::history::History;
use crate::delivery::request::{Request, RequestState, Wait};
use crate::delivery::requests::OfEndpoint;
use crate::encoding::OutgoingRequest;
use crate::index::{BatchId, DocumentIndex, EndpointIndex, EntryIndex, RequestId};
use crate::io::Action;
use crate::pipeline::{Pipeline, WorkId};

impl Pipeline {
    pub(crate) fn add_request(
        &mut self,
        batch_id: BatchId,
        outgoing: OutgoingRequest,
        history: History,
    ) {
        let id = RequestId(self.new_id());
        let Some(batch) = self.batches.get(&batch_id) else {
            return;
        };
        let Some(documents) = batch.documents() else {
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
        let bytes = outgoing.body_len(documents) as u64;
        self.order_begin(batch_id, WorkId::Request(id), &outgoing.documents);
        let request = Request {
            batch: batch_id,
            endpoint,
            outgoing,
            position,
            history,
            state: RequestState::Queued,
            is_in_order: false,
            is_held: false,
            attempts: 0,
            status: 0,
            excerpt: String::new(),
            bytes,
        };
        self.requests.insert(id, request);
        if self.is_in_order(id) {
            self.requests
                .update(id, |request| request.is_in_order = true);
        }
    }

    /// Sends what may be sent.
    pub(crate) fn dispatch(
        &mut self,
        now: Uptime,
        index: EndpointIndex,
        actions: &mut Vec<Action>,
    ) {
        while self.endpoints[index.get()].has_room() {
            let next = match self.endpoints[index.get()].circuit.allowed(now) {
                Allowed::Everything => {
                    self.first_in_order(index, |requests| requests.queue().next())
                }
                // Requests that are held while the host stops stay for the next start.
                Allowed::Probe if !self.is_draining() => self.probe(index),
                _ => None,
            };
            let Some(id) = next else { break };
            self.send(id, actions);
        }
        self.separate_blocked(index, actions);
    }

    /// The request that is least likely to be at fault itself, whether its own wait is over or not.
    fn probe(&mut self, index: EndpointIndex) -> Option<RequestId> {
        // The search in one batch may be for a fault that all of the batch has, so it takes turns
        // with other requests.
        let clean = self.endpoints[index.get()]
            .circuit
            .has_probed_part()
            .then(|| self.first_in_order(index, OfEndpoint::first_clean))
            .flatten();
        let queued = clean
            .or_else(|| self.part(index))
            .or_else(|| self.first_in_order(index, OfEndpoint::likeliest_accepted));
        let mut waiting = self.requests.of_endpoint(index).waiting();
        let waiting = waiting.find(|&id| self.is_in_order(id));
        let class = |id: &RequestId| Some(self.requests.get(*id)?.fault_rank());
        queued.into_iter().chain(waiting).min_by_key(class)
    }

    /// A part of a request that failed or was refused, of another batch than the last search if
    /// there is one. The smallest is the likeliest to be accepted; while a refusal costs no wait,
    /// the largest brings most.
    fn part(&mut self, index: EndpointIndex) -> Option<RequestId> {
        let endpoint = &self.endpoints[index.get()];
        let (last, is_free) = (endpoint.last_searched, endpoint.may_be_refused());
        let of = |is_wanted: &dyn Fn(BatchId) -> bool, requests: &OfEndpoint| {
            let wanted = |&(_, batch): &(RequestId, BatchId)| is_wanted(batch);
            let found = if is_free {
                requests.parts().rfind(wanted)
            } else {
                requests.parts().find(wanted)
            };
            found.map(|(id, _)| id)
        };
        let is_of_another = |batch| last != Some(batch);
        self.first_in_order(index, |requests| of(&is_of_another, requests))
            .or_else(|| self.first_in_order(index, |requests| of(&|_| true, requests)))
    }

    /// The request that `first` gives, once those that have to wait for their sessions are set
    /// aside.
    fn first_in_order(
        &mut self,
        index: EndpointIndex,
        first: impl Fn(&OfEndpoint) -> Option<RequestId>,
    ) -> Option<RequestId> {
        loop {
            let id = first(self.requests.of_endpoint(index))?;
            if self.is_in_order(id) {
                return Some(id);
            }
            // Work on an earlier document, such as a redriven one, has begun meanwhile.
            self.requests
                .update(id, |request| request.is_in_order = false);
        }
    }

    /// A request with documents of several sessions waits as a whole if one of them does. If
    /// nothing else can be sent, but for single documents that are likely at fault, those that need
    /// not wait are sent without the others.
    fn separate_blocked(&mut self, index: EndpointIndex, actions: &mut Vec<Action>) {
        let requests = self.requests.of_endpoint(index);
        let best = requests
            .likeliest_accepted()
            .and_then(|id| self.requests.get(id));
        let is_idle = self.endpoints[index.get()].is_quiet()
            && best.is_none_or(|request| request.is_poor_probe() && request.is_single())
            && self
                .batches
                .values()
                .all(|batch| batch.running_encodings == 0);
        let may_separate = requests.tally().blocked > 0 && is_idle && !self.is_draining();
        if !may_separate || !self.endpoints[index.get()].order.take_change() {
            return;
        }
        let blocked = self.requests.iter().filter(|(_, request)| {
            request.endpoint == index && request.is_blocked() && !request.is_single()
        });
        let mut blocked: Vec<_> = blocked
            .map(|(id, request)| (request.position, id))
            .collect();
        blocked.sort_unstable();
        for (_, id) in blocked {
            let Some(request) = self.requests.get(id) else {
                continue;
            };
            let documents = request.outgoing.documents.iter().copied();
            let (free, others): (Vec<_>, Vec<_>) =
                documents.partition(|&document| self.is_first_of_session(id, document));
            if !free.is_empty() && !others.is_empty() {
                let (batch, history) = (request.batch, request.history.clone());
                self.encode(batch, free, history.clone(), actions);
                self.encode(batch, others, history, actions);
                return self.end(id);
            }
        }
    }

    fn send(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        if let Some(Wait { until, .. }) = request.wait() {
            self.timers.remove(&(until, WorkId::Request(id)));
        }
        let endpoint = &mut self.endpoints[request.endpoint.get()];
        endpoint.begin();
        let accepted = endpoint.accepted();
        endpoint
            .circuit
            .begin_probe(id, request.history.is_untried_part());
        let batch = self.batches.get(&request.batch);
        if let Some(documents) = batch.and_then(BatchInFlight::documents) {
            actions.push(Action::Send {
                request: id,
                endpoint: request.endpoint,
                outgoing: request.outgoing.clone(),
                documents: documents.clone(),
                is_retry: request.attempts > 0 || request.history.failed_attempts() > 0,
            });
        }
        self.requests.update(id, |request| {
            request.state = RequestState::Sending;
            request.attempts += 1;
            request.history.try_again(accepted);
        });
    }

    /// A request is tried again then, or when what it waits for has happened.
    pub(crate) fn wait(&mut self, id: RequestId, wait: Wait) {
        self.holds.delay(WorkId::Request(id), wait.until);
        self.timers.insert((wait.until, WorkId::Request(id)));
        let waiting = |request: &mut Request| request.state = RequestState::Waiting(wait);
        self.requests.update(id, waiting);
    }

    /// A request's time has come, or what it waited for.
    pub(crate) fn stop_waiting(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        if self.is_draining() {
            return;
        }
        let Some(request) = self.requests.get(id) else {
            return;
        };
        match &request.state {
            RequestState::ClassifyLater(response) => {
                let response = response.clone();
                self.endpoints[request.endpoint.get()].begin();
                self.classify(id, response, actions);
            }
            RequestState::Waiting(_) => self.requeue(id),
            _ => {}
        }
    }

    pub(crate) fn requeue(&mut self, id: RequestId) {
        self.requests
            .update(id, |request| request.state = RequestState::Queued);
    }

    /// Sends the documents of a request again in halves. While the circuit is open, they go out as
    /// probes.
    pub(crate) fn split(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let batch = request.batch;
        let mut documents = request.outgoing.documents.to_vec();
        let right = documents.split_off(documents.len() / 2);
        let history = request.history.of_half(id);
        self.encode(batch, documents, history.clone(), actions);
        self.encode(batch, right, history, actions);
        self.end(id);
    }

    /// The request is over: its documents are final, or others carry them.
    pub(crate) fn end(&mut self, id: RequestId) {
        self.holds.remove(WorkId::Request(id));
        let Some(request) = self.requests.remove(id) else {
            return;
        };
        let batch = request.batch;
        self.order_end(batch, WorkId::Request(id), &request.outgoing.documents);
        let endpoint = &self.endpoints[request.endpoint.get()].name;
        if let Some(batch) = self.batches.get_mut(&batch) {
            let carried = request.outgoing.documents.iter();
            let entries = ranges(carried.filter_map(|&document| batch.seq(document)));
            batch.record(request.into_record(endpoint, entries));
        }
    }
}
