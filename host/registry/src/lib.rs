//! Where components come from (the binary itself, or files), their digests, and the cache of their
//! compiled code.
//!
//! This crate looks only at the first bytes of a component; the runtime checks and runs it.

mod builtin;
mod code_store;
mod digest;
mod source;

pub use builtin::{Builtin, builtin, builtins};
pub use code_store::{CodeStore, OpenError, Refusal, SaveError};
pub use digest::Digest;
pub use source::{Artifact, COMPONENT_MAX, SourceError, resolve};
