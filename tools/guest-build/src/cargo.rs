//! The nested cargo.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::command::capture;
use crate::error::BuildError;
use crate::json::Value;
use crate::toolchain::{TARGET, Toolchain};

/// Reading manifests touches no network.
const METADATA: Duration = Duration::from_secs(60);

/// One compiled guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Name of its package, such as `lockgate-plugin-filter`.
    pub package: String,
    /// Version of its package.
    pub version: String,
    /// The component, in the release directory of the guests' target directory.
    pub path: PathBuf,
}

struct Package {
    name: String,
    version: String,
    /// Name of the library, and of the file.
    library: String,
    /// Has other crate types besides `cdylib`.
    mixed: bool,
}

impl Toolchain {
    /// Compiles every `cdylib` of the workspace at `manifest`, sorted by file name.
    ///
    /// # Errors
    /// The workspace has none, or one does not compile: cargo's own report has then gone to stderr.
    pub fn compile(
        &self,
        manifest: &Path,
        target_dir: &Path,
    ) -> Result<Vec<Component>, BuildError> {
        let packages = packages(manifest)?;
        if packages.is_empty() {
            return Err(BuildError::NoComponents {
                manifest: manifest.to_owned(),
            });
        }
        let mut components = Vec::new();
        let (mixed, pure): (Vec<_>, Vec<_>) =
            packages.into_iter().partition(|package| package.mixed);
        if !pure.is_empty() {
            let mut build = self.cargo("build", manifest, target_dir);
            pure.iter()
                .for_each(|package| _ = build.args(["--package", &package.name]));
            components.extend(run(build, manifest, &pure)?);
        }
        // Cargo drops link-time optimisation for a crate that is an `rlib` too, so each of those is
        // built as a component alone.
        for package in &mixed {
            let mut build = self.cargo("rustc", manifest, target_dir);
            build.args([
                "--lib",
                "--crate-type",
                "cdylib",
                "--package",
                &package.name,
            ]);
            components.extend(run(build, manifest, std::slice::from_ref(package))?);
        }
        components.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
        components
            .iter()
            .try_for_each(|component| check(&component.path))?;
        Ok(components)
    }

    fn cargo(&self, subcommand: &str, manifest: &Path, target_dir: &Path) -> Command {
        let mut command = cargo();
        command.args([
            subcommand,
            "--release",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ]);
        command
            .arg("--manifest-path")
            .arg(manifest)
            .arg("--target-dir")
            .arg(target_dir);
        command
            .env("RUSTC", &self.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(manifest));
        // In the environment and not among the flags, so that it wins over a linker in someone's
        // cargo configuration.
        command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &self.linker);
        command
    }

    fn flags(&self, manifest: &Path) -> OsString {
        let mut wasm_ld = OsString::from("-Clink-arg=--wasm-ld-path=");
        wasm_ld.push(&self.wasm_ld);
        let mut flags = vec![OsString::from("-Clinker-flavor=wasm-ld"), wasm_ld];
        // Panic messages hold paths: without this a component's digest depends on where it was
        // built, and tells it.
        let home = std::env::home_dir().map(|home| home.join(".cargo"));
        let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
        let project = manifest
            .parent()
            .and_then(Path::parent)
            .filter(|dir| dir.is_absolute())
            .map(Path::to_owned);
        for (dir, name) in [(project, "=/project"), (cargo_home, "=/cargo")] {
            let Some(dir) = dir else { continue };
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(dir);
            flag.push(name);
            flags.push(flag);
        }
        flags.join(OsStr::new("\u{1f}"))
    }
}

/// Cargo without what an outer cargo, or a person for the outer cargo, has set in the environment.
fn cargo() -> Command {
    let mut command =
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(belongs_to_the_outer_build) {
            command.env_remove(name);
        }
    }
    command
}

fn belongs_to_the_outer_build(name: &str) -> bool {
    /// How cargo reaches registries, where it keeps what it fetched, and the job slots that it
    /// shares with its children.
    const KEPT: [&str; 8] = [
        "HOME",
        "HTTP_",
        "NET_",
        "REGISTR",
        "SOURCE_",
        "TERM_",
        "MAKEFLAGS",
        "BUILD_JOBS",
    ];
    const OTHERS: [&str; 8] = [
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
        "__CARGO_DEFAULT_LIB_METADATA",
    ];
    match name.strip_prefix("CARGO_") {
        Some(rest) => !KEPT.iter().any(|kept| rest.starts_with(kept)),
        None => {
            let compiler =
                name.starts_with("RUSTC") || name.starts_with("RUSTDOC") || name == "RUSTFLAGS";
            compiler || OTHERS.contains(&name) || name.starts_with("DEP_")
        }
    }
}

fn packages(manifest: &Path) -> Result<Vec<Package>, BuildError> {
    let wrong = |reason| BuildError::Workspace {
        manifest: manifest.to_owned(),
        reason,
    };
    let mut command = cargo();
    command
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(manifest);
    let answer = capture(&mut command, METADATA).map_err(wrong)?;
    let metadata = Value::parse(&answer)
        .ok_or_else(|| wrong("`cargo metadata` did not answer with JSON".into()))?;
    let package = |value: &Value| {
        let library = value
            .list("targets")
            .iter()
            .find(|target| target.texts("crate_types").contains(&"cdylib"))?;
        let mixed = library.texts("crate_types").len() > 1;
        let text = |value: &Value, name| value.text(name).map(str::to_owned);
        Some(Package {
            name: text(value, "name")?,
            version: text(value, "version")?,
            library: text(library, "name")?,
            mixed,
        })
    };
    Ok(metadata
        .list("packages")
        .iter()
        .filter_map(package)
        .collect())
}

fn run(
    mut command: Command,
    manifest: &Path,
    packages: &[Package],
) -> Result<Vec<Component>, BuildError> {
    let names: Vec<_> = packages
        .iter()
        .map(|package| format!("`{}`", package.name))
        .collect();
    let failed = || BuildError::Compile {
        manifest: manifest.to_owned(),
        package: names.join(", "),
    };
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| BuildError::Io {
        path: command.get_program().into(),
        source,
    })?;
    let mut messages = String::new();
    let read = child
        .stdout
        .take()
        .map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut messages));
    let status = child.wait();
    if read.is_err() || !status.is_ok_and(|status| status.success()) {
        return Err(failed());
    }
    let artifacts: Vec<_> = messages
        .lines()
        .filter_map(Value::parse)
        .filter_map(|message| artifact(&message))
        .collect();
    let component = |package: &Package| {
        let (_, path) = artifacts
            .iter()
            .find(|(name, _)| *name == package.library)?;
        Some(Component {
            package: package.name.clone(),
            version: package.version.clone(),
            path: path.clone(),
        })
    };
    packages
        .iter()
        .map(|package| component(package).ok_or_else(failed))
        .collect()
}

/// Library name and file of a compiled `cdylib`.
fn artifact(message: &Value) -> Option<(String, PathBuf)> {
    if message.text("reason") != Some("compiler-artifact") {
        return None;
    }
    let file = message
        .texts("filenames")
        .into_iter()
        .find(|file| file.ends_with(".wasm"))?;
    Some((
        message.field("target")?.text("name")?.to_owned(),
        PathBuf::from(file),
    ))
}

/// A component, not a core module: the layer field of the WebAssembly preamble.
fn check(path: &Path) -> Result<(), BuildError> {
    let mut preamble = [0; 8];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut preamble));
    read.map_err(|source| BuildError::Io {
        path: path.to_owned(),
        source,
    })?;
    if preamble == *b"\0asm\x0d\0\x01\0" {
        Ok(())
    } else {
        Err(BuildError::NotAComponent {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nested_cargo_sees_nothing_of_the_outer_build() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC",
            "TARGET",
            "PROFILE",
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
            "CARGO_FEATURE_X",
            "CARGO_INCREMENTAL",
            "OUT_DIR",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER",
            "DEP_Z_ROOT",
            "CARGO_UNSTABLE_BUILD_STD",
        ] {
            assert!(belongs_to_the_outer_build(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "HTTPS_PROXY",
            "CARGO_REGISTRIES_X_INDEX",
            "CARGO_REGISTRY_DEFAULT",
            "CARGO_MAKEFLAGS",
            "CARGO_BUILD_JOBS",
            "CARGO",
        ] {
            assert!(!belongs_to_the_outer_build(name), "{name}");
        }
    }
}
