//! Applies an answer to the documents of its request.

use std::collections::HashMap;
use std::sync::Arc;

use lockgate_model::contract::{CallError, Inspect};
use lockgate_model::request::{Classification, Disposition, Response};

use crate::Uptime;
use crate::answer::{self, FailureKind, Judgement, RequestedWait, SendFailure};
use crate::batches::Hold;
use crate::circuit::OpenReason;
use crate::condition::ConditionKind;
use crate::delivery::request::RequestState;
use crate::excerpt::excerpt;
use crate::index::RequestId;
use crate::io::Action;
use crate::limits::CLASSIFY_BACKOFF;
use crate::pipeline::{Pipeline, WorkId};

impl Pipeline {
    pub(crate) fn answered(
        &mut self,
        now: Uptime,
        id: RequestId,
        response: Response,
        actions: &mut Vec<Action>,
    ) {
        let accepted = (200..300).contains(&response.status);
        let inspected = match self.settings.sink.inspect {
            Inspect::Never => false,
            Inspect::Failures => !accepted,
            Inspect::Always => true,
        };
        self.requests.update(id, |request| {
            request.status = response.status;
            request.excerpt = if accepted {
                response.place.clone().unwrap_or_default()
            } else {
                excerpt(&response)
            };
        });
        if inspected {
            return self.classify(id, Arc::new(response), actions);
        }
        self.judge(now, id, answer::by_status(&response), actions);
    }

    /// Asks the sink what a response means.
    pub(crate) fn classify(
        &mut self,
        id: RequestId,
        response: Arc<Response>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let Some(batch) = self.batches.get(&request.batch) else {
            return;
        };
        actions.push(Action::Classify {
            request: id,
            context: batch.context().clone(),
            sent: request.outgoing.request.sent(),
            response: response.clone(),
        });
        let classifying = RequestState::Classifying(response);
        self.requests
            .update(id, |request| request.state = classifying);
    }

    pub(crate) fn not_sent(
        &mut self,
        now: Uptime,
        id: RequestId,
        failure: SendFailure,
        actions: &mut Vec<Action>,
    ) {
        self.requests.update(id, |request| {
            request.status = 0;
            request.excerpt = failure.message().to_owned();
        });
        self.judge(now, id, answer::by_failure(failure), actions);
    }

    pub(crate) fn classified(
        &mut self,
        now: Uptime,
        id: RequestId,
        result: Result<Classification, CallError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let RequestState::Classifying(response) = &request.state else {
            return;
        };
        let response = response.clone();
        let judgement = match result {
            Ok(delivery) => {
                let (judgement, is_overridden) = answer::by_sink(&response, delivery);
                if is_overridden && !std::mem::replace(&mut self.override_reported, true) {
                    actions.push(Action::Warn(format!(
                        "{} reported results for a response with status {}, which a sink cannot \
                         decide on: they are ignored, here and from now on",
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
        let until = self.retry_at(now, CLASSIFY_BACKOFF, Uptime::ZERO);
        let Some(request) = self.requests.get(id) else {
            return;
        };
        self.endpoints[request.endpoint.get()].end();
        let before = self.holds.get(WorkId::Request(id));
        let hold = Hold {
            kind: ConditionKind::Plugin,
            subject: self.settings.sink.label.to_string(),
            message: format!("`classify` failed: {error}"),
            since: before.map_or(now, |hold| hold.since),
            until,
        };
        self.hold_request(id, hold);
        let later = RequestState::ClassifyLater(response);
        self.requests.update(id, |request| request.state = later);
        self.timers.insert((until, WorkId::Request(id)));
    }

    fn judge(
        &mut self,
        now: Uptime,
        id: RequestId,
        judgement: Judgement,
        actions: &mut Vec<Action>,
    ) {
        self.holds.remove(WorkId::Request(id));
        self.requests.update(id, |request| request.is_held = false);
        let Some(request) = self.requests.get(id) else {
            return;
        };
        self.endpoints[request.endpoint.get()].end();
        match judgement {
            Judgement::Taken(dispositions) => self.taken(now, id, dispositions, actions),
            Judgement::AllRejected(reason) => {
                let rejected = |&index: &u32| (index, Disposition::Rejected(reason.clone()));
                let carries = request.outgoing.request.carries();
                let all = carries.iter().map(rejected).collect();
                self.taken(now, id, all, actions);
            }
            Judgement::Refused(message) => self.refused(now, id, &message, false, actions),
            Judgement::TooLarge(message) => self.refused(now, id, &message, true, actions),
            Judgement::Unsendable(message) => self.unsendable(now, id, message, actions),
            Judgement::Wait {
                message,
                asked,
                failure: Some(failure),
            } => self.failed(now, id, message, failure, asked, actions),
            Judgement::Wait {
                message,
                asked,
                failure: None,
            } => self.unavailable(now, id, OpenReason::Unavailable, message, asked),
            Judgement::NeedsOperator(message) => {
                self.unavailable(now, id, OpenReason::Operator, message, RequestedWait::NONE);
            }
        }
    }

    /// As after a trap of `encode`: narrowed down to the document, which the sink is at fault for.
    /// It says nothing of the receiver.
    fn unsendable(
        &mut self,
        now: Uptime,
        id: RequestId,
        message: String,
        actions: &mut Vec<Action>,
    ) {
        self.probe_undecided(now, id);
        let Some(request) = self.requests.get(id) else {
            return;
        };
        if !request.is_single() {
            return self.split(id, actions);
        }
        let (batch, document) = (request.batch, request.outgoing.documents[0]);
        self.reject(now, batch, vec![(document, message)]);
        self.end(id);
    }

    /// The receiver took the request, or some of it.
    fn taken(
        &mut self,
        now: Uptime,
        id: RequestId,
        dispositions: Vec<(u32, Disposition)>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        let (batch, index) = (request.batch, request.endpoint);
        let (half_of, bytes) = (request.history.half_of(), request.bytes as usize);
        let is_half = request.history.is_untried_half();
        let mut dispositions: HashMap<u32, Disposition> = dispositions.into_iter().collect();
        let (mut delivered, mut rejected, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let carries = request.outgoing.request.carries();
        for (index, &document) in carries.iter().zip(request.outgoing.documents.iter()) {
            match dispositions.remove(index) {
                None | Some(Disposition::Delivered) => delivered.push(document),
                Some(Disposition::Rejected(reason)) => rejected.push((document, reason)),
                Some(Disposition::Retry) => again.push(document),
            }
        }
        let label = &self.settings.sink.label;
        if delivered.is_empty() && rejected.is_empty() && !again.is_empty() {
            let message = format!("{label} says that all documents are to be sent again");
            let asked = RequestedWait::NONE;
            return self.failed(now, id, message, FailureKind::Error, asked, actions);
        }
        let message = format!("{label} says that some documents are to be sent again");
        let took_some = !delivered.is_empty();
        let accepted = self.endpoints[index.get()].accepted() + u64::from(took_some);
        let history = request
            .history
            .after_part(now, took_some, accepted, message);
        if delivered.is_empty() {
            // An answer ends an outage, but it is not evidence against another document.
            self.endpoints[index.get()].circuit.succeed();
        } else {
            self.endpoints[index.get()].fails_on_some |= is_half;
            self.accepted(now, index);
        }
        if let Some(whole) = half_of
            && again.is_empty()
            && rejected.is_empty()
        {
            let sizes = &mut self.endpoints[index.get()].sizes;
            sizes.half_accepted(whole, delivered.len(), bytes);
        }
        self.delivered(now, batch, &delivered);
        if !again.is_empty() {
            let until = self.retry_at(now, history.failures, Uptime::ZERO);
            let hold = Hold {
                kind: ConditionKind::Documents,
                subject: self.endpoints[index.get()].name.to_string(),
                message: history.message.clone(),
                since: history.since().unwrap_or(now),
                until,
            };
            self.encode_later(batch, again, history, hold);
        }
        self.reject(now, batch, rejected);
        self.end(id);
    }
}
