//! Which packages the compiler needs, and how they come here. Nothing is installed, no package list
//! of the system is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command::capture;

/// For questions to the package lists.
const QUESTION: Duration = Duration::from_secs(60);
/// For the package lists, 10 to 50 MB.
const UPDATE: Duration = Duration::from_secs(180);
/// For 140 MB.
const DOWNLOAD: Duration = Duration::from_secs(900);

/// Compiler, its standard library for this machine (for macros), and the source of the standard
/// library.
const WANTED: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];

/// Downloads the packages into `folder`: by the system's package lists, else by fresh lists of its
/// own, kept in `folder`.
pub(super) fn download(folder: &Path) -> Result<(), String> {
    let system = Apt {
        options: Vec::new(),
    };
    let Err(first) = system.fetch(folder) else {
        return Ok(());
    };
    // Missing on a slim image, or out of date. Own lists need no root.
    let own = Apt::private(folder)?;
    own.run("apt-get", &["update"], UPDATE)
        .and_then(|_| own.fetch(folder))
        .map_err(|second| {
            if first == second {
                first
            } else {
                format!("{first}; with fresh package lists: {second}")
            }
        })
}

struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn private(folder: &Path) -> Result<Self, String> {
        let set = |name: &str, place: &str| {
            let path = folder.join(place);
            fs::create_dir_all(path.join("partial"))
                .map_err(|error| format!("`{}` could not be made: {error}", path.display()))?;
            Ok::<_, String>(format!("{name}={}", path.display()))
        };
        let mut options = Vec::new();
        for option in [
            set("Dir::State::Lists", "lists")?,
            set("Dir::Cache", "cache")?,
            set("Dir::Cache::Archives", "cache/archives")?,
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        Ok(Self { options })
    }

    fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<String, String> {
        capture(self.command(program).args(arguments), limit)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // As root, apt downloads as a user that may not write here.
        command
            .env("LC_ALL", "C")
            .args(["-q", "-o", "APT::Sandbox::User=root"])
            .args(&self.options);
        command
    }

    fn show(&self, package: &str) -> Result<Record, String> {
        let unknown = || format!("the package lists have no `{package}`");
        let text = self.run(
            "apt-cache",
            &["show", "--no-all-versions", package],
            QUESTION,
        );
        let record = Record::parse(&text.map_err(|why| {
            if why == "No packages found" {
                unknown()
            } else {
                why
            }
        })?);
        if record.version.is_empty() {
            Err(unknown())
        } else {
            Ok(record)
        }
    }

    fn fetch(&self, folder: &Path) -> Result<(), String> {
        let packages = closure(|package| self.show(package), installed)?;
        let wanted: Vec<_> = packages
            .iter()
            .map(|(name, version)| format!("{name}={version}"))
            .collect();
        capture(
            self.command("apt-get")
                .current_dir(folder)
                .arg("download")
                .args(wanted),
            DOWNLOAD,
        )
        .map(drop)
    }
}

/// What a package's record says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    version: String,
    /// Alternatives, each with the exact version where one is demanded.
    depends: Vec<Vec<(String, Option<String>)>>,
}

impl Record {
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
                .trim()
        };
        let relation = |text: &str| {
            let (name, condition) = text.split_once('(').unwrap_or((text, ""));
            let exact = condition
                .trim()
                .strip_prefix("= ")
                .map(|version| version.trim_end_matches(')').trim().to_owned());
            (
                name.trim().split(':').next().unwrap_or_default().to_owned(),
                exact,
            )
        };
        let depends = field("Depends:")
            .split(',')
            .filter(|group| !group.trim().is_empty());
        Self {
            version: field("Version:").to_owned(),
            depends: depends
                .map(|group| group.split('|').map(relation).collect())
                .collect(),
        }
    }
}

/// The wanted packages, all of one version, and the libraries below them that are not installed;
/// name to version.
fn closure(
    show: impl Fn(&str) -> Result<Record, String>,
    installed: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, String> {
    let version = show(WANTED[0])?.version;
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<_> = WANTED
        .iter()
        .map(|name| (name.to_string(), Some(version.clone())))
        .collect();
    while let Some((name, exact)) = waiting.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let record = match &exact {
            Some(version) => show(&format!("{name}={version}"))?,
            None => show(&name)?,
        };
        for group in &record.depends {
            // A compiler for the machine itself, which the host's build needs too, is somebody
            // else's affair.
            let own = |(name, exact): &&(String, Option<String>)| {
                exact.as_deref() == Some(&version) || name.starts_with("lib")
            };
            let Some((first, exact)) = group.iter().find(own) else {
                continue;
            };
            let bound = exact.as_deref() == Some(&version);
            if first != "libc-dev" && (bound || !group.iter().any(|(name, _)| installed(name))) {
                waiting.push((first.clone(), exact.clone()));
            }
        }
        found.insert(name, record.version);
    }
    Ok(found)
}

fn installed(package: &str) -> bool {
    let mut command = Command::new("dpkg-query");
    command.args(["-W", "-f", "${db:Status-Status}", package]);
    capture(&mut command, QUESTION).is_ok_and(|status| status.starts_with("installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: [&str; 7] = [
        "Package: rustc-web\nVersion: 1.96.0-1\nDepends: libc6 (>= 2.34), libstd-rust-web-dev (= 1.96.0-1), gcc, libc-dev, binutils (>= 2.26)\n",
        "Package: libstd-rust-web-dev\nVersion: 1.96.0-1\nDepends: libstd-rust-web-1.96 (= 1.96.0-1)\n",
        "Package: rust-web-src\nVersion: 1.96.0-1\n",
        "Package: libstd-rust-web-1.96\nVersion: 1.96.0-1\nPre-Depends: nothing\nDepends: libc6 (>= 2.34), libllvm22\n",
        "Package: libllvm22\nVersion: 1:22.1.8-1\nDepends: libc6 (>= 2.36), libz3-4 (>= 4.8) | libz3-5, libxml2:any\n",
        "Package: libz3-4\nVersion: 4.8.12\nDepends: libc6\n",
        "Package: libxml2\nVersion: 2.9\n",
    ];

    fn show(package: &str) -> Result<Record, String> {
        let name = package.split('=').next().unwrap_or_default();
        let record = LISTS
            .iter()
            .find(|record| record.starts_with(&format!("Package: {name}\n")));
        record
            .map(|record| Record::parse(record))
            .ok_or_else(|| format!("no {package}"))
    }

    fn names(installed: &[&str]) -> Vec<String> {
        let packages = closure(show, |name| installed.contains(&name)).expect("complete lists");
        packages
            .into_iter()
            .map(|(name, version)| format!("{name}={version}"))
            .collect()
    }

    #[test]
    fn fetches_the_compiler_and_the_libraries_that_are_missing() {
        let compiler = [
            "libllvm22=1:22.1.8-1",
            "libstd-rust-web-1.96=1.96.0-1",
            "libstd-rust-web-dev=1.96.0-1",
        ];
        let common = ["rust-web-src=1.96.0-1", "rustc-web=1.96.0-1"];
        assert_eq!(
            names(&["libc6", "libxml2", "libz3-5"]),
            [&compiler[..], &common].concat()
        );
        // A standard library of the same version that is installed is no use to the private
        // compiler.
        let missing = ["libxml2=2.9", "libz3-4=4.8.12"];
        assert_eq!(
            names(&["libc6", "libstd-rust-web-1.96"]),
            [&compiler[..], &missing, &common].concat()
        );
    }

    #[test]
    fn an_unknown_package_is_named() {
        let refused = closure(
            |package| {
                if package == "libllvm22" {
                    Err("no libllvm22".into())
                } else {
                    show(package)
                }
            },
            |_| false,
        );
        assert_eq!(refused, Err("no libllvm22".into()));
    }
}
