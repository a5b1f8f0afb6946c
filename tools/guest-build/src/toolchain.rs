//! The toolchain that compiles components.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::capture;
use crate::error::BuildError;
use crate::rustup::Rustup;

/// The target of every guest. It has no operating system at all, so a guest imports nothing but
/// what its world names.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// For questions that the compiler answers from its own files.
const QUESTION: Duration = Duration::from_secs(60);

/// A compiler with a standard library for [`TARGET`], and the linkers that turn its output into a
/// component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    pub(crate) rustc: PathBuf,
    /// Writes the component.
    pub(crate) linker: PathBuf,
    /// Links the core module inside it.
    pub(crate) wasm_ld: PathBuf,
}

impl Toolchain {
    /// The compiler that cargo uses. If it lacks the target, rustup installs it. Processes that
    /// do so at the same time and pass the same `home` wait for each other.
    ///
    /// # Errors
    /// The target is missing and rustup cannot install it, or the linkers are missing.
    pub fn find(home: &Path) -> Result<Self, BuildError> {
        let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        Self::of(rustc, &Rustup::find(), home)
    }

    fn of(rustc: PathBuf, rustup: &Rustup, home: &Path) -> Result<Self, BuildError> {
        let [linker, wasm_ld] = linkers(&rustc)?;
        if !installed(&rustc)? {
            let _lock = lock(home)?;
            // Another process may have installed it while we waited for the lock.
            if !installed(&rustc)? {
                let added = rustup.add_target();
                if !installed(&rustc)? {
                    let reason = added.err().unwrap_or_else(|| {
                        let rustc = rustc.display();
                        format!("it installed the target for another compiler than `{rustc}`")
                    });
                    return Err(BuildError::Target { reason });
                }
            }
        }
        Ok(Self {
            rustc,
            linker,
            wasm_ld,
        })
    }
}

fn ask(rustc: &Path, question: &[&str]) -> Result<PathBuf, BuildError> {
    let mut command = Command::new(rustc);
    let answer = capture(command.args(question), QUESTION)
        .map_err(|reason| BuildError::Compiler { reason })?;
    Ok(PathBuf::from(answer.trim_end()))
}

/// Whether the compiler has a standard library for the target.
fn installed(rustc: &Path) -> Result<bool, BuildError> {
    let dir = ask(rustc, &["--print", "target-libdir", "--target", TARGET])?;
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(false);
    };
    Ok(entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
}

/// The linkers that come with Rust, for any target.
fn linkers(rustc: &Path) -> Result<[PathBuf; 2], BuildError> {
    // `<sysroot>/lib/rustlib/<host>/lib`, and the programs next to it.
    let libraries = ask(rustc, &["--print", "target-libdir"])?;
    let programs = libraries.with_file_name("bin");
    let find = |name: &'static str, place: PathBuf| {
        let name_here = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::iter::once(place.join(&name_here))
            .chain(std::env::split_paths(&path).map(|dir| dir.join(&name_here)));
        candidates
            .find(|file| file.is_file())
            .ok_or(BuildError::Linker {
                missing: name,
                searched: place,
            })
    };
    Ok([
        find("wasm-component-ld", programs.clone())?,
        find("wasm-ld", programs.join("gcc-ld"))?,
    ])
}

/// Held while the target is installed; the system releases it when the process ends, however it
/// ends.
fn lock(home: &Path) -> Result<File, BuildError> {
    let path = home.join("toolchain.lock");
    let locked = fs::create_dir_all(home).and_then(|()| {
        let file = File::options().create(true).append(true).open(&path)?;
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|source| BuildError::Io { path, source })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A compiler of shell script with its linkers, whose target is missing, and a rustup that runs
    /// `install` in the directory of the target's standard library.
    fn check(install: &str) -> Result<Toolchain, BuildError> {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        let libraries = root.join("rustlib/host/lib");
        let target = root.join("rustlib").join(TARGET).join("lib");
        let programs = root.join("rustlib/host/bin");
        for made in [&libraries, &target, &programs.join("gcc-ld")] {
            fs::create_dir_all(made).expect("a directory");
        }
        for linker in ["wasm-component-ld", "gcc-ld/wasm-ld"] {
            fs::write(programs.join(linker), "").expect("a file");
        }
        let print = format!(
            "case \"$*\" in *--target*) echo '{}';; *) echo '{}';; esac",
            target.display(),
            libraries.display()
        );
        let rustc = script(&root.join("rustc"), &print);
        let install = format!(
            "[ \"$*\" = 'target add {TARGET}' ] && cd '{}' && {{ {install}\n}}",
            target.display()
        );
        let rustup = Rustup::at(script(&root.join("rustup"), &install));

        let found = Toolchain::of(rustc.clone(), &rustup, &root.join("home"))?;
        assert_eq!(found.rustc, rustc);
        assert_eq!(found.linker, programs.join("wasm-component-ld"));
        assert_eq!(found.wasm_ld, programs.join("gcc-ld/wasm-ld"));
        // Rustup is asked once.
        let never = Rustup::at(root.join("missing"));
        assert_eq!(Toolchain::of(rustc, &never, root)?, found);
        Ok(found)
    }

    /// Written by another process: while this one has a file open for writing, a program that
    /// another test starts at the same time inherits it, and it cannot be executed.
    fn script(path: &Path, text: &str) -> PathBuf {
        let written = Command::new("sh")
            .args([
                "-c",
                r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod +x "$2""#,
                "sh",
                text,
            ])
            .arg(path)
            .status();
        assert!(written.expect("sh runs").success());
        path.to_owned()
    }

    #[test]
    fn rustup_installs_a_missing_target() {
        check("touch libcore-1.rlib").expect("a toolchain");
    }

    #[test]
    fn a_target_that_cannot_be_installed_is_reported_with_the_command_to_run() {
        for (install, reason) in [
            (
                "echo 'error: no route to host' >&2; exit 1",
                "no route to host",
            ),
            (
                "true",
                "it installed the target for another compiler than `",
            ),
        ] {
            let message = check(install).expect_err("no target").to_string();
            assert!(
                message.contains("\n    rustup target add wasm32-unknown-unknown\n"),
                "{message}"
            );
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn what_rustup_says_does_not_count_once_the_target_is_there() {
        check("touch libcore-1.rlib; exit 1").expect("a toolchain");
    }
}
