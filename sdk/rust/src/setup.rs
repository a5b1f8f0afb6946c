//! Short ways to make the contract's records.

use crate::{BatchWish, ConfigIssue, Failure, Inspect, Needs, Pair, Setup};

impl Setup {
    /// All event types, no reasons, failures inspected.
    pub fn new(needs: Needs) -> Setup {
        Setup {
            only: None,
            skip: vec![],
            needs,
            reasons: vec![],
            batch: None,
            inspect: Inspect::Failures,
            response_max: 0,
            extra: vec![],
        }
    }

    /// Only these event types are wanted.
    pub fn only<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> Setup {
        self.only = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// These event types are not wanted, even where `only` names them.
    pub fn skip<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> Setup {
        self.skip.extend(types.into_iter().map(Into::into));
        self
    }

    /// Event types not wanted from session recordings; applied by the host, like `skip`.
    pub fn skip_session_types<S: Into<String>>(
        mut self,
        types: impl IntoIterator<Item = S>,
    ) -> Setup {
        self.extra.extend(types.into_iter().map(|value| Pair {
            name: "skip-session-type".into(),
            value: value.into(),
        }));
        self
    }

    /// What `Drop(n)` means. At most 64.
    pub fn reasons<S: Into<String>>(mut self, reasons: impl IntoIterator<Item = S>) -> Setup {
        self.reasons.extend(reasons.into_iter().map(Into::into));
        self
    }

    /// Sinks: the host takes the smaller of this and the operator's.
    pub fn batch(mut self, max_documents: u32, max_bytes: u32) -> Setup {
        self.batch = Some(BatchWish {
            max_documents,
            max_bytes,
        });
        self
    }

    /// Sinks: which answers `classify` is called for.
    pub fn inspect(mut self, inspect: Inspect) -> Setup {
        self.inspect = inspect;
        self
    }

    /// Sinks: bytes of a response that `classify` needs.
    pub fn response_max(mut self, bytes: u32) -> Setup {
        self.response_max = bytes;
        self
    }
}

impl ConfigIssue {
    /// `path` is dotted, such as `fields.user`; empty for the table itself. See
    /// [`config::join`](crate::config::join).
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> ConfigIssue {
        ConfigIssue {
            path: path.into(),
            message: message.into(),
            help: None,
        }
    }

    /// The way out: best a line the operator can paste.
    pub fn help(mut self, help: impl Into<String>) -> ConfigIssue {
        self.help = Some(help.into());
        self
    }
}

impl Failure {
    /// The host tries the same batch again.
    pub fn retryable(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            retryable: true,
            retry_after: None,
        }
    }

    /// The host dead-letters the batch.
    pub fn fatal(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            retryable: false,
            retry_after: None,
        }
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
