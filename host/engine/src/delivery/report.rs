//! Conditions of endpoints.

use crate::Uptime;
use crate::circuit::OpenReason;
use crate::condition::{ConditionKind, Found};
use crate::delivery::history::is_too_long;
use crate::index::{EndpointIndex, StreamIndex};
use crate::pipeline::Pipeline;

impl Pipeline {
    pub(crate) fn report_endpoints(&mut self, now: Uptime) {
        for index in (0..self.endpoints.len()).map(EndpointIndex::new) {
            self.report_circuit(now, index);
            self.report_delayed(now, index);
        }
    }

    fn report_circuit(&mut self, now: Uptime, index: EndpointIndex) {
        let endpoint = &self.endpoints[index.get()];
        let (kind, name) = (ConditionKind::Endpoint, &endpoint.name);
        match endpoint.circuit.open() {
            Some(open) => {
                let (since, next) = (open.since, Some(open.next_probe));
                let mut message = open.message.clone();
                let pipeline = &self.settings.pipeline;
                let tally = self.requests.of_endpoint(index).tally();
                let only_failing = tally.requests > 0
                    && tally.poor_single_probes + tally.blocked == tally.requests;
                if only_failing && self.waits_for_documents(index) {
                    message += "; no new batch begins until some of the documents that fail \
                                are final";
                }
                if self.is_undecided(now, index) {
                    message += &format!(
                        "; if the receiver takes other documents, `lockgate dlq release \
                         {pipeline}` lets what it fails on be dead-lettered"
                    );
                } else if open.reason == OpenReason::RefusesAll {
                    message += &format!(
                        "; `lockgate dlq release {pipeline}` lets what it refuses be dead-lettered \
                         and the others be sent"
                    );
                }
                self.conditions.set(
                    now,
                    Found {
                        kind,
                        subject: name,
                        message: &message,
                        since,
                        next_attempt: next,
                        asked_by: open.asked_by,
                    },
                );
            }
            None => self.conditions.clear(now, kind, name),
        }
    }

    /// A document has failed for so long that it would be dead-lettered if others were accepted,
    /// and no other is there.
    pub(crate) fn is_undecided(&self, now: Uptime, index: EndpointIndex) -> bool {
        let is_unavailable =
            self.endpoints[index.get()].open_reason() == Some(OpenReason::Unavailable);
        let since = self.requests.of_endpoint(index).undecided_since();
        is_unavailable && since.is_some_and(|since| is_too_long(now, since))
    }

    /// Single documents that wait while others are sent, or because none is left that could be.
    fn report_delayed(&mut self, now: Uptime, index: EndpointIndex) {
        let endpoint = &self.endpoints[index.get()];
        let (kind, name) = (ConditionKind::Documents, &endpoint.name);
        let requests = self.requests.of_endpoint(index);
        let others_can_be_sent = requests.others_can_be_sent();
        let is_shown = match endpoint.open_reason() {
            None => true,
            Some(OpenReason::RefusesAll | OpenReason::Unavailable) => {
                requests.tally().refused > 0 && !others_can_be_sent
            }
            Some(OpenReason::Operator) => false,
        };
        let first = requests.delayed_first().filter(|_| is_shown);
        let Some((since, request)) =
            first.and_then(|(since, id)| Some((since, self.requests.get(id)?)))
        else {
            let Some(hold) = self.holds.first(kind, name) else {
                return self.conditions.clear(now, kind, name);
            };
            self.conditions.set(
                now,
                Found {
                    kind,
                    subject: name,
                    message: &hold.message,
                    since: hold.since,
                    next_attempt: Some(hold.until),
                    asked_by: None,
                },
            );
            let is_stopping = self.waits_for_documents(index);
            return self.conditions.set_stopping(kind, name, is_stopping);
        };
        let next = requests.delayed_until();
        let waits_for_its_time = next.is_some_and(|next| next > now);
        if !waits_for_its_time && !self.conditions.has(kind, name) {
            // The outage that it waited for is over: it is being sent, or about to be.
            return;
        }
        let answer = &request.history.message;
        let documents = match requests.delayed_documents() {
            1 => "1 document waits".to_owned(),
            count => format!("{count} documents wait"),
        };
        let history = &request.history;
        let needs_release =
            history.refusal_count() > 0 || history.fails_often() && !history.fails_alone();
        let pipeline = &self.settings.pipeline;
        let message = if others_can_be_sent || !needs_release {
            let meanwhile = match requests.delayed_documents() {
                _ if others_can_be_sent && !self.waits_for_documents(index) => {
                    " while others are sent"
                }
                _ if !self.waits_for_documents(index) => "",
                1 => ", and no new batch begins until it is final",
                _ => ", and no new batch begins until some of them are final",
            };
            format!("{documents}{meanwhile}: {answer}")
        } else {
            let them = match requests.delayed_documents() {
                1 => "it",
                _ => "them",
            };
            format!(
                "{documents} for the receiver to accept another: {answer}; `lockgate dlq release \
                 {pipeline}` lets {them} be dead-lettered without waiting"
            )
        };
        self.conditions.set(
            now,
            Found {
                kind,
                subject: name,
                message: &message,
                since,
                next_attempt: next,
                asked_by: None,
            },
        );
        let is_stopping = self.waits_for_documents(index);
        self.conditions.set_stopping(kind, name, is_stopping);
    }

    /// Too many documents wait, so nothing more is read for the endpoint.
    fn waits_for_documents(&self, endpoint: EndpointIndex) -> bool {
        let mut streams = (0..self.streams.len()).map(StreamIndex::new);
        streams.any(|stream| {
            let is_its_own = self.settings.streams[stream.get()].endpoint == endpoint;
            is_its_own && self.reached_a_limit(stream)
        })
    }
}
