//! Finds the bytes of a component: built in, or a file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::builtin::{builtin, named};
use crate::digest::Digest;

/// Largest component that is accepted, in bytes. A Python component is 18 MiB.
pub const COMPONENT_MAX: u64 = 64 << 20;

/// A component, ready to be compiled.
#[derive(Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The source as the operator wrote it, for messages.
    pub name: String,
    /// Version of a built-in plugin. `None` for files.
    pub version: Option<&'static str>,
    /// Of `bytes`.
    pub digest: Digest,
    pub bytes: Cow<'static, [u8]>,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            version,
            digest,
            bytes,
        } = self;
        f.debug_struct("Artifact")
            .field("name", name)
            .field("version", version)
            .field("digest", digest)
            .field("len", &bytes.len())
            .finish()
    }
}

/// Why a source does not provide a component. `Display` is a sentence; [`ResolveError::hint`] says
/// what to do.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// No built-in plugin has this name.
    #[error("Unknown built-in plugin `{name}`. The built-in plugins are `{known}`.")]
    UnknownBuiltin {
        name: String,
        nearest: Option<&'static str>,
        known: String,
    },
    /// The binary was built without plugins.
    #[error("`builtin:{name}` is not available: this binary was built without plugins.")]
    NoBuiltins { name: String },
    /// A component in an OCI registry.
    #[error("`{source_text}` is an OCI source, which this version does not support.")]
    Oci { source_text: String },
    /// Neither a known scheme nor a path to a component.
    #[error("`{source_text}` is not a plugin source.")]
    Unknown {
        source_text: String,
        builtin: Option<&'static str>,
    },
    /// The file does not exist.
    #[error("`{path}` does not exist.")]
    Missing { path: PathBuf },
    /// The file could not be read.
    #[error("`{path}` cannot be read: {source}.")]
    Read { path: PathBuf, source: io::Error },
    /// The path is a directory or a device.
    #[error("`{path}` is not a file.")]
    NotAFile { path: PathBuf },
    /// More than [`COMPONENT_MAX`].
    #[error("`{path}` is larger than {} MiB, the limit for plugins.", COMPONENT_MAX >> 20)]
    TooLarge { path: PathBuf },
    /// WebAssembly, but not a component.
    #[error("`{path}` is a WebAssembly module, not a component.")]
    CoreModule { path: PathBuf },
    /// Not WebAssembly.
    #[error("`{path}` is not WebAssembly.")]
    NotWasm { path: PathBuf },
    /// Nothing is in it.
    #[error("`{path}` is empty.")]
    Empty { path: PathBuf },
}

/// The way out for a component that is elsewhere.
const DOWNLOAD: &str = "download the component with another tool and write the path of the file, \
                        for example `plugins/filter.wasm`";

fn is_url(source: &str) -> bool {
    source.starts_with("https://") || source.starts_with("http://")
}

impl ResolveError {
    /// The way out, to be shown after `hint:`.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownBuiltin { nearest, .. } => {
                nearest.map(|name| format!("did you mean `builtin:{name}`?"))
            }
            Self::NoBuiltins { .. } => Some(
                "build Lockgate again without `LOCKGATE_SKIP_PLUGINS` in the environment".into(),
            ),
            Self::Unknown { source_text, .. } if is_url(source_text) => Some(DOWNLOAD.into()),
            Self::Oci { .. } => Some(DOWNLOAD.into()),
            Self::Empty { .. } => Some("copy the file again: it is incomplete".into()),
            Self::Unknown {
                builtin: Some(name),
                ..
            } => Some(format!("did you mean `builtin:{name}`?")),
            Self::Unknown { .. } => {
                Some("write `builtin:NAME`, `file:PATH`, or a path that ends in `.wasm`".into())
            }
            Self::Missing { .. } => Some(
                "a relative path in a configuration file starts at the directory of that file"
                    .into(),
            ),
            Self::CoreModule { .. } => Some(
                "build it with `wasm-component-ld` as the linker, as the README of `sdk/rust` \
                 shows, or make a component of it with `wasm-tools component new`"
                    .into(),
            ),
            Self::NotWasm { .. } => {
                Some("a plugin is a file of compiled WebAssembly, not source code".into())
            }
            Self::Read { .. } | Self::NotAFile { .. } | Self::TooLarge { .. } => None,
        }
    }
}

/// The component at `source`: `builtin:NAME`, `file:PATH`, or a path that ends in `.wasm`. Relative
/// paths start at `base`, the directory of the configuration file.
///
/// # Errors
/// The source is not supported, or the file is missing, unreadable, too large or not a component.
pub fn resolve(source: &str, base: &Path) -> Result<Artifact, ResolveError> {
    let scheme = source.split_once(':').filter(|(scheme, _)| {
        scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    match scheme {
        Some(("builtin", name)) => {
            let builtin = builtin(name)?;
            let (name, version) = (source.to_owned(), Some(builtin.version));
            Ok(Artifact {
                name,
                version,
                digest: builtin.digest(),
                bytes: Cow::Borrowed(builtin.bytes),
            })
        }
        Some(("file", path)) if !path.is_empty() => open(source, base.join(path)),
        Some(("oci", _)) => Err(ResolveError::Oci {
            source_text: source.to_owned(),
        }),
        None if Path::new(source)
            .extension()
            .is_some_and(|extension| extension == "wasm") =>
        {
            open(source, base.join(source))
        }
        _ => Err(ResolveError::Unknown {
            source_text: source.to_owned(),
            builtin: named(source),
        }),
    }
}

fn open(source: &str, path: PathBuf) -> Result<Artifact, ResolveError> {
    let bytes = read(&path)?;
    if bytes.is_empty() {
        return Err(ResolveError::Empty { path });
    }
    match bytes.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => Ok(Artifact {
            name: source.to_owned(),
            version: None,
            digest: Digest::of(&bytes),
            bytes: Cow::Owned(bytes),
        }),
        Some(b"\0asm\x01\0\0\0") => Err(ResolveError::CoreModule { path }),
        _ => Err(ResolveError::NotWasm { path }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ResolveError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ResolveError::Missing {
            path: path.to_owned(),
        },
        _ => ResolveError::Read {
            path: path.to_owned(),
            source,
        },
    };
    // Check before opening: opening a named pipe waits for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ResolveError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(COMPONENT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > COMPONENT_MAX {
        Err(ResolveError::TooLarge {
            path: path.to_owned(),
        })
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("sub.wasm")).expect("a directory");
        let files: [(&str, &[u8]); 5] = [
            ("good.wasm", COMPONENT),
            ("good.component", COMPONENT),
            ("module.wasm", b"\0asm\x01\0\0\0"),
            ("text.wasm", b"(component)"),
            ("empty.wasm", b""),
        ];
        files
            .iter()
            .for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).expect("a file"));
        let large = File::create(dir.path().join("large.wasm")).expect("a file");
        large.set_len(COMPONENT_MAX + 1).expect("a sparse file");
        dir
    }

    #[test]
    fn files_are_found_relative_to_the_configuration() {
        let dir = dir();
        let absolute = dir.path().join("good.wasm").display().to_string();
        for source in [
            "good.wasm",
            "./good.wasm",
            "file:good.wasm",
            "file:good.component",
            "file:./sub.wasm/../good.wasm",
            &absolute,
            &format!("file://{absolute}"),
        ] {
            let artifact =
                resolve(source, dir.path()).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(
                (artifact.name.as_str(), &*artifact.bytes, artifact.digest),
                (source, COMPONENT, Digest::of(COMPONENT))
            );
        }
    }

    #[test]
    fn refusals_state_the_problem_and_a_hint() {
        let dir = dir();
        let at = dir.path().display();
        let cases = [
            (
                "oci://registry.example.com/acme/noise:1.2.0",
                "`oci://registry.example.com/acme/noise:1.2.0` is an OCI source, which this version does not support."
                    .into(),
                "download the component with another tool and write the path of the file, for example `plugins/filter.wasm`",
            ),
            (
                "https://x/y.wasm",
                "`https://x/y.wasm` is not a plugin source.".into(),
                "download the component with another tool and write the path of the file, for example `plugins/filter.wasm`",
            ),
            ("", "`` is not a plugin source.".into(), "write `builtin:NAME`, `file:PATH`, or a path that ends in `.wasm`"),
            ("file:", "`file:` is not a plugin source.".into(), "write `builtin:NAME`, `file:PATH`, or a path that ends in `.wasm`"),
            (
                "good.component",
                "`good.component` is not a plugin source.".into(),
                "write `builtin:NAME`, `file:PATH`, or a path that ends in `.wasm`",
            ),
            ("nope.wasm", format!("`{at}/nope.wasm` does not exist."), "a relative path in a configuration file starts at the directory of that file"),
            ("sub.wasm", format!("`{at}/sub.wasm` is not a file."), ""),
            ("large.wasm", format!("`{at}/large.wasm` is larger than 64 MiB, the limit for plugins."), ""),
            (
                "module.wasm",
                format!("`{at}/module.wasm` is a WebAssembly module, not a component."),
                "build it with `wasm-component-ld` as the linker, as the README of `sdk/rust` shows, or make a component of it with `wasm-tools component new`",
            ),
            ("text.wasm", format!("`{at}/text.wasm` is not WebAssembly."), "a plugin is a file of compiled WebAssembly, not source code"),
            ("empty.wasm", format!("`{at}/empty.wasm` is empty."), "copy the file again: it is incomplete"),
        ];
        for (source, message, hint) in cases {
            let error = resolve(source, dir.path()).expect_err(source);
            assert_eq!(
                (error.to_string(), error.hint().unwrap_or_default()),
                (message, hint.into())
            );
        }
    }

    #[test]
    fn builtins_resolve_by_name_and_bare_names_get_a_hint() {
        for builtin in crate::builtins() {
            let source = format!("builtin:{}", builtin.name);
            let artifact = resolve(&source, Path::new("/nowhere")).expect("it is listed");
            assert_eq!(
                (artifact.name, artifact.version, artifact.digest),
                (source, Some(builtin.version), builtin.digest())
            );
            let error = resolve(builtin.name, Path::new("/nowhere")).expect_err("no scheme");
            assert_eq!(
                error.hint(),
                Some(format!("did you mean `builtin:{}`?", builtin.name))
            );
        }
    }
}
