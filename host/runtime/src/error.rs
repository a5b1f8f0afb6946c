use std::time::Duration;

use lockgate_model::request::Violation;
use thiserror::Error;

/// Why a call of a component gave no usable result. Every text in it that came from the component
/// is escaped and short.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CallError {
    /// It stopped: a panic, an uncaught exception, an access out of bounds, a stack too deep.
    #[error("it trapped: {message}")]
    Trap { message: String },
    /// It used more CPU time than a call may.
    #[error("it took more than {} ms of CPU time", .limit.as_millis())]
    Timeout { limit: Duration },
    /// It wanted more memory than an instance may have.
    #[error("it wanted more than {limit} bytes of memory")]
    Memory { limit: usize },
    /// It did not answer for each event.
    #[error("it returned {got} results for {expected} events")]
    WrongCount { expected: usize, got: usize },
    /// It returned too much.
    #[error("it returned more than {limit} bytes")]
    Output { limit: usize },
    /// What it returned breaks a rule of the contract.
    #[error("it broke the contract: {0}")]
    Contract(String),
    /// It said itself that it cannot process the batch.
    #[error("it failed: {message}")]
    Failure {
        message: String,
        /// True: try the same batch again. False: dead-letter it.
        retryable: bool,
        /// Not before this much time.
        retry_after: Option<Duration>,
    },
    /// Nothing the component did: the batch can be tried again.
    #[error("the host could not run it: {0}")]
    Host(String),
}

impl From<Violation> for CallError {
    fn from(violation: Violation) -> CallError {
        CallError::contract(violation.to_string())
    }
}

impl CallError {
    pub(crate) fn contract(text: impl AsRef<str>) -> CallError {
        CallError::Contract(crate::log::line(text.as_ref()))
    }
}
