//! Why components could not be built.

use std::fmt;
use std::path::PathBuf;

use crate::toolchain::TARGET;

/// Why there are no components. `Display` is the whole message for a person, over several lines.
#[derive(Debug)]
pub enum BuildError {
    /// The compiler that cargo uses could not be asked for its directories.
    Compiler { reason: String },
    /// The compiler comes without the linkers that write components.
    Linker {
        missing: &'static str,
        searched: PathBuf,
    },
    /// The target is not installed, and rustup could not install it.
    Target { reason: String },
    /// The workspace could not be read.
    Workspace { manifest: PathBuf, reason: String },
    /// No member of the workspace is a `cdylib`.
    NoComponents { manifest: PathBuf },
    /// Cargo failed; it has said why on stderr.
    Compile { manifest: PathBuf, package: String },
    /// The linker wrote something other than a component.
    NotAComponent { path: PathBuf },
    /// A file or directory below the target directory could not be used.
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler { reason } => write!(
                f,
                "The Rust compiler could not be asked where its files are: {reason}."
            ),
            Self::Linker { missing, searched } => write!(
                f,
                "This Rust has no `{missing}`, which writes WebAssembly components (looked in `{}` \
                 and on the PATH).\nhint: use a Rust toolchain installed by rustup \
                 (https://rustup.rs).",
                searched.display()
            ),
            Self::Target { reason } => write!(
                f,
                "The plugins cannot be compiled: Rust's target `{TARGET}` is missing, and rustup could not install it: {reason}.\n\
                 Run this, then build again:\n\n    rustup target add {TARGET}\n"
            ),
            Self::Workspace { manifest, reason } => write!(
                f,
                "The guest workspace `{}` cannot be read: {reason}.",
                manifest.display()
            ),
            Self::NoComponents { manifest } => write!(
                f,
                "The guest workspace `{}` has no component.\nhint: a component is a member with \
                 `crate-type = [\"cdylib\"]`.",
                manifest.display()
            ),
            Self::Compile { manifest, package } => {
                write!(
                    f,
                    "Compiling the guest {package} of `{}` failed; cargo's report is above.",
                    manifest.display()
                )
            }
            Self::NotAComponent { path } => write!(
                f,
                "The linker wrote `{}`, which is not a WebAssembly component.",
                path.display()
            ),
            Self::Io { path, source } => {
                write!(f, "`{}` cannot be used: {source}.", path.display())
            }
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
