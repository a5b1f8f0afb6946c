//! What holds of each request when it goes out: it carries nothing that is final or on its way, an
//! endpoint that is out of reach gets one probe at a time, and nothing before it asked for it.

use std::collections::BTreeMap;

use lockgate_engine::{Action, ConditionKind, RequestId, Uptime};
use lockgate_ledger::memory::Recorded;

use crate::simulation::{Carried, PIPELINE, Simulation};

/// Since when an endpoint's circuit has been open, as its condition says.
pub type OpenSince = BTreeMap<usize, Uptime>;

#[derive(Default)]
pub struct Sending {
    /// The probe of each endpoint that has not been judged, and since when its circuit was open.
    probes: BTreeMap<usize, (Uptime, RequestId)>,
    /// `Retry-After` of each endpoint that has accepted nothing since.
    not_before: BTreeMap<usize, Uptime>,
}

impl Sending {
    /// The engine draws its conclusions from the answer to a request.
    pub fn judged(&mut self, request: RequestId) {
        self.probes.retain(|_, (_, probe)| *probe != request);
    }

    /// A receiver asks for a wait.
    pub fn wait(&mut self, endpoint: usize, until: Uptime) {
        let not_before = self.not_before.entry(endpoint).or_default();
        *not_before = until.max(*not_before);
    }

    /// The operator wants everything to be tried.
    pub fn released(&mut self) {
        self.not_before.clear();
    }

    /// A receiver took a request.
    pub fn accepted(&mut self, endpoint: usize) {
        self.not_before.remove(&endpoint);
    }
}

impl Simulation {
    /// The endpoints to which nothing but probes is sent.
    pub fn open_since(&self) -> OpenSince {
        let conditions = self.engine.iter().flat_map(|engine| engine.conditions());
        conditions
            .filter(|condition| condition.kind == ConditionKind::Endpoint)
            .map(|condition| (usize::from(condition.subject != "url"), condition.since))
            .collect()
    }

    /// `before`: as it was before the input that led to these actions.
    pub fn check_probes(&mut self, before: &OpenSince, actions: &[Action]) {
        let after = self.open_since();
        for action in actions {
            let Action::Send {
                request, endpoint, ..
            } = action
            else {
                continue;
            };
            let endpoint = endpoint.get();
            if let Some(&until) = self.sending.not_before.get(&endpoint) {
                assert!(
                    self.now >= until,
                    "at {:?} a request goes out that was asked to wait until {until:?}",
                    self.now
                );
            }
            let (Some(&since), Some(&still)) = (before.get(&endpoint), after.get(&endpoint)) else {
                continue;
            };
            if since == still {
                let other = self.sending.probes.insert(endpoint, (since, *request));
                assert!(
                    other.is_none_or(|(of, _)| of != since),
                    "a second probe goes out before the first is answered"
                );
            }
        }
    }

    /// None of the documents is final, and none is on its way.
    pub fn check_sendable(&self, carried: &[Carried]) {
        for (stream, key, seq) in carried {
            let known = (*stream, key.clone());
            assert!(
                !self.acknowledged.contains(&known),
                "{key} is sent again although its acceptance was heard"
            );
            assert!(
                !self.in_flight.contains(&known),
                "{key} is sent twice at a time"
            );
            let outcomes = self.core.outcomes(PIPELINE, &self.stream(*stream), *seq);
            assert!(
                matches!(outcomes.last(), None | Some(Recorded::Retried)),
                "{key} is sent although its entry has an outcome: {outcomes:?}"
            );
        }
        let of_first = carried[0].0;
        assert!(
            carried
                .iter()
                .all(|(stream, ..)| self.endpoint_of(*stream) == self.endpoint_of(of_first)),
            "a request carries documents of one endpoint"
        );
    }
}
