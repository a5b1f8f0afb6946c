//! Where components come from (the binary itself, or files), their digests, and the cache of their
//! compiled code.
//!
//! This crate looks only at the first bytes of a component; the runtime checks and runs it.

mod builtin;
mod code_dir;
mod digest;
mod resolve;

pub use builtin::{Builtin, builtin, builtins};
pub use code_dir::{CodeDir, CodeDirError, CodeReadError, CodeSaveError};
pub use digest::Digest;
pub use resolve::{Artifact, COMPONENT_MAX, ResolveError, resolve};
