//! Batches that keep no other from being sent.

use crate::batches::{BatchInFlight, Phase};
use crate::circuit::OpenReason;
use crate::index::{BatchId, StreamIndex};
use crate::pipeline::Pipeline;

impl Pipeline {
    /// Everything left of the batch waits by itself, or behind such a document of its session, so
    /// that the stream may go on: another batch can bring evidence.
    pub(crate) fn is_parked(&self, id: BatchId, batch: &BatchInFlight) -> bool {
        if !matches!(batch.phase, Phase::Delivering { .. }) {
            return false;
        }
        let tally = self.requests.of_batch(id);
        if tally.requests == 0 && batch.encodings == 0 {
            // It is committed after the batch whose state it builds on.
            return true;
        }
        let endpoint = self.settings.streams[batch.stream.get()].endpoint;
        match self.endpoints[endpoint.get()].open_reason() {
            // The next batch is a probe: it can show that the requests are at fault.
            Some(OpenReason::Unavailable) => {
                batch.running_encodings == 0 && tally.poor_probes + tally.blocked == tally.requests
            }
            Some(OpenReason::Operator) => false,
            // The next batch is a probe, too.
            Some(OpenReason::RefusesAll) => {
                let set_aside = tally.waiting + tally.blocked + tally.sendable_not_clean;
                batch.running_encodings == 0 && set_aside == tally.requests
            }
            None => batch.running_encodings == 0 && tally.waiting + tally.blocked == tally.requests,
        }
    }

    /// Nothing that is left of the batch can show how the endpoint is: it waits behind documents of
    /// its sessions or for a hold, or is likely at fault itself.
    pub(crate) fn has_no_probe(&self, id: BatchId, batch: &BatchInFlight) -> bool {
        let tally = self.requests.of_batch(id);
        batch.encodings + tally.requests > 0
            && batch.running_encodings == 0
            && tally.poor_single_probes + tally.blocked == tally.requests
    }

    /// Whether the endpoint of the stream is out of reach, as far as is known.
    pub(crate) fn is_unavailable(&self, stream: StreamIndex) -> bool {
        let endpoint = self.settings.streams[stream.get()].endpoint;
        self.endpoints[endpoint.get()].open_reason() == Some(OpenReason::Unavailable)
    }
}
