//! Installs the target into the toolchain that runs this build.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command::capture;
use crate::toolchain::TARGET;

/// For a download of 20 MB. A server that cannot be reached fails much sooner.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) struct Rustup {
    program: PathBuf,
}

impl Rustup {
    /// In cargo's home, if rustup installs itself, else on the PATH.
    pub(crate) fn find() -> Self {
        let name = format!("rustup{}", std::env::consts::EXE_SUFFIX);
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let program = home
            .map(|home| home.join("bin").join(&name))
            .filter(|path| path.exists())
            .unwrap_or_else(|| PathBuf::from(name));
        Self { program }
    }

    #[cfg(all(test, unix))]
    pub(crate) fn at(program: PathBuf) -> Self {
        Self { program }
    }

    /// Runs `rustup target add`; on failure, why, as part of a sentence.
    pub(crate) fn add_target(&self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command
            .args(["target", "add", TARGET])
            .env("RUST_BACKTRACE", "0");
        capture(&mut command, LIMIT).map(|_| ())
    }
}
