//! Counters and histograms, at most 64 per stage. A name matches `[a-z][a-z0-9_]*` and has one
//! kind. Outside wasm they are discarded.

/// Adds to a counter.
pub fn add(name: &str, value: u32) {
    #[cfg(target_family = "wasm")]
    crate::bindings::lockgate::plugin::metrics::add(name, value);
    #[cfg(not(target_family = "wasm"))]
    let _ = (name, value);
}

/// Records one observation of a histogram.
pub fn observe(name: &str, value: f64) {
    #[cfg(target_family = "wasm")]
    crate::bindings::lockgate::plugin::metrics::observe(name, value);
    #[cfg(not(target_family = "wasm"))]
    let _ = (name, value);
}
