//! Where components come from: embedded in the binary, or files; their digests; and the cache of
//! code compiled from them.
//!
//! Nothing here runs or checks a component beyond its first bytes: that is the runtime's.

mod builtin;
mod code_store;
mod digest;
mod source;

pub use builtin::{Builtin, builtin, builtins};
pub use code_store::{CodeStore, OpenError, Refusal, SaveError};
pub use digest::Digest;
pub use source::{Artifact, COMPONENT_MAX, SourceError, resolve};
