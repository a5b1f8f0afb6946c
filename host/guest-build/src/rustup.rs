//! The usual way: the target of the toolchain that rustup installed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command::capture;
use crate::error::Attempt;
use crate::toolchain::TARGET;

/// For a download of 20 MB. A server that cannot be reached fails much sooner.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `rustup target add`; rustup picks the toolchain that runs this build.
pub(crate) fn add_target() -> Result<(), Attempt> {
    let mut command = Command::new(program());
    command
        .args(["target", "add", TARGET])
        .env("RUST_BACKTRACE", "0");
    match capture(&mut command, LIMIT) {
        Ok(_) => Ok(()),
        Err(why) => Err(Attempt {
            what: format!("`rustup target add {TARGET}`"),
            why,
        }),
    }
}

/// Beside cargo where it is not on the PATH.
fn program() -> PathBuf {
    let name = format!("rustup{}", std::env::consts::EXE_SUFFIX);
    let installed =
        std::env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin").join(&name));
    installed
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}
