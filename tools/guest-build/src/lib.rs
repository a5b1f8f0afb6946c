//! Compiles a workspace of guest crates to WebAssembly components with a nested cargo.
//!
//! For build scripts (the built-in plugins) and tests (hostile components), so it depends on
//! nothing but the standard library.

#![allow(
    clippy::disallowed_methods,
    reason = "runs in build scripts, to which cargo speaks by environment variables"
)]

mod cargo;
mod command;
mod error;
mod json;
mod outer;
mod rustup;
mod toolchain;

use std::path::{Path, PathBuf};

pub use cargo::Component;
pub use error::BuildError;
pub use outer::generates_code;
pub use toolchain::{TARGET, Toolchain};

/// Compiles every member of the workspace at `manifest` that has the crate type `cdylib`, in the
/// release profile, and returns the components, sorted by file name.
///
/// The build stays below `target_dir` ([`guests_dir`] finds the one to
/// share). A second call with nothing changed compiles nothing. Several calls at once, also by
/// several processes, wait for each other.
///
/// # Errors
/// The target cannot be installed, or a guest does not compile: cargo's own report has then gone to
/// stderr.
pub fn build(manifest: &Path, target_dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let toolchain = Toolchain::find(target_dir)?;
    let components = toolchain.compile(manifest, target_dir)?;
    Ok(components
        .into_iter()
        .map(|component| component.path)
        .collect())
}

/// The directory below cargo's target directory that all guests share, whatever the profile of the
/// host: `target/guests`.
///
/// `inside` is a path somewhere in the target directory, such as `OUT_DIR` of a build script or
/// `CARGO_TARGET_TMPDIR` of a test.
pub fn guests_dir(inside: &Path) -> PathBuf {
    // Cargo marks the directory itself. If it did not, `inside` serves: less is shared, but
    // everything works.
    let target = inside
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.unwrap_or(inside).join("guests")
}
