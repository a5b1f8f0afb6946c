//! The data of the plugin contract as the host sees it, after all its rules have been checked: the
//! setup that a component returns when it is configured, its results for events and documents, and
//! the errors of calls. `wit/plugin.wit` documents the fields for plugin authors.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::request::{CheckedRequest, Violation};
use crate::{FeedKind, Millis};

/// The batch of a call, as a component sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchContext {
    /// Stable across retries of the batch, not across restarts.
    pub id: Arc<str>,
    pub pipeline: Arc<str>,
    /// The configured name of the cluster, such as `teleport`.
    pub source: Arc<str>,
    /// When the batch was read from Teleport. The only clock that a component has.
    pub read_at: Millis,
}

/// How much of an event or a document a component may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing. The type lists decide, and a filter is never called.
    Types,
    /// Everything except the payload.
    Metadata,
    Payload,
}

/// The event types that reach a component. The host applies the lists before any call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeLists {
    /// Only these event types. `None`: all.
    pub only: Option<HashSet<String>>,
    /// Not these event types, even if `only` contains them.
    pub skip: HashSet<String>,
    /// Not these event types from session recordings.
    pub skip_in_sessions: HashSet<String>,
}

impl TypeLists {
    pub fn let_all_through(&self) -> bool {
        self.only.is_none() && self.skip.is_empty() && self.skip_in_sessions.is_empty()
    }

    /// Why an event does not reach the component, or `None` if it does.
    pub fn excludes(&self, event_type: &str, feed: FeedKind) -> Option<&'static str> {
        if self.skip.contains(event_type) {
            return Some("type skipped");
        }
        if feed == FeedKind::Sessions && self.skip_in_sessions.contains(event_type) {
            return Some("session type skipped");
        }
        let wanted = self
            .only
            .as_ref()
            .is_none_or(|only| only.contains(event_type));
        (!wanted).then_some("type not wanted")
    }
}

/// What a stage does with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// It keeps or drops them.
    Filter,
    /// It makes documents of them.
    Mapper,
}

/// The setup that a filter or a mapper returned from its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSetup {
    pub types: TypeLists,
    pub access: Access,
    /// The reasons to which `drop(n)` refers. At most 64 short texts, escaped.
    pub reasons: Vec<String>,
}

/// The responses for which `classify` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// None. The host decides by the status.
    Never,
    /// All except 2xx.
    Failures,
    Always,
}

/// The setup that a sink returned from its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSetup {
    /// `skip_in_sessions` is empty.
    pub types: TypeLists,
    /// Never [`Access::Types`].
    pub access: Access,
    /// A top-level member that must contain an RFC 3339 time with a zone, if it is present. With
    /// [`Access::Metadata`], the sink still gets the payload of a document that breaks this rule.
    pub time_member: Option<String>,
    /// Most documents of one call of `encode`. Never 0.
    pub max_documents: Option<u32>,
    /// Most bytes of payload of one call of `encode`. Never 0.
    pub max_bytes: Option<u32>,
    pub inspect: Inspect,
    /// Bytes of a response's body that `classify` gets. Never 0, at most 4 MiB.
    pub max_response_bytes: u32,
}

/// The result of a filter for one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Dropped. A valid index into [`StageSetup::reasons`].
    Drop(u32),
}

/// A document that a mapper made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedDocument {
    /// One JSON object on one line, with the guarantees of an event's payload.
    pub payload: String,
    /// Attributes for the sink.
    pub attributes: Vec<(String, String)>,
}

/// The result of a mapper for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// An empty list drops the event for the reason `empty`.
    Emit(Vec<MappedDocument>),
    /// A valid index into [`StageSetup::reasons`].
    Drop(u32),
    /// This event cannot be mapped, for this reason.
    Reject(String),
}

/// The result of a sink for documents. Each document is either in one request or rejected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    pub requests: Vec<CheckedRequest>,
    /// Index of the document in the call, and why.
    pub rejected: Vec<(u32, String)>,
}

/// The result of a call of a component, and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Called<T> {
    pub result: Result<T, CallError>,
    /// CPU time of the calling thread, including the start of an instance.
    pub cpu: Duration,
}

impl<T> Called<T> {
    /// A result that needed no call.
    pub fn free(result: Result<T, CallError>) -> Called<T> {
        Called {
            result,
            cpu: Duration::ZERO,
        }
    }
}

/// Why a call of a component gave no usable result. Texts of the component are escaped and short.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CallError {
    /// It stopped: a panic, an uncaught exception, an access out of bounds, or a stack overflow.
    #[error("it trapped: {message}")]
    Trap { message: String },
    #[error("it took more than {} ms of CPU time", .limit.as_millis())]
    Timeout { limit: Duration },
    #[error("it wanted more than {limit} bytes of memory")]
    Memory { limit: usize },
    #[error("it returned {got} results for {expected} events")]
    WrongCount { expected: usize, got: usize },
    #[error("it gave the host more than {limit} bytes at once, as a result or an argument")]
    Output { limit: usize },
    #[error("it broke the contract: {0}")]
    Contract(String),
    /// `failure.retry`: call it again with the same batch, after at least this time.
    #[error("it asked for a retry: {message}")]
    Retry {
        message: String,
        after: Option<Duration>,
    },
    /// `failure.isolate`: something in the batch cannot be processed.
    #[error("it cannot process something in the batch: {0}")]
    Isolate(String),
    /// `failure.hold`: the plugin cannot work until the operator acts.
    #[error("it cannot work: {0}")]
    Hold(String),
    /// Other components have the memory that it needs. Not its fault: the same call is made again
    /// once there is room.
    #[error("{0}")]
    NoRoom(Shortage),
    /// The call turned out to be slow while as many slow calls had begun as may. Not its fault: the
    /// same call is made again once one of them has ended.
    #[error("it is slow, and has to wait for other slow calls")]
    Postponed,
    /// Not the component's fault. The call can be repeated.
    #[error("the host could not run it: {0}")]
    Host(String),
}

/// Memory that a call needed when the instances of all components had too little left for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The call, and the bytes that its instance had.
    pub holder: Box<Holder>,
    /// Bytes that its instance would have had.
    pub needs: usize,
    pub of: SharedMemory,
    /// Bytes that other instances had of it.
    pub taken: usize,
    /// Bytes that there are of it.
    pub limit: usize,
    /// Whether its call is slow, and so also kept to [`SharedMemory::SlowCalls`].
    pub is_slow: bool,
    /// Of [`SharedMemory::All`]: bytes of the limit that are kept for instances that need less, and
    /// from a slow call also for quick ones.
    pub kept: usize,
    /// Of [`SharedMemory::SlowCalls`]: the one call that may have more, where it is another one.
    pub exempt: Option<Holder>,
}

/// A call and its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pipeline: Arc<str>,
    /// Such as `stage 1 (builtin:redact)`.
    pub stage: Arc<str>,
    pub bytes: usize,
}

/// The memory that instances share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMemory {
    /// Of all instances.
    All,
    /// Of those with a slow call: half of it.
    SlowCalls,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [needs, taken, limit] =
            [self.needs, self.taken, self.limit].map(|bytes| bytes.div_ceil(1 << 20));
        match self.of {
            SharedMemory::All => {
                write!(
                    f,
                    "it needs {needs} MiB of memory, and other components have {taken} MiB of the \
                     {limit} MiB that `memory` in `[limits]` allows"
                )?;
                let others = match self.is_slow {
                    true => "quick calls and for those that need less",
                    false => "those that need less",
                };
                match self.kept >> 20 {
                    0 => Ok(()),
                    kept => write!(f, ", of which {kept} MiB are kept for {others}"),
                }
            }
            SharedMemory::SlowCalls => {
                write!(
                    f,
                    "it needs {needs} MiB of memory, and slow calls may have {limit} MiB together, \
                     half of `memory` in `[limits]`: those of other components have {taken} MiB"
                )?;
                match &self.exempt {
                    Some(Holder {
                        pipeline,
                        stage,
                        bytes,
                    }) => write!(
                        f,
                        "; only one may have more, which is that of `{pipeline}`, {stage}, with \
                         {} MiB now",
                        bytes.div_ceil(1 << 20)
                    ),
                    None => Ok(()),
                }
            }
        }
    }
}

impl CallError {
    /// Whether one event may be the cause, so that the batch is split to find it.
    pub fn may_be_one_event(&self) -> bool {
        !matches!(
            self,
            CallError::Retry { .. }
                | CallError::Hold(_)
                | CallError::NoRoom(_)
                | CallError::Postponed
                | CallError::Host(_)
        )
    }

    /// Whether the host ended the call for the sake of others: the same call is made again.
    pub fn is_made_again(&self) -> bool {
        matches!(self, CallError::NoRoom(_) | CallError::Postponed)
    }
}

impl From<Violation> for CallError {
    fn from(violation: Violation) -> CallError {
        CallError::Contract(violation.to_string())
    }
}
