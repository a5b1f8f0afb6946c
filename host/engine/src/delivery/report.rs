//! Conditions of endpoints.

use crate::Uptime;
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

    /// Single documents that wait while others are sent.
    fn report_delayed(&mut self, now: Uptime, index: EndpointIndex) {
        let endpoint = &self.endpoints[index.get()];
        let (kind, name) = (ConditionKind::Documents, &endpoint.name);
        let requests = self.requests.of_endpoint(index);
        let first = requests.delayed_first();
        let first = first.filter(|_| endpoint.circuit.open().is_none());
        let Some((since, id)) = first else {
            return self.conditions.clear(kind, name);
        };
        let answer = self
            .requests
            .get(id)
            .map(|request| &request.history.message);
        let answer = answer.map_or("", String::as_str);
        let message = match requests.delayed_documents() {
            1 => format!("1 document waits while others are sent: {answer}"),
            count => format!("{count} documents wait while others are sent: {answer}"),
        };
        let next = requests.delayed_until();
        self.conditions
            .set(now, kind, name, &message, Some(since), next);
    }
}
