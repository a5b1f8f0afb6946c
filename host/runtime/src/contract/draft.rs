//! `lockgate:plugin@0.1.0-draft`.

pub(crate) mod bindings;
mod exports;
mod imports;
mod setup;

pub(crate) use exports::{Exports, Pre};
pub(crate) use imports::linker;
