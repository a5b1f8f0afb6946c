use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::capture;
use crate::error::{Attempt, BuildError};
use crate::{debian, rustup};

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
    /// Shared libraries of `rustc` that the system's loader would not find.
    pub(crate) libraries: Option<PathBuf>,
    /// Writes the component.
    pub(crate) linker: PathBuf,
    /// Links the core module inside it.
    pub(crate) wasm_ld: PathBuf,
    pub origin: Origin,
}

/// Where the target came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was installed.
    Installed,
    /// `rustup target add` was run now.
    Added,
    /// A compiler of this version from the distribution's packages.
    Distribution { version: String },
}

impl Toolchain {
    /// Finds a toolchain: the target that is installed, else what `rustup target add` installs,
    /// else a private one made of the distribution's packages and kept in `home`, which takes
    /// about two minutes once. `note` is told what a person should know.
    ///
    /// # Errors
    /// None of the three worked, or the linkers are missing.
    pub fn find(home: &Path, note: &mut dyn FnMut(&str)) -> Result<Self, BuildError> {
        let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let [linker, wasm_ld] = linkers(&rustc)?;
        let own = |origin| Self {
            rustc: rustc.clone(),
            libraries: None,
            linker: linker.clone(),
            wasm_ld: wasm_ld.clone(),
            origin,
        };
        if installed(&rustc)? {
            return Ok(own(Origin::Installed));
        }
        // Whoever comes second finds the work done.
        let _lock = lock(home)?;
        if installed(&rustc)? {
            return Ok(own(Origin::Installed));
        }
        let kept = debian::kept(home);
        let distribution = match kept {
            Some(kept) => kept,
            None => match rustup::add_target() {
                // Rustup is also run by others: its failure counts only if the target is still
                // missing.
                Ok(()) => return added(&rustc).map(|()| own(Origin::Added)),
                Err(_) if installed(&rustc)? => return Ok(own(Origin::Installed)),
                Err(refused) => {
                    let prepared = debian::prepare(home).map_err(|other| BuildError::Target {
                        tried: vec![refused.clone(), other],
                    })?;
                    note(&format!(
                        "Rust's target `{TARGET}` is missing and `rustup target add` failed: {}. The plugins are compiled with rustc {} \
                         from the distribution's packages instead, prepared in {} s and kept in `{}`.",
                        refused.why,
                        prepared.version,
                        prepared.seconds,
                        home.display()
                    ));
                    prepared
                }
            },
        };
        let origin = Origin::Distribution {
            version: distribution.version,
        };
        Ok(Self {
            rustc: distribution.rustc,
            libraries: Some(distribution.libraries),
            linker,
            wasm_ld,
            origin,
        })
    }
}

fn added(rustc: &Path) -> Result<(), BuildError> {
    if installed(rustc)? {
        return Ok(());
    }
    let why = format!(
        "it added the target to another toolchain than the one of `{}`",
        rustc.display()
    );
    Err(BuildError::Target {
        tried: vec![Attempt {
            what: format!("`rustup target add {TARGET}`"),
            why,
        }],
    })
}

fn ask(rustc: &Path, question: &[&str]) -> Result<PathBuf, BuildError> {
    let mut command = Command::new(rustc);
    let answer = capture(command.args(question), QUESTION)
        .map_err(|reason| BuildError::Compiler { reason })?;
    Ok(PathBuf::from(answer.trim_end()))
}

fn installed(rustc: &Path) -> Result<bool, BuildError> {
    Ok(has_core(&ask(
        rustc,
        &["--print", "target-libdir", "--target", TARGET],
    )?))
}

/// Whether `folder` holds a standard library.
pub(crate) fn has_core(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// The linkers that come with Rust, for any target.
fn linkers(rustc: &Path) -> Result<[PathBuf; 2], BuildError> {
    // `<sysroot>/lib/rustlib/<host>/lib`, and the programs beside it.
    let libraries = ask(rustc, &["--print", "target-libdir"])?;
    let programs = libraries.with_file_name("bin");
    let find = |name: &'static str, place: PathBuf| {
        let name_here = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::iter::once(place.join(&name_here))
            .chain(std::env::split_paths(&path).map(|folder| folder.join(&name_here)));
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

/// Held while a toolchain is installed or prepared; the system releases it when the process ends,
/// however it ends.
fn lock(home: &Path) -> Result<File, BuildError> {
    let path = home.join("toolchain.lock");
    let locked = fs::create_dir_all(home).and_then(|()| {
        let file = File::options().create(true).append(true).open(&path)?;
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|source| BuildError::Io { path, source })
}
