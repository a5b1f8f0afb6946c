//! Finds out whether the cargo that runs a build script compiles code.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// Whether the build that runs this build script generates code. Not so under `cargo check`, clippy
/// and `cargo doc`, which do not use the compiled guests.
///
/// Cargo does not tell a build script; this looks at the environment and at the parent's command
/// line if the system shows it, and answers yes if it cannot know. Cargo keeps a build
/// script's answer for both kinds of build, so a caller that acts on a no has to see to it that it
/// is asked again.
pub fn generates_code() -> bool {
    let clippy = env::var_os("RUSTC_WORKSPACE_WRAPPER")
        .and_then(|wrapper| PathBuf::from(wrapper).file_name().map(OsString::from))
        .is_some_and(|name| name.to_string_lossy().contains("clippy"));
    !clippy && !only_looks(&parent_command())
}

/// Empty if the system does not show it.
fn parent_command() -> Vec<String> {
    #[cfg(unix)]
    let line = fs::read(format!(
        "/proc/{}/cmdline",
        std::os::unix::process::parent_id()
    ))
    .unwrap_or_default();
    #[cfg(not(unix))]
    let line = Vec::<u8>::new();
    line.split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Whether cargo, started as `command`, only checks or documents.
fn only_looks(command: &[String]) -> bool {
    let mut arguments = command.iter().skip(1).map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            // Options before the subcommand that take a value.
            "--color" | "--config" | "-Z" | "-C" => _ = arguments.next(),
            option if option.starts_with(['-', '+']) => {}
            subcommand => {
                return ["check", "c", "clippy", "fix", "doc", "d", "rustdoc"]
                    .contains(&subcommand);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_check_is_known_by_its_command_line() {
        let skips = |line: &str| only_looks(&line.split(' ').map(String::from).collect::<Vec<_>>());
        for line in [
            "cargo check",
            "/opt/rust/bin/cargo c -p x",
            "cargo +stable --color always -v check",
            "cargo -Z a --config b=c doc --no-deps",
        ] {
            assert!(skips(line), "{line}");
        }
        for line in [
            "cargo build",
            "cargo test check",
            "cargo run --release -- check",
            "cargo --config check build",
            "cargo install --path .",
            "cargo",
            "",
        ] {
            assert!(!skips(line), "{line}");
        }
    }

    #[test]
    fn a_test_runs_in_a_build_that_generates_code() {
        assert!(generates_code());
    }
}
