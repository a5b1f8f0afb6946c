//! Generates `src/bindings.rs` from `wit/plugin.wit`, and fails where the committed file is another.
//!
//! After a change of the contract: `UPDATE_EXPECT=1 cargo test --test bindings`.

use std::fmt::Write as _;
use std::path::Path;

use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::Opts;

/// Each world's macro, and the interface it exports.
const WORLDS: [(&str, &str); 3] = [
    ("filter", "filtering"),
    ("mapper", "mapping"),
    ("http-sink", "http-encoding"),
];

/// All worlds in one, so that they share their types. It exists only here: a component is of one world.
const ALL: &str = "
world all { include filter; include mapper; include http-sink; }
";

#[test]
#[allow(clippy::disallowed_methods, reason = "the file is written on demand")]
fn the_bindings_are_those_of_the_contract() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = std::fs::read_to_string(root.join("../../wit/plugin.wit")).unwrap();
    let generated = generate(&contract);
    let committed = root.join("src/bindings.rs");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&committed, &generated).unwrap();
    }
    let current = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        current == generated,
        "`src/bindings.rs` is not of this `wit/plugin.wit`: UPDATE_EXPECT=1 cargo test --test bindings"
    );
}

fn generate(contract: &str) -> String {
    let mut files = Files::default();
    let (mut resolve, all) = resolve(&format!("{contract}{ALL}"), "all");
    let package = resolve.packages[resolve.worlds[all].package.unwrap()]
        .name
        .clone();
    let options = Opts {
        format: true,
        generate_all: true,
        pub_export_macro: true,
        additional_derive_attributes: vec!["PartialEq".into()],
        ..Opts::default()
    };
    options
        .build()
        .generate(&mut resolve, all, &mut files)
        .unwrap();
    let (_, code) = files.iter().next().unwrap();

    let mut out =
        String::from("// @generated from wit/plugin.wit by tests/bindings.rs. Do not edit.\n\n");
    out.push_str(std::str::from_utf8(code).unwrap());
    for (world, interface) in WORLDS {
        let (resolve, id) = self::resolve(contract, world);
        let section = wit_component_section(&resolve, id);
        let name = world.replace('-', "_");
        let version = package
            .version
            .as_ref()
            .unwrap()
            .to_string()
            .replace(['.', '-'], "_");
        write!(out, "\n/// Exports a type as a component of the world `{world}`.\n#[doc(hidden)]\n#[macro_export]\nmacro_rules! __export_world_{name} {{\n    ($ty:ident) => {{\n").unwrap();
        let module = interface.replace('-', "_");
        writeln!(
            out,
            "        $crate::__export_lockgate_plugin_{module}_{version}_cabi!($ty with_types_in \
             $crate::bindings::exports::lockgate::plugin::{module});"
        )
        .unwrap();
        writeln!(
            out,
            "        #[unsafe(link_section = \"component-type:lockgate:{world}\")]"
        )
        .unwrap();
        writeln!(
            out,
            "        pub static WORLD: [u8; {}] = *b\"\\",
            section.len()
        )
        .unwrap();
        for line in section.chunks(40) {
            writeln!(out, "{}\\", line.escape_ascii()).unwrap();
        }
        out.push_str("\";\n    };\n}\n");
    }
    out
}

fn resolve(contract: &str, world: &str) -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    (resolve, world)
}

/// The description of a world that `wasm-component-ld` looks for in a module.
fn wit_component_section(resolve: &Resolve, world: WorldId) -> Vec<u8> {
    wit_component::metadata::encode(resolve, world, wit_component::StringEncoding::UTF8, None)
        .unwrap()
}
