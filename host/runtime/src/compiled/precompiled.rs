//! The only place in the host that needs `unsafe`: loading machine code that was compiled earlier.
//!
//! Why it is needed: compiling takes 0.15 s for a small Rust component and 17 s for a large
//! JavaScript one, and happens in another process. Why it is sound: wasmtime checks version,
//! settings and processor in the code's header, but trusts the code itself. Only [`super::Code`]
//! passes code to this module, and it comes either through a pipe from a child process that runs
//! this same binary, or from a [`super::CodeCache`] with the SHA-256 that this host put into
//! [`super::TrustedDigests`] after compiling. It is never downloaded.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Fails if the code was compiled by another version of wasmtime, with other settings or for
/// another processor.
pub(super) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` was compiled by this host and is unchanged, see above.
    unsafe { Component::deserialize(engine, code) }
}
