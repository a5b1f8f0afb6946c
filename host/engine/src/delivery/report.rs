//! What delivery shows: conditions of endpoints, and batches that wait for themselves alone.

use crate::Uptime;
use crate::batches::{BatchInFlight, Phase};
use crate::circuit::Trouble;
use crate::condition::ConditionKind;
use crate::delivery::evidence::FAILURES_BEFORE_SPLIT;
use crate::delivery::request::{Request, RequestState};
use crate::index::{BatchId, EndpointIndex, StreamIndex};
use crate::pipeline::Pipeline;

impl Pipeline {
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
                if request.endpoint != endpoint || request.history.braked.is_some() {
                    continue;
                }
                if let RequestState::Waiting { until, .. } = request.state {
                    let history = &request.history;
                    let began = history
                        .refused_since
                        .or(history.first_failed)
                        .unwrap_or(now);
                    if waiting == 0 || began < since {
                        (since, message) = (began, history.message.as_str());
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

    /// All that is left of the batch waits for itself alone, so that the stream may go on.
    pub(crate) fn is_parked(&self, id: BatchId, batch: &BatchInFlight) -> bool {
        if !matches!(batch.phase, Phase::Delivering { .. }) {
            return false;
        }
        let endpoint = &self.endpoints[self.settings.streams[batch.stream.get()].endpoint.get()];
        if batch.requests == 0 && batch.encodings == 0 {
            return false;
        }
        let mut requests = self.requests.values().filter(|request| request.batch == id);
        let mut encodings = self
            .encodings
            .values()
            .filter(|encoding| encoding.batch == id);
        match endpoint.circuit.open().map(|open| open.trouble) {
            // The next batch is a probe: it can show that the requests are at fault.
            Some(Trouble::Unavailable) => {
                let failing = |request: &Request| request.history.failures >= FAILURES_BEFORE_SPLIT;
                batch.encodings == 0 && requests.all(failing)
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
}
