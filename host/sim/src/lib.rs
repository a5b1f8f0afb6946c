//! A simulated Teleport Auth server and simulated HTTPS receivers, over real sockets.
//!
//! Used by `lockgate demo` and `lockgate sim`, by tests and benchmarks, and by people: Teleport's
//! own Event Handler runs against both.

pub mod auth;
mod certificate;
mod error;
pub mod generate;
mod listener;
mod output_dir;
pub mod receiver;

pub use error::SimError;
