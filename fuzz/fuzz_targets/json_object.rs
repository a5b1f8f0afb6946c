//! Documents as mappers return them. What the runtime lets pass is JSON to others, too.
#![no_main]

// The file itself: its function is not for other crates, and the runtime would bring a compiler
// along.
#[path = "../../host/runtime/src/json.rs"]
// Its tests are not here, where `cargo fmt` would look for them.
#[rustfmt::skip]
mod json;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match json::check_object(text) {
        Ok(()) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).expect("serde_json reads it");
            assert!(text.trim_start().starts_with('{'));
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
});
