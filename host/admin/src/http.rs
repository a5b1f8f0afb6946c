//! The HTTP listener: `/livez`, `/readyz` and `/metrics`. It has no authentication, so it listens
//! on loopback only.

mod answers;
mod listener;
mod readiness;

pub use answers::Answers;
pub use listener::Listener;
pub use readiness::{Readiness, Reason};
