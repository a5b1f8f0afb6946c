//! A request from its encoding until its documents are final or encoded again.

use std::sync::Arc;

use lockgate_model::request::Response;

use crate::Uptime;
use crate::batches::Hold;
use crate::encoding::OutgoingRequest;
use crate::index::{BatchId, DocumentIndex, EndpointIndex, EntryIndex, RequestId};

/// Where a request is among all of its pipeline: by batch, then by event.
pub(crate) type Position = (BatchId, EntryIndex, DocumentIndex, RequestId);

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) batch: BatchId,
    pub(crate) endpoint: EndpointIndex,
    pub(crate) outgoing: OutgoingRequest,
    pub(crate) position: Position,
    pub(crate) history: History,
    pub(crate) state: RequestState,
    pub(crate) attempts: u32,
    /// It was sent while the circuit was open.
    pub(crate) is_probe: bool,
    pub(crate) status: u16,
    pub(crate) excerpt: String,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) enum RequestState {
    Queued,
    Sending,
    /// The sink is asked what this response means.
    Classifying(Arc<Response>),
    /// The sink could not be asked.
    ClassifyLater(Arc<Response>),
    Waiting {
        until: Uptime,
        /// For an acceptance of another: evidence against it.
        for_evidence: bool,
    },
}

/// What happened so far to the documents of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Answers that may have been its documents' fault.
    pub(crate) failures: u32,
    pub(crate) first_failed: Option<Uptime>,
    pub(crate) accepted_at_failure: u64,
    /// Times that it was refused alone, with evidence.
    pub(crate) refusals: u32,
    pub(crate) accepted_at_refusal: u64,
    /// Times that it was refused at all.
    pub(crate) attempts: u32,
    pub(crate) refused_since: Option<Uptime>,
    pub(crate) message: String,
    /// It would be a dead letter but for the brake.
    pub(crate) braked: Option<Hold>,
}

impl Request {
    /// The operator's release lets it be tried again, and dead-lettered without evidence.
    pub(crate) fn waits_for_release(&self) -> bool {
        matches!(
            self.state,
            RequestState::Waiting {
                for_evidence: true,
                ..
            }
        ) || self.history.braked.is_some()
    }
}
