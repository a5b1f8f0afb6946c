//! Messages and services of Teleport's gRPC interface, generated from `proto/*.proto`.
//!
//! `unstructured` is a protobuf `Struct` on the wire and plain bytes here; [`crate::json`] turns it
//! into JSON text. `UPDATE_EXPECT=1 cargo test -p lockgate-teleport --test generated` rewrites the
//! files; without the variable, the test fails if they are not current.

#[rustfmt::skip]
#[allow(clippy::all, missing_docs)]
pub mod auditlog;
#[rustfmt::skip]
#[allow(clippy::all, missing_docs)]
pub mod authservice;
