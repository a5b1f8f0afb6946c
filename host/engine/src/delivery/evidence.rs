//! Whether a request or its endpoint is at fault: what else was accepted or refused decides.

use crate::Uptime;
use crate::answer::{FailureKind, RequestedWait};
use crate::batches::Hold;
use crate::circuit::{Failure, Open, OpenReason};
use crate::delivery::history::{EndpointSnapshot, Undeliverable};
use crate::delivery::request::{Request, Wait};
use crate::index::{EndpointIndex, RequestId};
use crate::io::Action;
use crate::limits::{BRAKE_BACKOFF, FAILURES_BEFORE_SPLIT};
use crate::pipeline::{Pipeline, WorkId};

impl Pipeline {
    /// The endpoint accepted documents: whatever waits for it goes, and so does what waited for
    /// evidence.
    pub(crate) fn accepted(&mut self, now: Uptime, index: EndpointIndex) {
        let has_recovered = self.endpoints[index.get()].accept();
        if self.is_draining() {
            return;
        }
        let requests = self.requests.of_endpoint(index);
        let mut freed: Vec<RequestId> = requests.for_evidence().collect();
        if has_recovered {
            freed.extend(requests.for_recovery());
        }
        for id in freed {
            let Some(wait) = self.requests.get(id).and_then(Request::wait) else {
                continue;
            };
            self.timers.remove(&(wait.until, WorkId::Request(id)));
            self.wait(id, Wait { until: now, ..wait });
        }
    }

    /// 400, 413, 422, or the sink wants it split.
    pub(crate) fn refused(
        &mut self,
        now: Uptime,
        id: RequestId,
        message: &str,
        is_too_large: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let endpoint = &mut self.endpoints[request.endpoint.get()];
        if !request.is_single() {
            if is_too_large {
                endpoint.sizes.refuse(request.bytes as usize);
            }
            let is_released = self.snapshot(request).is_released;
            self.requests
                .update(id, |request| request.history.refuse_together());
            if is_released {
                // The operator has decided that it need not wait for the receiver to be repaired.
                self.probe_undecided(now, id);
            } else {
                self.narrow(now, id, refuses_all(message));
            }
            return self.split(id, actions);
        }
        self.endpoints[request.endpoint.get()].last_searched = Some(request.batch);
        let endpoint = self.snapshot(request);
        let refuse = |request: &mut Request| {
            let history = &mut request.history;
            history.refuse(now, message, is_too_large, endpoint)
        };
        let undeliverable = self.requests.update(id, refuse).flatten();
        if undeliverable.is_some_and(|undeliverable| self.give_up(now, id, undeliverable)) {
            return;
        }
        if endpoint.is_released {
            // The operator has decided that it need not wait for the receiver to be repaired.
            self.probe_undecided(now, id);
            return self.requeue(id);
        }
        self.wait_for_evidence(now, id);
        let Some(request) = self.requests.get(id) else {
            return;
        };
        if self.endpoints[request.endpoint.get()].refuse() {
            self.open_circuit(now, id, refuses_all(message));
            self.narrowed_down(id);
        }
    }

    /// Waits for another document to be accepted, and is tried now and then: the receiver may be
    /// repaired.
    fn wait_for_evidence(&mut self, now: Uptime, id: RequestId) {
        let refusals = self
            .requests
            .get(id)
            .map(|request| request.history.refusal_count());
        let until = self.retry_at(now, refusals.unwrap_or(0) + 2, Uptime::ZERO);
        self.wait(
            id,
            Wait {
                until,
                for_evidence: true,
            },
        );
    }

    /// 5xx, or no answer in time: it may fail on one of the documents.
    pub(crate) fn failed(
        &mut self,
        now: Uptime,
        id: RequestId,
        message: String,
        how: FailureKind,
        asked: RequestedWait,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let sizes = &self.endpoints[request.endpoint.get()].sizes;
        let (batch, index) = (request.batch, request.endpoint);
        let narrows_down = self.may_narrow_down(id, request) && asked.at_least.is_zero();
        let is_last_half = request.is_single() && request.history.is_untried_half();
        let is_expected = how == FailureKind::Slow && sizes.is_slow() && !request.is_single();
        let (is_single, endpoint) = (request.is_single(), self.snapshot(request));
        let no_other_can_tell = self.no_other_can_tell(request);
        let fail = |request: &mut Request| {
            message.clone_into(&mut request.history.message);
            if is_expected || narrows_down {
                request.history.expect(how);
            }
            let others_accepted = request.history.fail(now, how, endpoint);
            let history = &request.history;
            let overdue = history.failed_for_too_long(now);
            (others_accepted, history.fails_often(), overdue)
        };
        let Some((others_accepted, often, overdue)) = self.requests.update(id, fail) else {
            return;
        };
        let failure = Failure {
            reason: OpenReason::Unavailable,
            message,
            asked,
        };
        if !is_single && often && (others_accepted || no_other_can_tell || narrows_down) {
            if how == FailureKind::Slow {
                self.expect_halves(id);
            }
            self.narrow(now, id, failure);
            return self.split(id, actions);
        }
        if let Some(overdue) = overdue.filter(|_| is_single && others_accepted)
            && self.give_up(now, id, overdue)
        {
            return;
        }
        if self.is_endpoint_at_fault(id) {
            self.open_circuit(now, id, failure);
            if is_last_half {
                self.narrowed_down(id);
                let endpoint = &mut self.endpoints[index.get()];
                endpoint.last_searched = Some(batch);
                endpoint.fails_on_some = false;
            }
        }
        let request = self.requests.get(id);
        let failures = request.map_or(0, |request| request.history.failures);
        let until = self.retry_at(now, failures, asked.at_least);
        self.wait(
            id,
            Wait {
                until,
                for_evidence: false,
            },
        );
    }

    /// Probes have failed for some time, and this one has several documents: it may fail on one of
    /// them, or for their number. Once that has led to a single document, it is rather an outage.
    fn may_narrow_down(&self, id: RequestId, request: &Request) -> bool {
        let endpoint = &self.endpoints[request.endpoint.get()];
        let least = if endpoint.fails_on_some {
            1
        } else {
            FAILURES_BEFORE_SPLIT
        };
        let open = endpoint.circuit.open();
        let is_long = |open: &Open| open.failures >= least && !open.is_narrowed_down;
        endpoint.circuit.is_probe(id) && !request.is_single() && open.is_some_and(is_long)
    }

    /// A failure is a sign of an outage, unless the request has failed before while others were
    /// accepted: such a one waits by itself. Many of them in a row are a sign again.
    fn is_endpoint_at_fault(&mut self, id: RequestId) -> bool {
        let Some(request) = self.requests.get(id) else {
            return false;
        };
        let endpoint = &mut self.endpoints[request.endpoint.get()];
        if !request.history.fails_alone() {
            return true;
        }
        let are_many = endpoint.suspect(id);
        // The answer to a probe decides when the next one goes out.
        are_many || endpoint.circuit.is_probe(id)
    }

    /// The endpoint cannot take anything now, or needs its operator.
    pub(crate) fn unavailable(
        &mut self,
        now: Uptime,
        id: RequestId,
        reason: OpenReason,
        message: String,
        asked: RequestedWait,
    ) {
        let failure = Failure {
            reason,
            message,
            asked,
        };
        self.open_circuit(now, id, failure);
        self.requeue(id);
    }

    fn snapshot(&self, request: &Request) -> EndpointSnapshot {
        let is_released = self.batches.get(&request.batch).is_some_and(|batch| {
            let seq = batch.seq(request.outgoing.documents[0]);
            seq.is_some_and(|seq| seq < self.released[batch.stream.get()])
        });
        EndpointSnapshot {
            accepted: self.endpoints[request.endpoint.get()].accepted(),
            is_released,
        }
    }

    /// A request gets no answer in time and is split: if all of its documents are accepted in
    /// smaller requests, it was too large.
    fn expect_halves(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(id) {
            let documents = request.outgoing.documents.len();
            let sizes = &mut self.endpoints[request.endpoint.get()].sizes;
            sizes.expect_halves(id, documents);
        }
    }

    /// No other request could show whether the endpoint or this request is at fault.
    fn no_other_can_tell(&self, request: &Request) -> bool {
        let tally = self.requests.of_endpoint(request.endpoint).tally();
        let is_untried_half = request.history.is_untried_half();
        let itself = usize::from(request.is_poor_probe() || is_untried_half);
        let cannot_tell = tally.poor_probes + tally.untried_halves + tally.blocked;
        tally.requests - 1 == cannot_tell - itself
    }

    /// Makes the one document of a request a dead letter. False if the brake holds.
    fn give_up(&mut self, now: Uptime, id: RequestId, undeliverable: Undeliverable) -> bool {
        let Some(request) = self.requests.get(id) else {
            return true;
        };
        let Undeliverable { reason, since } = undeliverable;
        let (batch, document) = (request.batch, request.outgoing.documents[0]);
        let cause = self.settings.sink.label.to_string();
        match self.dead_letter(now, batch, document, &cause, &reason) {
            Ok(()) => {
                self.probe_undecided(now, id);
                self.end(id);
                true
            }
            Err(engaged) => {
                let hold = self.braked(now, cause, engaged, &reason, BRAKE_BACKOFF);
                self.hold_request(id, Hold { since, ..hold });
                false
            }
        }
    }

    /// Only probes are sent to the endpoint.
    fn open_circuit(&mut self, now: Uptime, id: RequestId, failure: Failure) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let circuit = &mut self.endpoints[request.endpoint.get()].circuit;
        circuit.fail(now, failure, id, &mut self.random);
    }

    /// A request with several documents failed or was refused, and is to be split. After many of
    /// them in a row without an acceptance, it may be the endpoint that takes nothing: then its
    /// halves wait for their turn as probes. So they do after a failure while the circuit is open.
    fn narrow(&mut self, now: Uptime, id: RequestId, failure: Failure) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let endpoint = &mut self.endpoints[request.endpoint.get()];
        let are_many = endpoint.suspect(id);
        let (circuit, random) = (&mut endpoint.circuit, &mut self.random);
        let is_refused = failure.reason == OpenReason::RefusesAll;
        let is_probe = circuit.is_probe(id);
        if circuit.open().is_none() && are_many {
            circuit.fail(now, failure, id, random);
        } else if is_probe && is_refused && !are_many {
            circuit.probe_undecided(now);
        } else if is_probe {
            circuit.narrow(now, failure, id, random);
        }
    }

    /// The halves of a probe have led to a single document.
    fn narrowed_down(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(id) {
            self.endpoints[request.endpoint.get()]
                .circuit
                .narrowed_down();
        }
    }

    /// If nothing waits for an endpoint, nothing would probe it either: the next batch shows
    /// how it is.
    pub(crate) fn close_idle_circuit(&mut self, index: EndpointIndex) {
        let circuit = &self.endpoints[index.get()].circuit;
        let has_requests = self.requests.of_endpoint(index).tally().requests > 0;
        if circuit.open().is_none() || has_requests {
            return;
        }
        let is_encoded = self.encodings.values().any(|encoding| {
            let batch = self.batches.get(&encoding.batch);
            batch.is_some_and(|batch| self.settings.streams[batch.stream.get()].endpoint == index)
        });
        if !is_encoded {
            self.endpoints[index.get()].circuit.succeed();
        }
    }

    /// If the request was a probe, its answer says nothing of the endpoint: another may go.
    pub(crate) fn probe_undecided(&mut self, now: Uptime, id: RequestId) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let circuit = &mut self.endpoints[request.endpoint.get()].circuit;
        if circuit.is_probe(id) {
            circuit.probe_undecided(now);
        }
    }
}

fn refuses_all(message: &str) -> Failure {
    Failure {
        reason: OpenReason::RefusesAll,
        message: format!(
            "one request is sent at a time, because the receiver refused several documents in a \
             row: {message}"
        ),
        asked: RequestedWait::NONE,
    }
}
