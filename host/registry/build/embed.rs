//! Writes the list of embedded components as Rust source.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use lockgate_guest_build::{Component, Toolchain, guests_folder};

/// Has cargo look at the folder's contents, but not at what cargo itself left there when somebody
/// tested the plugins alone.
pub fn watch(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != "target" {
            println!("cargo::rerun-if-changed={}", entry.path().display());
        }
    }
}

pub fn nothing(out: &Path) -> Result<(), String> {
    list(out, false, &[])
}

pub fn plugins(manifest: &Path, out: &Path) -> Result<(), String> {
    let folder = guests_folder(out);
    let toolchain = Toolchain::find(&folder).map_err(|error| error.to_string())?;
    let components = toolchain
        .compile(manifest, &folder)
        .map_err(|error| error.to_string())?;
    for component in &components {
        let copy = out.join(file_name(component));
        fs::copy(&component.path, &copy)
            .map_err(|error| format!("`{}` could not be written: {error}.", copy.display()))?;
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
        let bytes = format!(
            "include_bytes!(concat!(env!(\"OUT_DIR\"), {:?}))",
            format!("/{file}")
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            source,
            "    Builtin {{ name: {name:?}, version: {:?}, bytes: {bytes} }},",
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

fn file_name(component: &Component) -> String {
    format!("{}.wasm", name(component))
}
