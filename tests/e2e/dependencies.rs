//! The rules of `deny.toml`, applied without cargo-deny to what this platform builds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use lockgate_tests::root;
use serde::Deserialize;

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Named>,
    deny: Vec<Named>,
}

/// `name` or `name@version`, where the version may be cut short.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

impl Named {
    fn is(&self, name: &str, version: &str) -> bool {
        match self.spec.split_once('@') {
            Some((of, prefix)) => {
                let rest = version.strip_prefix(prefix);
                of == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
            None => self.spec == name,
        }
    }
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    toml::from_str(&text).expect("the rules")
}

/// Everything but our own crates. Packages of other platforms need not have been fetched.
fn packages() -> Vec<Package> {
    let rustc = Command::new("rustc")
        .arg("-vV")
        .output()
        .expect("rustc runs");
    let rustc = String::from_utf8(rustc.stdout).expect("text");
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            host,
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("metadata");
    metadata
        .packages
        .into_iter()
        .filter(|package| package.source.is_some())
        .collect()
}

/// Whether an SPDX expression can be met with the licences in `allowed`. A slash is the old way to
/// write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest, allowed) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(rest, allowed);
    while let Some((&"OR", after)) = rest.split_first() {
        *rest = after;
        met |= all_of(rest, allowed);
    }
    met
}

fn all_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(rest, allowed);
    while let Some((&"AND", after)) = rest.split_first() {
        *rest = after;
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match **rest {
        ["(", ref after @ ..] => {
            *rest = after;
            let met = any_of(rest, allowed);
            let Some((&")", after)) = rest.split_first() else {
                return false;
            };
            *rest = after;
            met
        }
        [licence, "WITH", exception, ref after @ ..] => {
            *rest = after;
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        [licence, ref after @ ..] => {
            *rest = after;
            allowed.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed = rules().licenses.allow;
    for package in packages() {
        let licence = package.license.as_deref().unwrap_or_default();
        assert!(
            is_allowed(licence, &allowed),
            "{} is licensed as `{licence}`",
            package.name
        );
    }
}

#[test]
fn no_package_is_banned() {
    for package in packages() {
        for banned in rules().bans.deny {
            let found = banned.is(&package.name, &package.version);
            assert!(!found, "{} is banned: {}", package.name, banned.reason);
        }
    }
}

#[test]
fn no_package_comes_in_two_versions_without_a_reason() {
    let bans = rules().bans;
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions
            .entry(package.name)
            .or_default()
            .insert(package.version);
    }
    for (name, versions) in &versions {
        let is_named = |version: &&String| bans.skip.iter().any(|skip| skip.is(name, version));
        let named = versions.iter().filter(is_named).count();
        assert!(
            versions.len() - named <= 1,
            "{name} comes in {versions:?}: agree on one, or name the reason in deny.toml"
        );
    }
    for skip in &bans.skip {
        let name = skip.spec.split('@').next().unwrap_or_default();
        let still = versions.get(name).is_some_and(|versions| {
            versions.len() > 1 && versions.iter().any(|version| skip.is(name, version))
        });
        assert!(
            still,
            "deny.toml skips `{}`, but it is not there twice",
            skip.spec
        );
    }
}

#[test]
fn licence_expressions_are_read_as_spdx() {
    let allowed = ["MIT", "ISC", "A WITH B"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR ISC) AND MIT", true),
        ("GPL-3.0 OR ISC AND MIT", true),
        ("MIT OR GPL-3.0 AND ISC", true),
        ("(MIT", false),
        ("A WITH B", true),
        ("MIT WITH B", false),
        ("A", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
