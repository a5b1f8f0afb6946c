//! Whether a request or its endpoint is at fault: what was accepted and what was refused decides.

use crate::Uptime;
use crate::batches::Hold;
use crate::circuit::Trouble;
use crate::delivery::request::RequestState;
use crate::index::{EndpointIndex, RequestId};
use crate::io::Action;
use crate::pipeline::{Pipeline, WorkId};

/// A document is dead-lettered when it was refused alone this often, with others accepted between.
const REFUSALS_MAX: u32 = 3;

/// One that is too large needs less: the answer says what is wrong with it.
const REFUSALS_TOO_LARGE_MAX: u32 = 2;

/// A request that fails this often while others are accepted is split.
pub(crate) const FAILURES_BEFORE_SPLIT: u32 = 5;

/// A single document that fails for this long while others are accepted is dead-lettered.
const FAILING_MAX: Uptime = Uptime::from_secs(600);

/// A request that failed this often keeps to its own waits when the endpoint recovers.
const FAILURES_OF_ITS_OWN: u32 = 3;

/// Single documents that are refused one after another before only probes are sent.
const REFUSED_IN_A_ROW_MAX: u32 = 2;

impl Pipeline {
    /// The endpoint accepted documents: whatever waits for it goes, and so does what waited for
    /// evidence.
    pub(crate) fn accepted(&mut self, now: Uptime, index: EndpointIndex) {
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
                WorkId::Request(id) => Some((until, id)),
                _ => None,
            })
            .filter(|(_, id)| {
                self.requests.get(id).is_some_and(|request| {
                    let waits = match request.state {
                        RequestState::Waiting {
                            for_evidence: true, ..
                        } => request.history.braked.is_none(),
                        RequestState::Waiting { .. } => {
                            recovered && request.history.failures < FAILURES_OF_ITS_OWN
                        }
                        _ => false,
                    };
                    request.endpoint == index && waits
                })
            })
            .collect();
        for (until, id) in freed {
            self.timers.remove(&(until, WorkId::Request(id)));
            self.timers.insert((now, WorkId::Request(id)));
            if let Some(request) = self.requests.get_mut(&id)
                && let RequestState::Waiting { until, .. } = &mut request.state
            {
                *until = now;
            }
        }
    }

    /// 400, 413, 422, or the sink wants it split.
    pub(crate) fn refused(
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
        let released = self.batches.get(&request.batch).is_some_and(|batch| {
            let seq = batch.seq(request.outgoing.documents[0]);
            seq.is_some_and(|seq| seq < self.released[batch.stream.get()])
        });
        let history = &mut request.history;
        let since = *history.refused_since.get_or_insert(now);
        history.attempts += 1;
        history.message = message.clone();
        // An answer that blames the size needs no acceptance after it, but one at all.
        let has_evidence = history.refusals > 0
            && (accepted > history.accepted_at_refusal || released || too_large && accepted > 0);
        if history.refusals == 0 || has_evidence {
            history.refusals += 1;
            history.accepted_at_refusal = accepted;
        }
        let most = if too_large {
            REFUSALS_TOO_LARGE_MAX
        } else {
            REFUSALS_MAX
        };
        if history.refusals >= most && (has_evidence || history.refusals > most) {
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
    pub(crate) fn wait_for_evidence(&mut self, now: Uptime, id: RequestId) {
        let attempts = self
            .requests
            .get(&id)
            .map_or(0, |request| request.history.attempts);
        let until = self.retry_at(now, attempts + 2, Uptime::ZERO);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if let Some(hold) = &mut request.history.braked {
            hold.until = until;
        }
        request.state = RequestState::Waiting {
            until,
            for_evidence: true,
        };
        self.timers.insert((until, WorkId::Request(id)));
    }

    /// 5xx, 408, 425, 429, no connection, no answer.
    pub(crate) fn unavailable(
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
        let released = self.batches.get(&request.batch).is_some_and(|batch| {
            let seq = batch.seq(request.outgoing.documents[0]);
            seq.is_some_and(|seq| seq < self.released[batch.stream.get()])
        });
        let history = &mut request.history;
        history.message = message.clone();
        if suspicious {
            if history.first_failed.is_none() {
                history.first_failed = Some(now);
                history.accepted_at_failure = accepted;
            }
            history.failures += 1;
            let others_accepted = accepted > history.accepted_at_failure || released;
            let first_failed = history.first_failed.unwrap_or(now);
            let single = request.outgoing.documents.len() == 1;
            let often = history.failures >= FAILURES_BEFORE_SPLIT;
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
            .map_or(0, |request| request.history.failures);
        if !suspicious {
            return self.requeue(id);
        }
        let until = self.retry_at(now, failures, after);
        if let Some(request) = self.requests.get_mut(&id) {
            if let Some(hold) = &mut request.history.braked {
                hold.until = until;
            }
            request.state = RequestState::Waiting {
                until,
                for_evidence: false,
            };
            self.timers.insert((until, WorkId::Request(id)));
        }
    }

    /// No other request could show whether the endpoint or this request is at fault.
    pub(crate) fn all_others_fail(&self, id: RequestId) -> bool {
        let endpoint = self.requests.get(&id).map(|request| request.endpoint);
        self.requests
            .iter()
            .filter(|&(&other, request)| other != id && Some(request.endpoint) == endpoint)
            .all(|(_, request)| request.history.failures >= FAILURES_BEFORE_SPLIT)
    }

    /// Makes the one document of a request a dead letter. False where the brake holds.
    pub(crate) fn give_up(
        &mut self,
        now: Uptime,
        id: RequestId,
        reason: &str,
        since: Uptime,
    ) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return true;
        };
        let (batch, document) = (request.batch, request.outgoing.documents[0]);
        let (index, was_probe) = (request.endpoint, request.is_probe);
        let cause = self.settings.sink.label.to_string();
        match self.dead_letter(now, batch, document, &cause, reason) {
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
                    request.history.braked = Some(Hold { since, ..hold });
                }
                false
            }
        }
    }

    /// The endpoint is in trouble.
    pub(crate) fn fail(
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
}
