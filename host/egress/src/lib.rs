//! Sends the requests that sinks encode. No other crate sends events over HTTP.
//!
//! It owns the receiver's address, TLS, credentials, connections and rate, so that a sink needs
//! none of them. [`EndpointClient::send`] is one attempt; the engine decides what follows from its
//! result. Only on a connection that the receiver may have closed while it was idle does an attempt
//! send the request twice.
//!
//! - A guest's request cannot choose the authority or the credentials: the operator's are applied
//!   last.
//! - TLS sessions are never resumed. Fluentd, Fluent Bit and Vector require client certificates
//!   without setting a session id context, and OpenSSL then refuses every resumed session with
//!   alert 80.
//! - All endpoints of a host share one [`ConnectionBudget`], so that receivers that hang leave file
//!   descriptors to others, and to the rest of the host.
//! - Answers are masked for known secrets before anyone else reads them.
//! - Logs name an endpoint by its pipeline, never by its URL.

mod address;
mod answer;
mod auth;
mod aws;
mod budget;
mod client;
mod compression;
mod connect;
mod endpoint;
mod error;
mod fair_stream;
mod handshake;
mod headers;
mod http_client;
mod oauth2;
mod proxy;
mod rate;
mod settings;
mod signer;
mod target;
mod tls;

pub use auth::{
    Auth, AwsAuth, ClientCredentials, HmacAlgorithm, HmacAuth, HmacEncoding, OAuth2Auth,
};
pub use budget::{Connection, ConnectionBudget, Wanted, descriptor_limit};
pub use client::{Destination, EndpointClient};
pub use compression::{Compression, Step, Workers};
pub use endpoint::{ClientCertificate, Endpoint, EndpointError, Pem};
pub use error::{DESCRIPTORS_HINT, Party, SendError};
pub use lockgate_model::Secret;
pub use rate::{RateLimiter, TokenBucket};
