//! The one way in and the one way out of an engine.

use std::sync::Arc;

use lockgate_model::contract::{BatchInfo, CallError};
use lockgate_model::request::{Delivery, Response, Sent};
use lockgate_model::{
    Batch, DayTally, DeadLetter, Outcomes, RequestRecord, Seq, SeqRange, StateWrite,
};

use crate::Uptime;
use crate::answer::SendFailure;
use crate::condition::ConditionChange;
use crate::documents::Documents;
use crate::encoding::{Encoding, Made, OutgoingRequest};
use crate::index::{EncodingId, EndpointIndex, FlightId, RequestId, StreamIndex};
use crate::passage::{Passage, Passed, Stop};

/// What happened. Each [`Action`] that asks for an answer gets exactly one.
#[derive(Debug)]
pub enum Input {
    /// The stream's events end before `next`. `ended`: there will be no more.
    Head {
        stream: StreamIndex,
        next: Seq,
        ended: bool,
    },
    /// The answer to [`Action::Collect`]: consecutive events from the range's start, perhaps none.
    /// `generation`: of the configuration and databases that the batch is to be mapped with.
    Batch {
        stream: StreamIndex,
        batch: Batch,
        generation: u32,
    },
    /// Dead letters that the operator wants delivered. `seqs`: one for each event of the batch.
    Redrive {
        id: u64,
        stream: StreamIndex,
        batch: Batch,
        seqs: Vec<Seq>,
        generation: u32,
    },
    /// The answer to [`Action::Pass`].
    Passed {
        flight: FlightId,
        result: Result<Passed, Stop>,
    },
    /// The answer to [`Action::Encode`].
    Encoded {
        encoding: EncodingId,
        result: Result<Made, Stop>,
    },
    /// An answer to [`Action::Send`].
    Answered {
        request: RequestId,
        response: Response,
    },
    /// The other answer to [`Action::Send`].
    NotSent {
        request: RequestId,
        failure: SendFailure,
    },
    /// The answer to [`Action::Classify`].
    Classified {
        request: RequestId,
        result: Result<Delivery, CallError>,
    },
    /// The answer to [`Action::Commit`]. `dead_bytes`: of the pipeline's dead letters after it.
    Committed { flight: FlightId, dead_bytes: u64 },
    /// Dead letters were retried or dropped by the operator: what remains of them.
    DeadBytes(u64),
    /// The operator lets the brake go for everything read until now.
    Release,
    /// The time that [`Action::WakeAt`] named has come.
    Elapsed,
    /// Nothing new is begun; what can finish at once may.
    Drain,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Give the next events out of the range, within the limits.
    Collect {
        stream: StreamIndex,
        within: SeqRange,
        events: usize,
        bytes: usize,
    },
    /// Step the passage until it is done or stopped.
    Pass {
        flight: FlightId,
        generation: u32,
        passage: Box<Passage>,
    },
    /// Step the encoding until it is done or stopped.
    Encode {
        encoding: EncodingId,
        work: Box<Encoding>,
    },
    /// Send the request once.
    Send {
        request: RequestId,
        endpoint: EndpointIndex,
        outgoing: OutgoingRequest,
        documents: Arc<Documents>,
    },
    /// Ask the sink what the response means.
    Classify {
        request: RequestId,
        info: BatchInfo,
        sent: Sent,
        response: Arc<Response>,
    },
    /// Give [`Input::Elapsed`] at this time. Replaces the time named before.
    WakeAt(Option<Uptime>),
    /// For status, readiness and the log.
    Report(ConditionChange),
    /// For the log, once.
    Warn(String),
    /// Make the outcomes of a batch durable.
    Commit(Box<Settled>),
    /// After [`Input::Drain`]: nothing is under way any more.
    Drained,
}

/// A batch whose every entry is final.
#[derive(Debug)]
pub struct Settled {
    pub flight: FlightId,
    pub stream: StreamIndex,
    /// The batch's id.
    pub batch: Arc<str>,
    /// The sequences, where it is not a redrive.
    pub range: SeqRange,
    /// The redrive's id and sequences, where it is one.
    pub redrive: Option<(u64, Vec<Seq>)>,
    pub generation: u32,
    /// One outcome for each entry.
    pub outcomes: Outcomes,
    pub reasons: Vec<String>,
    pub days: Vec<DayTally>,
    pub dead: Vec<DeadLetter>,
    pub requests: Vec<RequestRecord>,
    pub state: Vec<StateWrite>,
    /// For [`Settings::brake_text`](crate::Settings::brake_text) of the next start.
    pub brake: String,
}
