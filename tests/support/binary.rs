use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

/// The command `lockgate`, as a user runs it. Built in the profile of the tests on first use, which costs nothing when it is current.
pub fn lockgate() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        // target/<profile>/deps/<test>
        let profile = test.ancestors().nth(2).expect("a test lies in a profile's folder");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "lockgate", "--bin", "lockgate", "--target-dir"]);
        cargo.arg(profile.parent().expect("a profile lies in the target folder")).current_dir(root());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "`cargo build --bin lockgate` failed");
        profile.join("lockgate")
    });
    let mut command = Command::new(binary);
    // What a developer has set must not change what the tests see.
    for name in ["LOCKGATE_CONFIG", "LOCKGATE_LOG", "LOCKGATE_LOG_FORMAT"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}
