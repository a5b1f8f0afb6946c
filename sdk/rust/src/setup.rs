//! Constructors for the records of the contract.

use crate::bindings::exports::lockgate::plugin::{filtering, mapping};
use crate::{Access, ConfigIssue, Failure, Inspect, Mapped, Outcome, Pair, Retry, SinkSetup};
use crate::{Document, Event, Subscription};

/// The setup of a filter or a mapper.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSetup {
    pub subscription: Subscription,
    /// The reasons to which `Drop(n)` refers.
    pub reasons: Vec<String>,
    pub extra: Vec<Pair>,
}

impl StageSetup {
    /// All event types, no reasons.
    pub fn new(access: Access) -> StageSetup {
        StageSetup {
            subscription: Subscription {
                only: None,
                skip: vec![],
                skip_in_sessions: vec![],
                access,
            },
            reasons: vec![],
            extra: vec![],
        }
    }

    /// Passes only these event types.
    pub fn only<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> StageSetup {
        self.subscription.only = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Skips these event types, even if `only` contains them.
    pub fn skip<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> StageSetup {
        let types = types.into_iter().map(Into::into);
        self.subscription.skip.extend(types);
        self
    }

    /// Skips these event types in session recordings.
    pub fn skip_in_sessions<S: Into<String>>(
        mut self,
        types: impl IntoIterator<Item = S>,
    ) -> StageSetup {
        let types = types.into_iter().map(Into::into);
        self.subscription.skip_in_sessions.extend(types);
        self
    }

    /// The reasons to which `Drop(n)` refers. At most 64.
    pub fn reasons<S: Into<String>>(mut self, reasons: impl IntoIterator<Item = S>) -> StageSetup {
        self.reasons.extend(reasons.into_iter().map(Into::into));
        self
    }
}

impl From<StageSetup> for filtering::Setup {
    fn from(setup: StageSetup) -> filtering::Setup {
        let StageSetup {
            subscription,
            reasons,
            extra,
        } = setup;
        filtering::Setup {
            subscription,
            reasons,
            extra,
        }
    }
}

impl From<StageSetup> for mapping::Setup {
    fn from(setup: StageSetup) -> mapping::Setup {
        let StageSetup {
            subscription,
            reasons,
            extra,
        } = setup;
        mapping::Setup {
            subscription,
            reasons,
            extra,
        }
    }
}

impl SinkSetup {
    /// All event types, batches as the operator configured them, failures inspected.
    pub fn new(access: Access) -> SinkSetup {
        SinkSetup {
            only: None,
            skip: vec![],
            access,
            time_member: None,
            max_documents: None,
            max_bytes: None,
            inspect: Inspect::Failures,
            max_response_bytes: None,
            extra: vec![],
        }
    }

    /// Passes only these event types.
    pub fn only<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> SinkSetup {
        self.only = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Skips these event types, even if `only` contains them.
    pub fn skip<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> SinkSetup {
        self.skip.extend(types.into_iter().map(Into::into));
        self
    }

    /// With [`Access::Metadata`], passes the payload of documents in which this top-level member
    /// exists but is not an RFC 3339 time with a zone.
    pub fn time_member(mut self, name: impl Into<String>) -> SinkSetup {
        self.time_member = Some(name.into());
        self
    }

    /// Most documents of a call of `encode`.
    pub fn max_documents(mut self, documents: u32) -> SinkSetup {
        self.max_documents = Some(documents);
        self
    }

    /// Most bytes of payload of a call of `encode`.
    pub fn max_bytes(mut self, bytes: u32) -> SinkSetup {
        self.max_bytes = Some(bytes);
        self
    }

    /// The responses for which `classify` is called.
    pub fn inspect(mut self, inspect: Inspect) -> SinkSetup {
        self.inspect = inspect;
        self
    }

    /// Bytes of a response's body that `classify` gets.
    pub fn max_response_bytes(mut self, bytes: u32) -> SinkSetup {
        self.max_response_bytes = Some(bytes);
        self
    }
}

impl ConfigIssue {
    /// `path` is dotted, such as `fields.user`, or empty for the table itself. See
    /// [`config::join`](crate::config::join).
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> ConfigIssue {
        ConfigIssue {
            path: path.into(),
            message: message.into(),
            help: None,
        }
    }

    /// Adds help, ideally a line that the operator can paste.
    pub fn help(mut self, help: impl Into<String>) -> ConfigIssue {
        self.help = Some(help.into());
        self
    }
}

impl Failure {
    /// The host calls again with the same batch.
    pub fn retry(message: impl Into<String>) -> Failure {
        Failure::Retry(Retry {
            message: message.into(),
            after: None,
        })
    }

    /// The host calls again with the same batch, after at least this many milliseconds.
    pub fn retry_after(message: impl Into<String>, millis: u32) -> Failure {
        Failure::Retry(Retry {
            message: message.into(),
            after: Some(millis),
        })
    }

    /// The host searches for the faulty event, as after a trap.
    pub fn isolate(message: impl Into<String>) -> Failure {
        Failure::Isolate(message.into())
    }

    /// The host holds the pipeline until the operator acts.
    pub fn hold(message: impl Into<String>) -> Failure {
        Failure::Hold(message.into())
    }
}

impl Mapped {
    /// A document: one JSON object.
    pub fn new(payload: impl Into<String>) -> Mapped {
        Mapped {
            payload: payload.into(),
            attributes: vec![],
        }
    }

    /// Adds an attribute for the sink, which is not part of the payload.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Mapped {
        self.attributes.push(Pair::new(name, value));
        self
    }
}

impl Outcome {
    /// One document without attributes.
    pub fn document(payload: impl Into<String>) -> Outcome {
        Outcome::Emit(vec![Mapped::new(payload)])
    }
}

impl Event {
    /// Whether the event comes from a session recording, not from the audit log.
    pub fn is_recorded(&self) -> bool {
        self.feed == "session"
    }
}

impl Document {
    /// Whether the event comes from a session recording, not from the audit log.
    pub fn is_recorded(&self) -> bool {
        self.feed == "session"
    }
}

impl Pair {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Pair {
        Pair {
            name: name.into(),
            value: value.into(),
        }
    }
}
