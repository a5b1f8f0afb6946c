use std::sync::Arc;

use crate::{DayTally, Millis, Outcomes, Seq, SeqRange};

/// What a pipeline gives to the store when a batch is final: one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    pub pipeline: Arc<str>,
    pub stream: Arc<str>,
    /// One pass of the pipeline over the stream.
    pub epoch: u32,
    /// Number of the pipeline's configuration, see [`Generation`].
    pub generation: u32,
    /// The entries that became final. One batch, one range.
    pub range: SeqRange,
    /// One outcome for each entry of the range.
    pub outcomes: Outcomes,
    /// What the indexes in `outcomes` mean.
    pub reasons: Vec<String>,
    /// The same outcomes by Teleport day, counted by the pipeline from event times.
    pub days: Vec<DayTally>,
    pub batch: BatchRecord,
    pub dead: Vec<DeadLetter>,
    pub state: Vec<StateWrite>,
}

/// What happened to a batch: for `audit` and `explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRecord {
    pub id: String,
    pub at: Millis,
    pub requests: Vec<RequestRecord>,
}

/// One request as it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// HTTP status of the last answer.
    pub status: u16,
    /// Documents it carried.
    pub documents: u32,
    /// Bytes of its body.
    pub bytes: u64,
    /// Times it was sent.
    pub attempts: u32,
    /// The first bytes of the last answer's body, masked; empty for a plain 2xx.
    pub excerpt: String,
}

/// An entry that cannot be delivered, with the original event: it outlives retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub seq: Seq,
    pub key: String,
    pub event_type: String,
    pub time: Millis,
    /// What refused it: `unreadable`, `stage 1 (builtin:redact)`, `sink (builtin:fluentd)`.
    pub cause: String,
    pub reason: String,
    /// JSON text, or the raw bytes of an event that is none.
    pub payload: Vec<u8>,
}

/// A change of a stage's key-value state. `None` removes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    pub stage: u32,
    pub key: String,
    pub value: Option<String>,
}

/// One configuration of a pipeline: digests of its components and what the operator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub pipeline: Arc<str>,
    /// A JSON object; equal text means the same generation.
    pub description: String,
}
