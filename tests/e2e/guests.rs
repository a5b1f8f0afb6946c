//! The tests of the workspaces that are built for wasm.

use std::path::Path;
use std::process::Command;

use lockgate_tests::root;

/// The plugins and the SDK are workspaces of their own, since they are built for another target.
/// Their tests run here, natively, so that `cargo test --workspace` runs every test there is.
/// What lints the host's crates while it compiles them lints these too.
#[test]
fn the_tests_of_the_plugins_and_of_the_sdk_pass() {
    for manifest in ["plugins/Cargo.toml", "sdk/rust/Cargo.toml"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["test", "--workspace", "--locked", "--manifest-path"])
            .arg(root().join(manifest));
        cargo
            .arg("--target-dir")
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests-native"));
        cargo
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "false");
        let output = cargo.output().expect("cargo runs");
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{manifest}:\n{stdout}\n{stderr}");
        assert!(
            stdout
                .lines()
                .any(|line| line.starts_with("test result: ok") && !line.contains(" 0 passed")),
            "{manifest}:\n{stdout}"
        );
    }
}
