//! Takes the patterns for user agents (`regexes.yaml` of ua-parser/uap-core, Apache-2.0) out of the
//! package `ua-parser`, which carries the edition it was tested with, and writes them as JSON: the
//! binary then needs no YAML, and the lock file says which edition is in it.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts by environment variables"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use serde_json::Value;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    match patterns() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\n{message}");
            ExitCode::FAILURE
        }
    }
}

fn patterns() -> Result<(), String> {
    let file = package("ua-parser")?.join("uap-core/regexes.yaml");
    println!("cargo::rerun-if-changed={}", file.display());
    let text = fs::read_to_string(&file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let all: Value = serde_saphyr::from_str(&text)
        .map_err(|error| format!("{} is not YAML: {error}", file.display()))?;
    let out = Path::new(&variable("OUT_DIR")?).join("user-agents.json");
    fs::write(&out, all.to_string())
        .map_err(|error| format!("{} cannot be written: {error}", out.display()))
}

/// Where cargo keeps the sources of a dependency of this crate.
fn package(name: &str) -> Result<PathBuf, String> {
    let here = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    // Everything has been fetched before a build script runs.
    let output = Command::new(variable("CARGO")?)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--manifest-path",
        ])
        .arg(&here)
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "`cargo metadata` failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`cargo metadata` is not JSON: {error}"))?;
    let packages = metadata["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let manifest = packages
        .iter()
        .find(|package| package["name"] == name)
        .and_then(|package| package["manifest_path"].as_str());
    let folder = manifest
        .and_then(|manifest| Path::new(manifest).parent())
        .map(Path::to_owned);
    folder.ok_or_else(|| format!("`cargo metadata` does not list `{name}`"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("`{name}`: {error}"))
}
