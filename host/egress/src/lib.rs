//! Sends what sinks encoded: the only crate through which events leave over HTTP.
//!
//! It owns the receiver's address, TLS, credentials, connections and pace, so that a sink needs
//! none of them. It does not retry: [`Client::send`] tries once and says what happened; [`verdict`]
//! tells a pipeline what follows from it.
//!
//! - A guest's request chooses neither authority nor credentials: the operator's are applied after
//!   it, and win.
//! - TLS sessions are never resumed. Fluentd, Fluent Bit and Vector demand client certificates
//!   without setting a session id context, and OpenSSL then refuses every resumed session with
//!   alert 80.
//! - Whatever a receiver answers is masked for known secrets before anybody else reads it.
//! - Of an endpoint, its pipeline's name is all that is ever logged.

mod answer;
mod client;
mod endpoint;
mod error;
mod rate;
mod target;
mod tls;
mod verdict;

pub use answer::RETRY_AFTER_MAX;
pub use client::Client;
pub use endpoint::{Auth, Endpoint, EndpointError, Identity, Pem};
pub use error::{Party, SendError};
pub use lockgate_model::Secret;
pub use rate::{Pace, Rate};
pub use verdict::{Verdict, verdict};
