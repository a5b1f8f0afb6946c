//! A private toolchain from Debian's packages, for machines that reach their distribution's server
//! but not rustup's.
//!
//! Debian's compiler for browsers, `rustc-web`, conflicts with rustup when installed; unpacked into
//! a folder it harms nobody. Debian ships no standard library for the target, but its source: it is
//! compiled here once.

mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cargo::{cargo, library_path};
use crate::command::capture;
use crate::error::Attempt;
use crate::toolchain::{TARGET, has_core};

const NAME: &str = "debian-toolchain";
/// Before the process id, of a toolchain in the making.
const PARTIAL: &str = "debian-toolchain.partial-";

/// The largest package is 45 MB unpacked to 350 MB.
const UNPACK: Duration = Duration::from_secs(300);
/// One to two minutes on two cores.
const STANDARD_LIBRARY: Duration = Duration::from_secs(1800);

/// A toolchain that is ready.
pub(crate) struct Prepared {
    pub(crate) rustc: PathBuf,
    pub(crate) libraries: PathBuf,
    pub(crate) version: String,
    /// What preparing it took; 0 where it was kept from before.
    pub(crate) seconds: u64,
}

/// The toolchain that an earlier build left in `home`.
pub(crate) fn kept(home: &Path) -> Option<Prepared> {
    open(&home.join(NAME))
}

/// Makes the toolchain in `home`. The caller holds the lock.
pub(crate) fn prepare(home: &Path) -> Result<Prepared, Attempt> {
    let started = Instant::now();
    let ready = home.join(NAME);
    // Of its own for each run: programs that a killed run started may still write to theirs.
    let partial = home.join(format!("{PARTIAL}{}", std::process::id()));
    let made = clear_partial(home)
        .and_then(|()| make(&partial))
        .and_then(|()| {
            // The name is the mark of completion: an interrupted run leaves another one and starts
            // over.
            clear(&ready)?;
            fs::rename(&partial, &ready).map_err(|error| {
                format!("`{}` could not be renamed: {error}", partial.display())
            })?;
            open(&ready).ok_or_else(|| "the unpacked compiler does not run".to_owned())
        });
    match made {
        Ok(prepared) => Ok(Prepared {
            seconds: started.elapsed().as_secs(),
            ..prepared
        }),
        Err(why) => {
            // The next run clears it anyway; the reason is worth more than a complaint about this.
            let _ = clear(&partial);
            Err(Attempt {
                what: "the package `rustc-web` of Debian, in a private folder".into(),
                why,
            })
        }
    }
}

fn clear(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!(
            "`{}` could not be removed: {error}",
            folder.display()
        )),
        _ => Ok(()),
    }
}

/// Removes what interrupted runs left. The lock is held, so none of them still works.
fn clear_partial(home: &Path) -> Result<(), String> {
    let entries = fs::read_dir(home)
        .map_err(|error| format!("`{}` could not be read: {error}", home.display()))?;
    let left = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PARTIAL));
    left.map(|entry| entry.path())
        .try_for_each(|folder| clear(&folder))
}

fn open(folder: &Path) -> Option<Prepared> {
    let system = folder.join("usr");
    let rustc = system.join("bin/rustc");
    if !has_core(&system.join("lib/rustlib").join(TARGET).join("lib")) {
        return None;
    }
    let libraries = libraries(&system)?;
    let mut command = Command::new(&rustc);
    command
        .arg("--version")
        .env("LD_LIBRARY_PATH", library_path(&libraries));
    // `rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)`
    let answer = capture(&mut command, UNPACK).ok()?;
    let version = answer.split_whitespace().nth(1)?.to_owned();
    Some(Prepared {
        rustc,
        libraries,
        version,
        seconds: 0,
    })
}

/// The folder of the compiler's own libraries, which is named after the machine:
/// `usr/lib/x86_64-linux-gnu`.
fn libraries(system: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(system.join("lib"))
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let driver = |folder: &PathBuf| {
        let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| {
            file.file_name()
                .to_string_lossy()
                .starts_with("librustc_driver-")
        })
    };
    folders.filter(|folder| folder.is_dir()).find(driver)
}

fn make(folder: &Path) -> Result<(), String> {
    let archives = folder.join("archives");
    fs::create_dir_all(&archives)
        .map_err(|error| format!("`{}` could not be made: {error}", archives.display()))?;
    packages::download(&archives)?;
    for archive in fs::read_dir(&archives)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
    {
        if archive
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            capture(
                Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder),
                UNPACK,
            )?;
        }
    }
    clear(&archives)?;
    let system = folder.join("usr");
    compile_std(&system, &folder.join("std"))?;
    // 600 MB that nothing needs any more.
    [folder.join("std"), system.join("src"), system.join("share")]
        .iter()
        .try_for_each(|folder| clear(folder))
}

/// Compiles the standard library for the target and puts it where the compiler looks.
///
/// The only place that switches on unstable features; what is made here is used without any.
fn compile_std(system: &Path, workspace: &Path) -> Result<(), String> {
    let source = fs::canonicalize(system.join("lib/rustlib/src/rust"))
        .map_err(|error| format!("the source of `std` is missing: {error}"))?;
    let vendored = source.join("library/vendor");
    let libraries =
        libraries(system).ok_or("the compiler's libraries are missing in the packages")?;
    let write = |name: &str, text: String| {
        let path = workspace.join(name);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text));
        written.map_err(|error| format!("`{}` could not be written: {error}", path.display()))
    };
    write(
        "Cargo.toml",
        "[package]\nname = \"use-std\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[lib]\npath = \"lib.rs\"\n\n[workspace]\n".into(),
    )?;
    write("lib.rs", "#![no_std]\n".into())?;
    if vendored.is_dir() {
        // What `std` depends on is in the package: no registry is asked.
        let text =
            "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = ";
        write(
            ".cargo/config.toml",
            format!("{text}{:?}\n", vendored.display().to_string()),
        )?;
    }
    let mut command = cargo();
    command.current_dir(workspace).args([
        "build",
        "--quiet",
        "--release",
        "--target",
        TARGET,
        "-Zbuild-std=std,panic_abort",
    ]);
    command
        .args(["--target-dir", "target"])
        .env("RUSTC", system.join("bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1");
    // Bitcode is what makes link-time optimisation of guests reach into `std`.
    command
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cembed-bitcode=yes")
        .env("LD_LIBRARY_PATH", library_path(&libraries));
    capture(&mut command, STANDARD_LIBRARY)
        .map_err(|why| format!("compiling `std` failed: {why}"))?;

    let compiled = workspace.join("target").join(TARGET).join("release/deps");
    let place = system.join("lib/rustlib").join(TARGET).join("lib");
    let copied = fs::create_dir_all(&place).and_then(|()| {
        for file in fs::read_dir(&compiled)? {
            let file = file?.path();
            let name = file
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.ends_with(".rlib") && !name.starts_with("libuse_std-") {
                fs::copy(&file, place.join(name))?;
            }
        }
        Ok(())
    });
    copied.map_err(|error| format!("the compiled `std` could not be copied: {error}"))
}
