//! One pipeline without I/O: stages over a batch, delivery as a state machine, outcomes into a
//! commit. It knows no clock, no socket and no async runtime: time comes in as an argument, and
//! what is to be done comes out as [`Action`]s.
//!
//! `start`, `plugin run` and the simulation in `tests/` use the same code. The rules are in
//! ARCHITECTURE.md under "Rules of delivery".

mod answer;
mod batches;
mod brake;
mod circuit;
mod condition;
mod delivery;
mod documents;
mod encoding;
mod excerpt;
mod fates;
mod finished;
mod index;
mod io;
mod isolation;
mod limits;
mod pipeline;
mod plugin;
mod settings;
mod stage_run;
mod streams;
#[cfg(test)]
mod testing;

pub use answer::SendFailure;
pub use brake::{BrakeLimits, Engaged};
pub use condition::{Condition, ConditionChange, ConditionKind, WaitRequester};
pub use documents::Documents;
pub use encoding::{EncodeOutput, Encoding, OutgoingRequest};
pub use fates::Fates;
pub use index::{
    BatchId, DocumentIndex, EncodingId, EndpointIndex, EntryIndex, RequestId, StreamIndex,
};
pub use io::{Action, Input};
pub use limits::{BACKOFF_MAX, FAN_OUT_OF_EVENT_MAX};
pub use pipeline::Pipeline;
pub use plugin::{Sink, Stage};
pub use settings::{
    BatchLimits, EndpointSettings, Settings, SinkSettings, StageSettings, StreamSettings,
};
pub use stage_run::{BatchError, FailedCall, StageOutput, StageRun, Step};

/// Time since the host started, which never goes back.
pub type Uptime = std::time::Duration;
