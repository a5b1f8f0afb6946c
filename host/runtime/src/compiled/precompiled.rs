//! The one place of the host that needs `unsafe`: loading machine code that was compiled earlier.
//!
//! Why it is needed: compiling takes 0.15 s for a small Rust component and 17 s for a large
//! JavaScript one, at every start. Why it is sound: wasmtime checks version, settings and processor
//! in the code's header, but trusts the code itself. That trust rests on three things. The bytes
//! were written by [`super::component`] of this host, through a [`super::CodeCache`] whose contract
//! is that nobody else can write there; they are what was written, by their SHA-256, which is
//! verified before; and nothing is ever downloaded.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Fails where the code is of another version of wasmtime, of other settings or for another
/// processor.
pub(super) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` came out of `Component::serialize` in this host and is unchanged, see above.
    unsafe { Component::deserialize(engine, code) }
}
