//! The HTTP listener: `/livez`, `/readyz` and `/metrics`. It has no authentication, so it listens
//! on loopback only.

mod health_source;
mod listener;
mod readiness;

pub use health_source::HealthSource;
pub use listener::Listener;
pub use readiness::{Readiness, Reason};
