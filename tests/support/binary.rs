//! The binary `lockgate`, built from the sources as they are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
}

/// The command `lockgate`, as a user runs it.
pub fn lockgate() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BINARY.get_or_init(build));
    // A developer's settings must not change what the tests see.
    for name in ["LOCKGATE_CONFIG", "LOCKGATE_LOG", "LOCKGATE_LOG_FORMAT"] {
        command.env_remove(name);
    }
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name);
        command.env_remove(name.to_ascii_lowercase());
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("FDFWD_") || text.starts_with("FDWRD_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// Has cargo build the binary from the sources as they are now.
///
/// `--test binary` names the one integration test of the binary's package. With a test among its
/// targets, cargo takes the features of development dependencies into account, as it does for
/// `cargo test --workspace`. Otherwise it would compile many dependencies again, without them.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let place = Place::of(&test);
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--workspace", "--bin", "lockgate"])
        .args(["--test", "binary", "--locked"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--profile", &place.profile, "--target-dir"])
        .arg(&place.target);
    if let Some(triple) = &place.triple {
        cargo.args(["--target", triple]);
    }
    for (name, _) in std::env::vars_os() {
        if describes_this_test(&name) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo cannot build `lockgate`");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find_map(|message| executable(&message))
        .expect("cargo names the binary that it built")
}

/// Where cargo has put a test, which says how it was asked to build it.
#[derive(Debug, PartialEq)]
struct Place {
    target: PathBuf,
    triple: Option<String>,
    profile: String,
}

impl Place {
    /// `test`: `TARGET/[TRIPLE/]PROFILE/deps/NAME`.
    fn of(test: &Path) -> Place {
        let directory = test.ancestors().nth(2).expect("a test lies in `deps`");
        let name = |path: &Path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.expect("a directory has a name").to_owned()
        };
        let profile = match name(directory).as_str() {
            "debug" => "dev".to_owned(),
            other => other.to_owned(),
        };
        let parent = directory.parent().expect("a profile has a parent");
        // Cargo marks the target directory, but not what is in it.
        let is_marked = |path: &Path| path.join("CACHEDIR.TAG").exists();
        let (target, triple) = match parent.parent() {
            Some(above) if is_marked(above) && !is_marked(parent) => (above, Some(name(parent))),
            _ => (parent, None),
        };
        Place {
            target: target.to_owned(),
            triple,
            profile,
        }
    }
}

/// Variables that cargo sets for the test which it runs. Build scripts that look at them would run
/// again. What a user has set for cargo (`RUSTFLAGS`, `CARGO_INCREMENTAL`, …) must stay.
fn describes_this_test(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    of_package.iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&&*name)
}

/// The path of `lockgate`, where the message says that it has been built, or was there already.
fn executable(message: &Value) -> Option<PathBuf> {
    let target = &message["target"];
    let is_binary = message["reason"] == "compiler-artifact"
        && target["name"] == "lockgate"
        && target["kind"][0] == "bin"
        && message["profile"]["test"] == false;
    is_binary.then(|| message["executable"].as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_test_says_how_it_was_built() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("CACHEDIR.TAG"), "").expect("it can be written");
        for (path, profile, triple) in [
            ("debug/deps/e2e-1", "dev", None),
            ("release/deps/e2e-1", "release", None),
            ("wasm64/quick/deps/e2e-1", "quick", Some("wasm64")),
        ] {
            let expected = Place {
                target: dir.path().to_owned(),
                triple: triple.map(str::to_owned),
                profile: profile.to_owned(),
            };
            assert_eq!(Place::of(&dir.path().join(path)), expected);
        }
    }

    #[test]
    fn what_a_user_has_set_for_cargo_stays() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(describes_this_test(OsStr::new(name)), "{name}");
        }
        for name in ["RUSTFLAGS", "CARGO_INCREMENTAL", "CARGO_HOME", "PATH"] {
            assert!(!describes_this_test(OsStr::new(name)), "{name}");
        }
    }
}
