//! Loading of components.

use lockgate_runtime::{Component, Kind, Limits};

use crate::support::{ENGINE, wasm};

#[test]
fn a_component_has_its_kind_and_digest() {
    for (name, kind) in [
        ("hostile_filter", Kind::Filter),
        ("hostile_mapper", Kind::Mapper),
        ("hostile_sink", Kind::HttpSink),
    ] {
        let component = Component::load(&ENGINE, name, &wasm(name), &Limits::default()).unwrap();
        assert_eq!(
            (component.kind(), component.name(), component.digest().len()),
            (kind, name, 64)
        );
    }
}

#[test]
fn files_that_are_not_plugins_are_refused_with_the_cause() {
    let whole = wasm("hostile_filter");
    for (what, bytes, expected) in [
        (
            "text",
            b"(component)".to_vec(),
            "it is not a WebAssembly component: it does not begin with `\\0asm`",
        ),
        (
            "nothing",
            vec![],
            "it is not a WebAssembly component: it does not begin with `\\0asm`",
        ),
        (
            "a core module",
            b"\0asm\x01\0\0\0".to_vec(),
            "it is a core module, not a component; build it with `wasm-component-ld`",
        ),
        (
            "an empty component",
            b"\0asm\x0d\0\x01\0".to_vec(),
            "it exports none of the worlds `filter`, `mapper` and `http-sink`",
        ),
        (
            "half a component",
            whole[..whole.len() / 2].to_vec(),
            "it does not compile: ",
        ),
        (
            "instructions whose result depends on the processor",
            RELAXED_SIMD.to_vec(),
            "relaxed SIMD support is not enabled",
        ),
    ] {
        let error = Component::load(&ENGINE, "x", &bytes, &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

/// A component with a core module of one function, which uses `i32x4.relaxed_trunc_f32x4_s`.
const RELAXED_SIMD: &[u8] = b"\0asm\x0d\0\x01\0\x01\x31\0asm\x01\0\0\0\
    \x01\x05\x01\x60\0\x01\x7e\x03\x02\x01\0\x0a\x1c\x01\x1a\0\
    \xfd\x0c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xfd\x81\x02\x1a\x42\0\x0b";
