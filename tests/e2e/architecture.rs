use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use lockgate_tests::root;
use serde_json::Value;

/// The edges of ARCHITECTURE.md: who may depend on whom, among our own crates.
const EDGES: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("guest-build", &[]),
    ("config", &["model"]),
    ("ledger", &["model"]),
    ("store", &["model", "ledger"]),
    ("teleport", &["model"]),
    ("lookup", &[]),
    ("runtime", &["model", "lookup"]),
    ("egress", &["model"]),
    ("registry", &["guest-build"]),
    ("observe", &["model"]),
    ("sim", &["model", "teleport"]),
    (
        "pipeline",
        &[
            "model", "config", "store", "teleport", "lookup", "runtime", "egress", "registry",
        ],
    ),
    (
        "cli",
        &[
            "model", "config", "store", "pipeline", "registry", "lookup", "runtime", "observe",
            "sim",
        ],
    ),
];

/// Libraries that one crate alone may know, see the invariants.
const OWNED: [(&str, &[&str]); 6] = [
    ("rusqlite", &["store"]),
    ("wasmtime", &["runtime"]),
    ("reqwest", &["egress"]),
    ("tonic", &["teleport", "sim"]),
    ("maxminddb", &["lookup"]),
    ("ua-parser", &["lookup"]),
];

#[test]
fn no_crate_has_an_edge_that_the_architecture_lacks() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = EDGES
        .iter()
        .map(|(name, to)| (*name, to.iter().copied().collect()))
        .collect();
    for (name, dependencies) in crates() {
        let Some(allowed) = allowed.get(name.as_str()) else {
            panic!("`{name}` is in no row of ARCHITECTURE.md's edges")
        };
        for (dependency, _) in dependencies.iter().filter(|(_, kind)| kind != "dev") {
            if let Some(own) = own_name(dependency) {
                assert!(
                    allowed.contains(own.as_str()),
                    "`{name}` must not depend on `{own}`"
                );
            }
            if let Some((library, owners)) = OWNED.iter().find(|(library, _)| library == dependency)
            {
                assert!(
                    owners.contains(&name.as_str()),
                    "only {owners:?} may know `{library}`, not `{name}`"
                );
            }
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere_but_where_compiled_code_is_loaded() {
    for (name, _) in crates() {
        let manifest = std::fs::read_to_string(root().join("host").join(&name).join("Cargo.toml"))
            .expect("a manifest");
        let forbids = manifest.contains("[lints]\nworkspace = true");
        assert!(
            forbids || name == "runtime",
            "host/{name} must take the workspace's lints, which forbid unsafe code"
        );
    }
    let uses = files_with("allow(unsafe_code)");
    assert_eq!(uses.len(), 1, "one module loads compiled code: {uses:?}");
}

#[test]
fn only_the_command_line_prints() {
    for (name, _) in crates()
        .into_iter()
        .filter(|(name, _)| !["cli", "guest-build"].contains(&name.as_str()))
    {
        let source = root().join("host").join(&name).join("src");
        let printing = Command::new("grep")
            .args(["-rnE", r"\b(e?println|e?print|dbg)!"])
            .arg(&source)
            .output()
            .expect("grep runs");
        let lines = String::from_utf8_lossy(&printing.stdout).into_owned();
        let lines: Vec<_> = lines.lines().filter(|line| !line.contains("//")).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}

/// Each crate under host/ by folder, with (dependency, kind).
fn crates() -> Vec<(String, Vec<(String, String)>)> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let mut crates: Vec<_> = packages
        .iter()
        .filter_map(|package| {
            let name = own_name(&text(&package["name"]))?;
            let dependencies = package["dependencies"].as_array()?;
            Some((
                name,
                dependencies
                    .iter()
                    .map(|dependency| (text(&dependency["name"]), text(&dependency["kind"])))
                    .collect(),
            ))
        })
        .filter(|(name, _)| name != "tests")
        .collect();
    crates.sort();
    assert!(crates.len() >= 11, "metadata lists the crates");
    crates
}

/// `lockgate-store` is `store`; the binary's package is called `lockgate`.
fn own_name(package: &str) -> Option<String> {
    if package == "lockgate" {
        Some("cli".into())
    } else {
        package.strip_prefix("lockgate-").map(str::to_owned)
    }
}

fn files_with(text: &str) -> Vec<String> {
    let found = Command::new("grep")
        .args(["-rl", "--include=*.rs", text])
        .arg(root().join("host"))
        .output()
        .expect("grep runs");
    String::from_utf8_lossy(&found.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
