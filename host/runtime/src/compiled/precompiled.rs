//! The one place of the host that needs `unsafe`: loading machine code that was compiled earlier.
//!
//! Why it is needed: compiling takes 0.15 s for a small Rust component and 17 s for a large
//! JavaScript one, and happens in another process. Why it is sound: wasmtime checks version,
//! settings and processor in the code's header, but trusts the code itself. Code gets here from
//! [`super::Code`] alone, in two ways: from a pipe, out of a child process that runs this very
//! binary, or from a [`super::CodeCache`], when its SHA-256 is the one that this host put into
//! [`super::CodeDigests`] after it compiled. Nothing is ever downloaded.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Fails where the code is of another version of wasmtime, of other settings or for another
/// processor.
pub(super) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` was compiled by this host and is unchanged, see above.
    unsafe { Component::deserialize(engine, code) }
}
