//! Conditions of endpoints.

use crate::Uptime;
use crate::circuit::Trouble;
use crate::condition::ConditionKind;
use crate::index::EndpointIndex;
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
                let (since, next) = (Some(open.since), Some(open.next_probe));
                self.conditions
                    .set(now, kind, name, &open.message, since, next);
            }
            None => self.conditions.clear(kind, name),
        }
    }

    /// Single documents that wait while others are sent, or because none is left that could be.
    fn report_delayed(&mut self, now: Uptime, index: EndpointIndex) {
        let endpoint = &self.endpoints[index.get()];
        let (kind, name) = (ConditionKind::Documents, &endpoint.name);
        let requests = self.requests.of_endpoint(index);
        let others_can_be_sent = requests.others_can_be_sent();
        let is_shown = match endpoint.trouble() {
            None => true,
            Some(Trouble::RefusesAll) => !others_can_be_sent,
            Some(Trouble::Unavailable | Trouble::Operator) => false,
        };
        let first = requests.delayed_first().filter(|_| is_shown);
        let Some((since, request)) =
            first.and_then(|(since, id)| Some((since, self.requests.get(id)?)))
        else {
            return match self.holds.first(kind, name) {
                Some(hold) => {
                    let (since, next) = (Some(hold.since), Some(hold.until));
                    self.conditions
                        .set(now, kind, name, &hold.message, since, next);
                }
                None => self.conditions.clear(kind, name),
            };
        };
        let answer = &request.history.message;
        let documents = match requests.delayed_documents() {
            1 => "1 document waits".to_owned(),
            count => format!("{count} documents wait"),
        };
        let message = if others_can_be_sent || request.history.refused() == 0 {
            format!("{documents} while others are sent: {answer}")
        } else {
            let pipeline = &self.settings.pipeline;
            format!(
                "{documents} for the receiver to accept another: {answer}; `lockgate dlq release \
                 {pipeline}` lets it be dead-lettered without"
            )
        };
        let next = requests.delayed_until();
        self.conditions
            .set(now, kind, name, &message, Some(since), next);
    }
}
