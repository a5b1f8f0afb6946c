//! Compiles the plugins that ship with Lockgate and embeds them, so that the binary is one file
//! that works.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts by environment variables"
)]

#[path = "build/embed.rs"]
mod embed;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use lockgate_guest_build::generates_code;

/// Set to anything but `0` or nothing, it leaves the plugins out of the binary.
const SKIP: &str = "LOCKGATE_SKIP_PLUGINS";

fn main() -> ExitCode {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let out = variable("OUT_DIR");
    let here = variable("CARGO_MANIFEST_DIR");
    let project = here.ancestors().nth(2).unwrap_or(&here);

    let skipped = env::var_os(SKIP).is_some_and(|value| !value.is_empty() && value != "0");
    let done = if skipped {
        embed::nothing(&out)
    } else if generates_code() {
        embed::plugins(&project.join("plugins/Cargo.toml"), &out)
    } else {
        // Cargo keeps this answer for the next build too, which is perhaps one that needs the
        // plugins. A path that never exists is always out of date: whatever comes next asks
        // again.
        println!(
            "cargo::rerun-if-changed={}",
            out.join("never-there").display()
        );
        embed::nothing(&out)
    };
    // To stderr, which cargo shows last and as it is; and nothing more on stdout, which cargo shows
    // too when a build script fails.
    if let Err(message) = done {
        eprintln!("\n{message}");
        return ExitCode::FAILURE;
    }
    println!("cargo::rerun-if-env-changed={SKIP}");
    for folder in ["plugins", "sdk/rust", "wit", "host/registry/build"] {
        embed::watch(&project.join(folder));
    }
    println!(
        "cargo::rerun-if-changed={}",
        here.join("build.rs").display()
    );
    ExitCode::SUCCESS
}
