//! The one way in and the one way out of an engine.

use std::sync::Arc;

use lockgate_model::contract::{BatchContext, CallError};
use lockgate_model::request::{Classification, Response, Sent};
use lockgate_model::{Batch, Commit, Entries, Seq, SeqRange};

use crate::Uptime;
use crate::answer::SendFailure;
use crate::condition::ConditionChange;
use crate::documents::Documents;
use crate::encoding::{EncodeOutput, Encoding, OutgoingRequest};
use crate::index::{BatchId, EncodingId, EndpointIndex, RequestId, StreamIndex};
use crate::stage_run::{BatchError, FailedCall, StageOutput, StageRun};

/// A report of the caller. Each [`Action`] that asks for an answer gets exactly one.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "an input is made and taken at once, never kept"
)]
pub enum Input {
    /// The stream's events end before `next`. `ended`: there will be no more.
    Head {
        stream: StreamIndex,
        next: Seq,
        ended: bool,
    },
    /// The answer to [`Action::Collect`]: the first events of the ranges, perhaps none.
    /// `generation`: of the configuration and databases that the batch is to be mapped with.
    Batch {
        stream: StreamIndex,
        batch: Batch,
        generation: u32,
    },
    /// Dead letters that the operator wants delivered: a batch with gaps.
    Redrive {
        stream: StreamIndex,
        batch: Batch,
        generation: u32,
    },
    /// The answer to [`Action::RunStages`].
    StagesRan {
        batch: BatchId,
        result: Result<StageOutput, BatchError>,
    },
    /// The batch has been in the stages for long, and this one, by its label, is at work now.
    StageAtWork { batch: BatchId, label: String },
    /// A call for the batch failed, and [`Action::RunStages`] is not answered yet.
    StageFailed { batch: BatchId, call: FailedCall },
    /// The answer to [`Action::Encode`].
    Encoded {
        encoding: EncodingId,
        result: Result<EncodeOutput, BatchError>,
    },
    /// A call of the sink failed, and [`Action::Encode`] is not answered yet.
    EncodeFailed {
        encoding: EncodingId,
        call: FailedCall,
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
        result: Result<Classification, CallError>,
    },
    /// The answer to [`Action::Commit`]. `dead_bytes`: of the pipeline's dead letters after it.
    Committed {
        batch: BatchId,
        entries: Entries,
        dead_bytes: u64,
    },
    /// Dead letters were added or removed: bytes of those that the pipeline keeps.
    DeadBytes(u64),
    /// The operator lets everything read so far be dead-lettered: without the brake, and without
    /// evidence.
    Release,
    /// The time that [`Action::WakeAt`] named has come.
    Elapsed,
    /// Nothing new is begun; what can finish at once may.
    Drain,
}

/// An instruction to the caller.
#[derive(Debug)]
pub enum Action {
    /// Give the next events out of the ranges, within the limits.
    Collect {
        stream: StreamIndex,
        within: Vec<SeqRange>,
        events: usize,
        bytes: usize,
    },
    /// All other batches wait for evidence that only the batch asked for can bring, so it must not
    /// wait for memory. Give a smaller one, of `bytes` at most.
    CollectNow { stream: StreamIndex, bytes: usize },
    /// Step the run until it is done or stopped.
    RunStages {
        batch: BatchId,
        generation: u32,
        run: Box<StageRun>,
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
        /// Its documents, or those that it was split from, were sent before.
        is_retry: bool,
    },
    /// Ask the sink what the response means.
    Classify {
        request: RequestId,
        context: BatchContext,
        sent: Sent,
        response: Arc<Response>,
    },
    /// Give [`Input::Elapsed`] at this time. Replaces the time named before.
    WakeAt(Option<Uptime>),
    /// For status, readiness and the log.
    ShowCondition(ConditionChange),
    /// For the log, once.
    Warn(String),
    /// Make outcomes of a batch durable: of all its entries, or of some if others are held up.
    /// The caller says when it did so: `batch.at` is 0.
    Commit { batch: BatchId, commit: Box<Commit> },
    /// Most of a batch is final, and what is left may wait for long: the batch takes the memory of
    /// `bytes` of payload from now on. `first`: its first sequence.
    BatchShrunk {
        stream: StreamIndex,
        first: Seq,
        bytes: usize,
    },
    /// A batch was too much at once, and its halves are two batches from now on, each with the
    /// memory of its payload. Each half: its first sequence, and bytes of payload.
    BatchHalved {
        stream: StreamIndex,
        halves: [(Seq, usize); 2],
    },
    /// A batch has left the engine, which needs its memory no more. `first`: its first sequence.
    BatchEnded {
        stream: StreamIndex,
        first: Seq,
        is_redrive: bool,
    },
    /// After [`Input::Drain`]: nothing is under way any more.
    Drained,
}
