//! The contract's data as the host sees it, after every rule has been checked: what a component
//! asks for when it is configured, what it answers for events and documents, and why a call gave
//! no usable answer. `wit/plugin.wit` says what each field means to a plugin.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::request::{CheckedRequest, Violation};
use crate::{EventView, FeedKind, Millis};

/// What a component is given about the batch of a call. `stage` is the stage's own label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Stable across retries of the batch, not across restarts.
    pub id: Arc<str>,
    pub pipeline: Arc<str>,
    /// The configured name of the cluster, such as `teleport`.
    pub source: Arc<str>,
    /// When the batch was read from Teleport. The only clock that a component has.
    pub read_at: Millis,
}

/// How much of an event or a document a component is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the type lists decide, and a filter is never called.
    Types,
    /// Everything but the payload.
    Metadata,
    Payload,
}

/// Which events reach a component. The host applies this before any call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeLists {
    /// Event types wanted. `None`: all.
    pub only: Option<HashSet<String>>,
    /// Event types not wanted; wins over `only`.
    pub skip: HashSet<String>,
    /// Event types not wanted from session recordings.
    pub skip_in_sessions: HashSet<String>,
}

impl TypeLists {
    pub fn let_all_through(&self) -> bool {
        self.only.is_none() && self.skip.is_empty() && self.skip_in_sessions.is_empty()
    }

    /// Why an event does not reach the component, or `None` where it does.
    pub fn excludes(&self, event: &EventView<'_>) -> Option<&'static str> {
        if self.skip.contains(event.event_type) {
            return Some("type skipped");
        }
        if event.feed == FeedKind::Sessions && self.skip_in_sessions.contains(event.event_type) {
            return Some("session type skipped");
        }
        let wanted = self
            .only
            .as_ref()
            .is_none_or(|only| only.contains(event.event_type));
        (!wanted).then_some("type not wanted")
    }
}

/// What a configured filter or mapper asks of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSetup {
    pub types: TypeLists,
    pub access: Access,
    /// What `drop(n)` means. At most 64 short texts, escaped.
    pub reasons: Vec<String>,
}

/// Which responses `classify` is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// None: the host's table for the status decides.
    Never,
    /// All but 2xx.
    Failures,
    Always,
}

/// What a configured sink asks of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSetup {
    /// `skip_in_sessions` is empty.
    pub types: TypeLists,
    /// Never [`Access::Types`].
    pub access: Access,
    /// A top-level member that must hold an RFC 3339 time with a zone where it is present. Under
    /// [`Access::Metadata`] the payload of a document that breaks this is passed all the same.
    pub time_member: Option<String>,
    /// Most documents of one call of `encode`. Never 0.
    pub max_documents: Option<u32>,
    /// Most bytes of payload of one call of `encode`. Never 0.
    pub max_bytes: Option<u32>,
    pub inspect: Inspect,
    /// Bytes of a response that `classify` is shown. Never 0, at most 4 MiB.
    pub max_response_bytes: u32,
}

/// What a filter says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Dropped on purpose; an index of [`StageSetup::reasons`] that exists.
    Drop(u32),
}

/// A document that a mapper made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedDocument {
    /// One JSON object on one line, with the guarantees of an event's payload.
    pub payload: String,
    /// For the sink, beside the payload.
    pub attributes: Vec<(String, String)>,
}

/// What a mapper makes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// An empty list drops the event for the reason `empty`.
    Emit(Vec<MappedDocument>),
    /// An index of [`StageSetup::reasons`] that exists.
    Drop(u32),
    /// This event cannot be mapped, for this reason.
    Reject(String),
}

/// What a sink makes of documents. Each of them is carried by one request or rejected once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    pub requests: Vec<CheckedRequest>,
    /// Index of the document in the call, and why.
    pub rejected: Vec<(u32, String)>,
}

/// A call of a component, with what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Called<T> {
    pub result: Result<T, CallError>,
    /// CPU time of the calling thread, starting an instance included.
    pub cpu: Duration,
}

impl<T> Called<T> {
    /// An answer for which nothing had to be called.
    pub fn free(result: Result<T, CallError>) -> Called<T> {
        Called {
            result,
            cpu: Duration::ZERO,
        }
    }
}

/// Why a call of a component gave no usable answer. Texts that came from the component are escaped
/// and short.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CallError {
    /// It stopped: a panic, an uncaught exception, an access out of bounds, a stack too deep.
    #[error("it trapped: {message}")]
    Trap { message: String },
    #[error("it took more than {} ms of CPU time", .limit.as_millis())]
    Timeout { limit: Duration },
    #[error("it wanted more than {limit} bytes of memory")]
    Memory { limit: usize },
    #[error("it returned {got} results for {expected} events")]
    WrongCount { expected: usize, got: usize },
    #[error("it returned more than {limit} bytes")]
    Output { limit: usize },
    #[error("it broke the contract: {0}")]
    Contract(String),
    /// `failure.retry`: the same batch again, after at least this long.
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
    /// Nothing that the component did; the call can be repeated.
    #[error("the host could not run it: {0}")]
    Host(String),
}

impl CallError {
    /// True where one event may be to blame, so that the batch is narrowed down to it.
    pub fn may_be_one_event(&self) -> bool {
        !matches!(
            self,
            CallError::Retry { .. } | CallError::Hold(_) | CallError::Host(_)
        )
    }
}

impl From<Violation> for CallError {
    fn from(violation: Violation) -> CallError {
        CallError::Contract(violation.to_string())
    }
}
