//! The HTTP listener on loopback: `/livez` and `/readyz`.
//!
//! It has no authentication, so it listens on loopback only.

mod listener;
mod readiness;

pub use listener::Listener;
pub use readiness::{Readiness, Reason};
