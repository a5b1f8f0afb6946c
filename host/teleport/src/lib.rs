//! Teleport as a source: identity files, connections to Auth, the audit log and session recordings.
//!
//! The only crate that knows gRPC.

pub mod identity;
pub mod json;
pub mod proto;
