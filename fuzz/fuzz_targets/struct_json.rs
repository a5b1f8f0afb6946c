//! Events as they come over the wire: what is turned into text keeps the promise that the host
//! gives to plugins.
#![no_main]

#[path = "../../host/runtime/src/json.rs"]
#[allow(dead_code, unused_imports)]
// Its tests are not here, where `cargo fmt` would look for them.
#[rustfmt::skip]
mod json;

use lockgate_teleport::json::Converter;

libfuzzer_sys::fuzz_target!(|wire: &[u8]| {
    let mut text = String::from("before");
    match Converter::new().append(wire, &mut text) {
        Ok(_) => assert_eq!(
            json::check_object(&text["before".len()..]),
            Ok(()),
            "{text}"
        ),
        Err(_) => assert_eq!(text, "before"),
    }
});
