//! Writes the list of embedded components as Rust source.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use lockgate_guest_build::{Component, Toolchain, guests_dir};

/// Makes cargo rerun the script if the directory changes, except for `target`, which cargo writes
/// when the plugins are tested on their own.
pub fn watch(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name() != "target" {
            println!("cargo::rerun-if-changed={}", entry.path().display());
        }
    }
}

pub fn no_plugins(out: &Path) -> Result<(), String> {
    list(out, false, &[])
}

pub fn plugins(manifest: &Path, out: &Path) -> Result<(), String> {
    let dir = guests_dir(out);
    let toolchain = Toolchain::find(&dir).map_err(|error| error.to_string())?;
    let components = toolchain
        .compile(manifest, &dir)
        .map_err(|error| error.to_string())?;
    for component in &components {
        let copy = out.join(file_name(component));
        fs::copy(&component.path, &copy)
            .map_err(|error| format!("`{}` could not be written: {error}.", copy.display()))?;
        let name = name(component);
        let readme = manifest.with_file_name(name).join("README.md");
        fs::copy(&readme, out.join(readme_name(component)))
            .map_err(|error| format!("`{}` could not be copied: {error}.", readme.display()))?;
    }
    list(out, true, &components)
}

fn list(out: &Path, built: bool, components: &[Component]) -> Result<(), String> {
    let mut source = format!(
        "pub(super) const BUILT: bool = {built};\npub(super) static BUILTINS: [Builtin; {}] = [\n",
        components.len()
    );
    for component in components {
        let (name, file) = (name(component), file_name(component));
        let include = |how: &str, file: &str| {
            format!(
                "{how}!(concat!(env!(\"OUT_DIR\"), {:?}))",
                format!("/{file}")
            )
        };
        let bytes = include("include_bytes", &file);
        let readme = include("include_str", &readme_name(component));
        // Writing to a string cannot fail.
        let _ = writeln!(
            source,
            "    Builtin {{ name: {name:?}, version: {:?}, bytes: {bytes}, readme: {readme} }},",
            component.version
        );
    }
    source.push_str("];\n");
    let path = out.join("builtins.rs");
    fs::write(&path, source)
        .map_err(|error| format!("`{}` could not be written: {error}.", path.display()))
}

/// `lockgate-plugin-filter` or `lockgate-filter` is `builtin:filter`.
fn name(component: &Component) -> &str {
    let name = component
        .package
        .strip_prefix("lockgate-")
        .unwrap_or(&component.package);
    name.strip_prefix("plugin-").unwrap_or(name)
}

fn readme_name(component: &Component) -> String {
    format!("{}.md", name(component))
}

fn file_name(component: &Component) -> String {
    format!("{}.wasm", name(component))
}
