//! Events on their way to Elasticsearch: the first byte chooses the configuration, the rest is the
//! payload.
#![no_main]

// The files themselves: the check is not for other crates, and the promise is a test's.
#[path = "../../host/runtime/src/json.rs"]
// Its tests are not here, where `cargo fmt` would look for them.
#[rustfmt::skip]
mod json;
#[path = "../../plugins/ecs/tests/support/promise.rs"]
#[allow(dead_code, unused_imports)]
mod promise;

use ecs::mapper::Mapping;

thread_local! {
    static MAPPINGS: Vec<Mapping<promise::Oracle>> = promise::mappings();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, payload)) = bytes.split_first() else {
        return;
    };
    // A component is given text, and nothing else.
    let Ok(payload) = std::str::from_utf8(payload) else {
        return;
    };
    MAPPINGS.with(|mappings| check(payload, &mappings[usize::from(*choice) % mappings.len()]));
});

fn check(payload: &str, mapping: &Mapping<promise::Oracle>) {
    if let Err(broken) = promise::check(payload, mapping) {
        panic!("{broken}");
    }
    // What the host lets in, it lets out again.
    if json::check_object(payload).is_ok() {
        let document = mapping.map(payload);
        assert_eq!(json::check_object(&document), Ok(()), "{document}");
        serde_json::from_str::<serde::de::IgnoredAny>(&document).expect("serde_json reads it");
    }
}
