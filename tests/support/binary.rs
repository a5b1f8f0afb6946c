use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
}

/// The command `lockgate`, as a user runs it: cargo has built it for these tests, beside their own
/// folder.
pub fn lockgate() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        // target/<profile>/deps/<test>
        let binary = test
            .ancestors()
            .nth(2)
            .expect("a test lies in a profile's folder")
            .join("lockgate");
        assert!(
            binary.exists(),
            "`{}` is built by `cargo test -p lockgate`",
            binary.display()
        );
        binary
    });
    let mut command = Command::new(binary);
    // What a developer has set must not change what the tests see.
    for name in ["LOCKGATE_CONFIG", "LOCKGATE_LOG", "LOCKGATE_LOG_FORMAT"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}
