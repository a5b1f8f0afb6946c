//! The binary starts. Because of this test `cargo test --workspace` builds the binary, too, so that
//! the end-to-end tests (`tests/`) find it built.

use std::process::Command;

#[test]
fn the_binary_starts_and_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .arg("version")
        .output()
        .expect("it can be started");
    let version = concat!("lockgate ", env!("CARGO_PKG_VERSION"), "\n");
    assert!(output.stdout.starts_with(version.as_bytes()));
}
