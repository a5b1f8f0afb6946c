//! Rust types and glue for the three worlds of the draft `wit/plugin.wit`, made at compile time.
//!
//! `Borrowing`: what the host passes in is borrowed from a batch, so that nothing is cloned before
//! it is lowered into the guest. The interfaces that the host provides are generated once, by the
//! filter's world; the others take them over.

pub(crate) mod filter {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "filter",
        imports: { default: trappable },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(crate) mod mapper {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "mapper",
        imports: { default: trappable },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "lockgate:plugin": crate::contract::draft::bindings::filter::lockgate::plugin,
        },
    });
}

pub(crate) mod sink {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "http-sink",
        imports: { default: trappable },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "lockgate:plugin": crate::contract::draft::bindings::filter::lockgate::plugin,
        },
    });
}
