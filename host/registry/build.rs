//! Compiles the plugins that ship with Lockgate and embeds them, so that the binary needs no other
//! files.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo passes settings to build scripts in environment variables"
)]

#[path = "build/embed.rs"]
mod embed;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use lockgate_guest_build::generates_code;

/// Leaves the plugins out of the binary if it is set to anything but `0`.
const SKIP: &str = "LOCKGATE_SKIP_PLUGINS";

fn main() -> ExitCode {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let out = variable("OUT_DIR");
    let here = variable("CARGO_MANIFEST_DIR");
    let project = here.ancestors().nth(2).unwrap_or(&here);

    let skipped = env::var_os(SKIP).is_some_and(|value| !value.is_empty() && value != "0");
    let done = if skipped {
        embed::no_plugins(&out)
    } else if generates_code() {
        embed::plugins(&project.join("plugins/Cargo.toml"), &out)
    } else {
        // Cargo would reuse this result for the next build, which may need the plugins. A path that
        // never exists is always out of date, so the script runs again.
        println!(
            "cargo::rerun-if-changed={}",
            out.join("does-not-exist").display()
        );
        embed::no_plugins(&out)
    };
    // When a build script fails, cargo shows its stdout, and then its stderr unchanged. So the
    // message goes to stderr, and nothing more to stdout.
    if let Err(message) = done {
        eprintln!("\n{message}");
        return ExitCode::FAILURE;
    }
    println!("cargo::rerun-if-env-changed={SKIP}");
    for dir in ["plugins", "sdk/rust", "wit", "host/registry/build"] {
        embed::watch(&project.join(dir));
    }
    println!(
        "cargo::rerun-if-changed={}",
        here.join("build.rs").display()
    );
    ExitCode::SUCCESS
}
