//! A request from its encoding until its documents are final or encoded again.

use std::sync::Arc;

use lockgate_model::request::Response;
use lockgate_model::{RequestRecord, SeqRange, escape};

use crate::Uptime;
use crate::delivery::history::History;
use crate::encoding::OutgoingRequest;
use crate::index::{BatchId, DocumentIndex, EndpointIndex, EntryIndex, RequestId};
use crate::limits::PATH_MAX;

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
    /// No earlier document of its sessions is unfinished.
    pub(crate) is_in_order: bool,
    /// It waits for the brake or for the sink, as a hold says.
    pub(crate) is_held: bool,
    pub(crate) attempts: u32,
    pub(crate) status: u16,
    pub(crate) excerpt: String,
    pub(crate) bytes: u64,
}

/// What is known against a request, the least first: its class, the attempts that failed, and its
/// documents, if that makes a difference. The fewer, the likelier none of them is at fault.
pub(crate) type FaultRank = (FaultClass, u32, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultClass {
    /// A part of a request that failed or was refused: whatever its answer, it narrows the fault
    /// down.
    UntriedPart,
    Clean,
    /// It failed.
    Doubtful,
    /// A single document that is likely at fault itself: its next failure says nothing.
    PoorProbe,
}

#[derive(Debug)]
pub(crate) enum RequestState {
    Queued,
    Sending,
    /// The sink is asked what this response means.
    Classifying(Arc<Response>),
    /// The sink could not be asked.
    ClassifyLater(Arc<Response>),
    Waiting(Wait),
}

/// When a request is tried again at the latest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) until: Uptime,
    /// It waits for an acceptance of another: evidence against it.
    pub(crate) for_evidence: bool,
}

impl Request {
    pub(crate) fn wait(&self) -> Option<Wait> {
        match self.state {
            RequestState::Waiting(wait) => Some(wait),
            _ => None,
        }
    }

    /// The receiver or the sink is to answer.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(
            self.state,
            RequestState::Sending | RequestState::Classifying(_)
        )
    }

    pub(crate) fn may_be_sent(&self) -> bool {
        matches!(self.state, RequestState::Queued) && self.is_in_order
    }

    /// An unfinished document of its sessions is before it.
    pub(crate) fn is_blocked(&self) -> bool {
        matches!(self.state, RequestState::Queued) && !self.is_in_order
    }

    /// The operator's release lets it be tried again, and dead-lettered without evidence.
    pub(crate) fn waits_for_release(&self) -> bool {
        self.is_held || self.wait().is_some_and(|wait| wait.for_evidence)
    }

    /// Since when it waits while others are sent. It still counts while it is tried again.
    pub(crate) fn delayed_since(&self) -> Option<Uptime> {
        let history = &self.history;
        let is_tried_again = history.is_suspect() || history.fails_alone();
        let is_delayed = self.wait().is_some() || is_tried_again;
        self.history.since().filter(|_| is_delayed && !self.is_held)
    }

    pub(crate) fn fault_rank(&self) -> FaultRank {
        let class = if self.history.is_untried_part() {
            FaultClass::UntriedPart
        } else if self.history.is_clean() {
            return (FaultClass::Clean, 0, 0);
        } else if self.is_single() && self.is_poor_probe() {
            FaultClass::PoorProbe
        } else {
            FaultClass::Doubtful
        };
        let documents = self.outgoing.documents.len();
        (class, self.history.failed_attempts(), documents)
    }

    /// It is likely at fault itself, so that it cannot show how the endpoint is: it failed often or
    /// was refused, or is a single document that failed although others were accepted.
    pub(crate) fn is_poor_probe(&self) -> bool {
        let history = &self.history;
        history.is_suspect() || self.is_single() && history.fails_alone()
    }

    pub(crate) fn is_single(&self) -> bool {
        self.outgoing.documents.len() == 1
    }

    /// `endpoint`: its name. `entries`: those that it carried documents of.
    pub(crate) fn into_record(self, endpoint: &str, entries: Vec<SeqRange>) -> RequestRecord {
        RequestRecord {
            method: self.outgoing.request.method().as_str().to_owned(),
            endpoint: endpoint.to_owned(),
            path: escape(self.outgoing.request.path_suffix(), PATH_MAX).into_owned(),
            entries,
            status: self.status,
            documents: self.outgoing.documents.len() as u32,
            bytes: self.bytes,
            attempts: self.attempts,
            excerpt: self.excerpt,
        }
    }
}
